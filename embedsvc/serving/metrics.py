"""What was counted and measured, as Prometheus reads it.

Requests are counted here. Engines, the device and the machine are read when somebody asks, from
plain attributes, so that counting costs a request next to nothing.
"""

import platform
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol, get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from embedsvc import __version__
from embedsvc.bounds import METRIC_MODELS
from embedsvc.serving.engine import Engine
from embedsvc.serving.instance import State
from embedsvc.serving.registry import Registry
from embedsvc.telemetry.histogram import Histogram
from embedsvc.telemetry.record import Record

OTHERS = "others"
"""The label that models share which come after the first `METRIC_MODELS`."""
Samples = Iterable[tuple[list[str], float]]
"""The values of a family of metrics: the labels of each and its number."""


@dataclass(frozen=True, slots=True)
class Counter:
    """A number of each engine that only grows. Prometheus adds `_total` to its name."""

    name: str
    meaning: str
    read: Callable[[Engine], float]


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number of each engine that goes up and down."""

    name: str
    meaning: str
    read: Callable[[Engine], float]


@dataclass(frozen=True, slots=True)
class Measured:
    """A histogram of each engine."""

    name: str
    meaning: str
    read: Callable[[Engine], Histogram]


def _padding_ratio(engine: Engine) -> float:
    tokens, padding = engine.batcher.tokens, engine.batcher.padding
    return padding / (tokens + padding) if padding else 0.0


def _disk_dropped(engine: Engine) -> float:
    return engine.cache.disk.dropped if engine.cache.disk else 0


def _disk_failures(engine: Engine) -> float:
    return engine.cache.disk.file.errors if engine.cache.disk else 0


ENGINE_NUMBERS: tuple[Counter | Gauge, ...] = (
    Counter("batches", "Forward passes.", lambda e: e.batcher.batches),
    Counter("texts", "Texts computed.", lambda e: e.batcher.texts),
    Counter("tokens", "Tokens of the texts computed.", lambda e: e.batcher.tokens),
    Gauge("waiting_tokens", "Tokens in the waiting line.", lambda e: e.batcher.waiting_tokens),
    Gauge("padding_ratio", "Share of the tokens computed that was padding.", _padding_ratio),
    Counter("truncated", "Inputs of which something was left out.", lambda e: e.truncated),
    Counter("split", "Inputs that were embedded in parts.", lambda e: e.split),
    Counter("cache_hits", "Texts answered from memory.", lambda e: e.cache.hits),
    Counter("cache_disk_hits", "Texts answered from disk.", lambda e: e.cache.disk_hits),
    Counter("cache_joined", "Texts that shared another's computation.", lambda e: e.cache.joined),
    Counter("cache_misses", "Texts that had to be computed.", lambda e: e.cache.misses),
    Counter(
        "cache_evictions",
        "Vectors forgotten for want of room.",
        lambda e: e.cache.memory.evictions,
    ),
    Counter("cache_disk_dropped", "Too many to be written.", _disk_dropped),
    Counter("cache_disk_failures", "Reads and writes that the disk refused.", _disk_failures),
    Gauge("cache_bytes", "Memory of the vectors remembered.", lambda e: e.cache.memory.bytes),
    Gauge("cache_entries", "Vectors remembered.", lambda e: e.cache.memory.entries),
)
ENGINE_HISTOGRAMS = (
    Measured(
        "tokenize_seconds", "From a request's inputs to its tokens.", lambda e: e.tokenize_seconds
    ),
    Measured(
        "queue_seconds", "Requests waiting for the device.", lambda e: e.batcher.queue_seconds
    ),
    Measured(
        "forward_seconds",
        "Batches, from the line to their vectors.",
        lambda e: e.batcher.forward_seconds,
    ),
    Measured("batch_texts", "Texts of a batch.", lambda e: e.batcher.batch_texts),
    Measured(
        "batch_tokens", "Tokens of a batch, without padding.", lambda e: e.batcher.batch_tokens
    ),
)


class Source(Protocol):
    """Gives further metrics, read whenever somebody asks for all."""

    def __call__(self) -> Iterable[Metric]: ...


class Metrics(Collector):
    """All metrics of one server."""

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, int], int] = defaultdict(int)
        """By route and status. The route is "" where nothing answers at a path, and the status is
        499 where the client left before the answer."""
        self.refusals: defaultdict[str, int] = defaultdict(int)
        """By the kind of error; see `RequestError.reason`."""
        self.request_seconds: defaultdict[str, Histogram] = defaultdict(Histogram)
        """From a request's head to its whole answer, by model."""
        self.inputs: defaultdict[tuple[str, str], int] = defaultdict(int)
        """Texts of requests, and documents of those that ask for scores, by model and task."""
        self.registry: Registry | None = None
        """The models, whose metrics are read once the registry is there."""
        self._sources: list[Source] = []
        self._collectors = CollectorRegistry(auto_describe=False)
        self._collectors.register(self)
        ProcessCollector(registry=self._collectors)

    def count(self, record: Record) -> None:
        """Count a request that is over."""
        self.requests[record.route, record.status] += 1
        if record.model:
            known = record.model in self.request_seconds
            room = len(self.request_seconds) < METRIC_MODELS
            model = record.model if known or room else OTHERS
            self.request_seconds[model].observe(record.total)
            self.inputs[model, record.task or ""] += record.texts
        if record.refusal:
            self.refusals[record.refusal] += 1

    def read_also(self, source: Source) -> None:
        """Have a source of further metrics read, whenever somebody asks."""
        self._sources.append(source)

    def write(self) -> bytes:
        """The text of `GET /metrics`."""
        return generate_latest(self._collectors)

    def collect(self) -> Iterator[Metric]:
        """All metrics, in order; prometheus-client calls this."""
        routes = sorted(self.requests.items())
        yield counter(
            "requests",
            "Requests, by the route that answered and the answer's status.",
            ["route", "status"],
            [([route, str(status)], count) for (route, status), count in routes],
        )
        yield counter(
            "refusals",
            "Requests refused, by the sort of error.",
            ["reason"],
            [([reason], count) for reason, count in sorted(self.refusals.items())],
        )
        yield _histogram(
            "request_seconds",
            "From a request's head to its whole answer.",
            sorted(self.request_seconds.items()),
        )
        yield counter(
            "inputs",
            "Texts of requests answered; of those for scores, the documents.",
            ["model", "task"],
            [([model, task], count) for (model, task), count in sorted(self.inputs.items())],
        )
        yield from _build()
        for source in self._sources:
            yield from source()
        if self.registry is not None:
            yield from _engines(self.registry)
            yield from _instances(self.registry)
            yield from _device(self.registry)


