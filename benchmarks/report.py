"""The summary of a run: medians, ratios, and tables of them."""

import datetime as dt
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bench import Row
from benchmarks.model import LEAST_COSINES, OURS, ROOT
from benchmarks.peers import PEERS

FIGURES = (
    "requests_per_second",
    "texts_per_second",
    "tokens_per_second",
    "p50_ms",
    "p90_ms",
    "p95_ms",
    "p99_ms",
    "max_ms",
    "load_cpu_share",
)


def add_up(rows: list[Row], order: list[str], model: str) -> dict[str, Any]:
    """Medians over rounds, and how many times as many texts a second embedsvc embeds in the same
    precision."""
    servers: dict[str, Any] = {name: {"shapes": {}} for name in order}
    for row in rows:
        if row["kind"] == "failure":
            servers[row["server"]]["failure"] = row["why"]
    for name, server in servers.items():
        own = [row for row in rows if row.get("server") == name and "sweep" not in row]
        server["about"] = PEERS[name].about if name in PEERS else "a server that ran already"
        server["precision"] = PEERS[name].precision if name in PEERS else "float32"
        server["rounds"] = len({row["round"] for row in own if row["kind"] == "shape"})
        compared = [row for row in own if row["kind"] == "server"]
        if compared:
            server |= {
                "vectors": _worst(row["vectors"] for row in compared),
                "least_cosine": min(row["least_cosine"] or 0.0 for row in compared),
                "mean_cosine": _median(row["mean_cosine"] for row in compared),
                "start_seconds": _median(row["start_seconds"] for row in compared),
                "resident_mib": _median(row["resident_mib"] for row in compared),
                "peak_mib": _median(
                    _most(row.get("peak_mib") for row in own if row["round"] == number)
                    for number in range(max(row["round"] for row in own) + 1)
                ),
                "bad_answers": sum(
                    sum((row["errors"] | row["wrong"]).values())
                    for row in own
                    if row["kind"] == "shape"
                ),
            }
            servers[name] = server
        for shape in dict.fromkeys(row["shape"] for row in own if row["kind"] == "shape"):
            server["shapes"][shape] = _shape(row for row in own if row.get("shape") == shape)
    for server in servers.values():
        for shape, figures in server["shapes"].items():
            ours = servers[_rival(servers, server["precision"])]["shapes"].get(shape)
            if ours and figures["texts_per_second"]:
                figures["ratio"] = ours["texts_per_second"] / figures["texts_per_second"]
    limit = _median(row["tokens_per_second"] for row in rows if row["kind"] == "limit")
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "commit": _commit(),
        "machine": machine(),
        "model": model,
        "limit_tokens_per_second": limit,
        "servers": {name: servers[name] for name in _by_precision(servers)},
        "sweeps": _sweeps(rows),
    }


