"""What is counted of limits, queues, breakers and retries, per service."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import Metric

from gateway.errors import Rejection
from gateway.observe.families import counter, gauge, histogram
from gateway.observe.histogram import Histogram

QUEUE_WAIT_BUCKETS_S: Final[Sequence[float]] = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip
BREAKER_STATES: Final = ("closed", "open", "half_open")


class OverloadCounts:
    """The counts of one service that has more requests than it can take."""

    __slots__ = ("arriving", "breaker_transitions", "budget_exhausted", "queue_wait", "rejected")

    def __init__(self) -> None:
        self.arriving = 0
        """Requests at this moment whose body has to arrive before they ask for a place."""
        self.queue_wait = Histogram(QUEUE_WAIT_BUCKETS_S)
        """Of requests that had to wait for a place, whether they got one or not."""
        self.rejected: dict[str, int] = {reason.value: 0 for reason in Rejection}
        self.breaker_transitions: dict[str, int] = dict.fromkeys(BREAKER_STATES, 0)
        self.budget_exhausted = 0
        """Requests that would have been sent again, had the budget allowed it."""


@dataclass(frozen=True, slots=True)
class OverloadGauges:
    """The limits of a service at the moment of a scrape."""

    in_flight: int = 0
    """Requests that hold a place."""
    limit: int | None = None
    """How many requests may; None: for requests that belong to no service there is no limit."""
    queued: int = 0
    breaker: str = "off"
    """`off`, or one of `BREAKER_STATES`."""
    per_s: float | None = None
    """How many requests a second it may be sent; None: as many as there are."""


def overload_families(name: str, counts: OverloadCounts, state: OverloadGauges) -> Iterator[Metric]:
    """Yield the families of one service; only rejections where nothing is limited."""
    of_service = ("service",)
    if state.limit is not None:
        yield gauge(
            "gateway_in_flight_limit",
            "How many requests may be in flight at a time (`max_in_flight`).",
            of_service,
            [((name,), state.limit)],
        )
        yield gauge(
            "gateway_requests_queued",
            "Requests in the queue.",
            of_service,
            [((name,), state.queued)],
        )
        yield gauge(
            "gateway_breaker_open",
            "1 while the breaker refuses requests: the service has failed.",
            of_service,
            [((name,), float(state.breaker in {"open", "half_open"}))],
        )
        yield counter(
            "gateway_breaker_transitions",
            "Changes of the breaker's state, by the new state.",
            ("service", "to"),
            [((name, to), count) for to, count in counts.breaker_transitions.items()],
        )
        yield histogram(
            "gateway_queue_wait_seconds",
            "Time that requests spent in the queue, whether they were forwarded or rejected.",
            of_service,
            (name,),
            counts.queue_wait,
        )
    yield counter(
        "gateway_requests_rejected",
        "Requests that the gateway rejected to protect itself or the service, by reason.",
        ("service", "reason"),
        [((name, reason), count) for reason, count in counts.rejected.items()],
    )
    if state.limit is not None:
        yield counter(
            "gateway_retry_budget_exhausted",
            "Requests that were not sent again because the retry budget was used up.",
            of_service,
            [((name,), counts.budget_exhausted)],
        )
