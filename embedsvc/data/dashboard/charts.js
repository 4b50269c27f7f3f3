// What the server does, second by second: six small charts of the last two minutes.

import { draw, find, make } from "./dom.js";

const FEWEST = 30, SECONDS = 120, WIDTH = 240, HEIGHT = 56;
const plain = (value) => value >= 100 ? Math.round(value).toLocaleString("en")
  : String(Number(value.toPrecision(2)));
const time = (value) => value >= 1 ? `${plain(value)} s` : `${plain(1000 * value)} ms`;
const percent = (value) => `${Math.round(100 * value)}%`;
const CHARTS = [
  { title: "Requests", unit: "per second", format: plain, least: 1, lines: { "": "requests" } },
  { title: "Texts", unit: "per second", format: plain, least: 1, lines: { "": "texts" } },
  { title: "Latency", unit: "", format: time, least: 0.001,
    lines: { p50: "p50", p95: "p95", p99: "p99" } },
  { title: "Batch size", unit: "texts", format: plain, least: 1, lines: { "": "batch_texts" } },
  { title: "Waiting", unit: "tokens", format: plain, least: 1, lines: { "": "waiting_tokens" } },
  { title: "Cache hits", unit: "of texts", format: percent, least: 1, most: 1,
    lines: { "": "cache_hits" } },
];

const history = [];  // the newest last
let paused = false, pointed = null;  // how many seconds ago
const drawn = CHARTS.map(newChart);

export function addActivity(activity) {
  if (activity === null) return;
  history.push(activity);
  if (history.length > SECONDS) history.shift();
  if (!paused) show([...history]);
}

let shown = [];

// The paper is as wide as what there is, after the first half minute.
const span = () => Math.max(FEWEST, shown.length) - 1;

function show(seconds) {
  shown = seconds;
  for (const chart of drawn) update(chart);
}

function newChart(spec) {
  const lines = Object.values(spec.lines).map((_, i) =>
    draw("path", { class: `line line-${i + 1}` }));
  const area = draw("path", { class: "area" });
  const cursor = draw("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
  const picture = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none",
    role: "img", "aria-label": `${spec.title}: nothing yet` }, area, cursor, ...lines);
  const value = make("p", { className: "value" }), top = make("span", { className: "top" });
  const element = make("figure", {},
    make("figcaption", {}, make("span", { textContent: spec.title }), " ",
      make("span", { className: "quiet", textContent: spec.unit })),
    value, make("div", { className: "plot" }, top, picture));
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    pointed = Math.round((1 - (event.clientX - box.left) / box.width) * span());
    show(shown);
  });
  picture.addEventListener("pointerleave", () => {
    pointed = null;
    show(shown);
  });
  return { spec, lines, area, cursor, picture, value, top, element };
}

function update({ spec, lines, area, cursor, picture, value, top }) {
  const fields = Object.values(spec.lines);
  const values = shown.flatMap((each) => fields.map((field) => each[field] ?? 0));
  const most = spec.most ?? Math.max(spec.least, ...values);
  fields.forEach((field, i) => {
    const points = shown.map((each, at) => each[field] === null ? null : [
      WIDTH * (1 - (shown.length - 1 - at) / span()),
      HEIGHT - 2 - (HEIGHT - 4) * Math.min(each[field] / most, 1)]);
    lines[i].setAttribute("d", path(points));
    if (fields.length === 1) area.setAttribute("d", filled(points));
  });
  const ago = pointed ?? 0, at = shown.at(-1 - ago);
  value.replaceChildren(...Object.entries(spec.lines).map(([name, field], i) =>
    make("span", { className: name && `of line-${i + 1}` }, ...(name ? [make("small",
      { textContent: name })] : []), words(spec, at?.[field]))));
  top.textContent = shown.length ? spec.format(most) : "";
  const x = WIDTH * (1 - ago / span());
  cursor.setAttribute("x1", x);
  cursor.setAttribute("x2", x);
  cursor.setAttribute("visibility", pointed === null ? "hidden" : "visible");
  find("when").textContent = pointed === null
    ? (paused ? "paused" : lately()) : `${pointed} s ago`;
  const said = Object.entries(spec.lines).map(([name, field]) =>
    `${name} ${words(spec, shown.at(-1)?.[field])}`.trim()).join(", ");
  picture.setAttribute("aria-label",
    `${spec.title}, ${spec.unit}: ${said} now, ${spec.format(most)} at the top`);
}

const lately = () =>
  span() + 1 === SECONDS ? "the last two minutes" : `the last ${span() + 1} seconds`;

const words = (spec, value) => value === null || value === undefined ? "–" : spec.format(value);

// Seconds in which nothing was measured are gaps; one alone between two is a dot.
function path(points) {
  return points.map((point, i) => point === null ? "" :
    points[i - 1] ? `L${point}` : points[i + 1] ? `M${point}` : `M${point}h.01`).join("");
}

function filled(points) {
  return points.map((point, i) => point === null ? "" :
    (points[i - 1] ? "" : `M${point[0]},${HEIGHT}`) + `L${point}` +
    (points[i + 1] ? "" : `L${point[0]},${HEIGHT}Z`)).join("");
}

find("charts").append(...drawn.map(({ element }) => element));
find("pause").addEventListener("click", (event) => {
  paused = !paused;
  event.target.setAttribute("aria-pressed", String(paused));
  event.target.textContent = paused ? "Go on" : "Pause";
  if (!paused) shown = [...history];
  show(shown);
});
show([]);
