"""A listening socket that accepts many connections in one turn of the loop, if many wait.

libuv accepts one connection per turn of the loop. A turn is long when a thousand clients send at
once, so a new client would wait for as many turns as there are others before it in the queue.
"""

import asyncio
import os
import select
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Self

_AT_A_TIME: Final = 64
"""Further connections per turn: their protocols take some milliseconds to make."""
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
    def sockets(self) -> Sequence[socket.socket]:
        """The listening sockets; empty once closed."""
        return self._queues

    def close(self) -> None:
        """Accept no more; what has been accepted stays."""
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
            for _ in range(_AT_A_TIME):
                connection, _ = queue.accept()
                task = asyncio.create_task(self._join(connection), name="accept")
                self._joining.add(task)
                task.add_done_callback(self._joining.discard)

    async def _join(self, connection: socket.socket) -> None:
        """Hand a connection to the loop; ignore one that fails at once."""
        connection.setblocking(False)  # as above
        with suppress(OSError, TimeoutError):
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make, connection, ssl=self._tls
            )
