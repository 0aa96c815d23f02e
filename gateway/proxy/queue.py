"""Which requests of a service may be in flight, which wait, and in which order they go on.

Pure: no I/O, no clock; the caller passes `now` in seconds. `Gate` adds the clock, a timer and the
responses.
"""

from collections import OrderedDict
from enum import Enum, auto
from typing import Final

from mypy_extensions import mypyc_attr

from gateway.errors import Rejection
from gateway.proxy.limit import Limit

DEPTH_FACTOR: Final = 10
"""A queue without a depth of its own takes this many times the limit, as in Knative."""
_SHORTEST_RETRY_S: Final = 1.0
_LONGEST_RETRY_S: Final = 30.0
_JITTER: Final = 0.2
_NEWEST_SHARE: Final = 0.1
"""What the newest service time contributes to the mean, once ten have been seen."""


QUEUE_FULL: Final = Rejection.QUEUE_FULL
QUEUE_TIMEOUT: Final = Rejection.QUEUE_TIMEOUT


class TicketState(Enum):
    """Where a request is."""

    NEW = auto()
    QUEUED = auto()
    HELD = auto()
    """It holds a place: it may be in flight."""
    OVER = auto()


NEW: Final = TicketState.NEW
QUEUED: Final = TicketState.QUEUED
HELD: Final = TicketState.HELD
OVER: Final = TicketState.OVER


@mypyc_attr(allow_interpreted_subclasses=True)
class Ticket:
    """A request's claim to a place. Only `Places` changes its state."""

    __slots__ = ("arrived_at", "held_at", "is_probe", "state")

    def __init__(self) -> None:
        self.state: TicketState = NEW
        self.is_probe = False
        """Whether its end decides about the breaker."""
        self.arrived_at = 0.0
        self.held_at = 0.0

    def has_left(self) -> bool:
        """Return whether the caller is known to be gone."""
        return False

    def on_place(self) -> None:
        """Called when a queued request gets a place."""

    def on_rejected(self, reason: Rejection) -> None:
        """Called when a queued request will get no place."""

    def on_left(self) -> None:
        """Called when a queued request would get a place, but its caller is gone."""


