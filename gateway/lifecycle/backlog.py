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
_LOAD_BYTE: Final = 0x30
_JUMP_IF_SET: Final = 0x45
_RETURN: Final = 0x06
_FLAGS_AT: Final = 13
"""Of a TCP header; RFC 9293 §3.1."""
_SYN: Final = 2
_DROP: Final = 0
_KEEP: Final = 0xFFFFFFFF
_NO_SYN: Final = (
    (_LOAD_BYTE, 0, 0, _FLAGS_AT),
    (_JUMP_IF_SET, 0, 1, _SYN),
    (_RETURN, 0, 0, _DROP),
    (_RETURN, 0, 0, _KEEP),
)
"""Instructions of a packet filter: operation, how many to skip if so and if not, operand."""

_HANDSHAKE_S: Final = 0.002
"""For the last packet of a client that has been told that it is connected: a few ways through a
cluster. Not longer, since who tries to connect meanwhile tries again after a second."""
_PATIENCE_S: Final = 1.0
_TURNS: Final = 3
"""Of the loop, until the protocol of a connection that it has accepted knows of it."""


async def accept_the_last(
    listeners: Iterable[socket.socket],
    waiting: Callable[[], int],
    *,
    handshake_s: float = _HANDSHAKE_S,
) -> None:
    """Return when no connection waits to be accepted; closing would reset those that wait.

    Nor does one of those that `waiting` counts, which have been accepted and are not begun with.

    New connection attempts are dropped meanwhile, so the wait ends. A client's system tries again
    after a second, and reaches the process that listens by then. (Without packet filters, and on
    a Unix socket, whose file must be removed before, connections are accepted as usual.)

    Args:
        listeners: the sockets, which the loop accepts from.
        waiting: returns how many have been accepted and are not begun with.
        handshake_s: how long a client that holds itself connected may take to complete that.
    """
    poll = select.poll()
    for listener in listeners:
        _ignore_new(listener.fileno())
        poll.register(listener.fileno(), select.POLLIN)
    await asyncio.sleep(handshake_s)
    with suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE_S):
            while poll.poll(0) or waiting():  # noqa: ASYNC110  # the loop accepts what waits, each turn
                await asyncio.sleep(0)
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def _ignore_new(fd: int) -> None:
    """Drop attempts to connect to a listening socket, and nothing of those under way (Linux)."""
    filters = b"".join(struct.pack("HBBI", *instruction) for instruction in _NO_SYN)
    instructions = ctypes.create_string_buffer(filters, len(filters))
    program = struct.pack("HP", len(_NO_SYN), ctypes.addressof(instructions))
    with socket.socket(fileno=os.dup(fd)) as listener, suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
