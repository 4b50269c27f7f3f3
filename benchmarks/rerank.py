"""python -m benchmarks.rerank: ranking documents, by this service and by what people run instead.

All servers have one reranker of the size of ms-marco-MiniLM-L6-v2, with random weights, in float32.
In each round every server is started, asked for the scores of some documents, put through every
shape, and stopped; the order turns from round to round.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson

from benchmarks.ranking_peers import EXPORTS, RANKERS, write_model
from benchmarks.server import NotServing, Server, Trial, free_port, running
from benchmarks.setup import export, install, model_folder, places
from embedsvc.bench.answers import check_scores
from embedsvc.bench.texts import RANKING_SHAPES, ask_for_scores, make_requests, shape_named
from embedsvc.bench.window import measure

TRIAL = Trial({"query": "hello", "documents": ["world"]}, check_scores)
REFERENCE = "cross-encoder"
COMPARED = 3
"""Requests whose answers are compared, of each shape."""
EQUAL = 1e-5
"""Scores that are no further apart may come in any order."""
FIGURES = ("texts_per_second", "tokens_per_second", "p50_ms", "p99_ms")
Row = dict[str, Any]


def main() -> int:
    """Measure and print. Returns 1 if this project's server could not be measured."""
    given = _parser().parse_args()
    chosen = [name for name in given.peers.split(",") if name not in ("", "none")]
    names = list(RANKERS) if given.peers == "all" else list(dict.fromkeys(["embedsvc", *chosen]))
    folder = given.peers_dir.expanduser().resolve()
    model = _model(folder)
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for number in range(given.rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            if name in failed:
                continue
            try:
                with _serving(name, folder, model) as server:
                    for row in _measure(server, given, number):
                        rows.append({"server": name, "round": number} | row)
                        print(_line(rows[-1]), flush=True)
            except NotServing as error:
                failed[name] = str(error)
                print(f"{name}: failed: {error}", flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    print(f"\n{table(rows, names)}\n{orders(rows)}\nresults are in {given.out}")
    return 1 if "embedsvc" in failed else 0


def table(rows: list[Row], names: list[str]) -> str:
    """Medians of all rounds, and how many times as fast the first server is."""
    shapes = list(dict.fromkeys(row["shape"] for row in rows if "shape" in row))
    lines = ["| documents/s | " + " | ".join(shapes) + " |", "|---|" + "---:|" * len(shapes)]
    first = {shape: _median(rows, names[0], shape, FIGURES[0]) for shape in shapes}
    for name in names:
        cells: list[str] = []
        for shape in shapes:
            rate, p50, p99 = (
                _median(rows, name, shape, figure) for figure in (FIGURES[0], *FIGURES[2:])
            )
            if rate is None or p50 is None or p99 is None:
                cells.append("-")
                continue
            ratio = f" ({first[shape] / rate:.2f}x)" if first[shape] and name != names[0] else ""
            cells.append(f"{rate:,.0f}{ratio}, p50 {p50:.0f} ms, p99 {p99:.0f} ms")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def orders(rows: list[Row]) -> str:
    """How each server's scores and orders differ from the reference's."""
    found = {row["server"]: row["scores"] for row in rows if "scores" in row}
    expected = found.get(REFERENCE)
    if expected is None:
        return "orders were not compared: that needs cross-encoder"
    lines: list[str] = []
    for name, scores in found.items():
        pairs = [
            (np.array(got), np.array(want)) for got, want in zip(scores, expected, strict=True)
        ]
        same = sum(
            bool((np.diff(want[np.argsort(-got, kind="stable")]) <= EQUAL).all())
            for got, want in pairs
        )
        apart = max(float(np.abs(got - want).max()) for got, want in pairs)
        lines.append(
            f"{name}: {same} of {len(pairs)} orders as {REFERENCE}'s, scores within {apart:.1e}"
        )
    return "\n".join(lines)


@contextmanager
def _serving(name: str, folder: Path, model: Path) -> Iterator[Server]:
    """A server over the model. Raises `NotServing`."""
    peer = RANKERS[name]
    venv = install(peer, folder)
    for kind in peer.needs:
        file, maker = EXPORTS[kind]
        export(kind, model, file, RANKERS[maker], folder)
    port = free_port()
    known = places(folder, venv) | {
        "model": str(model),
        "cards": str(model / "models.toml"),
        "port": str(port),
    }
    Path(known["logs"]).mkdir(parents=True, exist_ok=True)
    with running(
        [part.format(**known) for part in peer.command],
        {name: value.format(**known) for name, value in peer.env.items()},
        port=port,
        path=peer.path,
        model=peer.model.format(**known),
        log=Path(known["logs"]) / f"rerank-{name}.log",
        cwd=Path(peer.cwd.format(**known)),
        trial=TRIAL,
    ) as server:
        yield server


def _measure(server: Server, given: argparse.Namespace, number: int) -> Iterator[Row]:
    if number == 0:
        yield {"scores": list(_scores(server))}
    for name in given.shapes.split(","):
        shape = shape_named(name)
        seed = f"{number} {name}"
        requests = make_requests(
            shape, seed, server.head(), {"model": server.model}, ask_for_scores
        )
        figures = measure(
            server.host,
            server.port,
            shape,
            requests,
            seconds=given.seconds,
            warm_up=given.warm_up,
            patience=given.patience,
            check=check_scores,
        )
        yield {"shape": name} | figures


def _scores(server: Server) -> Iterator[list[float]]:
    """Scores of documents in their order, for requests that are the same for all servers."""
    for shape in RANKING_SHAPES.values():
        rng = random.Random(shape.name)
        for _ in range(COMPARED):
            asked, _ = ask_for_scores(rng, shape)
            status, body = server.post(asked)
            if status != 200:
                raise NotServing(f"{status}: {body[:200].decode(errors='replace')}")
            results = json.loads(body)["results"]
            by_index = {each["index"]: each["relevance_score"] for each in results}
            yield [by_index[i] for i in range(len(by_index))]


def _model(folder: Path) -> Path:
    """The folder of the model, which is written if it is not there."""
    model = folder / "ms-marco-MiniLM-L6-random"
    if not model.exists():
        partial = model.with_name(f"partial-{model.name}-{random.random()}")
        write_model(partial, model_folder(folder))
        (partial / "models.toml").write_text(
            '[models.ranker]\npath = "."\ntask = "rerank"\npreload = true\n'
        )
        partial.rename(model)
    return model


def _median(rows: list[Row], name: str, shape: str, figure: str) -> float | None:
    values = [row[figure] for row in rows if row["server"] == name and row.get("shape") == shape]
    return median(values) if values else None


def _line(row: Row) -> str:
    name = f"{row['round'] + 1}  {row['server']:<18}"
    if "scores" in row:
        return f"{name}{len(row['scores'])} requests answered, to be compared"
    troubles = f"{row['errors'] or ''} {row['wrong'] or ''}".strip()
    return (
        f"{name}{row['shape']:<12}{row['texts_per_second']:>8.1f} documents/s, "
        f"p50 {row['p50_ms']:.1f} ms, p99 {row['p99_ms']:.1f} ms {troubles}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rerank",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--peers", default="all", help=f"all, none, or some of {','.join(RANKERS)}")
    add("--rounds", type=int, default=5, help="rounds; medians are over them")
    add("--seconds", type=float, default=5.0, help="window of one shape in one round")
    add("--warm-up", type=float, default=1.0, help="seconds of load before each window")
    add("--patience", type=float, default=60.0, help="seconds more that slow answers get")
    add("--shapes", default=",".join(RANKING_SHAPES), help="shapes, as of embedsvc bench")
    add(
        "--out", type=Path, default=Path("benchmarks/results/rerank.jsonl"), help="where results go"
    )
    add("--peers-dir", type=Path, default=Path("~/.cache/embedsvc-bench"), help="where peers are")
    return parser


if __name__ == "__main__":
    sys.exit(main())
