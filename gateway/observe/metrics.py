"""All metrics of one gateway. Counters are plain integers; series are made at a scrape.

prometheus-client's own children cost 1.1 to 1.7 µs a call, eight calls a request (2026-11, Python
3.11, 2 cores); an addition costs 0.1. It still owns the exposition formats.
"""

import platform
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Final

import aiohttp
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)

from gateway import __version__, build
from gateway.observe.exposition import merged, returned_by, write_page
from gateway.observe.families import counter, histogram
from gateway.observe.histogram import Histogram
from gateway.observe.identity_metrics import IdentityGauges, IdentityMetrics, identity_families
from gateway.observe.memory import Waiting, memory_families, nothing_waits
from gateway.observe.service_metrics import ServiceGauges, ServiceMetrics, service_families

LOOP_LAG_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

NO_SERVICE: Final = "other"
"""Label of requests that belong to no service."""

ServiceSeries = tuple[ServiceMetrics, Callable[[], ServiceGauges]]
IdentitySeries = tuple[IdentityMetrics, Callable[[], IdentityGauges]]


class Metrics:
    """All series of one gateway.

    Invariant: a name is exported once, whatever reloads do, and its counters never go back while
    it is.
    """

    def __init__(self) -> None:
        self.reload_successful = True
        self.reload_success_at = 0.0
        """Seconds since the epoch."""
        self.before_scrape: Callable[[], None] = lambda: None
        """Called before each scrape, so that requests that have ended are counted."""
        self.client_connections: Mapping[str, int] = {}
        """Connections by the name in the client's certificate; empty: none is asked for."""
        self.fleet: Callable[[], tuple[bool, int]] | None = None
        """Whether the fleet's store works, and how many steps have failed; None: no fleet."""
        self.add_up_waiting: Callable[[], Generator[int, None, Waiting]] = nothing_waits
        """Returns what waits in memory; yields 0 where others may run meanwhile."""
        self.lost_log_lines: Callable[[], int] = lambda: 0
        self.loop_lag = Histogram(LOOP_LAG_BUCKETS_S)
        self._services: dict[str, ServiceSeries] = {}
        self._identities: dict[str, IdentitySeries] = {}
        self._leaving: set[str] = set()
        self._process = ProcessCollector(registry=CollectorRegistry())

    def add_service(self, metrics: ServiceMetrics, gauges: Callable[[], ServiceGauges]) -> None:
        """Export a service; `gauges` is asked at every scrape."""
        self._services[metrics.name] = (metrics, gauges)
        self._leaving.discard(metrics.name)

    def add_identity(self, metrics: IdentityMetrics, gauges: Callable[[], IdentityGauges]) -> None:
        """Export an identity; `gauges` is asked at every scrape."""
        self._identities[metrics.name] = (metrics, gauges)

    def service(self, name: str) -> ServiceMetrics | None:
        """Return what is counted under `name`, also for a service that is leaving."""
        known = self._services.get(name)
        return None if known is None else known[0]

    def identity(self, name: str) -> IdentityMetrics | None:
        """Return what is counted under `name`."""
        known = self._identities.get(name)
        return None if known is None else known[0]

    def remove_service(self, name: str) -> None:
        """Stop exporting a service, after one more scrape when its last request has ended."""
        if name in self._services:
            self._leaving.add(name)

    def remove_identity(self, name: str) -> None:
        """Export an identity no longer."""
        self._identities.pop(name, None)

    def services(self) -> list[tuple[ServiceMetrics, ServiceGauges]]:
        """Return what is counted for each service, and its state, at this moment."""
        self.before_scrape()
        return [(service, gauges()) for service, gauges in self._services.values()]

    def logins(self) -> dict[str, dict[str, int]]:
        """Return by identity how many logins had each result."""
        logins: dict[str, dict[str, int]] = {}
        for identity, _ in self._identities.values():
            by_result = logins.setdefault(identity.name, {})
            for (_, result), count in identity.totals().items():
                by_result[result] = by_result.get(result, 0) + count
        return logins

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return the page and its content type, in the format that an Accept value prefers."""
        return returned_by(self.write_exposition(accept))

    def write_exposition(self, accept: str) -> Generator[int, None, tuple[bytes, str]]:
        """Do what `exposition` does, in pieces; see `write_page`."""
        waiting = yield from self.add_up_waiting()
        return (yield from write_page(self._families(waiting), accept))

    def collect(self) -> Iterator[Metric]:
        """Yield every family of ours."""
        return merged(self._own_families(returned_by(self.add_up_waiting())))

    def _families(self, waiting: Waiting) -> Iterator[Metric]:
        """Yield all families; those of several services or identities have the same name."""
        yield from self._own_families(waiting)
        yield from self._process.collect()

    def _own_families(self, waiting: Waiting) -> Iterator[Metric]:
        self.before_scrape()
        leaving = [name for name in self._leaving if _is_idle(self._services[name][0])]
        for service, gauges in list(self._services.values()):
            yield from service_families(service, gauges())
        for identity, gauges_of in list(self._identities.values()):
            yield from identity_families(identity, gauges_of())
        yield GaugeMetricFamily(
            "gateway_config_last_reload_successful",
            "1 if the last reload succeeded; 0 if the configuration before it is still used.",
            float(self.reload_successful),
        )
        yield GaugeMetricFamily(
            "gateway_config_last_reload_success_timestamp_seconds",
            "When the configuration in use was loaded.",
            self.reload_success_at,
        )
        running = InfoMetricFamily("gateway_build", "The running build, in its labels.")
        running.add_metric(
            [],
            {
                "version": __version__,
                "python": platform.python_version(),
                "aiohttp": aiohttp.__version__,
                "compiled": "yes" if build.COMPILED else "no",
            },
        )
        yield running
        yield from memory_families(waiting)
        yield from self._process_families()
        for name in leaving:
            if (
                name in self._leaving
            ):  # unless a reload has added it again, or another scrape has removed it
                self._leaving.discard(name)
                del self._services[name]

    def _process_families(self) -> Iterator[Metric]:
        if self.client_connections:
            yield counter(
                "gateway_client_connections",
                "Connections accepted, by the name in the client's certificate.",
                ("client",),
                [((name,), count) for name, count in self.client_connections.items()],
            )
        if self.fleet is not None:
            up, errors = self.fleet()
            yield GaugeMetricFamily(
                "gateway_fleet_up",
                "1 while the store works through which replicas share a login (`fleet`).",
                float(up),
            )
            yield CounterMetricFamily(
                "gateway_fleet_errors", "Operations of that store that failed.", errors
            )
        yield CounterMetricFamily(
            "gateway_access_log_lost_lines",
            "Lines of the access log that were dropped or could not be written.",
            self.lost_log_lines(),
        )
        yield histogram(
            "gateway_event_loop_lag_seconds",
            "How late the event loop runs what is due; measured four times a second.",
            (),
            (),
            self.loop_lag,
        )


def _is_idle(service: ServiceMetrics) -> bool:
    return service.started == service.finished
