"""The command line: python -m benchmarks --help."""

import argparse
import os
import signal
import sys
from pathlib import Path

import orjson

from benchmarks.bench import Plan, Row, run
from benchmarks.chart import draw
from benchmarks.model import DIMENSIONS, MODEL
from benchmarks.peers import PEERS
from benchmarks.report import add_up, markdown, text
from embedsvc.bench.texts import SHAPES, SWEEPS, shape_named


def main() -> int:
    """Measure, print and write. Returns 1 if the first server could not be measured."""
    given = _parser().parse_args()
    try:
        plan = _plan(given)
    except ValueError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5:
        print(f"note: this machine is busy, load {os.getloadavg()[0]:.1f}", flush=True)
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is ended
    with (out / "results.jsonl").open("wb") as lines:

        def write(row: Row) -> None:
            rows.append(row)
            lines.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            lines.flush()
            print(_line(row), flush=True)

        try:
            run(plan, write)
        except KeyboardInterrupt:
            print("stopped; what follows is of what there is")
    if not any(row["kind"] == "shape" for row in rows):
        return 1
    summary = add_up(rows, plan.servers, plan.model)
    (out / "summary.json").write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
    (out / "table.md").write_text(markdown(summary), encoding="utf-8")
    (out / "chart.svg").write_text(draw(summary), encoding="utf-8")
    print(f"\n{text(summary)}\n\n{markdown(summary)}\nresults, table and chart are in {out}")
    return 0 if summary["servers"][plan.servers[0]]["shapes"] else 1


def _plan(given: argparse.Namespace) -> Plan:
    """What the options ask for. Raises `ValueError`."""
    peers = [name for name in PEERS if name != "embedsvc"]
    if given.peers == "all":
        chosen = [name for name in peers if not PEERS[name].gpu]
    else:
        chosen = [] if given.peers == "none" else given.peers.split(",")
    if unknown := [name for name in chosen if name not in peers]:
        raise ValueError(f"no peer {', '.join(unknown)}: there are {', '.join(peers)}")
    return Plan(
        servers=["url" if given.url else "embedsvc", *chosen],
        shapes=[shape_named(name) for name in given.shapes.split(",") if name],
        rounds=given.rounds,
        seconds=given.seconds,
        warm_up=given.warm_up,
        patience=given.patience,
        encoding=given.encoding,
        model=given.model,
        folder=given.peers_dir.expanduser().resolve(),
        url=given.url,
        sweeps=list(SWEEPS) if given.sweeps == "all" else [s for s in given.sweeps.split(",") if s],
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure embedsvc against what a user would run instead.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--peers", default="all", help=f"all, none, or some of {','.join(PEERS)}")
    add("--rounds", type=int, default=5, help="rounds; medians are over them")
    add("--seconds", type=float, default=5.0, help="window of one shape in one round")
    add("--warm-up", type=float, default=1.0, help="seconds of load before each window")
    add("--patience", type=float, default=60.0, help="seconds more that slow answers get")
    some = "4x256: 4 clients with 256 texts; open:80: 80 texts a second, as they come"
    add("--shapes", default=",".join(SHAPES), help=f"shapes; {some}")
    add("--sweeps", default="", help=f"all, or some of {','.join(SWEEPS)}, for embedsvc alone")
    add("--model", default=MODEL, choices=DIMENSIONS, help="bge-base: of its size, random weights")
    add("--encoding", default="base64", choices=("base64", "float"), help="as OpenAI's client asks")
    add("--url", help="a server that runs already, in place of embedsvc")
    add("--out", type=Path, default=Path("benchmarks/results"), help="where results go")
    add("--peers-dir", type=Path, default=Path("~/.cache/embedsvc-bench"), help="where peers are")
    return parser


def _line(row: Row) -> str:
    name = f"{row.get('round', 0) + 1}  {row.get('server', ''):<22}"
    if row["kind"] == "limit":
        return f"{name}matrix products alone: {row['tokens_per_second']:,.0f} tokens/s"
    if row["kind"] == "failure":
        return f"{name}failed: {row['why']}"
    if row["kind"] == "server":
        took = row["start_seconds"]
        started = "" if took is None else f"started in {took:.1f} s, "
        least = row["least_cosine"]
        mean = row["mean_cosine"]
        near = row.get("why") if least is None else f"cosine {mean:.6f}, from {least:.6f}"
        return f"{name}{started}vectors {row['vectors']} ({near})"
    others = row.get("others_cpu_share", 0.0) + row.get("stolen_share", 0.0)
    return (
        f"{name}{row['shape']:<12} {row['texts_per_second']:>8.1f} texts/s"
        f" {row['tokens_per_second']:>8.0f} tokens/s, p50 {row['p50_ms']:.1f} ms,"
        f" p99 {row['p99_ms']:.1f} ms {row['errors'] or ''} {row['wrong'] or ''}"
        + (f" (others used {others:.0%} of a core)" if others > 0.1 else "")
    )


if __name__ == "__main__":
    sys.exit(main())
