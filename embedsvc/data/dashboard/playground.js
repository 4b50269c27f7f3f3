// Texts, their vectors, and five ways to look at them.

import { embed } from "./api.js";
import { showCode } from "./code.js";
import { complain, count, find, make } from "./dom.js";
import { knownModels, onModels, stateOf } from "./instances.js";
import * as map from "./map.js";
import * as rerank from "./rerank.js";
import * as search from "./search.js";
import * as similarity from "./similarity.js";
import * as tokens from "./tokens.js";

const VIEWS = [similarity, search, rerank, map, tokens];
const SAMPLE = [
  "The cat sat on the mat.",
  "A kitten is resting on the rug.",
  "My dog sleeps all afternoon.",
  "The central bank raised interest rates.",
  "Borrowing has become more expensive.",
  "Shares fell after the announcement.",
  "Simmer the tomatoes with garlic and basil.",
  "How long does pasta have to boil?",
];
const MOST = 1000;

let view = similarity;
let embedded = null;  // { model, texts, vectors, tokens, truncated, spent }

const wanted = () => ({
  model: find("model").value,
  texts: find("texts").value.split("\n").map((text) => text.trim()).filter(Boolean),
});

const isFresh = () => embedded !== null && embedded.model === find("model").value
  && embedded.texts.join("\n") === wanted().texts.join("\n");

const context = () => ({
  ...wanted(), ...(embedded ?? {}), known: knownModels().find(({ id }) => id === wanted().model),
  changed: show,
});

async function run(event) {
  event?.preventDefault();
  const { model, texts } = wanted();
  const button = find("embed");
  if (button.getAttribute("aria-disabled") === "true") return;
  complain(find("playground-error"), null);
  try {
    if (!texts.length) throw new Error("There are no texts: write one a line.");
    if (texts.length > MOST) throw new Error(`These are ${texts.length} texts; ${MOST} will do.`);
    button.setAttribute("aria-disabled", "true");
    find("said").textContent = stateOf(model) === "ready" ? "Embedding" : `Loading ${model}`;
    const began = performance.now();
    const answer = await embed(model, texts);
    const spent = Math.max(1, Math.round(performance.now() - began));
    embedded = { model, texts, spent, ...answer };
    say();
  } catch (error) {
    find("said").textContent = "";
    complain(find("playground-error"), error);
  } finally {
    button.removeAttribute("aria-disabled");
  }
  show();
}

function say() {
  const { texts, vectors, tokens: all, truncated, spent } = embedded;
  find("said").textContent = !isFresh() ? "Changed since: embed again" : `${count(texts.length, "text")}, ${count(all, "token")}, `
    + `${vectors[0].length} dimensions in ${spent} ms`
    + (truncated ? `; ${truncated} cut` : "");
}

function show() {
  const panel = find("view");
  for (const tab of find("tabs").children) {
    const chosen = tab.id === `tab-${view.id}`;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
  }
  panel.setAttribute("aria-labelledby", `tab-${view.id}`);
  panel.classList.toggle("stale", embedded !== null && !isFresh());
  if (embedded === null) {
    panel.replaceChildren(make("p", { className: "empty", textContent: view.invitation }));
  } else {
    view.show(panel, context());
  }
  showCode(view, context());
}

function edited() {
  find("view").classList.toggle("stale", embedded !== null && !isFresh());
  if (embedded !== null) say();
  showCode(view, { ...context(), ...wanted() });
}

function fillModels() {
  const select = find("model"), chosen = select.value;
  const [there, others] = [[], []];
  for (const { id, tasks } of knownModels()) {
    if (tasks && !tasks.includes("embed")) continue;  // it gives no vectors
    (stateOf(id) === "ready" ? there : others).push(make("option", { value: id, textContent: id }));
  }
  const groups = [["Loaded", there], ["Loaded when used", others]].filter(([, some]) => some.length);
  select.replaceChildren(...groups.map(([label, some]) => make("optgroup", { label }, ...some)));
  if (chosen && knownModels().some(({ id }) => id === chosen)) select.value = chosen;
  if (!embedded) showCode(view, context());
}

find("tabs").append(...VIEWS.map((each) => make("button", {
  id: `tab-${each.id}`, role: "tab", textContent: each.title, "aria-controls": "view",
  onclick: () => { view = each; show(); },
})));
find("tabs").addEventListener("keydown", ({ key }) => {
  const at = VIEWS.indexOf(view), last = VIEWS.length - 1;
  const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1,
    Home: 0, End: last }[key];
  if (to === undefined) return;
  view = VIEWS[to];
  show();
  find(`tab-${view.id}`).focus();
});
find("texts").value = SAMPLE.join("\n");
find("texts").addEventListener("input", edited);
find("texts").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(event);
});
find("model").addEventListener("change", edited);
find("texts-form").addEventListener("submit", run);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
onModels(fillModels);
show();
