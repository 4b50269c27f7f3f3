// The models there are, and of each the instance that is loaded, loading or failed.

import { askJson } from "./api.js";
import { bytes, complain, count, find, make } from "./dom.js";

const FEW = 6;
const WORDS = {
  unloaded: "Not loaded", downloading: "Downloading", loading: "Loading", ready: "Ready",
  unloading: "Unloading", failed: "Failed",
};
const ACTIONS = {
  unloaded: "Load", downloading: "Cancel", loading: "Cancel", ready: "Unload",
  unloading: "Unloading", failed: "Try again",
};
const FOR = { rerank: "reranks", classify: "classifies" };

let models = new Map();  // by id: what /v1/models says, and `aliases`
let instances = new Map();  // by model
let all = false;
const rows = new Map();
const listeners = [];

export const onModels = (listener) => listeners.push(listener);
export const knownModels = () => [...models.values()];
export const stateOf = (id) => instances.get(id)?.state ?? "unloaded";

export async function loadModels() {
  try {
    group((await askJson("v1/models")).data);
  } catch (error) {
    find("models-none").textContent = error.message;  // hidden where models are known already
  }
}

function group(data) {
  const found = new Map();
  for (const model of data) {
    if (model.id === model.root) found.set(model.id, { ...model, aliases: [] });
  }
  for (const model of data) {
    const card = found.get(model.root);
    const prompted = model.id.startsWith(`${model.root}:`)
      && model.id.slice(model.root.length + 1) in model.prompts;
    if (card && model.id !== model.root && !prompted) card.aliases.push(model.id);
  }
  models = found;
  show();
  for (const listener of listeners) listener();
}

// Take what the stream says of instances.
export function setInstances({ data, memory_bytes: used, max_memory_bytes: limit }) {
  const before = instances;
  // Of a model that loads again while it unloads, there are two.
  instances = new Map([...data].reverse().map((instance) => [instance.model, instance]));
  const changed = [...new Set([...before.keys(), ...instances.keys()])].filter(
    (id) => before.get(id)?.state !== instances.get(id)?.state);
  find("memory").textContent = `${bytes(used)} of ${bytes(limit)} for models`;
  find("memory-bar").firstElementChild.style.width = `${Math.min(100, 100 * used / limit)}%`;
  if (changed.length && models.size) {
    if (before.size || rows.size) tell(changed);
    loadModels();  // more is known of what has been loaded
  }
  show();
}

function tell(changed) {
  const told = changed.filter((id) => ["ready", "failed", "unloaded"].includes(stateOf(id)));
  if (told.length) {
    find("models-said").textContent =
      told.map((id) => `${id}: ${WORDS[stateOf(id)].toLowerCase()}`).join("; ");
  }
}

function show() {
  const wanted = find("filter").value.trim().toLowerCase();
  const fits = ({ id, aliases }) => [id, ...aliases].some((n) => n.toLowerCase().includes(wanted));
  const order = knownModels().filter(fits).sort(
    (a, b) => instances.has(b.id) - instances.has(a.id));
  const least = Math.max(FEW, order.filter(({ id }) => instances.has(id)).length);
  const shown = wanted || all ? order : order.slice(0, least);
  place(shown.map(row));
  const none = find("models-none"), more = find("show-all");
  none.hidden = shown.length > 0;
  if (models.size) none.replaceChildren(`No model is called “${find("filter").value.trim()}”. `,
    make("button", { className: "plain", textContent: "Load it from Hugging Face",
      onclick: () => act(() => start(find("filter").value.trim())) }));
  more.hidden = Boolean(wanted) || order.length <= least;
  more.textContent = all ? "Show fewer" : `Show all ${order.length} models`;
}

// Rows in their order, without taking the focus from one that moves.
function place(wanted) {
  const list = find("model-list"), focused = document.activeElement;
  const same = wanted.length === list.children.length
    && wanted.every((element, i) => element === list.children[i]);
  if (same) return;
  list.replaceChildren(...wanted);
  if (focused && focused !== document.activeElement && list.contains(focused)) focused.focus();
}

function row(model) {
  const { id } = model;
  if (!rows.has(id)) rows.set(id, newRow(id));
  const parts = rows.get(id), instance = instances.get(id), state = stateOf(id);
  const names = model.aliases.filter((name) => !name.endsWith(`/${id}`));
  const facts = [
    FOR[model.tasks?.[0]],
    model.dimensions && `${model.dimensions} dimensions`,
    model.max_tokens && `${model.max_tokens.toLocaleString("en")} tokens`,
    names.length && `also ${also(names)}`,
  ];
  set(parts.facts, facts.filter(Boolean).join(" · "));
  parts.element.dataset.state = state;
  set(parts.state, WORDS[state]);
  const memory = instance?.memory_bytes ? bytes(instance.memory_bytes) : "";
  set(parts.memory, [memory, instance?.pinned && "pinned"].filter(Boolean).join(" · "));
  set(parts.error, instance?.error ?? "");
  parts.error.hidden = !instance?.error;
  set(parts.action, ACTIONS[state]);
  parts.action.setAttribute("aria-label", `${ACTIONS[state]} ${id}`);
  parts.action.disabled = state === "unloading";
  const { done, total } = instance?.progress ?? { done: 0, total: 0 };
  parts.progress.hidden = !["downloading", "loading"].includes(state);
  if (total) {
    parts.progress.max = total;
    parts.progress.value = done;
    if (!parts.progress.hidden) set(parts.memory, `${bytes(done)} of ${bytes(total)}`);
  } else {
    parts.progress.removeAttribute("value");
  }
  return parts.element;
}

function newRow(id) {
  const parts = {
    facts: make("p", { className: "quiet" }),
    state: make("span", { className: "state" }),
    memory: make("span", { className: "quiet number" }),
    progress: make("progress", { "aria-label": `Progress of ${id}` }),
    error: make("p", { className: "error" }),
    action: make("button", { onclick: () => act(() => toggle(id)) }),
  };
  parts.element = make("li", {},
    make("div", { className: "about" }, make("h3", { textContent: id }), parts.facts),
    make("div", { className: "now" }, parts.state, parts.memory),
    parts.action, parts.progress, parts.error);
  return parts;
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const also = (names) =>
  names.length > 2 ? `${names.slice(0, 2).join(", ")} and ${count(names.length - 2, "other")}`
    : names.join(", ");

async function toggle(id) {
  const instance = instances.get(id);
  if (!instance || instance.state === "failed") return start(id);
  const path = `v1/instances/${encodeURIComponent(instance.id)}`;
  return keep(await askJson(path, { method: "DELETE" }));
}

async function start(id) {
  return keep(await askJson("v1/instances", { method: "POST", body: { model: id } }));
}

function keep(instance) {
  instances.set(instance.model, instance);
  show();
}

async function act(what) {
  complain(find("models-error"), null);
  try {
    await what();
  } catch (error) {
    complain(find("models-error"), error);
  }
}

find("filter").addEventListener("input", show);
find("show-all").addEventListener("click", () => {
  all = !all;
  show();
});
