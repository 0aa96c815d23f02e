"""Families of samples, as prometheus-client exposes them, made when somebody scrapes."""

from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from gateway.observe.histogram import Histogram

Samples = Iterable[tuple[Sequence[str], float]]
"""Values of the labels, and the sample's own."""


def counter(
    name: str, meaning: str, labels: Sequence[str], samples: Samples
) -> CounterMetricFamily:
    """Return the family of a counter; `name` is without its `_total`."""
    family = CounterMetricFamily(name, meaning, labels=labels)
    for values, count in samples:
        family.add_metric(values, count)
    return family


def gauge(name: str, meaning: str, labels: Sequence[str], samples: Samples) -> GaugeMetricFamily:
    """Return the family of a gauge."""
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def histogram(
    name: str, meaning: str, labels: Sequence[str], values: Sequence[str], observed: Histogram
) -> HistogramMetricFamily:
    """Return the family of one histogram, with the exemplars it has."""
    family = HistogramMetricFamily(name, meaning, labels=labels)
    family.add_metric(values, observed.exposed(), observed.total)
    return family
