// Elements, made without HTML: what users paste is only ever text.

export const find = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Show an error, or none.
export function complain(element, error) {
  element.hidden = !error;
  element.textContent = error ? error.message : "";
}

export const shorten = (text, most) =>
  [...text].length > most ? `${[...text].slice(0, most - 1).join("").trimEnd()}…` : text;

export const count = (number, one, many = `${one}s`) =>
  `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

export function bytes(size) {
  for (const [unit, of] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (size >= of) return `${Number((size / of).toPrecision(3))} ${unit}`;
  }
  return `${size} bytes`;
}
