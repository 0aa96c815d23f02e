"""`python -m tests.programs.bench.scrape`: how long a scrape holds the event loop, at the most.

In CPU time of this thread, so that a busy machine counts less. Target: 5 ms, however many services.
"""

import sys
import time

from gateway.observe.metrics import Metrics
from gateway.observe.overload import OverloadGauges
from gateway.observe.service_metrics import ServiceGauges, ServiceMetrics
from gateway.proxy.replay import Retry

SERVICES = (1, 30, 100)
FORMATS = {"text": "", "OpenMetrics": "application/openmetrics-text; version=1.0.0"}


def _metrics(services: int) -> Metrics:
    metrics = Metrics()
    for number in range(services):
        service = ServiceMetrics(f"service-{number}", ["POST"], list(Retry))
        for status in (200, 401, 429, 500, 503):
            service.count_request("POST", status)
        for at in range(100):
            traceparent = b"00-%032x-00f067aa0ba902b7-01" % (at + 1)
            service.duration.observe(at / 10, traceparent, 1.8e9)
        metrics.add_service(service, lambda: ServiceGauges(1, 2, OverloadGauges(limit=1000)))
    return metrics


def holds_ms(metrics: Metrics, accept: str) -> tuple[list[float], int]:
    """Return how long each piece of a page took, and the page's size in bytes."""
    writing = metrics.write_exposition(accept)
    holds: list[float] = []
    while True:
        begun = time.thread_time()
        try:
            next(writing)
        except StopIteration as end:
            holds.append((time.thread_time() - begun) * 1e3)
            return holds, len(end.value[0])
        holds.append((time.thread_time() - begun) * 1e3)


def main() -> int:
    print("| services | format | page, KiB | pieces | all, ms | longest, ms |")
    print("|---:|---|---:|---:|---:|---:|")
    for services in SERVICES:
        metrics = _metrics(services)
        for name, accept in FORMATS.items():
            best: list[float] = []
            size = 0
            for _ in range(3):  # the first one warms up
                holds, size = holds_ms(metrics, accept)
                best = min(best or holds, holds, key=max)
            print(
                f"| {services} | {name} | {size / 1024:.0f} | {len(best)} | {sum(best):.1f} "
                f"| {max(best):.1f} |"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
