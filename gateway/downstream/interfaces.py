"""What a client's connection asks of those around it."""

import asyncio
from typing import Any, Protocol

from gateway.downstream.client_stream import Turns
from gateway.proxy.context import ExchangeContext


class Memory:
    """Where it is noted that something waits."""

    is_short = False
    """Whether so much waits that no more should be read from those that send much."""

    def note(self, size: int) -> None:
        """Note `size` further bytes."""
        raise NotImplementedError

    def stop_reading(self) -> None:
        """Read nothing from anybody until the next turn of the event loop."""
        raise NotImplementedError


class Listener(Protocol):
    """What a connection asks of the listener that accepted it."""

    context: ExchangeContext
    draining: bool
    closed: bool

    @property
    def memory(self) -> Memory:
        """Where it is noted that something waits."""
        ...

    @property
    def turns(self) -> Turns:
        """Where what has been read waits when there are many clients."""
        ...

    @property
    def full(self) -> bool:
        """Whether there are more connections than are served."""
        ...

    @property
    def flooded(self) -> bool:
        """Whether there are so many that not even a 503 can be sent."""
        ...

    @property
    def crowded(self) -> bool:
        """Whether there are more than `CROWD` connections, the newest included."""
        ...

    def make_room(self) -> None:
        """End clients that have stopped in the middle of a request."""
        ...

    def turned_away(self) -> None:
        """Count a client that is closed without an answer, since there are too many."""
        ...

    def bars(self, transport: asyncio.Transport) -> bool:
        """Return whether the client's certificate is not one of those that may call."""
        ...

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        """Called when a connection has been accepted."""
        ...

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        """Called when a connection is gone."""
        ...
