"""The gate of one service: lets as many requests through as its limits allow.

Decisions are made in `queue` and `limit`; here they meet the clock, a timer, and those who wait.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import (
    DownstreamError,
    ErrorCode,
    GatewayError,
    Rejection,
    UnavailableError,
)
from gateway.observe.overload import OverloadCounts, OverloadGauges
from gateway.proxy.downstream import Downstream
from gateway.proxy.limit import Limit
from gateway.proxy.outcome import GOOD, THROTTLED, TIMEOUT, Outcome
from gateway.proxy.queue import HELD, QUEUED, Places, Ticket, retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a service can take, as configured."""

    max_in_flight: int | None
    """Requests in flight at a time; None: the limit adapts itself."""
    queue_depth: int | None
    """Requests that may wait; None: ten times the limit of the moment."""
    queue_wait_s: float
    """How long one may wait at most."""


class Gate:
    """Admits requests to one service. Outlives reloads, so that no place is counted twice."""

    __slots__ = ("_clock", "_counts", "_draw", "_limits", "_places", "_timer")

    def __init__(
        self,
        limits: Limits,
        counts: OverloadCounts,
        *,
        clock: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        """Begin without requests.

        Args:
            limits: what the service can take.
            counts: what happens here is counted there.
            clock: seconds, the clock of the exchanges.
            draw: returns a random number from 0 to 1.
        """
        self._limits = limits
        self._counts = counts
        self._clock = clock
        self._draw = draw
        self._places = Places(
            Limit(limits.max_in_flight), depth=limits.queue_depth, wait_s=limits.queue_wait_s
        )
        self._timer: asyncio.TimerHandle | None = None

    def adopt(self, limits: Limits) -> None:
        """Go by other limits from now on; those who wait or are in flight stay."""
        places, before = self._places, self._limits
        self._limits = limits
        if limits.max_in_flight != before.max_in_flight:
            places.limit = Limit(limits.max_in_flight)
        places.depth, places.wait_s = limits.queue_depth, limits.queue_wait_s
        if places.queued:
            now = self._clock()
            places.fill(now)
            self._watch_again(now)

    def gauges(self) -> OverloadGauges:
        """Return the state at this moment."""
        places = self._places
        return OverloadGauges(
            in_flight=places.in_flight, limit=places.limit.current, queued=places.queued
        )

    def ask(self, client: Downstream, now: float) -> "Place":
        """Return a place in flight or in the queue, to be left in the end.

        Raises:
            UnavailableError: there is neither; nothing needs to be left.
        """
        places = self._places
        place = Place(self, client)
        reason = places.ask(place, now)
        if reason is not None:
            raise self.rejection(reason)
        if place.state is QUEUED:
            self._watch(now)
        else:
            self._counts.queue_wait.observe(0.0)
        return place

    def leave(self, place: "Place", outcome: Outcome, now: float) -> None:
        """End a place, whatever its state.

        Args:
            place: of this gate.
            outcome: what the end of the request says about the service.
            now: seconds on the clock of the exchanges.
        """
        places = self._places
        if place.state is HELD:
            if outcome is GOOD:
                places.limit.note_good(places.in_flight)
            elif outcome is THROTTLED or outcome is TIMEOUT:
                places.limit.note_loss(now)
        elif place.state is QUEUED:
            self.note_wait(place)
        places.give_back(place, now)

    def rejection(self, reason: Rejection) -> UnavailableError:
        """Return the error for a request that gets no place, with the time to try again."""
        places = self._places
        after_s = retry_after_s(places.queued, places.mean_s, places.limit.current, self._draw())
        return UnavailableError(ErrorCode.OVERLOADED, reason, retry_after_s=after_s)

    def note_wait(self, place: "Place") -> None:
        """Count how long a queued request has waited."""
        self._counts.queue_wait.observe(max(0.0, self._clock() - place.arrived_at))

    def _watch(self, now: float) -> None:
        """Have a timer for the deadline of whoever waits longest."""
        deadline = self._places.next_deadline
        if deadline is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(
                max(0.0, deadline - now), self._expire
            )

    def _watch_again(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._watch(now)

    def _expire(self) -> None:
        self._timer = None
        now = self._clock()
        self._places.expire(now)
        self._watch(now)


class Place(Ticket):
    """The place of one request, or its wait for one."""

    __slots__ = ("_client", "_error", "_gate", "_ready")

    def __init__(self, gate: Gate, client: Downstream) -> None:
        super().__init__()
        self._gate = gate
        self._client = client
        self._error: GatewayError | None = None
        self._ready: asyncio.Future[None] | None = None

    @property
    def is_queued(self) -> bool:
        """Whether it still waits."""
        return self.state is QUEUED

    async def obtained(self) -> None:
        """Return when the request may be in flight.

        Raises:
            UnavailableError: it may not.
            DownstreamError: its caller has left.

        Cancellation: safe, if `leave` follows.
        """
        if self.state is QUEUED:
            self._ready = asyncio.get_running_loop().create_future()
            await self._ready
        if self._error is not None:
            raise self._error

    def leave(self, outcome: Outcome, now: float) -> None:
        """Give the place back, or stop waiting for it."""
        self._gate.leave(self, outcome, now)

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
