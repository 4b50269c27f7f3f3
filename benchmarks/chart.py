"""A chart of texts a second, in SVG, for light and dark pages."""

from typing import Any
from xml.sax.saxutils import escape

from benchmarks.model import LEAST_COSINES, OURS

WIDTH = 760
LABEL = 170
BAR, GAP, TITLE, FOOT = 18, 6, 34, 40
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.small { font-size: 11px; fill: #57606a }
.ours { fill: #1f6feb }
.peer { fill: #afb8c1 }
.bfloat16 { fill-opacity: 0.8 }
.int8 { fill-opacity: 0.6 }
.wrong { fill: #d4a72c }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .small { fill: #9198a1 }
  .ours { fill: #58a6ff }
  .peer { fill: #484f58 }
  .wrong { fill: #9e6a03 }
}
"""
TITLES = {
    "single": "one text a request, 1 client",
    "single-16": "one text a request, 16 clients",
    "bulk": "32 texts a request, 2 clients",
    "mixed": "one text of 3 to 250 words a request, 16 clients",
}


def draw(summary: dict[str, Any]) -> str:
    """The chart as an SVG document: the servers of a precision side by side, the fastest first.
    Each shape has a scale of its own."""
    servers = {name: it for name, it in summary["servers"].items() if it["shapes"]}
    shapes = list(dict.fromkeys(shape for it in servers.values() for shape in it["shapes"]))
    first = next(iter(servers), "")
    parts: list[str] = []
    y = 8
    for shape in shapes:
        parts.append(
            f'<text class="title" x="8" y="{y + 18}">{escape(TITLES.get(shape, shape))}</text>'
        )
        y += TITLE
        rates = {
            name: it["shapes"][shape]["texts_per_second"]
            for name, it in servers.items()
            if shape in it["shapes"]
        }
        most = max(rates.values()) or 1.0
        order = list(LEAST_COSINES)
        before = ""
        for name, rate in sorted(
            rates.items(),
            key=lambda item: (order.index(servers[item[0]]["precision"]), -item[1]),
        ):
            precision = servers[name]["precision"]
            y += GAP if before not in ("", precision) else 0
            before = precision
            kind = "ours" if name == first or name.startswith(OURS) else "peer"
            note = f"{rate:,.0f}" if rate >= 20 else f"{rate:.1f}"
            verdict = servers[name].get("vectors", "right")
            if verdict != "right":
                kind, note = "wrong", f"{note}, vectors {verdict}"
            width = max(1.0, (WIDTH - LABEL - 150) * rate / most)
            middle = y + BAR - 5
            place = f'class="{kind} {precision}" x="{LABEL}" y="{y}"'
            parts += [
                f'<text x="{LABEL - 8}" y="{middle}" text-anchor="end">{escape(name)}</text>',
                f'<rect {place} width="{width:.1f}" height="{BAR}"/>',
                f'<text x="{LABEL + width + 6:.1f}" y="{middle}">{escape(note)}</text>',
            ]
            y += BAR + GAP
        y += GAP
    on = summary["machine"]
    where = f"{on['processor']}, {on['cores']} cores, {summary['date']}"
    foot = f"{summary['model']}: texts per second, more is better; {where}"
    parts.append(f'<text class="small" x="8" y="{y + 16}">{escape(foot)}</text>')
    height = y + FOOT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-label="texts per second by server">'
        f"<style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )
