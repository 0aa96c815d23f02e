"""What Prometheus is told. Counting is plain integers; series are made when somebody scrapes.

prometheus-client's own children cost 1.1 to 1.7 µs a call, eight calls a request (2026-11, Python
3.11, 2 cores); an addition costs 0.1. It still owns the exposition formats.
"""

import platform
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from gateway import __version__, build
from gateway.errors import ErrorCode, Layer, Rejection
from gateway.observe.exposition import merged, write_page
from gateway.observe.histogram import Histogram
from gateway.observe.memory import Waiting, memory_families
from gateway.observe.overload import OverloadCounts, OverloadGauges, overload_families
from gateway.observe.streams import BodyCounts, body_families

REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 40, 60)
OVERHEAD_BUCKETS_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25)
REFRESH_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

LOOP_LAG_BUCKETS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

NO_SERVICE: Final = "other"
"""Label of requests that belong to no service."""

UPSTREAM_ERRORS: Final = (
    "unauthorized",
    "forbidden",
    "not_found",
    "throttled",
    "client_error",
    "server_error",
)
"""Values of label `error` for answers of the service that pass through."""

KEY_REFUSED: Final = "key_refused"
"""Value of label `error`, with layer `identity`, for a 401 to a key that cannot be replaced: it is
unknown, has expired or is not bound to the service."""

_UPSTREAM_LAYERS: Final = (Layer.APIG, Layer.MODELARTS, Layer.MODEL)
_OUR_STATUSES: Final = {code.status for code in ErrorCode if code.status}
_STATUSES: Final = sorted(
    {101, 200, 201, 202, 204, 206, 304, 401, 402, 409, 422, 429, 494} | _OUR_STATUSES
)
_OTHER_STATUSES: Final = (0, 2, 3, 4, 5)
_CODES: Final = {status: str(status) for status in _STATUSES} | {
    status: f"{status}xx" if status else "0" for status in _OTHER_STATUSES
}
"""Values of label `code`: a closed set, the rest of each class under one name."""


def upstream_error_of(status: int) -> str:
    """Name an error status (400 to 599) of the service: one of `UPSTREAM_ERRORS`."""
    match status:
        case 401:
            return "unauthorized"
        case 403:
            return "forbidden"
        case 404:
            return "not_found"
        case 429:
            return "throttled"
        case _:
            return "client_error" if status < 500 else "server_error"


class ServiceMetrics:
    """What is counted for one service. The hot path writes the attributes; a scrape reads them."""

    def __init__(self, name: str, methods: Iterable[str], retry_reasons: Iterable[str]) -> None:
        self.name = name
        self.started = 0
        self.finished = 0
        self.request_bytes = 0
        self.response_bytes = 0
        self.duration = Histogram(REQUEST_BUCKETS_S)
        self.first_byte = Histogram(REQUEST_BUCKETS_S)
        self.overhead = Histogram(OVERHEAD_BUCKETS_S)
        self.overload = OverloadCounts()
        self.bodies = BodyCounts(self.first_byte)
        self._methods = {*methods, "other"}
        self._requests: dict[tuple[str, int], int] = {}  # only what has been seen: few of hundreds
        self._errors = {(code.layer.value, code.label): 0 for code in ErrorCode} | {
            (layer.value, error): 0 for layer in _UPSTREAM_LAYERS for error in UPSTREAM_ERRORS
        }
        self._errors[Layer.IDENTITY.value, KEY_REFUSED] = 0
        self._retries = dict.fromkeys(retry_reasons, 0)

    @property
    def in_flight(self) -> int:
        """Return how many requests have begun and not ended."""
        return self.started - self.finished

    @property
    def placed(self) -> int:
        """Return how many requests hold a place of the service, or ask for one."""
        return self.started - self.finished - self.overload.arriving

    def admit_methods(self, methods: Iterable[str]) -> None:
        """Give methods that a reload has allowed series of their own; what was counted stays."""
        self._methods.update(methods)

    def count_request(self, method: str, status: int) -> None:
        """Count a finished request; status 0 is a caller that left before it had an answer."""
        try:
            self._requests[method, status] += 1
        except KeyError:
            if method not in self._methods:
                method = "other"
            if status not in _CODES:
                status //= 100  # has a label of its own: 2xx and so on
            self._requests[method, status] = self._requests.get((method, status), 0) + 1

    def count_error(self, layer: Layer, error: str) -> None:
        """Count an error: an `ErrorCode.label`, one of `UPSTREAM_ERRORS`, or `KEY_REFUSED`."""
        self._errors[layer.value, error] += 1

    def count_retry(self, reason: str) -> None:
        """Count a request that was sent again."""
        self._retries[reason] += 1

    def count_rejection(self, reason: Rejection) -> None:
        """Count a request that was not taken."""
        self.overload.rejected[reason.value] += 1

    def totals(
        self,
    ) -> tuple[dict[tuple[str, str], int], dict[tuple[str, str], int], dict[str, int]]:
        """Return requests by (method, code), errors by (layer, error), retries by reason."""
        requests = {
            (method, _CODES[status]): count for (method, status), count in self._requests.items()
        }
        return requests, self._errors, self._retries


