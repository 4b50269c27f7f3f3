"""What the engines have counted, as Prometheus reads it.

Engines count in plain attributes, which are read when somebody asks: counting costs a request next
to nothing.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from embedsvc.registry import Registry


class Engines(Collector):
    """Reads a registry's engines."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for model, engine in self._registry.engines().items():
            for name, help_text, value in engine.counts():
                kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
                family = families.setdefault(
                    name, kind(f"embedsvc_{name}", help_text, None, ["model"])
                )
                family.add_metric([model], value)  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
        yield from families.values()


def write_metrics(registry: Registry) -> bytes:
    """The text of `GET /metrics`."""
    collectors = CollectorRegistry(auto_describe=False)
    collectors.register(Engines(registry))
    return generate_latest(collectors)
