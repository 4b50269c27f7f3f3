// The texts as points in a plane: alike ones are near each other, as far as two dimensions can tell.

import { draw, make, shorten } from "./dom.js";
import { project } from "./pca.js";

export const id = "map";
export const title = "Map";
export const invitation = "Embed the texts, and see which lie near each other.";
export const python = `centered = vectors - vectors.mean(axis=0)
u, s, _ = np.linalg.svd(centered, full_matrices=False)
print((u * s)[:, :2])`;

const MOST = 300, NUMBERED = 24, HEIGHT = 360, EDGE = 24;

export function show(panel, { texts, vectors }) {
  const some = texts.slice(0, MOST);
  if (some.length < 3) {
    panel.replaceChildren(make("p", { className: "empty",
      textContent: "A map needs three texts or more." }));
    return;
  }
  const { points, shares } = project(vectors.slice(0, MOST));
  const width = Math.max(300, panel.clientWidth - 2), wide = width > 560;
  const places = fit(points, width, wide);
  const picture = draw("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, class: "map", role: "img",
    "aria-label": `Map of ${some.length} texts; the list below has their places` });
  const marks = some.map((text, i) => mark(text, i, places[i], some.length));
  picture.append(...marks);
  if (wide) label(picture, some, places, width);
  const list = make("ol", { className: "places" }, ...some.map((text, i) => {
    const [x, y] = points[i];
    const item = make("li", {}, make("span", { textContent: shorten(text, 90) }),
      make("span", { className: "quiet number", textContent: `${x.toFixed(3)}, ${y.toFixed(3)}` }));
    item.addEventListener("pointerenter", () => marks[i].classList.add("chosen"));
    item.addEventListener("pointerleave", () => marks[i].classList.remove("chosen"));
    item.dataset.point = JSON.stringify(points[i]);
    return item;
  }));
  const kept = Math.round(100 * (shares[0] + shares[1]));
  panel.replaceChildren(make("p", { className: "readout",
    textContent: `Two principal components, which keep ${kept}% of the variance.` }), picture,
  make("details", {}, make("summary", { textContent: "The texts and their places" }), list));
}

// Places on the paper: one scale for both directions, so that distances can be compared.
function fit(points, width, wide) {
  const side = wide ? EDGE + 110 : EDGE;
  const [left, right] = range(points.map(([x]) => x)), [low, high] = range(points.map(([, y]) => y));
  const scale = Math.min((width - 2 * side) / (right - left), (HEIGHT - 2 * EDGE) / (high - low));
  return points.map(([x, y]) => [
    width / 2 + scale * (x - (left + right) / 2), HEIGHT / 2 - scale * (y - (low + high) / 2)]);
}

function range(values) {
  const low = Math.min(...values), high = Math.max(...values);
  return high - low > 1e-9 ? [low, high] : [low - 0.5, low + 0.5];
}

// A number in a circle, or where there are many a dot.
function mark(text, i, [x, y], of) {
  const number = of > NUMBERED ? [] : [draw("text", { x, y, class: "at" }, String(i + 1))];
  return draw("g", { class: "point" }, draw("title", {}, `${i + 1} ${text}`),
    draw("circle", { cx: x, cy: y, r: number.length ? 9 : 4.5 }), ...number);
}

// Words beside the points, where they hide no others.
function label(picture, texts, places, width) {
  const taken = places.map(([x, y]) => [x - 10, y - 10, x + 10, y + 10]);
  const isFree = ([a, b, c, d]) => a > 2 && c < width - 2 && b > 2 && d < HEIGHT - 2
    && taken.every(([e, f, g, h]) => c < e || a > g || d < f || b > h);
  texts.forEach((text, i) => {
    const words = shorten(text, 30), [x, y] = places[i], long = 6.6 * words.length + 4;
    const beside = [["start", x + 14, y], ["end", x - 14, y], ["middle", x, y - 19],
      ["middle", x, y + 19]];
    for (const [anchor, at, middle] of beside) {
      const left = at - long * { start: 0, middle: 0.5, end: 1 }[anchor];
      const box = [left, middle - 8, left + long, middle + 8];
      if (!isFree(box)) continue;
      taken.push(box);
      picture.append(draw("text", { x: at, y: middle, class: "words", "text-anchor": anchor },
        words));
      return;
    }
  });
}
