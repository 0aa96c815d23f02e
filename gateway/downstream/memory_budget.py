"""One budget for the bytes that wait in memory, of all clients together, and who ends first.

A normal request never gets here: what waits is counted only when a head is unfinished, a body
arrives, or a client reads more slowly than we write. When enough of that has come, all is added up,
of thousands of clients in several turns of the loop.
From three quarters of the budget on, clients that hold much are not read for a while; the last
quarter is for new small requests.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Final

from gateway.downstream.client_stream import FOR_MEMORY, unread_bytes
from gateway.downstream.connection import ClientConnection
from gateway.downstream.holding import LOOKED_AT_TOGETHER, held_bytes, sum_of_holdings
from gateway.downstream.interfaces import Memory
from gateway.errors import ErrorCode, Rejection, UnavailableError
from gateway.http.small_request import SMALL_BYTES
from gateway.observe.memory import Waiting
from gateway.proxy.phase import SENDING

_SHARE_BETWEEN_LOOKS: Final = 16
"""A sixteenth of the budget may come in any case before all is added up again."""


_NEAR: Final = 3 / 4
"""Of the budget: from here on, those that hold much are not read."""
_MUCH_BYTES: Final = 16 * 1024
"""A client that holds less is read in any case."""
_PAUSE_S: Final = 0.05
"""For how long nothing is read from those; meanwhile others make progress."""
_ENDED_TOGETHER: Final = 16
"""Clients per turn of the loop, which take 2 ms; the next turn ends others."""
_ENDED_AT_ONCE: Final = 64
"""Where that is not fast enough."""
READ_TOGETHER: Final = 64
"""Clients per turn that are read again after a stop."""
_ANSWERED: Final = 4
"""As many as one whose service is read again: a read from it may have 250 KiB."""
_TURN_S: Final = 0.001
"""More than a turn of the loop: then what was ended is freed, and what was written has left."""


def no_excess() -> int:
    """Return that there is no excess: the memory of the process has no bound."""
    return 0


def first_to_end(sizes: Sequence[int], heard_at: Sequence[float], too_much: int) -> list[int]:
    """Return which clients end so that `too_much` bytes are given back. Pure.

    The client that holds most is first; of those that hold about as much, the one that has been
    silent longest.

    Args:
        sizes: what each client holds, in bytes.
        heard_at: when each of them last sent something, in seconds.
        too_much: in bytes.
    """
    alike: dict[int, list[int]] = {}  # within a factor of two
    for number, size in enumerate(sizes):
        if size:
            alike.setdefault(size.bit_length(), []).append(number)
    ended: list[int] = []
    for magnitude in sorted(alike, reverse=True):
        for number in sorted(alike[magnitude], key=heard_at.__getitem__):
            if too_much <= 0:
                return ended
            ended.append(number)
            too_much -= sizes[number]
    return ended


def allowed_bytes(max_bytes: int, total: int, excess: int) -> int:
    """Return how much may wait. Pure.

    Less than the budget while the process has more in memory than it should: what waits takes up
    to twice its size. A quarter of the budget is always allowed.

    Args:
        max_bytes: the budget.
        total: what waits.
        excess: what the process has too much.
    """
    if excess <= 0:
        return max_bytes
    return max(max_bytes // 4, min(max_bytes, total - excess // 2))


class MemoryBudget(Memory):
    """Keeps what waits below a bound, and the process's memory with it.

    Invariant: not more than `max_bytes` and a sixteenth wait. An eighth is given back at a time, so
    that small new requests find room.
    """

    def __init__(
        self,
        max_bytes: int,
        clients: Callable[[], Sequence[ClientConnection]],
        kept_bytes: Callable[[], int],
        excess: Callable[[], int] = no_excess,
    ) -> None:
        """Prepare.

        Args:
            max_bytes: that may wait.
            clients: returns all connections.
            kept_bytes: returns how much is kept of bodies that may be sent again.
            excess: returns how many bytes the process has in memory that it should not have.
        """
        self.max_bytes = max_bytes
        self._clients = clients
        self._kept_bytes = kept_bytes
        self._excess = excess
        self._fresh = 0
        self._look_after = self._least()  # so many fresh bytes
        self._is_stopped = False  # whether nothing is read from anybody
        self._stopped: deque[_Stopped] = deque()  # to be read again in the next turns
        self._pauses: deque[list[_Stopped]] = deque()  # of those that hold much, one for each stop
        self._goes_on = False  # in the next turn
        self._look_under_way: _Look | None = None  # until the end of its last turn of the loop
        self._ending: deque[ClientConnection] = deque()  # in the next turns, in this order
        self._goes_on_ending = False  # in the next turn

    def note(self, size: int) -> None:
        """Note that `size` further bytes may wait; end the largest holder if that is too much."""
        self._fresh += size
        if self._fresh < self._look_after:
            return
        if self._look_under_way is not None:
            self.stop_reading()  # more has come than may before it is known what there is
            return
        self._fresh = 0
        self._look_after = self._least()
        self._look_under_way = look = _Look(self._clients())
        self._go_on_looking(look)

    def add_up(self) -> Generator[int, None, Waiting]:
        """Return what waits.

        Yields:
            0, from time to time where there are many clients: others may run now.
        """
        held = yield from sum_of_holdings(self._clients())
        return Waiting(
            heads=held.heads,
            bodies=held.bodies,
            answers=held.answers,
            kept=self._kept_bytes(),
            budget=self.max_bytes,
        )

    def _go_on_looking(self, look: "_Look") -> None:
        """Look at some more clients; when all have been looked at, decide."""
        try:
            look.go_on()
        except BaseException:  # a defect must not stop everybody
            self._look_ends()
            raise
        call_soon = asyncio.get_running_loop().call_soon
        if not look.is_complete:
            call_soon(self._go_on_looking, look)
            return
        call_soon(self._look_ends)
        total = sum(look.sizes) + self._kept_bytes()
        allowed = allowed_bytes(self.max_bytes, total, self._excess())
        self._plan(look.clients, look.sizes, total - allowed)
        # No more can wait than did, and what comes: till then nobody needs to look.
        self._look_after = max(self._least(), int(allowed * _NEAR) - total)
        if total > allowed * _NEAR:
            self._become_short()

    def _least(self) -> int:
        return self.max_bytes // _SHARE_BETWEEN_LOOKS

    def _plan(
        self, clients: Sequence[ClientConnection], sizes: Sequence[int], too_much: int
    ) -> None:
        """Decide anew who ends, some in each turn of the loop: the largest holders first.

        A client of the plan before is spared if others hold more by now, or if there is enough.
        """
        self._ending.clear()
        if too_much <= 0:
            return
        heard_at = [client.received_at for client in clients]
        wanted = too_much + self.max_bytes // 8
        self._ending += [clients[one] for one in first_to_end(sizes, heard_at, wanted)]
        if not self._goes_on_ending:
            self._end_next()
        elif too_much > self.max_bytes // 8:  # it comes faster than it goes
            self._end_some(_ENDED_AT_ONCE)

    def _end_next(self) -> None:
        try:
            self._end_some(_ENDED_TOGETHER)
        finally:  # a defect must not keep the others
            self._goes_on_ending = bool(self._ending)
            if self._goes_on_ending:
                asyncio.get_running_loop().call_soon(self._end_next)

    def _end_some(self, count: int) -> None:
        for _ in range(min(count, len(self._ending))):
            client = self._ending.popleft()
            if held_bytes(client):  # else it has gone, or is served
                _end(client)

    def _become_short(self) -> None:
        """Let nobody send much for a while."""
        if not self.is_short:
            self.is_short = True
            asyncio.get_running_loop().call_later(_PAUSE_S, self._no_longer_short)

    def _no_longer_short(self) -> None:
        self.is_short = False

    def _look_ends(self) -> None:
        self._look_under_way = None

    def stop_reading(self) -> None:
        """Read nothing until what was written has left, and for a while from those that hold much.

        What has been read in a turn of the loop stays in memory until its end, even of those that
        were ended. So the loop could read megabytes more from all that are ready.
        """
        if self._is_stopped:
            return
        self._is_stopped = True
        self._become_short()
        stopped = [client for client in self._clients() if is_read(client)]
        stopped.sort(key=is_new)  # those are the first to be read again
        self._stopped += map(_Stopped, stopped)
        self._pauses.append([])
        loop = asyncio.get_running_loop()
        loop.call_later(_TURN_S, self._go_on_after_stop)
        loop.call_later(_PAUSE_S, self._end_pause)

    def _end_pause(self) -> None:
        """Read again from those who hold much, behind the others."""
        self._stopped.extendleft(self._pauses.popleft())
        if not self._is_stopped:
            self._go_on()

    def _go_on_after_stop(self) -> None:
        """Read again; no other stop begins before the loop has had a chance to read at all.

        Else what waits for its turn could bring one stop after the other, and nobody be read.
        """
        asyncio.get_running_loop().call_soon(self._stop_is_over)
        self._go_on()

    def _stop_is_over(self) -> None:
        self._is_stopped = False
        if self._stopped and not self._goes_on:  # those that hold much have come meanwhile
            self._go_on()

    def _go_on(self) -> None:
        """Read again from some, the newest and the oldest, and from others in the next turns.

        Of all at once, so much would come that all were to be stopped again. A new client does not
        wait for a thousand others, and no stop makes an old one wait for ever.
        """
        stopped = self._stopped
        left, is_newest = READ_TOGETHER, False
        while stopped and left > 0:
            is_newest = not is_newest
            one = stopped.pop() if is_newest else stopped.popleft()
            left -= _ANSWERED if one.is_answered else 1
            if self._pauses and held_bytes(one.client) > _MUCH_BYTES:
                self._pauses[-1].append(one)
            else:
                one.go_on()
        if self._stopped and not self._goes_on:
            self._goes_on = True
            asyncio.get_running_loop().call_soon(self._go_on_next)

    def _go_on_next(self) -> None:
        self._goes_on = False
        if not self._is_stopped:  # else the timer goes on
            self._go_on()


def is_read(client: ClientConnection) -> bool:
    """Return whether the client, or a service that answers it, can make us keep more."""
    exchange = client.exchange
    if client.stream.held_by & FOR_MEMORY:
        return False
    return not client.stream.held_by or (exchange is not None and exchange.attempt is not None)


def is_new(client: ClientConnection) -> bool:
    """Return whether nothing of a client has been read yet, or nothing of its service's answer."""
    request, exchange = client.request, client.exchange
    if request is None or exchange is None:
        return not client.received_at
    return request.ended and exchange.phase is SENDING


