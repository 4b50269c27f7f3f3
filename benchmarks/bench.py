"""A run: in each of several rounds, every server in turn with every shape."""

import http.client
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.answers import Reference, cosines, read_reference
from benchmarks.limit import measure_limit
from benchmarks.model import DIMENSIONS, LEAST_COSINES, MODEL, Precision
from benchmarks.peers import EXPORTS, MAKERS, PEERS
from benchmarks.server import NotServing, Server, busy_seconds
from benchmarks.setup import export, model_folder, prepare, start
from embedsvc.bench.answers import WrongAnswer, check_vectors, problems, read_vectors
from embedsvc.bench.texts import SWEEPS, Shape, make_requests
from embedsvc.bench.window import measure

SLOW_BATCH = 7
Row = dict[str, Any]
"""A line of results.jsonl. Its `kind` is limit, server, shape or failure."""


@dataclass(frozen=True)
class Plan:
    """What to measure, and for how long."""

    servers: list[str]
    shapes: list[Shape]
    rounds: int
    seconds: float
    warm_up: float
    patience: float
    encoding: str
    folder: Path
    """The folder of the peers."""
    model: str = MODEL
    """A key of `DIMENSIONS`."""
    url: str | None = None
    """The URL of a server that runs already. It is measured under the name `url`."""
    sweeps: list[str] = field(default_factory=list)


def run(plan: Plan, write: Callable[[Row], None]) -> None:
    """Measure. Every result is written as soon as it is there."""
    failed: set[str] = set()

    def fail(name: str, number: int, why: str) -> None:
        failed.add(name)
        write({"kind": "failure", "server": name, "round": number, "why": why})

    files = model_folder(plan.folder, plan.model)
    if plan.model != MODEL:
        file, maker = EXPORTS["reference"]
        export("reference", files, file, MAKERS[maker], plan.folder)
    reference = read_reference(plan.model, files)
    for name in plan.servers:
        try:
            if name in PEERS:
                prepare(PEERS[name], plan.folder, plan.model)
        except NotServing as error:
            fail(name, 0, str(error))
    for number in range(plan.rounds):
        if plan.model == MODEL:
            rate = measure_limit(plan.seconds)
            write({"kind": "limit", "round": number, "tokens_per_second": rate})
        turn = number % len(plan.servers)
        for name in plan.servers[turn:] + plan.servers[:turn]:
            if name in failed or (number and name in PEERS and PEERS[name].slow):
                continue
            try:
                with _serving(name, plan) as server:
                    precision = PEERS[name].precision if name in PEERS else "float32"
                    compared = _compare(server, plan, reference, precision)
                    for row in _measure_server(server, plan, number, plan.shapes, compared):
                        write({"server": name, "round": number} | row)
            except NotServing as error:
                fail(name, number, str(error))
    name = plan.servers[0]
    for sweep in plan.sweeps if name not in failed else []:
        with _serving(name, plan) as server:
            compared = _compare(server, plan, reference, "float32")
            for row in _measure_server(server, plan, 0, SWEEPS[sweep], compared):
                write({"server": name, "sweep": sweep, "round": 0} | row)


@contextmanager
def _serving(name: str, plan: Plan) -> Iterator[Server]:
    if name == "url":
        parts = urlsplit(plan.url or "")
        path = parts.path.rstrip("/") or "/v1/embeddings"
        path = path if path.endswith("/embeddings") else f"{path}/embeddings"
        yield Server(parts.hostname or "127.0.0.1", parts.port or 80, path, plan.model)
        return
    with start(PEERS[name], plan.folder, plan.model) as server:
        yield server


def _measure_server(
    server: Server, plan: Plan, number: int, shapes: Iterable[Shape], compared: Row
) -> Iterator[Row]:
    loaded = server.memory()
    yield {
        "kind": "server",
        "start_seconds": server.start_seconds,
        "resident_mib": loaded and loaded[0],
    } | compared
    for shape in shapes:
        fields = {"model": server.model, "encoding_format": plan.encoding}
        requests = make_requests(shape, f"{number} {shape.name}", server.head(), fields)
        before, spent, began = busy_seconds(server.pid), time.process_time(), time.perf_counter()
        figures = measure(
            server.host,
            server.port,
            shape,
            requests,
            seconds=plan.seconds,
            warm_up=plan.warm_up,
            patience=plan.patience,
            check=check_vectors(DIMENSIONS[plan.model]),
        )
        shares = {}
        if before and (after := busy_seconds(server.pid)):
            took = time.perf_counter() - began
            total, own, stolen = (b - a for a, b in zip(before, after, strict=True))
            others = total - own - (time.process_time() - spent)
            shares = {"others_cpu_share": max(0.0, others / took), "stolen_share": stolen / took}
        memory = server.memory()
        row = {"kind": "shape", "shape": shape.name, "peak_mib": memory and memory[1]}
        yield row | shares | figures


def _compare(server: Server, plan: Plan, reference: Reference, precision: Precision) -> Row:
    """How near the server's vectors are to the recorded ones, each text alone and all together."""
    texts, least = reference.texts, LEAST_COSINES[precision]
    batches = [[text] for text in texts]
    batches += [texts[i : i + SLOW_BATCH] for i in range(0, len(texts), SLOW_BATCH)]
    found: list[np.ndarray] = []
    began = time.perf_counter()
    for batch in batches:
        try:
            status, body = server.post({"input": batch, "encoding_format": plan.encoding})
            if status != 200:
                raise WrongAnswer(f"{status}: {body[:200].decode(errors='replace')}")
            found.append(read_vectors(body, len(batch), DIMENSIONS[plan.model])[0])
        except (WrongAnswer, OSError, http.client.HTTPException) as error:
            why = str(error)[:200]
            return {"vectors": "failed", "why": why, "least_cosine": None, "mean_cosine": None}
    vectors, expected = np.concatenate(found), np.concatenate([reference.vectors] * 2)
    near = cosines(vectors, expected)
    bad = problems(vectors)
    return {
        "vectors": "wrong" if near.min() < least else (bad[0] if bad else "right"),
        "least_cosine": float(near.min()),
        "mean_cosine": float(near.mean()),
        "most_difference": float(np.abs(vectors - expected).max()),
        "texts_off": int((near[: len(texts)] < least).sum()),
        "texts_off_in_company": int((near[len(texts) :] < least).sum()),
        "texts_compared": len(texts),
        "compare_seconds": time.perf_counter() - began,
    }
