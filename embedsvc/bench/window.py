"""The figures of a window: some seconds of one shape's load on one server."""

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np

from embedsvc.bench.answers import ANY_VECTORS, Check, check_answers
from embedsvc.bench.load import Load, Measurement
from embedsvc.bench.texts import Request, Shape
from embedsvc.system.loop import new_event_loop


def measure(
    host: str,
    port: int,
    shape: Shape,
    requests: Iterator[Request],
    *,
    seconds: float,
    warm_up: float,
    patience: float,
    check: Check = ANY_VECTORS,
) -> dict[str, Any]:
    """Load a server and return the figures of the window. This blocks.

    `patience` is how many seconds longer slow answers are waited for.
    """

    async def run() -> Measurement:
        load = Load(host, port, shape, requests)
        return await load.measure(seconds, warm_up, patience)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return summarise(runner.run(run()), check)


def summarise(measured: Measurement, check: Check) -> dict[str, Any]:
    """The figures of a window, as `embedsvc bench --json` prints them."""
    counts = [request.texts for request in measured.sent]
    tokens = sum(request.tokens for request in measured.sent)
    wrong, counted = check_answers(measured.bodies, counts, check)
    latencies = np.array(measured.latencies or [np.nan]) * 1000
    p50, p90, p95, p99 = (float(np.percentile(latencies, p)) for p in (50, 90, 95, 99))
    return {
        "seconds": measured.seconds,
        "requests_per_second": len(counts) / measured.seconds,
        "texts_per_second": sum(counts) / measured.seconds,
        "tokens_per_second": tokens / measured.seconds,
        "p50_ms": p50,
        "p90_ms": p90,
        "p95_ms": p95,
        "p99_ms": p99,
        "max_ms": float(latencies.max()),
        "requests": len(counts),
        "errors": dict(measured.errors),
        "wrong": dict(wrong),
        "usage_share": counted / tokens if tokens else None,
        "load_cpu_share": measured.cpu_share,
    }