def _end(client: ClientConnection) -> None:
    """End a client: 503 if nothing of a response has left, else a reset."""
    error = UnavailableError(ErrorCode.OVERLOADED, Rejection.MEMORY)
    if client.stream.turns is not None:
        client.stream.turns.forget(client.stream)
    if client.exchange is not None:
        client.exchange.break_off(error)
        client.reader.forget()
    elif client.reader.in_head():
        client.refuse(error)
        client.reader.forget()
    else:
        client.stream.abort()


class _Look:
    """How much each client holds, asked over several turns of the loop."""

    __slots__ = ("clients", "sizes")

    def __init__(self, clients: Sequence[ClientConnection]) -> None:
        self.clients = clients
        """All of them; some may have gone meanwhile."""
        self.sizes: list[int] = []
        """Of those that have been looked at, in the same order. In bytes."""

    @property
    def is_complete(self) -> bool:
        """Whether all have been looked at."""
        return len(self.sizes) == len(self.clients)

    def go_on(self) -> None:
        """Look at some more."""
        begin = len(self.sizes)
        some = self.clients[begin : begin + LOOKED_AT_TOGETHER]
        self.sizes += [held_bytes(client) for client in some]


class _Stopped:
    """A client that is not read, and the connection that was its own then, which is not either."""

    __slots__ = ("_connection", "client")

    def __init__(self, client: ClientConnection) -> None:
        self.client = client
        attempt = None if client.exchange is None else client.exchange.attempt
        self._connection = None if attempt is None else attempt.connection
        client.stream.hold(FOR_MEMORY)
        if self._connection is not None:
            self._connection.pause_reading()

    @property
    def is_answered(self) -> bool:
        """Whether a service's connection is not read either."""
        return self._connection is not None

    def go_on(self) -> None:
        """Read from both again; the connection may be another exchange's by now, or nobody's.

        A client that has sent much has its turn behind those that have sent little.
        """
        client, connection = self.client, self._connection
        stream = client.stream
        is_done = client.request is not None and client.request.ended
        if not is_done and stream.turns is not None and unread_bytes(stream) > SMALL_BYTES:
            stream.turns.wait(stream)
        stream.release(FOR_MEMORY)
        if connection is None:
            return
        attempt = None if client.exchange is None else client.exchange.attempt
        is_own = attempt is not None and attempt.connection is connection
        if not (is_own and client.stream.writing_paused()):
            connection.resume_reading()