def machine() -> dict[str, Any]:
    """The machine that the run was on."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*: (.*)", cpuinfo.read_text())
        processor = found[1] if found else platform.processor()
    else:
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        processor = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {
        "processor": processor.strip() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def markdown(summary: dict[str, Any]) -> str:
    """A table for the README: texts a second, and how many times as many embedsvc has in the same
    precision."""
    servers = summary["servers"]
    shapes = list(dict.fromkeys(shape for server in servers.values() for shape in server["shapes"]))
    first = next(iter(servers))
    lines = [
        "| texts/s | "
        + " | ".join(shapes)
        + " | p50 / p99 ms | start s | memory MiB | cosine, mean / worst |",
        "|---|" + "---:|" * len(shapes) + "---:|---:|---:|---:|",
    ]
    for name, server in servers.items():
        ours = name == first or name.startswith(OURS)
        title = f"**{name}**" if ours else name
        if not server["shapes"]:
            why = str(server.get("failure", "no result")).replace("|", "/")
            lines.append(f"| {title} | not measured: {why} |" + " |" * (len(shapes) + 3))
            continue
        cells = [_cell(server["shapes"].get(shape), ours) for shape in shapes]
        one = server["shapes"].get("single") or next(iter(server["shapes"].values()))
        cells += [
            f"{one['p50_ms']:.1f} / {one['p99_ms']:.1f}",
            _number(server.get("start_seconds"), ".1f"),
            _number(server.get("peak_mib"), ".0f"),
            _nearness(server),
        ]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    on = summary["machine"]
    about = (
        f"{summary['model']}, {summary['date']}, {on['processor']}, {on['cores']} cores, "
        f"{on['system']}; medians of {servers[first]['rounds']} rounds, in brackets {OURS} in the "
        "same precision ÷ that server; p50 and p99 of `single`; cosines with sentence-transformers "
        "in float32."
    )
    if limit := summary["limit_tokens_per_second"]:
        best = max((s["tokens_per_second"] for s in servers[first]["shapes"].values()), default=0.0)
        about += (
            f" NumPy's float32 matrix products alone would allow {limit:,.0f} tokens/s here; "
            f"{first} reaches {best:,.0f}, {best / limit:.0%} of it."
        )
    lines += ["", about]
    return "\n".join(lines) + "\n"


def text(summary: dict[str, Any]) -> str:
    """A table for a terminal."""
    lines = [
        f"{'server':<22} {'shape':<12} {'texts/s':>9} {'ratio':>7} {'p50 ms':>9} {'p99 ms':>9}"
    ]
    for name, server in summary["servers"].items():
        if "failure" in server:
            lines.append(f"{name:<22} failed: {server['failure']}")
        for shape, it in server["shapes"].items():
            ratio = f"{it['ratio']:.2f}x" if "ratio" in it else "-"
            lines.append(
                f"{name:<22} {shape:<12} {it['texts_per_second']:>9.1f} {ratio:>7}"
                f" {it['p50_ms']:>9.1f} {it['p99_ms']:>9.1f}"
                + "".join(
                    f"  {count} x {why}" for why, count in (it["errors"] | it["wrong"]).items()
                )
            )
        if "vectors" in server:
            lines.append(
                f"{name:<22} {_verdict(server)}, started in"
                f" {_number(server['start_seconds'], '.1f')} s,"
                f" {_number(server['resident_mib'], '.0f')} MiB,"
                f" {_number(server['peak_mib'], '.0f')} MiB at most; {server['about']}"
            )
    for sweep, points in summary["sweeps"].items():
        lines += [f"\n{sweep:>10} {'texts/s':>9} {'tokens/s':>9} {'p50 ms':>9} {'p99 ms':>9}"]
        lines += [
            f"{point['at']:>10} {point['texts_per_second']:>9.1f}"
            f" {point['tokens_per_second']:>9.0f} {point['p50_ms']:>9.1f} {point['p99_ms']:>9.1f}"
            for point in points
        ]
    return "\n".join(lines)


def _shape(rows: Iterable[Row]) -> dict[str, Any]:
    rows = list(rows)
    figures: dict[str, Any] = {key: _median(row[key] for row in rows) for key in FIGURES}
    rates = [row["texts_per_second"] for row in rows]
    figures["texts_per_second_range"] = [min(rates), max(rates)]
    for kind in ("errors", "wrong"):
        total: dict[str, int] = {}
        for row in rows:
            for why, count in row[kind].items():
                total[why] = total.get(why, 0) + count
        figures[kind] = total
    figures["usage_share"] = rows[-1]["usage_share"]
    return figures


def _sweeps(rows: list[Row]) -> dict[str, Any]:
    sweeps: dict[str, Any] = {}
    for row in rows:
        if "sweep" in row and row["kind"] == "shape":
            at = int(row["shape"].rpartition("-")[2])
            sweeps.setdefault(row["sweep"], []).append({"at": at} | row)
    return sweeps


def _cell(figures: dict[str, Any] | None, ours: bool) -> str:
    if figures is None:
        return "-"
    rate = f"{figures['texts_per_second']:,.{0 if figures['texts_per_second'] >= 20 else 1}f}"
    if ours or "ratio" not in figures:
        return f"**{rate}**" if ours else rate
    return f"{rate} ({figures['ratio']:.2f}×)"  # noqa: RUF001 - the sign of multiplication


def _by_precision(servers: Mapping[str, Any]) -> list[str]:
    """The names of servers, those of one precision side by side."""
    order = list(LEAST_COSINES)
    return sorted(servers, key=lambda name: order.index(servers[name]["precision"]))


def _rival(servers: Mapping[str, Any], precision: str) -> str:
    """The first server of a precision that is this project's, else the first of all."""
    ours = (name for name in servers if name.startswith(OURS))
    same = (name for name in ours if servers[name]["precision"] == precision)
    return next(same, next(iter(servers)))


def _nearness(server: dict[str, Any]) -> str:
    """Mean and worst cosine, and whatever is wrong."""
    mean, worst = server.get("mean_cosine"), server.get("least_cosine")
    near = "-" if mean is None else f"{mean:.5f} / {worst:.5f}"
    return near if _verdict(server) == "right" else f"{near} {_verdict(server)}"


def _verdict(server: dict[str, Any]) -> str:
    verdict = server["vectors"]
    if verdict != "right":
        verdict += f" (cosine from {server['least_cosine']:.3f})"
    return verdict + (f", {server['bad_answers']} bad answers" if server["bad_answers"] else "")


def _worst(verdicts: Iterable[str]) -> str:
    found = list(verdicts)
    return next((verdict for verdict in found if verdict != "right"), "right")


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
