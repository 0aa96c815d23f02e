"""The metrics of what waits in memory."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits, in bytes."""

    heads: int
    bodies: int
    answers: int
    kept: int
    """Of bodies that may be sent again."""
    budget: int
    """What may wait."""


def nothing_waits() -> Generator[int, None, Waiting]:
    """Return that nothing waits; yield nothing."""
    yield from ()
    return Waiting(0, 0, 0, 0, 0)


def memory_families(waiting: Waiting) -> Iterator[Metric]:
    """Yield the families of `limits.memory`."""
    yield GaugeMetricFamily(
        "gateway_memory_budget_bytes",
        "Bytes that requests and responses in memory may use together (`limits.memory`).",
        waiting.budget,
    )
    family = GaugeMetricFamily(
        "gateway_memory_waiting_bytes",
        "Bytes in memory: request heads, bodies, responses (answers), bodies kept for a resend.",
        labels=["kind"],
    )
    for kind in ("heads", "bodies", "answers", "kept"):
        family.add_metric([kind], getattr(waiting, kind))
    yield family
