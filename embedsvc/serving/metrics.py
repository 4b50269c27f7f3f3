"""What was counted and measured, as Prometheus reads it.

Requests are counted here; engines, the device and the machine are read when somebody asks, from
plain attributes: counting costs a request next to nothing.
"""

import platform
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import get_args

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
from embedsvc.serving.instance import State
from embedsvc.serving.registry import Registry
from embedsvc.telemetry.histogram import Histogram
from embedsvc.telemetry.record import Record

OTHERS = "others"
"""The label of models that have none of their own, for there are so many."""
Samples = Iterable[tuple[list[str], float]]


class Metrics(Collector):
    """All figures of one server."""

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, int], int] = defaultdict(int)
        """By route and status; the route of paths that nothing answers is "", and the status of
        requests whose client left first 499."""
        self.refusals: defaultdict[str, int] = defaultdict(int)
        """By the sort of error."""
        self.request_seconds: defaultdict[str, Histogram] = defaultdict(Histogram)
        """From a request's head to its whole answer, by model; those beyond a bound together."""
        self.registry: Registry | None = None
        """Read too, once it is there."""
        self._sources: list[Callable[[], Iterable[Metric]]] = []
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
        if record.refusal:
            self.refusals[record.refusal] += 1

    def read_also(self, source: Callable[[], Iterable[Metric]]) -> None:
        """Have a source of further figures read, whenever somebody asks."""
        self._sources.append(source)

    def write(self) -> bytes:
        """The text of `GET /metrics`."""
        return generate_latest(self._collectors)

    def collect(self) -> Iterator[Metric]:
        """All of them; prometheus-client calls this."""
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
        yield from _build()
        for source in self._sources:
            yield from source()
        if self.registry is not None:
            yield from _engines(self.registry)
            yield from _instances(self.registry)
            yield from _device(self.registry)


def counter(name: str, meaning: str, labels: list[str], samples: Samples) -> Metric:
    """A family of counters, by labels; its name gets `_total`."""
    return _family(CounterMetricFamily(f"embedsvc_{name}", meaning, None, labels), samples)


def gauge(name: str, meaning: str, labels: list[str], samples: Samples) -> Metric:
    """A family of values that go up and down."""
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
    counts: dict[tuple[str, str], list[tuple[list[str], float]]] = {}
    histograms: dict[tuple[str, str], list[tuple[str, Histogram]]] = {}
    for model, engine in engines:
        for name, meaning, value in engine.counts():
            counts.setdefault((name, meaning), []).append(([model], value))
        for name, meaning, histogram in engine.histograms():
            histograms.setdefault((name, meaning), []).append((model, histogram))
    for (name, meaning), samples in counts.items():
        kind = counter if name.endswith("_total") else gauge
        yield kind(name.removesuffix("_total"), meaning, ["model"], samples)
    for (name, meaning), models in histograms.items():
        yield _histogram(name, meaning, models)


def _instances(registry: Registry) -> Iterator[Metric]:
    states: defaultdict[str, set[State]] = defaultdict(set)
    for each in registry.instances():
        states[each.card.id].add(each.state)
    yield gauge(
        "instance_state",
        "1 for the state that a model's instance is in.",
        ["model", "state"],
        [
            ([model, state], float(state in its))
            for model, its in sorted(states.items())
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
