// A scale of colours for numbers. Its lightness goes one way only, so it can be read without seeing
// hues, and it begins near the page's own colour.

const LIGHT = ["#f3efe2", "#c3dfcb", "#6db7b9", "#2f78a3", "#21306b"];
const DARK = ["#20242e", "#28466f", "#2c7f98", "#74c3a4", "#f2efc6"];

const channels = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

export const stops = () => isDark() ? DARK : LIGHT;

// The colour of a share from 0 to 1, and that of text on it: { background, ink }.
export function colorOf(share) {
  const scale = stops().map(channels), last = scale.length - 1;
  const at = Math.min(Math.max(share, 0), 1) * last, below = Math.min(Math.floor(at), last - 1);
  const mixed = scale[below].map((low, i) => low + (scale[below + 1][i] - low) * (at - below));
  const [r, g, b] = mixed.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  const luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return {
    background: `rgb(${mixed.map(Math.round).join(" ")})`,
    ink: luminance > 0.179 ? "#000" : "#fff",  // where contrast with both is the same
  };
}