class Places:
    """The places of one service, and the queue before them.

    Invariants:
        - no more tickets hold a place than the limit was when the last of them got it;
        - a place is free again when its ticket is given back, and every ticket is told its fate;
        - a ticket whose caller has left gets no place;
        - no place is given before the limit's pace allows it;
        - first come, first served, while the queue was empty within the last `wait_s`; newest
          first while it was not, since then the oldest is likely to have given up.
    """

    __slots__ = (
        "_empty_at",
        "_queue",
        "_samples",
        "depth",
        "in_flight",
        "limit",
        "mean_s",
        "wait_s",
    )

    def __init__(self, limit: Limit, *, depth: int | None, wait_s: float) -> None:
        """Begin empty.

        Args:
            limit: how many tickets may hold a place.
            depth: how many may wait; None: ten times the limit of the moment.
            wait_s: how long one may wait at most, in seconds.
        """
        self.limit = limit
        self.depth = depth
        self.wait_s = wait_s
        self.in_flight = 0
        self.mean_s = 0.0
        """For how long a place is held on average, in seconds; 0 until that is known."""
        self._samples = 0
        self._queue: OrderedDict[Ticket, None] = OrderedDict()  # oldest first
        self._empty_at = 0.0  # when the queue was last known to be empty

    @property
    def queued(self) -> int:
        """How many tickets wait."""
        return len(self._queue)

    @property
    def next_deadline(self) -> float | None:
        """When the oldest ticket has waited as long as it may; None: nobody waits."""
        for ticket in self._queue:
            return ticket.arrived_at + self.wait_s
        return None

    def next_look(self, now: float) -> float | None:
        """Return when `expire` or `fill` has something to do by itself; None: never."""
        deadline, pace = self.next_deadline, self.limit.pace
        if deadline is None or pace is None or self.in_flight >= self.limit.current:
            return deadline
        return min(deadline, pace.opens_at(now))

    def wait_behind_s(self, queued: int, now: float) -> float:
        """Return for how long a request waits behind `queued` others, as far as is known."""
        each_s, pause_s, pace = self.mean_s / self.limit.current, 0.0, self.limit.pace
        per_s = None if pace is None else pace.per_s(now)
        if pace is not None and per_s is not None:
            each_s = max(each_s, 1.0 / per_s)
            pause_s = max(0.0, pace.opens_at(now) - now)
        return pause_s + queued * each_s

    def ask(self, ticket: Ticket, now: float, *, again: bool = False) -> Rejection | None:
        """Give a new ticket a place, or let it wait; return why neither is possible.

        Args:
            ticket: of a request.
            now: seconds.
            again: the request was in flight before; it may wait whatever the depth says.
        """
        ticket.arrived_at = now
        if not self._queue:
            self._empty_at = now
            if self._is_open(now):
                self._hold(ticket, now)
                return None
        queued = len(self._queue)
        depth = DEPTH_FACTOR * self.limit.current if self.depth is None else self.depth
        is_late = self._stands(now) and self.wait_behind_s(queued, now) > self.wait_s
        if (queued >= depth or is_late) and not again:
            ticket.state = OVER
            return QUEUE_FULL
        ticket.state = QUEUED
        self._queue[ticket] = None
        return None

    def give_back(self, ticket: Ticket, now: float) -> None:
        """End a ticket: its place goes to the next one, or it leaves the queue."""
        if ticket.state is HELD:
            self.in_flight -= 1
            self._learn(now - ticket.held_at)
        elif ticket.state is QUEUED:
            self._leave(ticket, now)
        ticket.state = OVER
        self.fill(now)

    def fill(self, now: float) -> None:
        """Give free places to those who wait, and may still do so."""
        while self._queue and self._is_open(now):
            ticket, _ = self._queue.popitem(last=self._stands(now))
            if not self._queue:
                self._empty_at = now
            if now >= ticket.arrived_at + self.wait_s:
                ticket.state = OVER
                ticket.on_rejected(QUEUE_TIMEOUT)
            elif ticket.has_left():
                ticket.state = OVER
                ticket.on_left()
            else:
                self._hold(ticket, now)
                ticket.on_place()

    def expire(self, now: float) -> None:
        """Reject everyone who has waited as long as they may."""
        while self._queue:
            ticket = next(iter(self._queue))
            if now < ticket.arrived_at + self.wait_s:
                return
            self._reject(ticket, QUEUE_TIMEOUT, now)

    def reject_all(self, reason: Rejection, now: float) -> None:
        """Reject everyone who waits."""
        while self._queue:
            self._reject(next(iter(self._queue)), reason, now)

    def _is_open(self, now: float) -> bool:
        """Return whether one more ticket may hold a place."""
        if self.in_flight >= self.limit.current:
            return False
        pace = self.limit.pace
        return pace is None or pace.opens_at(now) <= now

    def _stands(self, now: float) -> bool:
        """Return whether the queue was not empty for longer than anybody may wait."""
        return now - self._empty_at > self.wait_s

    def _hold(self, ticket: Ticket, now: float) -> None:
        self.in_flight += 1
        if self.limit.pace is not None:
            self.limit.pace.note_sent(now)
        ticket.state = HELD
        ticket.held_at = now

    def _reject(self, ticket: Ticket, reason: Rejection, now: float) -> None:
        self._leave(ticket, now)
        ticket.state = OVER
        ticket.on_rejected(reason)

    def _leave(self, ticket: Ticket, now: float) -> None:
        del self._queue[ticket]
        if not self._queue:
            self._empty_at = now

    def _learn(self, held_s: float) -> None:
        self._samples += 1
        share = max(_NEWEST_SHARE, 1.0 / self._samples)
        self.mean_s += (held_s - self.mean_s) * share


def retry_after_s(until_free_s: float, draw: float) -> float:
    """Return when a rejected caller should try again, in seconds from 1 to 30.

    Args:
        until_free_s: when it would get a place behind those who wait now.
        draw: a random number from 0 to 1, which spreads the callers by a fifth either way.
    """
    bounded_s = min(max(until_free_s, _SHORTEST_RETRY_S), _LONGEST_RETRY_S)
    spread_s = bounded_s * (1.0 - _JITTER + 2.0 * _JITTER * draw)
    return min(max(spread_s, _SHORTEST_RETRY_S), _LONGEST_RETRY_S)