class IdentityMetrics:
    """What is counted for one identity."""

    def __init__(self, name: str, triggers: Iterable[str], results: Iterable[str]) -> None:
        self.name = name
        self.duration = Histogram(REFRESH_BUCKETS_S)
        results = list(results)
        self._refreshes = {(trigger, result): 0 for trigger in triggers for result in results}
        self.sink_writes: dict[str, int] = {}
        """Writes of sinks by result; empty for an identity without sinks."""

    def refreshed(self, trigger: str, result: str, duration_s: float) -> None:
        """Count one attempt to get a token."""
        self._refreshes[trigger, result] += 1
        self.duration.observe(duration_s)

    def expect_sinks(self, results: Iterable[str]) -> None:
        """Export writes of sinks from now on, even before the first one."""
        for result in results:
            self.sink_writes.setdefault(result, 0)

    def sink_written(self, result: str) -> None:
        """Count one write of a sink."""
        self.sink_writes[result] += 1

    def totals(self) -> dict[tuple[str, str], int]:
        """Return attempts by (trigger, result)."""
        return self._refreshes


@dataclass(frozen=True, slots=True)
class IdentityGauges:
    """State of an identity at the moment of a scrape."""

    expiry_timestamp_s: float
    """Seconds since the epoch; 0 without a token."""
    locked: bool
    clock_skew_s: float
    """Our wall clock minus the issuer's; 0 until measured."""


@dataclass(frozen=True, slots=True)
class ServiceGauges:
    """Connections to a service, and its limits, at the moment of a scrape."""

    active: int
    idle: int
    overload: OverloadGauges = field(default_factory=OverloadGauges)


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
        """Called first, so that what has been put aside is counted."""
        self.client_connections: Mapping[str, int] = {}
        """Connections by the name in the client's certificate; empty: none is asked for."""
        self.fleet: Callable[[], tuple[bool, int]] | None = None
        """Whether the fleet's store works, and how many steps have failed; None: no fleet."""
        self.waiting: Callable[[], Waiting] = lambda: Waiting(0, 0, 0, 0, 0)
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
        """Export a service once more after its last request has ended, and then no longer."""
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
        writing = self.write_exposition(accept)
        while True:
            try:
                next(writing)
            except StopIteration as end:
                page: tuple[bytes, str] = end.value
                return page

    def write_exposition(self, accept: str) -> Generator[int, None, tuple[bytes, str]]:
        """Do what `exposition` does, a little at a time; see `write_page`."""
        return write_page(self._families(), accept)

    def collect(self) -> Iterator[Metric]:
        """Yield every family of ours."""
        return merged(self._own_families())

    def _families(self) -> Iterator[Metric]:
        """Yield everything; what belongs to a service or an identity comes one by one."""
        yield from self._own_families()
        yield from self._process.collect()

    def _own_families(self) -> Iterator[Metric]:
        self.before_scrape()
        leaving = [name for name in self._leaving if _is_idle(self._services[name][0])]
        for service, gauges in list(self._services.values()):
            yield from _service_families(service, gauges())
        for identity, gauges_of in list(self._identities.values()):
            yield from _identity_families(identity, gauges_of())
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
        yield from memory_families(self.waiting())
        yield from self._process_families()
        for name in leaving:
            if name in self._leaving:  # else it has come back meanwhile, or gone
                self._leaving.discard(name)
                del self._services[name]

    def _process_families(self) -> Iterator[Metric]:
        if self.client_connections:
            clients = CounterMetricFamily(
                "gateway_client_connections",
                "Connections accepted, by the name in the client's certificate.",
                labels=["client"],
            )
            for name, count in self.client_connections.items():
                clients.add_metric([name], count)
            yield clients
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
        lag = HistogramMetricFamily(
            "gateway_event_loop_lag_seconds",
            "How late the event loop runs what is due; measured four times a second.",
        )
        lag.add_metric([], self.loop_lag.buckets(), self.loop_lag.total)
        yield lag


