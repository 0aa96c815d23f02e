"""Ten minutes of counters: what a mark holds, and how many there are."""

import asyncio
import json
from contextlib import suppress
from typing import Any

from gateway.admin.status.history import INTERVAL_S, KEPT_S, History
from gateway.errors import ErrorCode
from gateway.observe.metrics import NO_SERVICE, Metrics
from gateway.observe.service_metrics import ServiceGauges, ServiceMetrics


def service_in(metrics: Metrics, name: str) -> ServiceMetrics:
    service = ServiceMetrics(name, ["POST"], [])
    metrics.add_service(service, lambda: ServiceGauges(0, 0))
    return service


def marks_of(history: History) -> Any:
    document = json.loads(history.text())
    assert document["interval_s"] == INTERVAL_S
    return document["marks"]


def test_a_mark_holds_counters_of_services_with_traffic() -> None:
    """What has been put aside is counted first; a service without requests takes no room."""
    metrics = Metrics()
    busy = service_in(metrics, "busy")
    service_in(metrics, "idle")
    service_in(metrics, NO_SERVICE).duration.observe(0.001)
    metrics.before_scrape = lambda: busy.duration.observe(0.007)
    busy.overhead.observe(0.001)
    busy.count_error(ErrorCode.CONNECTION_REFUSED.layer, ErrorCode.CONNECTION_REFUSED.label)
    busy.bodies.chunks = 3
    history = History(metrics)
    history.mark(12.3456)
    history.mark(22.3)

    first, second = marks_of(history)
    assert (first["at"], second["at"]) == (12.346, 22.3)
    assert list(first["services"]) == ["busy", ""]
    counters = first["services"]["busy"]
    assert counters.pop("bounds") == list(busy.duration.bounds)
    assert counters.pop("counts")[:3] == [0, 1, 0]
    assert len(counters.pop("firstChunk")) == len(busy.duration.counts)
    assert counters == {"sum": 0.007, "own": 0.001, "errors": 1, "chunks": 3}
    assert second["services"]["busy"]["counts"][:3] == [0, 2, 0]


def test_ten_minutes_are_kept() -> None:
    """However long it runs; the oldest mark goes first."""
    history = History(Metrics())
    for at in range(100):
        history.mark(float(at))

    kept = int(KEPT_S / INTERVAL_S)
    assert [mark["at"] for mark in marks_of(history)] == list(range(100 - kept, 100))


def test_a_hundred_busy_services_take_three_megabytes_at_most() -> None:
    """Counters of ten digits."""
    metrics = Metrics()
    for number in range(100):
        service = service_in(metrics, f"service-{number}")
        service.duration.counts = [10**9] * len(service.duration.counts)
        service.first_byte.counts = [10**9] * len(service.first_byte.counts)
    history = History(metrics)
    history.mark(1e6)

    assert len(history.text()) * KEPT_S / INTERVAL_S < 4e6


async def test_the_first_mark_is_made_at_once() -> None:
    """So that there is something to compare with."""
    history = History(Metrics())
    keeping = asyncio.create_task(history.keep(lambda: 0.0))
    await asyncio.sleep(0)
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping

    assert [mark["at"] for mark in marks_of(history)] == [0.0]
