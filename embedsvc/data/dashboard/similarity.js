// How alike texts are, each with each: a table whose cells are coloured.

import { cosine } from "./api.js";
import { colorOf, stops } from "./colors.js";
import { draw, make, shorten } from "./dom.js";

export const id = "similarity";
export const title = "Similarity";
export const invitation = "Embed the texts, and see how alike they are, each with each.";
export const python = "print((vectors @ vectors.T).round(2))";

const MOST = 60;
const SPACIOUS = 16;  // so many texts have their numbers written in the cells

export function show(panel, { texts, vectors }) {
  const some = texts.slice(0, MOST), values = some.map((_, i) =>
    some.map((_, j) => cosine(vectors[i], vectors[j])));
  const pairs = some.flatMap((_, i) => some.slice(i + 1).map((_, j) => [i, i + 1 + j]));
  const between = pairs.map(([i, j]) => values[i][j]);
  const low = Math.min(...between, 1), high = Math.max(...between, -1);
  const readout = make("p", { className: "readout" });
  const [a, b] = pairs[between.indexOf(high)] ?? [0, 0];
  const rest = pairs.length
    ? `Most alike: ${numbered(some, a)} and ${numbered(some, b)}, ${high.toFixed(3)}`
    : "One text alone: write another, to compare.";
  readout.textContent = rest;
  const table = heatMap(some, values, low, Math.max(high, low + 1e-6));
  const tell = ([i, j]) => {
    readout.textContent = `${numbered(some, i)} and ${numbered(some, j)}: `
      + values[i][j].toFixed(3);
  };
  table.addEventListener("pointerover", ({ target }) => {
    if (target.closest("td")) tell(place(target.closest("td")));
  });
  table.addEventListener("pointerleave", () => { readout.textContent = rest; });
  const parts = [readout, make("div", { className: "scroll", tabIndex: 0, role: "region",
    "aria-label": "Similarities" }, table)];
  if (pairs.length) parts.push(legend(low, high));
  if (texts.length > MOST) parts.push(make("p", { className: "quiet",
    textContent: `The first ${MOST} of ${texts.length} texts.` }));
  panel.replaceChildren(...parts);
  byKeys(table, tell);
}

const numbered = (texts, i) => `${i + 1} “${shorten(texts[i], 40)}”`;
const place = (cell) => [cell.parentElement.rowIndex - 1, cell.cellIndex - 1];
const find = (table, [i, j]) => table.rows[i + 1]?.cells[j + 1];

function heatMap(texts, values, low, high) {
  const head = make("tr", {}, make("th", { scope: "col" }, unseen("Text")),
    ...texts.map((text, i) => make("th", { scope: "col", textContent: String(i + 1),
      title: text })));
  const rows = values.map((row, i) => make("tr", {},
    make("th", { scope: "row" }, make("span", { className: "at", textContent: `${i + 1} ` }),
      make("span", { className: "text", textContent: shorten(texts[i], 34) })),
    ...row.map((value) => {
      const cell = make("td", { tabIndex: -1 }), { background, ink } = colorOf(
        (value - low) / (high - low));
      cell.style.backgroundColor = background;
      cell.style.color = ink;
      cell.dataset.value = value;
      const words = value.toFixed(2).replace(/^-0.00$/, "0.00").replace(/^(-?)0\./, "$1.");
      cell.append(texts.length > SPACIOUS ? unseen(words) : words);
      return cell;
    })));
  return make("table", { className: texts.length > SPACIOUS ? "heat dense" : "heat" },
    make("caption", { className: "unseen", textContent: "Cosine similarity of texts" }),
    make("thead", {}, head), make("tbody", {}, ...rows));
}

// Arrow keys go from cell to cell.
function byKeys(table, tell) {
  const first = find(table, [0, 0]);
  first.tabIndex = 0;
  let current = first;
  table.addEventListener("focusin", ({ target }) => {
    if (!target.matches("td")) return;
    current.tabIndex = -1;
    current = target;
    current.tabIndex = 0;
    tell(place(current));
  });
  table.addEventListener("keydown", (event) => {
    const by = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[
      event.key];
    if (!by || !event.target.matches("td")) return;
    const [i, j] = place(event.target);
    const next = j + by[1] < 0 || i + by[0] < 0 ? null : find(table, [i + by[0], j + by[1]]);
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
}

const unseen = (text) => make("span", { className: "unseen", textContent: text });

function legend(low, high) {
  const colors = stops().map((color, i, all) =>
    draw("stop", { offset: i / (all.length - 1), "stop-color": color }));
  return make("p", { className: "legend quiet" }, make("span", { textContent: low.toFixed(2) }),
    draw("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
      draw("defs", {}, draw("linearGradient", { id: "scale" }, ...colors)),
      draw("rect", { width: 100, height: 8, rx: 1, fill: "url(#scale)" })),
    make("span", { textContent: high.toFixed(2) }),
    make("span", { textContent: "least to most alike; a text with itself is 1" }));
}
