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
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Self

from gateway.http.small_request import SMALL_BYTES, is_small_request

_AT_A_TIME: Final = 256
"""Further connections that are accepted in a turn, 10 µs each."""
_FIRST_AT_A_TIME: Final = 16
"""How many are begun with in a turn that have sent nothing or a small request, 0.2 ms each."""
_LAST_AT_A_TIME: Final = 8
"""How many that have sent something else, which is read at once, up to 64 KiB each."""
_LOOKS_FOR_ONE: Final = 4
"""How many are looked at for one that is begun with, 3 µs each."""
_MOST_WAITING: Final = 4096
"""Accepted, and not begun with; further ones stay in the queue."""
_SHARE_WAITING: Final = 4
"""Of the files that may be open; the others are for requests and probes."""
BACKLOG: Final = 4096
"""Connections that may wait. Linux takes as many by default (`net.core.somaxconn`); beyond it, a
client's system tries again after a second."""

Factory = Callable[[], Any]
"""Makes the protocol of a connection."""


class BurstServer:
    """An `asyncio.Server` that also accepts what uvloop leaves in the queue. Owns its sockets."""

    def __init__(self, make: Factory, tls: ssl.SSLContext | None) -> None:
        self._make = make
        self._tls = tls
        self._queues: list[socket.socket] = []
        self._poll = select.poll()
        self._joining: set[asyncio.Task[None]] = set()
        self._first: deque[socket.socket] = deque()  # accepted, could be served
        self._last: deque[socket.socket] = deque()  # accepted, the others
        self._is_begun = False  # to begin with those
        self._most_waiting = most_waiting()
        self._server: asyncio.Server | None = None

    @classmethod
    async def open(
        cls,
        make: Factory,
        tls: ssl.SSLContext | None,
        create: Callable[..., Any],
        *where: Any,
        **how: Any,
    ) -> Self:
        """Listen.

        Args:
            make: makes the protocol of each connection.
            tls: what its bytes are encrypted with, or nothing.
            create: the loop's function that makes a server.
            where: its positional arguments behind the factory.
            how: its named arguments.

        Raises:
            OSError: the address cannot be bound.
        """
        burst = cls(make, tls)
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
        return len(self._first) + len(self._last)

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
        """Return the protocol of an accepted connection; accept others that wait."""
        for fd, _ in self._poll.poll(0) if self._queues else ():
            self._accept_more(next(queue for queue in self._queues if queue.fileno() == fd))
        return self._make()

    def _accept_more(self, queue: socket.socket) -> None:
        with suppress(OSError):  # none is left, or no file can be opened: the next turn sees
            for _ in range(min(_AT_A_TIME, self._most_waiting - self.waiting)):
                connection, _ = queue.accept()
                connection.setblocking(False)  # as above
                self._waiting_with(connection).append(connection)
        if not self._is_begun:
            self._begin_with_some()

    def _waiting_with(self, connection: socket.socket) -> deque[socket.socket]:
        """Return those that have sent the like of what a connection has by now."""
        data = _sent(connection)
        if self._tls is None:
            goes_first = not data or is_small_request(data)
        else:
            goes_first = len(data) <= SMALL_BYTES
        return self._first if goes_first else self._last

    def _begin_with_some(self) -> None:
        """Hand some connections to the loop, and others in the next turns.

        The newest and the oldest in turn: in a flood, a new client would else wait as long as the
        flood lasts, and with the newest alone, an old one might wait for ever.
        """
        for waiting, most in (
            (self._first, _FIRST_AT_A_TIME), (self._last, _LAST_AT_A_TIME)
        ):  # fmt: skip
            begun = 0
            for number in range(min(_LOOKS_FOR_ONE * most, len(waiting))):
                if begun == most:
                    break
                connection = waiting.popleft() if number % 2 else waiting.pop()
                if waiting is self._first and self._waiting_with(connection) is self._last:
                    self._last.append(connection)  # it has sent something else meanwhile
                    continue
                begun += 1
                task = asyncio.create_task(self._join(connection), name="accept")
                self._joining.add(task)
                task.add_done_callback(self._joining.discard)
        self._is_begun = self.waiting > 0
        if self._is_begun:
            asyncio.get_running_loop().call_soon(self._begin_with_some)

    async def _join(self, connection: socket.socket) -> None:
        """Hand a connection to the loop; ignore one that fails at once."""
        with suppress(OSError, TimeoutError):
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make, connection, ssl=self._tls
            )


def most_waiting() -> int:
    """Return how many connections may have been accepted and not been begun with."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(_MOST_WAITING, files // _SHARE_WAITING)


def _sent(connection: socket.socket) -> bytes:
    """Return what has arrived, up to a byte more than a small request, by a look at the socket."""
    with suppress(OSError):  # nothing yet, or it has gone
        return connection.recv(SMALL_BYTES + 1, socket.MSG_PEEK)
    return b""
