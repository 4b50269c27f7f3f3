// What is on screen, as a command and as a program.

import { address } from "./api.js";
import { find } from "./dom.js";
import { storedKey } from "./key.js";
import * as rerank from "./rerank.js";
import { currentQuery } from "./search.js";

const KEY = "EMBEDSVC_KEY";
let language = "curl", shown = null;

export function showCode(view, { model, texts }) {
  shown = { view, model, texts };
  const write = language === "curl" ? curl : python;
  find("code").firstElementChild.textContent = model ? write(shown) : "";
}

function curl({ view, model, texts }) {
  let path = "v1/embeddings", body = { model, input: texts, truncate: "end" };
  if (view.id === "tokens") {
    path = "tokenize";
    body = { model, inputs: texts };
  } else if (view.id === "rerank") {
    path = "v1/rerank";
    body = { model: rerank.currentRanker(model), query: rerank.currentQuery(), documents: texts };
  } else if (view.id === "search") {
    body = { model, input: currentQuery(), input_type: "query" };
  }
  const key = storedKey() ? `-H "Authorization: Bearer $${KEY}" ` : "";
  return `curl ${address(path)} ${key}-H 'Content-Type: application/json' \\\n`
    + `  -d ${quoted(JSON.stringify(body))}`;
}

function python({ view, model, texts }) {
  const key = storedKey() ? `os.environ["${KEY}"]` : '"none"';
  const list = `texts = [\n${texts.map((text) => `    ${JSON.stringify(text)},\n`).join("")}]\n`;
  if (view.id === "tokens") return pythonTokens(model, list);
  if (view.id === "rerank") return pythonRerank(rerank.currentRanker(model), list);
  const documents = view.id === "search" ? ', "input_type": "document"' : "";
  return (storedKey() ? "import os\n\n" : "") + `import numpy as np
from openai import OpenAI

client = OpenAI(base_url="${address("v1")}", api_key=${key})
model = ${JSON.stringify(model)}
${list}
answer = client.embeddings.create(
    model=model, input=texts, extra_body={"truncate": "end"${documents}}
)
vectors = np.array([row.embedding for row in answer.data])
${view.python.replace("QUERY", () => JSON.stringify(currentQuery()))}
`;
}

const pythonTokens = (model, list) => pythonRequest("tokenize", list,
  `"model": ${JSON.stringify(model)}, "inputs": texts`, `    for tokens in json.load(answer):
        print(len(tokens), [token["text"] for token in tokens])`);

const pythonRerank = (model, list) => pythonRequest("v1/rerank", list,
  `
    "model": ${JSON.stringify(model)},
    "query": ${JSON.stringify(rerank.currentQuery())},
    "documents": texts,
`, `    for result in json.load(answer)["results"]:
        print(f"{result['relevance_score']:.3f}  {texts[result['index']]}")`);

function pythonRequest(path, list, body, then) {
  const headers = storedKey()
    ? `{"authorization": "Bearer " + os.environ["${KEY}"]}` : "{}";
  return `import json${storedKey() ? "\nimport os" : ""}
from urllib.request import Request, urlopen

${list}
body = json.dumps({${body}}).encode()
with urlopen(Request("${address(path)}", body, ${headers})) as answer:
${then}
`;
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function choose(name) {
  language = name;
  for (const each of ["curl", "python"]) {
    find(`as-${each}`).setAttribute("aria-pressed", String(each === name));
  }
  if (shown) showCode(shown.view, shown);
}

find("as-curl").addEventListener("click", () => choose("curl"));
find("as-python").addEventListener("click", () => choose("python"));
find("copy").addEventListener("click", async ({ target }) => {
  const code = find("code").firstElementChild;
  try {
    await navigator.clipboard.writeText(code.textContent);
    target.textContent = "Copied";
  } catch {  // not over plain HTTP from elsewhere: select it, for the user to copy
    getSelection().selectAllChildren(code);
    target.textContent = "Selected";
  }
  setTimeout(() => { target.textContent = "Copy"; }, 2000);
});