def counter(name: str, meaning: str, labels: list[str], samples: Samples) -> Metric:
    """A family of counters by labels. Prometheus adds `_total` to its name."""
    return _family(CounterMetricFamily(f"embedsvc_{name}", meaning, None, labels), samples)


def gauge(name: str, meaning: str, labels: list[str], samples: Samples) -> Metric:
    """A family of numbers by labels that go up and down."""
    return _family(GaugeMetricFamily(f"embedsvc_{name}", meaning, None, labels), samples)


def _family(family: CounterMetricFamily | GaugeMetricFamily, samples: Samples) -> Metric:
    for labels, value in samples:
        family.add_metric(labels, value)  # pyright: ignore[reportUnknownMemberType]
    return family


def _histogram(name: str, meaning: str, models: Iterable[tuple[str, Histogram]]) -> Metric:
    family = HistogramMetricFamily(f"embedsvc_{name}", meaning, labels=["model"])
    for model, histogram in models:
        bounds = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
        family.add_metric([model], buckets, histogram.sum)  # pyright: ignore[reportUnknownMemberType]
    return family


def _engines(registry: Registry) -> Iterator[Metric]:
    engines = sorted(registry.engines().items())
    if not engines:
        return
    for number in ENGINE_NUMBERS:
        family = counter if isinstance(number, Counter) else gauge
        samples = [([model], number.read(engine)) for model, engine in engines]
        yield family(number.name, number.meaning, ["model"], samples)
    for measured in ENGINE_HISTOGRAMS:
        models = [(model, measured.read(engine)) for model, engine in engines]
        yield _histogram(measured.name, measured.meaning, models)


def _instances(registry: Registry) -> Iterator[Metric]:
    states: defaultdict[str, set[State]] = defaultdict(set)
    for instance in registry.instances():
        states[instance.card.id].add(instance.state)
    yield gauge(
        "instance_state",
        "1 for the state that a model's instance is in.",
        ["model", "state"],
        [
            ([model, state], float(state in in_states))
            for model, in_states in sorted(states.items())
            for state in get_args(State)
        ],
    )
    memory = registry.memory
    yield gauge("weights_bytes", "Memory of the weights of models.", [], [([], memory.used)])
    yield gauge("weights_limit_bytes", "What they may take.", [], [([], memory.limit)])


def _device(registry: Registry) -> Iterator[Metric]:
    ops = registry.device.ops
    use = ops.memory_use()._asdict()
    yield gauge(
        "device_memory_bytes",
        "Memory in use, kept for reuse, and the most that was in use.",
        ["kind"],
        [([kind], value) for kind, value in use.items()],
    )
    yield _info("device", "What computes.", backend=ops.name, device=ops.device, dtype=ops.dtype)


def _build() -> Iterator[Metric]:
    yield _info("build", "What runs.", version=__version__, python=platform.python_version())


def _info(name: str, meaning: str, **labels: str) -> Metric:
    return InfoMetricFamily(f"embedsvc_{name}", meaning, labels)
