"""What is counted for one service, and the families that a scrape makes of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import Metric

from gateway.errors import ErrorCode, Layer, Rejection
from gateway.observe.families import counter, gauge, histogram
from gateway.observe.histogram import Histogram
from gateway.observe.overload import OverloadCounts, OverloadGauges, overload_families
from gateway.observe.streams import BodyCounts, body_families

REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 40, 60)
OVERHEAD_BUCKETS_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25)

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
    """Return the name of a service's error status (400 to 599): one of `UPSTREAM_ERRORS`."""
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
        # By method and status, of which few of hundreds occur; a tuple as a key costs thrice that.
        self._requests: dict[str, dict[int, int]] = {}
        self._errors = {(code.layer.value, code.label): 0 for code in ErrorCode} | {
            (layer.value, error): 0 for layer in _UPSTREAM_LAYERS for error in UPSTREAM_ERRORS
        }
        self._errors[Layer.IDENTITY.value, KEY_REFUSED] = 0
        self._retries = dict.fromkeys(retry_reasons, 0)

    @property
    def in_flight(self) -> int:
        """Return how many requests have begun and not ended."""
        return self.started - self.finished

    def placed(self) -> int:
        """Return how many requests hold a place of the service, or ask for one."""
        return self.started - self.finished - self.overload.arriving

    def admit_methods(self, methods: Iterable[str]) -> None:
        """Give methods that a reload has allowed series of their own; what was counted stays."""
        self._methods.update(methods)

    def count_request(self, method: str, status: int) -> None:
        """Count a finished request; status 0 is a caller that left before it had an answer."""
        counts = self._requests.get(method)
        if counts is None:
            if method not in self._methods:
                method = "other"
            counts = self._requests.setdefault(method, {})
        if status not in _CODES:
            status //= 100  # has a label of its own: 2xx and so on
        counts[status] = counts.get(status, 0) + 1

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
            (method, _CODES[status]): count
            for method, counts in self._requests.items()
            for status, count in counts.items()
        }
        return requests, self._errors, self._retries


@dataclass(frozen=True, slots=True)
class ServiceGauges:
    """Connections to a service, and its limits, at the moment of a scrape."""

    active: int
    idle: int
    overload: OverloadGauges = field(default_factory=OverloadGauges)


def service_families(service: ServiceMetrics, gauges: ServiceGauges) -> Iterator[Metric]:
    """Yield the families of one service."""
    yield from _traffic_families(service)
    yield from _trouble_families(service)
    yield gauge(
        "gateway_upstream_connections",
        "Open connections to the service: with a request (active) or kept for the next (idle).",
        ("service", "state"),
        [((service.name, "active"), gauges.active), ((service.name, "idle"), gauges.idle)],
    )
    yield from overload_families(service.name, service.overload, gauges.overload)
    yield from body_families(service.name, service.bodies)


def _traffic_families(service: ServiceMetrics) -> Iterator[Metric]:
    """Yield requests, their times and their bytes."""
    name = service.name
    of_service = ("service",)
    by_code, _, _ = service.totals()
    yield counter(
        "gateway_requests",
        "Requests that have ended, by the status that the caller got.",
        ("service", "method", "code"),
        [((name, method, code), count) for (method, code), count in by_code.items()],
    )
    yield histogram(
        "gateway_request_duration_seconds",
        "Time from the request's head to the last byte of its response.",
        of_service,
        (name,),
        service.duration,
    )
    yield histogram(
        "gateway_upstream_first_byte_seconds",
        "Time from the request sent to the first byte of the service's response.",
        of_service,
        (name,),
        service.first_byte,
    )
    yield histogram(
        "gateway_overhead_seconds",
        "The gateway's own share of a request's duration, all waiting excluded.",
        of_service,
        (name,),
        service.overhead,
    )
    yield gauge(
        "gateway_requests_in_flight",
        "Requests that have begun and not ended.",
        of_service,
        [((name,), service.in_flight)],
    )
    yield counter(
        "gateway_request_bytes",
        "Bytes of request bodies received from callers.",
        of_service,
        [((name,), service.request_bytes)],
    )
    yield counter(
        "gateway_response_bytes",
        "Bytes of response bodies sent to callers.",
        of_service,
        [((name,), service.response_bytes)],
    )


def _trouble_families(service: ServiceMetrics) -> Iterator[Metric]:
    """Yield errors, and requests that were sent again."""
    name = service.name
    _, by_error, by_reason = service.totals()
    yield counter(
        "gateway_errors",
        "Errors of the gateway and of services, by the layer at fault.",
        ("service", "layer", "error"),
        [((name, layer, error), count) for (layer, error), count in by_error.items()],
    )
    yield counter(
        "gateway_upstream_retries",
        "Requests that were sent again, by reason.",
        ("service", "reason"),
        [((name, reason), count) for reason, count in by_reason.items()],
    )