def _service_families(service: ServiceMetrics, gauges: ServiceGauges) -> Iterator[Metric]:
    """Yield the families of one service."""
    name = service.name
    by_code, by_error, by_reason = service.totals()
    requests = CounterMetricFamily(
        "gateway_requests",
        "Requests that have ended, by the status that the caller got.",
        labels=["service", "method", "code"],
    )
    for (method, code), count in by_code.items():
        requests.add_metric([name, method, code], count)
    yield requests
    for durations, histogram in (
        (
            HistogramMetricFamily(
                "gateway_request_duration_seconds",
                "Time from the request's head to the last byte of its response.",
                labels=["service"],
            ),
            service.duration,
        ),
        (
            HistogramMetricFamily(
                "gateway_upstream_first_byte_seconds",
                "Time from the request sent to the first byte of the service's response.",
                labels=["service"],
            ),
            service.first_byte,
        ),
        (
            HistogramMetricFamily(
                "gateway_overhead_seconds",
                "The gateway's own share of a request's duration, all waiting excluded.",
                labels=["service"],
            ),
            service.overhead,
        ),
    ):
        durations.add_metric([name], histogram.exposed(), histogram.total)
        yield durations
    in_flight = GaugeMetricFamily(
        "gateway_requests_in_flight", "Requests that have begun and not ended.", labels=["service"]
    )
    in_flight.add_metric([name], service.in_flight)
    yield in_flight
    for transferred, total in (
        (
            CounterMetricFamily(
                "gateway_request_bytes",
                "Bytes of request bodies received from callers.",
                labels=["service"],
            ),
            service.request_bytes,
        ),
        (
            CounterMetricFamily(
                "gateway_response_bytes",
                "Bytes of response bodies sent to callers.",
                labels=["service"],
            ),
            service.response_bytes,
        ),
    ):
        transferred.add_metric([name], total)
        yield transferred
    errors = CounterMetricFamily(
        "gateway_errors",
        "Errors of the gateway and of services, by the layer at fault.",
        labels=["service", "layer", "error"],
    )
    for (layer, error), count in by_error.items():
        errors.add_metric([name, layer, error], count)
    yield errors
    retries = CounterMetricFamily(
        "gateway_upstream_retries",
        "Requests that were sent again, by reason.",
        labels=["service", "reason"],
    )
    for reason, count in by_reason.items():
        retries.add_metric([name, reason], count)
    yield retries
    connections = GaugeMetricFamily(
        "gateway_upstream_connections",
        "Open connections to the service: with a request (active) or kept for the next (idle).",
        labels=["service", "state"],
    )
    connections.add_metric([name, "active"], gauges.active)
    connections.add_metric([name, "idle"], gauges.idle)
    yield connections
    yield from overload_families([(name, service.overload, gauges.overload)])
    yield from body_families([(name, service.bodies)])


def _identity_families(identity: IdentityMetrics, now: IdentityGauges) -> Iterator[Metric]:
    """Yield the families of one identity."""
    name = identity.name
    for gauge, value in (
        (
            GaugeMetricFamily(
                "gateway_token_expiry_timestamp_seconds",
                "When the token in use expires; 0 without a token.",
                labels=["identity"],
            ),
            now.expiry_timestamp_s,
        ),
        (
            GaugeMetricFamily(
                "gateway_identity_locked",
                "1 while no login is tried, because IAM refused the last one.",
                labels=["identity"],
            ),
            float(now.locked),
        ),
        (
            GaugeMetricFamily(
                "gateway_clock_skew_seconds",
                "This machine's clock minus the token issuer's, as last measured.",
                labels=["identity"],
            ),
            now.clock_skew_s,
        ),
    ):
        gauge.add_metric([name], value)
        yield gauge
    refreshes = CounterMetricFamily(
        "gateway_token_refreshes",
        "Attempts to get a token, by what caused them and how they ended.",
        labels=["identity", "trigger", "result"],
    )
    for (trigger, result), count in identity.totals().items():
        refreshes.add_metric([name, trigger, result], count)
    yield refreshes
    duration = HistogramMetricFamily(
        "gateway_token_refresh_duration_seconds",
        "How long an attempt to get a token took.",
        labels=["identity"],
    )
    duration.add_metric([name], identity.duration.buckets(), identity.duration.total)
    yield duration
    sinks = CounterMetricFamily(
        "gateway_sink_writes",
        "Writes of the files from which other programs read the token (`sinks`).",
        labels=["identity", "result"],
    )
    for result, count in identity.sink_writes.items():
        sinks.add_metric([name, result], count)
    yield sinks


def _is_idle(service: ServiceMetrics) -> bool:
    return service.started == service.finished
