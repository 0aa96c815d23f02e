"""Ten minutes of counters, for people who open the status page after an incident.

A mark holds the counters of each service at one instant, as the JSON text that is sent later: that
takes less memory than the numbers as objects, and nothing is done while nobody asks.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from gateway.observe.metrics import NO_SERVICE, Metrics
from gateway.observe.service_metrics import ServiceMetrics

INTERVAL_S: Final = 10.0
KEPT_S: Final = 600.0


class History:
    """The latest marks, oldest first.

    Invariant: not more than `KEPT_S / INTERVAL_S`, of 0.3 KB for each service that had a request.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._marks: deque[str] = deque(maxlen=int(KEPT_S / INTERVAL_S))

    def mark(self, at: float) -> None:
        """Keep the counters as they are now; `at` is the gateway's uptime in seconds.

        Requests that belong to no service are found under the empty name.
        """
        services = {
            ("" if counts.name == NO_SERVICE else counts.name): _counters(counts)
            for counts, _ in self._metrics.services()
            if any(counts.duration.counts)
        }
        self._marks.append(json.dumps({"at": round(at, 3), "services": services}))

    def text(self) -> str:
        """Return all marks as JSON."""
        return f'{{"interval_s": {INTERVAL_S:g}, "marks": [{", ".join(self._marks)}]}}'

    async def keep(self, uptime_s: Callable[[], float]) -> None:
        """Make a mark every `INTERVAL_S`.

        Cancellation: the only way out.
        """
        while True:
            self.mark(uptime_s())
            await asyncio.sleep(INTERVAL_S)


def _counters(counts: ServiceMetrics) -> dict[str, Any]:
    """Return what the page works out rates and bounds from; see `document._traffic`."""
    _, by_error, _ = counts.totals()
    return {
        "bounds": list(counts.duration.bounds),
        "counts": list(counts.duration.counts),
        "sum": round(counts.duration.total, 6),
        "own": round(counts.overhead.total, 6),
        "errors": sum(by_error.values()),
        "firstChunk": list(counts.bodies.first_chunk.histogram().counts),
        "chunks": counts.bodies.chunks,
    }
