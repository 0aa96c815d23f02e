"""Before a listener closes: connections that clients have opened and nobody has accepted yet."""

import asyncio
import ctypes
import os
import select
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

_SO_ATTACH_FILTER: Final = 26
_RETURN: Final = 0x06
_PATIENCE_S: Final = 1.0
_TURNS: Final = 3
"""Of the loop, until the protocol of a connection that it has accepted knows of it."""


async def accept_the_last(listeners: Iterable[socket.socket], waiting: Callable[[], int]) -> None:
    """Return when no connection waits to be accepted; closing would reset those that wait.

    Nor does one of those that `waiting` counts, which have been accepted and are not begun with.

    New connection attempts are dropped meanwhile, so the wait ends. A client's system tries again
    after a second, and reaches the process that listens by then. (Without packet filters, and on
    a Unix socket, whose file must be removed before, connections are accepted as usual.)
    """
    poll = select.poll()
    for listener in listeners:
        _ignore_new(listener.fileno())
        poll.register(listener.fileno(), select.POLLIN)
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            while poll.poll(0) or waiting():  # noqa: ASYNC110  # the loop accepts what waits, each turn
                await asyncio.sleep(0)
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def _ignore_new(fd: int) -> None:
    """Drop what comes to a listening socket: a packet filter of one instruction (Linux)."""
    drop = ctypes.create_string_buffer(struct.pack("HBBI", _RETURN, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(drop))
    with socket.socket(fileno=os.dup(fd)) as listener, suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
