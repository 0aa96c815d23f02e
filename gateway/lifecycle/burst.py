"""A listening socket that accepts many connections in one turn of the loop, if many wait.

libuv accepts one connection per turn of the loop. A turn is long when a thousand clients send at
once, so a new client would wait for as many turns as there are others before it in the queue.
Those that could not be served yet, or have sent much, are begun with after the others, a few per
turn: in a flood of them, a well-behaved client does not wait behind them.
"""

import asyncio
import os
import resource
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, Final, Protocol, Self, cast

from gateway.clock import processor_time
from gateway.http.small_request import SMALL_BYTES, is_small_request

_AT_A_TIME: Final = 128
"""Further connections that are accepted in a turn, 7 to 14 µs each."""
_LEAST_AT_A_TIME: Final = 4
_MOST_AT_A_TIME: Final = 16
"""How many are begun with in a turn that have sent nothing or a small request, from 0.2 ms each to
a millisecond, where the response is large; of the others half as many, and one while such wait."""
_LONG_S: Final = 0.006
"""After a turn that took longer, half as many are begun with in the next one."""
_LOOKED_AT_TOGETHER: Final = 64
"""How many that had sent nothing are looked at in a turn because something has come, 3 µs each."""
_MOST_WAITING: Final = 4096
"""Accepted, and not begun with, 1 KiB each; further ones stay in the queue."""
_WAIT_WITHOUT_ROOM: Final = 2048
"""So many, though there is no room for them; further ones are given up."""
_GIVEN_UP_TOGETHER: Final = 32
"""In a turn, 25 to 40 µs each."""
_SHARE_WAITING: Final = 16
"""Of the files that may be open; the others are for requests and probes."""
MANY_FILES: Final = 4096
"""Of those beyond it, a quarter."""
BACKLOG: Final = 4096
"""Connections that may wait. Linux takes as many by default (`net.core.somaxconn`); beyond it, a
client's system tries again after a second."""


Connection = socket.SocketType
"""What `socket.socket` is made of. That looks up its family or kind whenever somebody asks, in a
microsecond: five times for a connection."""


class Clients(Protocol):
    """Those whose connections they become."""

    def __call__(self) -> Any:
        """Make the protocol of a connection."""

    def room(self) -> int:
        """Return how many more may be begun with.

        Where it is 0 or less, they are one by one, but for those that have sent a small request.
        """

    def turned_away(self) -> None:
        """Called when one is closed because there is no room for it."""


