"""The connections to one origin: which to use, which to keep, and who gets the next one."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from mypy_extensions import mypyc_attr

from gateway.upstream.connection import Connection
from gateway.upstream.opener import Opener, Origin

_CLOSED_AT_A_TIME: Final = 64
"""Idle connections that a sweep closes before it lets the event loop go on."""
_SWEEPS_PER_LIMIT: Final = 8
"""How often a connection that has nothing to do is looked at in the time it may be idle."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Pool:
    """Connections to one origin; all state changes are synchronous.

    As many are kept as were in use at the same time lately: each is used again until it has had
    nothing to do for `idle_limit_s`, and the one used last is taken first, so that those that are
    not needed grow old.

    Requests that find none wait, first come, first served, for whichever is free first: one that
    comes back, or one that is being opened. There are never fewer being opened than requests wait.

    Invariants:
        - a connection is handed to one exchange at a time, and only while `reusable`;
        - none is used that has been idle for `idle_limit_s`, or open for longer than it may be;
        - while a request waits, none is idle;
        - `active` + `idle` is the number of open connections we answer for.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        clock: Callable[[], float],
        limit: "ConnectionLimit | None" = None,
    ) -> None:
        """Begin without connections.

        Args:
            origin: where they go.
            clock: seconds; the same that `take` and `give_back` are told.
            limit: of all pools together; None: there is none.
        """
        self.origin = origin
        self.active = 0
        """Connections that an exchange holds, or that are being opened."""
        self.closed = False
        self._clock = clock
        self._limit = limit
        self._opener = Opener(origin, clock=clock)
        self._idle: deque[Connection] = deque()  # the most recently used is last
        self._waiting: deque[_Waiter] = deque()  # the one that has waited longest is first
        self._opening: dict[asyncio.Task[None], None] = {}  # the latest is last
        self._sweep: asyncio.TimerHandle | None = None
        if limit is not None:
            limit.join(self)

    def __repr__(self) -> str:
        return f"<Pool active={self.active} idle={len(self._idle)} waiting={len(self._waiting)}>"

    @property
    def idle(self) -> int:
        """Connections kept for the next exchange; one that died since is not counted."""
        return sum(connection.reusable for connection in self._idle)

    @property
    def size(self) -> int:
        """Connections that are open, or being opened."""
        return self.active + len(self._idle)

    def take(self, now: float) -> Connection | None:
        """Hand out the most recently used idle connection, or None when there is no good one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and now < connection.good_until:
                self.active += 1
                return connection
            connection.close()
        return None

    async def connect(self) -> Connection:
        """Wait for a connection: a new one, or one that comes back before.

        Raises:
            UpstreamError: always `replayable`, since nothing has been written.

        Cancellation: safe; a connection that nobody else waits for is not opened any further.
        """
        since = self._clock()
        is_new = True
        while True:
            free: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
            waiter = _Waiter(free, since)
            if is_new:
                self._waiting.append(waiter)
            else:
                self._waiting.appendleft(waiter)  # it has been first already
            if len(self._opening) < len(self._waiting):
                self._open_one()
            try:
                connection = await free
            except asyncio.CancelledError:
                self._leave(waiter)
                raise
            if connection.reusable or connection.requests == 0:
                return connection
            connection.close()  # the service has closed it just after it was handed over
            self.active -= 1
            is_new = False

    def give_back(self, connection: Connection, now: float) -> None:
        """Take a connection back after its exchange; pass it on or keep it if it is still good."""
        if not connection.reusable or now >= connection.retire_at:
            self.active -= 1
            connection.close()
        elif self._waiting and self._hand_over(connection):
            pass  # it is as active as before
        elif self.closed:
            self.active -= 1
            connection.close()
        else:
            self.active -= 1
            idle_until = now + self.origin.idle_limit_s
            connection.good_until = min(idle_until, connection.retire_at)
            self._idle.append(connection)
            if self._sweep is None:
                self._sweep_in(self.origin.idle_limit_s)

    def close(self) -> None:
        """Close every idle connection; those in use are closed when they come back."""
        self.closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._idle:
            self._idle.pop().close()
        self._open_no_more_than(len(self._waiting))

    def idle_since(self) -> float | None:
        """Return a number that is lower the longer the oldest has been idle; None: none is."""
        return self._idle[0].good_until if self._idle else None

    def close_oldest(self) -> None:
        """Close the connection that has been idle longest."""
        if self._idle:
            self._idle.popleft().close()

    # Waiting, and opening.

    def _hand_over(self, connection: Connection) -> bool:
        """Give a connection to the one that has waited longest; return whether anybody waits."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.free.done():
                waiter.free.set_result(connection)
                return True
        return False

    def _leave(self, waiter: "_Waiter") -> None:
        """End the wait of a request that is not there any more."""
        free = waiter.free
        if not free.done() or free.cancelled():
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            self._open_no_more_than(max(len(self._waiting), len(self._opening) - 1))
        elif free.exception() is None:
            self.give_back(free.result(), self._clock())

    def _open_one(self) -> None:
        if self._limit is not None:
            self._limit.make_room()
        self.active += 1
        self._opening[asyncio.create_task(self._open(), name="connect")] = None

    def _open_no_more_than(self, most: int) -> None:
        """Give up what is being opened beyond `most`, the latest first."""
        while len(self._opening) > most:
            task, _ = self._opening.popitem()
            self.active -= 1
            task.cancel()

    async def _open(self) -> None:
        """Open a connection for the one that has waited longest when it is open."""
        task = asyncio.current_task()
        try:
            connection = await self._opener.open()
        except Exception as error:  # noqa: BLE001  # handed to the one that waits
            if task in self._opening:
                del self._opening[task]
                self.active -= 1
                self._fail_one(error)
            return
        if task not in self._opening:
            connection.abort()  # given up, and open all the same
            return
        del self._opening[task]
        if not self._hand_over(connection):
            self.give_back(connection, self._clock())

    def _fail_one(self, error: Exception) -> None:
        """Tell the request that has waited longest, unless another connection is opened for it."""
        waiting = self._waiting
        while waiting and waiting[0].free.done():
            waiting.popleft()
        if not waiting:
            return
        waited_s = self._clock() - waiting[0].since
        open_for = len(self._opening)
        if waited_s >= self.origin.connect_timeout_s or open_for < _still_waiting(waiting):
            waiting.popleft().free.set_exception(error)

    # Growing old.

    def _sweep_in(self, delay_s: float) -> None:
        self._sweep = asyncio.get_running_loop().call_later(delay_s, self._close_stale)

    def _close_stale(self) -> None:
        """Close what must not be used any more, some at a time."""
        self._sweep = None
        now = self._clock()
        good: deque[Connection] = deque()
        closed = 0
        for connection in self._idle:
            is_good = connection.reusable and now < connection.good_until
            if is_good or closed == _CLOSED_AT_A_TIME:
                good.append(connection)
            else:
                connection.close()
                closed += 1
        self._idle = good
        if closed == _CLOSED_AT_A_TIME:
            self._sweep_in(0.0)
        elif good:
            limit_s = self.origin.idle_limit_s
            self._sweep_in(max(good[0].good_until - now, limit_s / _SWEEPS_PER_LIMIT))


class _Waiter:
    """A request that waits for a connection."""

    __slots__ = ("free", "since")

    def __init__(self, free: asyncio.Future[Connection], since: float) -> None:
        self.free = free
        self.since = since
        """When it began to wait."""


class ConnectionLimit:
    """How many connections all pools together may have open: what is idle makes room for others.

    Those in use are limited elsewhere, by the number of clients.
    """

    __slots__ = ("_pools", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._pools: list[Pool] = []

    def join(self, pool: Pool) -> None:
        """Count the connections of `pool` from now on, until it is closed and empty."""
        self._pools = [other for other in self._pools if other.size or not other.closed]
        self._pools.append(pool)

    def make_room(self) -> None:
        """Close the connection that has been idle longest, if another one would be too many."""
        if sum(pool.size for pool in self._pools) < self.most:
            return
        oldest: Pool | None = None
        for pool in self._pools:
            since = pool.idle_since()
            before = None if oldest is None else oldest.idle_since()
            if since is not None and (before is None or since < before):
                oldest = pool
        if oldest is not None:
            oldest.close_oldest()


def _still_waiting(waiting: deque[_Waiter]) -> int:
    """Return for how many requests a connection is wanted; others have just left."""
    return sum(not waiter.free.done() for waiter in waiting)
