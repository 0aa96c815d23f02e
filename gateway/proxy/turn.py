"""A request's turn at a service that is busy or has a limit: first its body, then its place.

Each of a thousand slow uploads would otherwise hold a place, and some bytes a second would keep
everybody else from the service.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from gateway.errors import ErrorCode, Rejection, UnavailableError
from gateway.http.pieces import size_of
from gateway.http.request import Request
from gateway.proxy.downstream import Downstream
from gateway.proxy.gate import Place
from gateway.proxy.outcome import Outcome
from gateway.proxy.replay import Retry
from gateway.proxy.request_body import RequestBody
from gateway.proxy.service import Service
from gateway.proxy.waits import PEERS, QUEUE, Wait, Waits

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_NEVER: Final = float("inf")


def turn_of(
    request: Request, body: RequestBody, service: Service, client: Downstream, now: float
) -> "Turn | None":
    """Return the turn of an admitted request, to be left in the end; None: it needs none.

    Raises:
        UnavailableError: it does not get one; nothing needs to be left.
    """
    if not request.ended and must_arrive_first(request, service):
        turn = Turn(request, body, service, client)
        turn.begin_arrival(now)
        return turn
    place = _place_in(service, client, now)
    if place is None:
        return None
    turn = Turn(request, body, service, client)
    turn.place = place
    return turn


def must_arrive_first(request: Request, service: Service) -> bool:
    """Return whether this request gets a place only after its body has arrived.

    The first half of the places is open to requests whose bodies are still arriving. The other half
    is for requests that are complete.
    """
    if not service.replay_bytes or request.head.upgrade is not None:
        return False
    if service.gate is not None:
        return service.gate.is_half_full
    return service.metrics.placed() * 2 > service.max_in_flight


class Turn:
    """The wait of one request for its body and for its place, and the place."""

    __slots__ = ("_arrived_at", "_body", "_client", "_enough", "_request", "_service", "place")

    def __init__(
        self, request: Request, body: RequestBody, service: Service, client: Downstream
    ) -> None:
        """Prepare; `leave` must follow."""
        self.place: Place | None = None  # also where nobody counts places
        self._request = request
        self._body = body
        self._service = service
        self._client = client
        self._enough: asyncio.Future[None] | None = None  # while it waits for the body
        self._arrived_at = 0.0  # when the latest part of the body came

    def begin_arrival(self, now: float) -> None:
        """Let the body come: until it is complete, or fills what is kept of it."""
        self._enough = asyncio.get_running_loop().create_future()
        self._service.metrics.overload.arriving += 1
        if self._request.head.expects_continue:
            self._client.write([CONTINUE])
        self.body_arrived(now)

    @property
    def waits_for(self) -> Wait | None:
        """What it waits for."""
        if self._enough is not None:
            return PEERS
        return QUEUE if self.place is not None and self.place.is_queued else None

    def body_arrived(self, now: float) -> None:
        """Look at what has arrived of the body at `now`, in seconds."""
        enough, request = self._enough, self._request
        if enough is None:
            return
        self._arrived_at = now
        if request.ended or size_of(request.body) >= self._service.replay_bytes:
            if not enough.done():
                enough.set_result(None)
            if not request.ended:
                self._client.pause_reading()

    def deadline(self, now: float) -> float:
        """Return when more of the body must have arrived, in seconds on the same clock as `now`."""
        if self._enough is None or self._enough.done():
            return _NEVER
        service = self._service
        if self._body.falls_behind(now, service.upload_rate, is_awaited=True):
            return 0.0
        return self._arrived_at + service.idle_s

    async def obtained(self, waits: Waits, clock: Callable[[], float]) -> None:
        """Return when the request may be in flight.

        Args:
            waits: are told what is waited for.
            clock: of the exchanges, in seconds.

        Raises:
            UnavailableError: it may not.
            DownstreamError: its client has left.

        Cancellation: safe, if `leave` follows.
        """
        if self._enough is not None:
            await self._enough
            self._end_arrival()
            waits.begin(QUEUE, now := clock())
            self.place = _place_in(self._service, self._client, now)
        if self.place is not None:
            await self.place.obtained()

    def again(
        self, reason: Retry, outcome: Outcome, asked_s: float | None, deadline: float, now: float
    ) -> bool:
        """Give the place back and ask for another, as `Place.again` does; return whether it may."""
        again = None
        if self.place is not None:
            again = self.place.again(reason, outcome, asked_s, deadline, now)
        if again is None:
            return False
        self.place = again
        return True

    def leave(self, outcome: Outcome, now: float, asked_s: float | None) -> None:
        """Give the place back, or stop waiting for it; see `Gate.leave`."""
        self._end_arrival()
        if self.place is not None:
            self.place.leave(outcome, now, asked_s)

    def _end_arrival(self) -> None:
        if self._enough is not None:
            self._enough = None
            self._service.metrics.overload.arriving -= 1


def _place_in(service: Service, client: Downstream, now: float) -> Place | None:
    """Return a place in flight or in the queue; None: nobody counts those of this service.

    Raises:
        UnavailableError: there is none.
    """
    if service.gate is not None:
        return service.gate.ask(client, now)
    if service.metrics.placed() > service.max_in_flight:
        raise UnavailableError(ErrorCode.OVERLOADED, Rejection.QUEUE_FULL)
    return None