class BurstServer:
    """An `asyncio.Server` that also accepts what uvloop leaves in the queue. Owns its sockets."""

    def __init__(self, clients: Clients, tls: ssl.SSLContext | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._clients = clients
        self._tls = tls
        self._queues: list[socket.socket] = []
        self._poll = select.poll()
        # Accepted, and not begun with.
        self._first: deque[Connection] = deque()  # could be served
        self._silent: dict[int, Connection] = {}  # have sent nothing; by their descriptors
        self._last: deque[Connection] = deque()  # the others
        self._heard = select.poll()  # knows who is no longer silent
        self._is_begun = False  # to begin with those
        self._pace = _Pace()
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most_waiting = most_waiting(files)
        self._server: asyncio.Server | None = None

    @classmethod
    async def open(
        cls,
        clients: Clients,
        tls: ssl.SSLContext | None,
        create: Callable[..., Any],
        *where: Any,
        **how: Any,
    ) -> Self:
        """Listen.

        Args:
            clients: whose connections they become.
            tls: what their bytes are encrypted with, or nothing.
            create: the loop's function that makes a server.
            where: its positional arguments behind the factory.
            how: its named arguments.

        Raises:
            OSError: the address cannot be bound.
        """
        burst = cls(clients, tls)
        server: asyncio.Server = await create(
            burst._accepted, *where, backlog=BACKLOG, ssl=tls, **how
        )
        burst._server = server
        for listener in server.sockets:
            queue = socket.socket(fileno=os.dup(listener.fileno()))
            queue.setblocking(False)  # the socket's own way
            burst._queues.append(queue)
            burst._poll.register(queue.fileno(), select.POLLIN)
        return burst

    @property
    def waiting(self) -> int:
        """How many connections have been accepted and not been handed to the loop."""
        return len(self._first) + len(self._silent) + len(self._last)

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The listening sockets; empty once closed."""
        return self._queues

    def close(self) -> None:
        """Accept no more; what has been accepted stays, and is begun with."""
        if self._server is not None:
            self._server.close()
        while self._queues:
            self._queues.pop().close()

    def _accepted(self) -> Any:
        """Return the protocol of an accepted connection; accept others that wait.

        Raises nothing: libuv would accept nobody from then on.
        """
        try:
            for fd, _ in self._poll.poll(0) if self._queues else ():
                self._accept_more(next(queue for queue in self._queues if queue.fileno() == fd))
        except Exception as defect:  # noqa: BLE001  # it is told
            _tell(defect)
        return self._made()

    def _made(self) -> Any:
        """Return the protocol of a connection; it is closed at once if none can be made."""
        try:
            return self._clients()
        except Exception as defect:  # noqa: BLE001  # it is told; others wait behind this one
            _tell(defect)
            return _Closed()

    def _accept_more(self, queue: socket.socket) -> None:
        family, kind = int(queue.family), int(queue.type)
        accept = cast(Any, queue)._accept  # noqa: SLF001  # `accept` makes a `socket.socket`
        with suppress(OSError):  # none is left, or no file can be opened: the next turn sees
            for _ in range(_AT_A_TIME):
                if not self._has_place():
                    break
                fd, _ = accept()
                connection = Connection(family, kind, queue.proto, fd)
                connection.setblocking(False)  # as above
                data = _sent(connection)
                waiting = self._waiting_with(data)
                if not data:
                    self._silent[connection.fileno()] = connection
                    self._heard.register(connection.fileno(), select.POLLIN)
                elif waiting is self._first and self._pace.takes_one_more():
                    self._begin(connection)
                else:
                    waiting.append(connection)
        if not self._is_begun:
            self._begin_with_some()

    def _has_place(self) -> bool:
        """Return whether another connection may wait; if need be, another one is closed for it."""
        if self.waiting < self._most_waiting:
            return True
        return self.waiting > self._clients.room() and self._gives_one_up()

    def _gives_one_up(self) -> bool:
        """Close who has waited longest of those that come last; return whether there was one.

        Where there is no room for them anyway: else a small request could not be seen. Who has said
        nothing comes last as well, but may have spoken up by now.
        """
        for _ in range(_LOOKED_AT_TOGETHER):
            if self._last or not self._silent:
                break
            connection = self._no_longer_silent(next(iter(self._silent)))
            data = _sent(connection)
            (self._waiting_with(data) if data else self._last).append(connection)
        if not self._last:
            return False
        self._last.popleft().close()
        self._clients.turned_away()
        return True

    def _waiting_with(self, data: bytes) -> deque[Connection]:
        """Return those that have sent the like of `data`."""
        goes_first = is_small_request(data) if self._tls is None else len(data) <= SMALL_BYTES
        return self._first if goes_first else self._last

    def _begin_with_some(self) -> None:
        """Hand some connections to the loop, and others in the next turns, even after a defect."""
        left = 0
        try:
            left = self._begin_with_those_of_a_turn()
        finally:
            self._is_begun = self.waiting > 0
            self._pace.left = left if self._is_begun else 0
            if self._is_begun:
                self._loop.call_soon(self._begin_with_some)

    def _begin_with_those_of_a_turn(self) -> int:
        """Return how many more that go first may be begun with in this turn."""
        at_a_time = self._pace.of_next_turn(follows=self._is_begun)
        for _ in range(given_up(self.waiting, self._clients.room())):
            self._gives_one_up()
        heard = [fd for fd, _ in self._heard.poll(0)] if self._silent else []
        for fd in heard[:_LOOKED_AT_TOGETHER]:
            connection = self._no_longer_silent(fd)
            self._waiting_with(_sent(connection)).append(connection)
        left = self._begin_with(self._first, at_a_time)
        has_room = self._clients.room() > 0
        others = set(heard)  # of whom it is not known yet what they have sent
        silent = (fd for fd in self._silent if fd not in others)
        for fd in list(islice(silent, max(left, 1) if has_room else 1)):
            self._begin(self._no_longer_silent(fd))
        self._begin_with(self._last, at_a_time // 2 if has_room and left else 1)
        return left

    def _no_longer_silent(self, fd: int) -> Connection:
        self._heard.unregister(fd)
        return self._silent.pop(fd)

    def _begin_with(self, waiting: deque[Connection], most: int) -> int:
        """Begin with some, the newest and the oldest in turn; return how many less than `most`.

        In a flood, a new client would else wait as long as the flood lasts; with the newest alone,
        an old one might wait for ever.
        """
        count = min(most, len(waiting))
        for number in range(count):
            self._begin(waiting.popleft() if number % 2 else waiting.pop())
        return most - count

    def _begin(self, connection: Connection) -> None:
        """Hand a connection to the loop; ignore one that fails at once."""
        joining = self._loop.connect_accepted_socket(
            self._made, cast(socket.socket, connection), ssl=self._tls
        )
        try:
            self._go_on(joining)
        except Exception as defect:  # noqa: BLE001  # it is told; others wait behind this one
            _tell(defect)
            connection.close()

    def _go_on(self, joining: Coroutine[Any, Any, object], _done: object = None) -> None:
        """Let it go on, as a task would, which costs more and takes its first step a turn later."""
        with suppress(StopIteration, OSError):
            joining.send(None).add_done_callback(partial(self._go_on, joining))


class _Closed(asyncio.Protocol):
    """A connection that is closed at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


def _tell(defect: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler(
        {"message": "a connection was closed", "exception": defect}
    )


class _Pace:
    """How many connections are begun with in a turn of the loop."""

    def __init__(self) -> None:
        self._count = _MOST_AT_A_TIME
        self._began_s = 0.0
        self.left = 0
        """How many more that go first may be begun with before the next turn."""

    def of_next_turn(self, *, follows: bool) -> int:
        """Return how many; `follows`: on a turn that began with some as well."""
        now = processor_time()
        if follows:
            self._count = paced(self._count, now - self._began_s)
        self._began_s = now
        return self._count

    def takes_one_more(self) -> bool:
        """Return whether another one that goes first may be begun with now; then it counts."""
        if not self.left:
            return False
        self.left -= 1
        return True


def paced(before: int, took_s: float) -> int:
    """Return how many to begin with in a turn. Pure.

    Args:
        before: how many that was in the turn before.
        took_s: for how long that turn worked.
    """
    if took_s > _LONG_S:
        return max(_LEAST_AT_A_TIME, before // 2)
    return min(_MOST_AT_A_TIME, before + 1)


def given_up(waiting: int, room: int) -> int:
    """Return how many are closed in a turn because there is no room for them. Pure.

    Args:
        waiting: have been accepted, and not begun with.
        room: how many more may be begun with (see `Clients`).
    """
    return min(_GIVEN_UP_TOGETHER, max(0, waiting - max(room, _WAIT_WITHOUT_ROOM)))


def most_waiting(files: int) -> int:
    """Return how many connections may have been accepted and not been begun with. Pure.

    Args:
        files: that may be open.
    """
    return min(_MOST_WAITING, max(files // _SHARE_WAITING, (files - MANY_FILES) // 4))


def _sent(connection: Connection) -> bytes:
    """Return what has arrived, up to a byte more than a small request, by a look at the socket."""
    try:
        return connection.recv(SMALL_BYTES + 1, socket.MSG_PEEK)
    except OSError:  # nothing yet, or it has gone
        return b""
