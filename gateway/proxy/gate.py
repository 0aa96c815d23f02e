"""The gate of one service: lets as many requests through as its limits allow.

Decisions are made in `queue`, `limit`, `breaker` and `retry`; here they meet the clock, a timer,
and those who wait.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.errors import (
    DownstreamError,
    ErrorCode,
    GatewayError,
    Rejection,
    UnavailableError,
)
from gateway.observe.overload import OverloadCounts, OverloadGauges
from gateway.proxy.breaker import CLOSED, OPEN, REFUSED, Breaker
from gateway.proxy.downstream import Downstream
from gateway.proxy.limit import Limit
from gateway.proxy.outcome import (
    DOWN,
    GOOD,
    PROTECTED,
    THROTTLED,
    TIMEOUT,
    UNKNOWN,
    Outcome,
)
from gateway.proxy.queue import HELD, NEW, QUEUED, Places, Ticket, retry_after_s
from gateway.proxy.replay import Retry
from gateway.proxy.retry import RetryBudget, pause_before

BREAKER_OPEN: Final = Rejection.BREAKER_OPEN
_LOSSES: Final = frozenset({THROTTLED, PROTECTED, TIMEOUT})
"""Too many requests for the service: an adaptive limit goes down."""
_FAILURES: Final = frozenset({DOWN, PROTECTED, TIMEOUT})
"""The service is not there: so many in a row open the breaker."""
_log: Final = logging.getLogger("gateway.proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a service can take, as configured."""

    max_in_flight: int | None
    """Requests in flight at a time; None: the limit adapts itself."""
    queue_depth: int | None
    """Requests that may wait; None: ten times the limit of the moment."""
    queue_wait_s: float
    """How long one may wait at most."""
    breaker_failures: int = 0
    """Failures in a row that open the breaker; 0: there is none."""
    breaker_open_s: float = 10.0
    """For how long it stays open, the first time."""
    retry_on: frozenset[Retry] = frozenset()
    """Why a request may be sent again."""
    retry_share: float = 0.2
    """How many of the latest requests may be, 0 to 1."""
    retry_wait_s: float = 2.0
    """When, if the service does not say so."""


