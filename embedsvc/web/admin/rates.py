"""What a server does just now: the difference of two readings of what it counts."""

import time
from typing import NamedTuple

import msgspec

from embedsvc.serving.metrics import ENGINE_NUMBERS, Metrics
from embedsvc.telemetry.histogram import SECONDS, quantile

ANSWERED = ("cache_hits", "cache_disk_hits", "cache_joined")
"""Texts that needed no computing of their own."""


class Activity(msgspec.Struct):
    """All models together, between two readings. Null where there was nothing to measure."""

    seconds: float
    requests: float
    """A second, as are `texts`, asked for, and `tokens`, computed."""
    texts: float
    tokens: float
    p50: float | None
    """Seconds of half of the requests, at most."""
    p95: float | None
    p99: float | None
    batch_texts: float | None
    """Texts of a forward pass."""
    waiting_tokens: int
    cache_hits: float | None
    """Of the texts asked for, the share that was not computed for it."""


class Reading(NamedTuple):
    """The counters at one time, by model, since those of a model end when it is unloaded."""

    at: float
    requests: dict[str, list[int]]
    """Requests by the buckets of how long they took."""
    counts: dict[str, dict[str, float]]
    waiting_tokens: int


def read(metrics: Metrics) -> Reading:
    """The counters now."""
    engines = metrics.registry.engines() if metrics.registry else {}
    counts = {
        model: {number.name: number.read(engine) for number in ENGINE_NUMBERS}
        for model, engine in engines.items()
    }
    return Reading(
        time.perf_counter(),
        {model: list(seconds.counts) for model, seconds in metrics.request_seconds.items()},
        counts,
        int(sum(each["waiting_tokens"] for each in counts.values())),
    )


def compare(before: Reading, now: Reading) -> Activity:
    """What was done from one reading to the other."""
    seconds = max(now.at - before.at, 1e-9)
    spent = [0] * (len(SECONDS) + 1)
    for model, buckets in now.requests.items():
        earlier = before.requests.get(model, [0] * len(buckets))
        spent = [s + b - e for s, b, e in zip(spent, buckets, earlier, strict=True)]
    done = dict.fromkeys(("batches", "texts", "tokens", "cache_misses", *ANSWERED), 0.0)
    for model, counts in now.counts.items():
        earlier = before.counts.get(model, {})
        if counts["tokens"] < earlier.get("tokens", 0):
            earlier = {}  # it was loaded anew
        for name in done:
            done[name] += counts[name] - earlier.get(name, 0)
    answered = sum(done[name] for name in ANSWERED)
    asked = answered + done["cache_misses"]
    requests = sum(spent)
    p50, p95, p99 = (quantile(SECONDS, spent, q) if requests else None for q in (0.5, 0.95, 0.99))
    return Activity(
        seconds=seconds,
        requests=requests / seconds,
        texts=asked / seconds,
        tokens=done["tokens"] / seconds,
        p50=p50,
        p95=p95,
        p99=p99,
        batch_texts=done["texts"] / done["batches"] if done["batches"] else None,
        waiting_tokens=now.waiting_tokens,
        cache_hits=answered / asked if asked else None,
    )
