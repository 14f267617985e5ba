"""Figures in the form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from app.services.figures import Gauges
from app.services.measures import COUNTED, MEASURES
from app.services.tally import Distribution, Sums, read


def exposition(gauges: Gauges, kept: Mapping[str, float]) -> bytes:
    """The answer of `/metrics`: gauges as they are now, counters and histograms from the sums `kept` in Redis."""
    registry = CollectorRegistry()
    registry.register(_Collected(gauges, kept))
    return generate_latest(registry)


class _Collected(Collector):
    def __init__(self, gauges: Gauges, kept: Mapping[str, float]) -> None:
        self._gauges = gauges
        self._counters, self._histograms = read(kept)

    def collect(self) -> Iterator[Metric]:
        for measure in MEASURES:
            if measure.kind == "gauge":
                if measure in self._gauges:
                    yield _gauge(measure.name, measure.means, measure.labels, self._gauges[measure])
            elif measure.kind == "counter":
                yield _counter(measure.name, self._counters.get(measure.name, {}))
            else:
                yield _histogram(measure.name, self._histograms.get(measure.name, {}))


def _gauge(name: str, means: str, labels: tuple[str, ...], values: Sums) -> Metric:
    family = GaugeMetricFamily(name, means, labels=labels)
    for found, value in sorted(values.items()):
        family.add_metric(found, value)
    return family


def _counter(name: str, values: Sums) -> Metric:
    measure = COUNTED[name]
    family = CounterMetricFamily(name.removesuffix("_total"), measure.means, labels=measure.labels)
    # A counter without labels is there from the start, so that its first step is seen.
    for found, value in sorted((values or ({} if measure.labels else {(): 0.0})).items()):
        family.add_metric(found, value)
    return family


def _histogram(name: str, values: Mapping[tuple[str, ...], Distribution]) -> Metric:
    measure = COUNTED[name]
    family = HistogramMetricFamily(name, measure.means, labels=measure.labels)
    for found, (counts, total) in sorted(values.items()):
        below, buckets = 0.0, []
        for bound, count in zip((*measure.buckets, float("inf")), counts, strict=True):
            below += count
            buckets.append(("+Inf" if bound == float("inf") else f"{float(bound)}", below))
        family.add_metric(found, buckets=buckets, sum_value=total)
    return family