class Gate:
    """Admits requests to one service. Outlives reloads, so that no place is counted twice."""

    __slots__ = (
        "_breaker",
        "_budget",
        "_clock",
        "_counts",
        "_draw",
        "_limits",
        "_look_at",
        "_name",
        "_places",
        "_timer",
    )

    def __init__(
        self,
        name: str,
        limits: Limits,
        counts: OverloadCounts,
        *,
        clock: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        """Begin without requests.

        Args:
            name: of the service.
            limits: what the service can take.
            counts: what happens here is counted there.
            clock: seconds, the clock of the exchanges.
            draw: returns a random number from 0 to 1.
        """
        self._name = name
        self._limits = limits
        self._counts = counts
        self._clock = clock
        self._draw = draw
        self._places = Places(
            Limit(limits.max_in_flight), depth=limits.queue_depth, wait_s=limits.queue_wait_s
        )
        self._breaker = _breaker_of(limits)
        self._budget = RetryBudget(limits.retry_share)
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = 0.0  # when it ends

    def adopt(self, limits: Limits) -> None:
        """Go by other limits from now on; those who wait or are in flight stay."""
        places, before = self._places, self._limits
        self._limits = limits
        if limits.max_in_flight != before.max_in_flight:
            places.limit = Limit(limits.max_in_flight)
        places.depth, places.wait_s = limits.queue_depth, limits.queue_wait_s
        if (limits.breaker_failures, limits.breaker_open_s) != (
            before.breaker_failures,
            before.breaker_open_s,
        ):
            self._breaker = _breaker_of(limits)
        if limits.retry_share != before.retry_share:
            self._budget = RetryBudget(limits.retry_share)
        if places.queued:
            now = self._clock()
            places.fill(now)
            self._watch(now)

    def gauges(self) -> OverloadGauges:
        """Return the state at this moment."""
        places, breaker = self._places, self._breaker
        return OverloadGauges(
            in_flight=places.in_flight,
            limit=places.limit.current,
            queued=places.queued + self._counts.arriving,
            breaker="off" if breaker is None else breaker.state.value,
            per_s=None if places.limit.pace is None else places.limit.pace.per_s(self._clock()),
        )

    @property
    def is_half_full(self) -> bool:
        """Whether one more request would hold more than half of the places."""
        return (self._places.in_flight + 1) * 2 > self._places.limit.current

    def ask(self, client: Downstream, now: float) -> "Place":
        """Return a place in flight or in the queue, to be left in the end.

        Raises:
            UnavailableError: there is neither; nothing needs to be left.
        """
        place = Place(self, client)
        if self._limits.retry_on:
            self._budget.note_request(now)
        self.enter(place, now)
        return place

    def enter(self, place: "Place", now: float, *, again: bool = False) -> None:
        """Give a new place its turn, or let it wait for it.

        Args:
            place: of this gate.
            now: seconds on the clock of the exchanges.
            again: its request was in flight before.

        Raises:
            UnavailableError: neither is possible.
        """
        breaker = self._breaker
        if breaker is not None and breaker.state is not CLOSED:
            if breaker.admit(now) is REFUSED:
                raise self.rejection(BREAKER_OPEN)
            place.is_probe = True
            self._note_breaker(breaker)
        reason = self._places.ask(place, now, again=again)
        if reason is not None:
            if breaker is not None:
                self._tell(breaker, place, UNKNOWN, now)
            raise self.rejection(reason)
        if place.state is QUEUED:
            self._watch(now)
        else:
            self._counts.queue_wait.observe(0.0)

    def retry_pause_s(
        self, reason: Retry, asked_s: float | None, longest_s: float, now: float
    ) -> float | None:
        """Return after how many seconds a request may be sent again; None: it may not be.

        Args:
            reason: why the attempt before has failed.
            asked_s: when the service wants it to be, if it has said so.
            longest_s: a longer pause is too long.
            now: seconds on the clock of the exchanges.
        """
        limits = self._limits
        if reason not in limits.retry_on:
            return None
        pause_s = pause_before(asked_s, limits.retry_wait_s, self._draw())
        if pause_s >= longest_s:
            return None
        if not self._budget.take(now):
            self._counts.budget_exhausted += 1
            return None
        return pause_s

    def leave(self, place: "Place", outcome: Outcome, now: float, asked_s: float | None) -> None:
        """End a place, whatever its state.

        Args:
            place: of this gate.
            outcome: what the end of the request says about the service.
            now: seconds on the clock of the exchanges.
            asked_s: when the service wants to be asked again, if it has said so.
        """
        places = self._places
        if place.state is HELD:
            if outcome is GOOD:
                places.limit.note_good(places.in_flight)
            elif outcome in _LOSSES:
                places.limit.note_loss(now)
                if outcome is THROTTLED and places.limit.pace is not None:
                    places.limit.pace.note_throttled(now, asked_s or 0.0)
        else:
            outcome = UNKNOWN
            if place.state is QUEUED:
                self.note_wait(place)
        if self._breaker is not None:
            self._tell(self._breaker, place, outcome, now)
        places.give_back(place, now)
        if places.queued:
            self._watch(now)

    def rejection(self, reason: Rejection) -> UnavailableError:
        """Return the error for a request that gets no place, with the time to try again."""
        places = self._places
        if reason is BREAKER_OPEN and self._breaker is not None:
            after_s = max(1.0, self._breaker.remaining_s(self._clock()))
            return UnavailableError(ErrorCode.SERVICE_DOWN, reason, retry_after_s=after_s)
        until_free_s = places.wait_behind_s(places.queued + 1, self._clock())
        after_s = retry_after_s(until_free_s, self._draw())
        return UnavailableError(ErrorCode.OVERLOADED, reason, retry_after_s=after_s)

    def note_wait(self, place: "Place") -> None:
        """Count how long a queued request has waited."""
        self._counts.queue_wait.observe(max(0.0, self._clock() - place.arrived_at))

    def now(self) -> float:
        """Return seconds on the clock of the exchanges."""
        return self._clock()

    def _tell(self, breaker: Breaker, place: "Place", outcome: Outcome, now: float) -> None:
        """Tell the breaker how a request has ended; refuse those that wait if that opens it."""
        before = breaker.state
        if outcome in _FAILURES:
            breaker.note_failure(now, self._draw(), is_probe=place.is_probe)
        elif outcome is UNKNOWN:
            breaker.note_nothing(now, is_probe=place.is_probe)
        else:
            breaker.note_success(is_probe=place.is_probe)
        if breaker.state is not before:
            self._note_breaker(breaker)
        if breaker.state is OPEN and self._places.queued:
            self._places.reject_all(BREAKER_OPEN, now)

    def _note_breaker(self, breaker: Breaker) -> None:
        """Count and log that the breaker has changed its state."""
        self._counts.breaker_transitions[breaker.state.value] += 1
        if breaker.state is OPEN:
            _log.warning(
                "service %s has failed several times in a row: its requests are rejected for "
                "%.1f s, then one is tried",
                self._name,
                breaker.remaining_s(self._clock()),
            )
        elif breaker.state is CLOSED:
            _log.warning("service %s works again: its requests are forwarded", self._name)

    def _watch(self, now: float) -> None:
        """Set the timer to when one of those who wait has waited too long, or may go on."""
        look_at = self._places.next_look(now)
        if look_at is None or (self._timer is not None and look_at >= self._look_at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._look_at = look_at
        self._timer = asyncio.get_running_loop().call_later(max(0.0, look_at - now), self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock()
        self._places.expire(now)
        self._places.fill(now)
        self._watch(now)


def _breaker_of(limits: Limits) -> Breaker | None:
    if not limits.breaker_failures:
        return None
    return Breaker(limits.breaker_failures, limits.breaker_open_s)


class Place(Ticket):
    """The place of one request, or its wait for one."""

    __slots__ = ("_client", "_error", "_gate", "_is_second", "_pause_s", "_ready")

    def __init__(self, gate: Gate, client: Downstream) -> None:
        super().__init__()
        self._gate = gate
        self._client = client
        self._error: GatewayError | None = None
        self._ready: asyncio.Future[None] | None = None
        self._pause_s = 0.0  # after which it asks for its turn
        self._is_second = False  # of the same request

    @property
    def is_queued(self) -> bool:
        """Whether it still waits."""
        return self.state is QUEUED or self.state is NEW

    async def obtained(self) -> None:
        """Return when the request may be in flight.

        Raises:
            UnavailableError: it may not.
            DownstreamError: its caller has left.

        Cancellation: safe, if `leave` follows.
        """
        if self.state is NEW:
            await asyncio.sleep(self._pause_s)
            self._gate.enter(self, self._gate.now(), again=True)
        if self.state is QUEUED:
            self._ready = asyncio.get_running_loop().create_future()
            await self._ready
        if self._error is not None:
            raise self._error

    def leave(self, outcome: Outcome, now: float, asked_s: float | None) -> None:
        """Give the place back, or stop waiting for it."""
        self._gate.leave(self, outcome, now, asked_s)

    def again(
        self, reason: Retry, outcome: Outcome, asked_s: float | None, deadline: float, now: float
    ) -> "Place | None":
        """Give the place back, and return one that asks for its turn after a pause.

        Args:
            reason: why the request is to be sent again.
            outcome: what the attempt says about the service.
            asked_s: in how many seconds the service wants it to be, if it has said so.
            deadline: when the pause must be over.
            now: seconds on the clock of the exchanges.

        Returns:
            None, and this place is kept, if the request may not be sent again, or was before.
        """
        if self._is_second:
            return None
        pause_s = self._gate.retry_pause_s(reason, asked_s, deadline - now, now)
        if pause_s is None:
            return None
        self.leave(outcome, now, asked_s)
        place = Place(self._gate, self._client)
        place._pause_s, place._is_second = pause_s, True
        return place

    # What its gate's places tell it (`Ticket`).

    def has_left(self) -> bool:
        """Return whether the caller is gone, even if nothing is read from it now."""
        return self._client.has_left()

    def on_place(self) -> None:
        """Go on."""
        self._gate.note_wait(self)
        self._wake()

    def on_rejected(self, reason: Rejection) -> None:
        """Fail with the error for `reason`."""
        self._gate.note_wait(self)
        self._error = self._gate.rejection(reason)
        self._wake()

    def on_left(self) -> None:
        """End without a response."""
        self._gate.note_wait(self)
        self._error = DownstreamError(ErrorCode.CLIENT_DISCONNECTED)
        self._wake()

    def _wake(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)
