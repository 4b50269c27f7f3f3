// The texts put in order for a query by a reranker, beside where their vectors had them.

import { askJson, cosine, embed } from "./api.js";
import { complain, count, make } from "./dom.js";
import { knownModels, onModels, stateOf } from "./instances.js";

export const id = "rerank";
export const title = "Rerank";
export const invitation = "Embed the texts, and have them put in order for a query.";

const MOST = 50;
let query = "What has become expensive?";
let chosen = "";
let above = "";  // the model that the texts are embedded by
let asked = false;  // whether the user wants it done, even if a model has to be loaded for it
let latest = 0;

export const currentQuery = () => query;
// The model that reranks: the one that was chosen, else one that is for it, else the one above.
export const currentRanker = (model) => {
  const known = rankers();
  if (known.some(({ id: name }) => name === chosen)) return chosen;
  return known.find(({ tasks }) => tasks?.includes("rerank"))?.id ?? model;
};

// Those that are made for it first; the others compare vectors. Classifiers give no one score.
const rankers = () => {
  const is = (model, task) => (model.tasks ?? ["embed"]).includes(task);
  return [...knownModels().filter((model) => is(model, "rerank")),
    ...knownModels().filter((model) => is(model, "embed"))];
};

export function show(panel, context) {
  above = context.model;
  const input = make("input", { id: "rerank-query", type: "search", value: query,
    autocomplete: "off" });
  const select = make("select", { id: "ranker" }, ...options());
  const error = make("p", { className: "error", role: "alert", hidden: true });
  const said = make("p", { className: "readout", role: "status" });
  const results = make("ol", { id: "results", className: "reranked" });
  const again = (event) => {
    event.preventDefault();
    query = input.value.trim();
    chosen = select.value;
    asked = event.type === "submit";
    context.changed();
    document.getElementById(event.type === "submit" ? "rerank-query" : "ranker").focus();
  };
  select.addEventListener("change", again);
  const form = make("form", { className: "row", role: "search", onsubmit: again },
    make("label", { htmlFor: "rerank-query", className: "unseen", textContent: "Query" }), input,
    make("label", { htmlFor: "ranker", className: "unseen", textContent: "Reranker" }), select,
    make("button", { className: "primary", textContent: "Rerank" }));
  panel.replaceChildren(form, error, said, results);
  const ranker = currentRanker(context.model);
  if (query && (asked || stateOf(ranker) === "ready")) {
    rank(context, ranker, { results, said, error });
  } else {
    said.textContent = `${ranker} is loaded when it is used.`;
  }
}

function options() {
  const current = currentRanker(above);
  return rankers().map(({ id: name }) => make("option", { value: name, textContent: name,
    selected: name === current }));
}

// Models may become known after the view was shown.
onModels(() => document.getElementById("ranker")?.replaceChildren(...options()));

async function rank({ model, texts, vectors }, ranker, { results, said, error }) {
  const mine = ++latest;
  results.setAttribute("aria-busy", "true");
  said.textContent = stateOf(ranker) === "ready" ? `Asking ${ranker}` : `Loading ${ranker}`;
  try {
    const began = performance.now();
    const body = { model: ranker, query, documents: texts };
    const [embedded, { results: found }] = await Promise.all([
      embed(model, query, { input_type: "query" }),
      askJson("v1/rerank", { method: "POST", body }),
    ]);
    if (mine !== latest) return;
    const spent = Math.max(1, Math.round(performance.now() - began));
    const before = vectors.map((vector) => cosine(embedded.vectors[0], vector));
    const order = [...before.keys()].sort((a, b) => before[b] - before[a]);
    const places = new Map(order.map((i, at) => [i, at + 1]));
    said.textContent = `${count(texts.length, "text")} by ${ranker} in ${spent} ms; `
      + `before: by cosines of ${model}`;
    results.replaceChildren(...found.slice(0, MOST).map(({ index, relevance_score: score }, at) =>
      result(texts[index], score, before[index], places.get(index) - (at + 1))));
  } catch (problem) {
    said.textContent = "";
    complain(error, problem);
  } finally {
    results.removeAttribute("aria-busy");
  }
}

function result(text, score, before, up) {
  const bar = make("span", { className: "bar", "aria-hidden": "true" }, make("span"));
  bar.firstElementChild.style.width = `${100 * Math.max(0, Math.min(1, score))}%`;
  const moved = up > 0 ? `up ${up}` : up < 0 ? `down ${-up}` : "stays";
  return make("li", {}, make("span", { className: "number", textContent: score.toFixed(3) }), bar,
    make("span", { className: "text", textContent: text }),
    make("span", { className: "quiet number before", title: "Cosine",
      textContent: before.toFixed(3) }),
    make("span", { className: `quiet moved ${up > 0 ? "up" : ""}`, textContent: moved }));
}
