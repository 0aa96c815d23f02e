"""The connections that have been made and not been accepted yet, when a listener is to close."""

import asyncio
import ctypes
import os
import select
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

_SO_ATTACH_FILTER: Final = 26
_RETURN: Final = 0x06
_PATIENCE_S: Final = 1.0
_TURNS: Final = 3
"""Of the loop, until the protocol of a connection that it has accepted knows of it."""


async def accept_the_last(listeners: Iterable[socket.socket]) -> None:
    """Return when nothing waits to be accepted any more; closing would reset what does.

    New connections are not answered meanwhile, so there is no end to miss: a client's system tries
    again after a second, when whoever listens by then gets it. (Where that cannot be had, and on a
    Unix socket, whose file must be gone before, connections are merely accepted.)
    """
    poll = select.poll()
    for listener in listeners:
        _ignore_new(listener.fileno())
        poll.register(listener.fileno(), select.POLLIN)
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            while poll.poll(0):  # noqa: ASYNC110  # the loop accepts what waits, each turn
                await asyncio.sleep(0)
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def _ignore_new(fd: int) -> None:
    """Drop what comes to a listening socket: a packet filter of one instruction (Linux)."""
    drop = ctypes.create_string_buffer(struct.pack("HBBI", _RETURN, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(drop))
    with socket.socket(fileno=os.dup(fd)) as listener, suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
