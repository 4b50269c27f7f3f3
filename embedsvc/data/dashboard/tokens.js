// What the model reads: the tokens of each text, and what was cut for want of room.

import { askJson } from "./api.js";
import { complain, count, make } from "./dom.js";

export const id = "tokens";
export const title = "Tokens";
export const invitation = "Embed the texts, and see what the model reads of them.";

const MOST = 50, MOST_TOKENS = 600;
let latest = 0;

export async function show(panel, { model, texts, known }) {
  const mine = ++latest, some = texts.slice(0, MOST);
  if (panel.firstElementChild?.className !== "tokens") {
    panel.replaceChildren(make("p", { className: "empty", textContent: "Reading" }));
  }
  try {
    const read = await askJson("tokenize", { method: "POST", body: { model, inputs: some } });
    if (mine !== latest) return;
    panel.replaceChildren(make("ol", { className: "tokens" },
      ...read.map((tokens) => oneText(tokens, known?.max_tokens ?? Infinity))),
    ...(texts.length > MOST ? [make("p", { className: "quiet",
      textContent: `The first ${MOST} of ${texts.length} texts.` })] : []));
  } catch (problem) {
    if (mine !== latest) return;
    const error = make("p", { className: "error", role: "alert" });
    complain(error, problem);
    panel.replaceChildren(error);
  }
}

function oneText(tokens, limit) {
  // Special tokens stay, and the end of the text goes.
  const room = limit - tokens.filter(({ special }) => special).length;
  let seen = 0;
  const chips = tokens.map((token) => {
    const cut = !token.special && seen++ >= room;
    return make(cut ? "del" : "span", { title: `${token.id}`,
      className: token.special ? "token special" : "token" }, visible(token.text) || " ");
  });
  const left = Math.max(0, seen - room), kept = tokens.length - left;
  const said = Number.isFinite(limit)
    ? `${kept.toLocaleString("en")} of ${count(limit, "token")}` : count(kept, "token");
  const parts = chips.slice(0, MOST_TOKENS);
  if (chips.length > MOST_TOKENS) parts.push(` and ${chips.length - MOST_TOKENS} more`);
  return make("li", {}, make("p", { className: "quiet" }, said,
    ...(left ? [make("strong", { textContent: `, ${count(left, "token")} cut` })] : [])),
  make("p", { className: "chips" }, ...parts));
}

// Spaces are part of some models' tokens.
const visible = (text) => text.replace(/^ +| +$/g, (spaces) => "·".repeat(spaces.length));
