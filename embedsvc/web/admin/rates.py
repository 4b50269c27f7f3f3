"""What a server does just now: the difference between two snapshots of its counters."""

import time
from typing import NamedTuple

import msgspec

from embedsvc.serving.metrics import ENGINE_NUMBERS, Metrics
from embedsvc.telemetry.histogram import SECONDS, quantile

ANSWERED = ("cache_hits", "cache_disk_hits", "cache_joined")
"""The counters of texts that needed no computing of their own."""


class Activity(msgspec.Struct):
    """What all models did between two snapshots. Null where there was nothing to measure."""

    seconds: float
    requests: float
    """Requests per second. `texts` are those asked for per second, `tokens` those computed."""
    texts: float
    tokens: float
    p50: float | None
    """The time in seconds that half of the requests took at most. `p95` and `p99` are of 95 % and
    99 %."""
    p95: float | None
    p99: float | None
    batch_texts: float | None
    """How many texts a forward pass had."""
    waiting_tokens: int
    cache_hits: float | None
    """The share of the texts asked for that came from a cache, or from another request's pass."""


class Snapshot(NamedTuple):
    """The counters at one time. They are by model, since those of a model end when it is
    unloaded."""

    at: float
    requests: dict[str, list[int]]
    """How many requests there were in each bucket of the time that they took."""
    counts: dict[str, dict[str, float]]
    waiting_tokens: int


def snapshot(metrics: Metrics) -> Snapshot:
    """The counters now."""
    engines = metrics.registry.engines() if metrics.registry else {}
    counts = {
        model: {number.name: number.read(engine) for number in ENGINE_NUMBERS}
        for model, engine in engines.items()
    }
    return Snapshot(
        time.perf_counter(),
        {model: list(seconds.counts) for model, seconds in metrics.request_seconds.items()},
        counts,
        int(sum(each["waiting_tokens"] for each in counts.values())),
    )


def compare(before: Snapshot, now: Snapshot) -> Activity:
    """What was done from one snapshot to the other."""
    seconds = max(now.at - before.at, 1e-9)
    spent = [0] * (len(SECONDS) + 1)
    for model, buckets in now.requests.items():
        earlier = before.requests.get(model, [0] * len(buckets))
        spent = [s + b - e for s, b, e in zip(spent, buckets, earlier, strict=True)]
    done = dict.fromkeys(("batches", "texts", "tokens", "cache_misses", *ANSWERED), 0.0)
    for model, counts in now.counts.items():
        earlier = before.counts.get(model, {})
        if counts["tokens"] < earlier.get("tokens", 0):
            earlier = {}  # the model was loaded again, and counts from 0
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
