// The texts as a small corpus: those nearest to a query.

import { cosine, embed } from "./api.js";
import { complain, make } from "./dom.js";

export const id = "search";
export const title = "Search";
export const invitation = "Embed the texts, and search them.";
export const python = `query = client.embeddings.create(
    model=model, input=QUERY, extra_body={"input_type": "query"}
).data[0].embedding
scores = vectors @ query
for i in scores.argsort()[::-1]:
    print(f"{scores[i]:.3f}  {texts[i]}")`;

const MOST = 50;
let query = "Which pet is asleep?";
let latest = 0;

export const currentQuery = () => query;

export function show(panel, context) {
  const input = make("input", { id: "query", type: "search", value: query, autocomplete: "off" });
  const error = make("p", { className: "error", role: "alert", hidden: true });
  const results = make("ol", { id: "results" });
  const form = make("form", { className: "row", role: "search", onsubmit: (event) => {
    event.preventDefault();
    query = input.value.trim();
    context.changed();
    document.getElementById("query").focus();
  } }, make("label", { htmlFor: "query", className: "unseen", textContent: "Query" }), input,
  make("button", { className: "primary", textContent: "Search" }));
  panel.replaceChildren(form, error, results);
  if (query) rank(context, results, error);
}

async function rank({ model, texts }, results, error) {
  const mine = ++latest;
  results.setAttribute("aria-busy", "true");
  try {
    // Some models want queries and documents told apart; for others this changes nothing.
    const [asked, found] = await Promise.all([
      embed(model, query, { input_type: "query" }),
      embed(model, texts, { input_type: "document" }),
    ]);
    if (mine !== latest) return;
    const scored = texts.map((text, i) => ({ text, score: cosine(asked.vectors[0],
      found.vectors[i]) })).sort((a, b) => b.score - a.score);
    results.replaceChildren(...scored.slice(0, MOST).map(result));
  } catch (problem) {
    complain(error, problem);
  } finally {
    results.removeAttribute("aria-busy");
  }
}

function result({ text, score }) {
  const bar = make("span", { className: "bar", "aria-hidden": "true" }, make("span"));
  bar.firstElementChild.style.width = `${100 * Math.max(0, Math.min(1, score))}%`;
  return make("li", {}, make("span", { className: "number", textContent: score.toFixed(3) }), bar,
    make("span", { className: "text", textContent: text }));
}
