"""Error messages for addresses that cannot be listened on, with the key and the remedy."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gateway.settings import ListenAddress

_PROMETHEUS_PORT: Final = 9090
_FIRST_FREE_PORT: Final = 1024
"""Ports below it require root or CAP_NET_BIND_SERVICE."""


@contextmanager
def binding(key: str, address: ListenAddress) -> Iterator[None]:
    """Turn an `OSError` raised inside into one whose text names `key` and the remedy."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{key}: {bind_problem(key, address, error)}") from error


def bind_problem(key: str, address: ListenAddress, error: OSError) -> str:
    """Return why nothing can listen on `address`, and what to do. Pure.

    Args:
        key: of the configuration, such as `listen`.
        address: its value.
        error: what binding failed with.
    """
    flag = "" if key == "token_listen" else f", --{key.replace('_', '-')}"
    other = f"give another address ({key}{flag} or GATEWAY_{key.upper()})"
    if address.path:
        why = _said(error).removeprefix(f"{address.path}: ")
        return f"cannot listen on {address}: {why}; {_socket_remedy(error, other)}"
    if isinstance(error, socket.gaierror):
        return f"cannot listen on {address}: no such host name; {other}"
    match error.errno:
        case errno.EADDRINUSE:
            hint = " (9090 is Prometheus' own port)" if address.port == _PROMETHEUS_PORT else ""
            return (
                f"cannot listen on {address}: it is in use by another program{hint}; stop that, "
                f"or {other}"
            )
        case errno.EADDRNOTAVAIL:
            return f"cannot listen on {address}: no interface of this machine has it; {other}"
        case errno.EACCES | errno.EPERM if address.port < _FIRST_FREE_PORT:
            return (
                f"cannot listen on {address}: ports below 1024 need CAP_NET_BIND_SERVICE; grant "
                f"it, or {other}"
            )
        case _:
            return f"cannot listen on {address}: {_said(error)}; {other}"


def _said(error: OSError) -> str:
    return error.strerror or str(error) or "no reason given"


def _socket_remedy(error: OSError, other: str) -> str:
    match error.errno:
        case errno.ENOENT:
            return f"make its folder, or {other}"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return f"let the gateway's user write to its folder, or {other}"
        case _:
            return other
