"""A closed loop of callers that wrk cannot be: with client certificates, or on a Unix socket.

The program is `go/load.go`; it has one thread, and resumes no TLS session, as Python's `requests`.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.programs.bench import teams
from tests.programs.bench.loads import output_of
from tests.programs.bench.services import go_program
from tests.programs.bench.shapes import JSON_BODY, REAL_BODIES

_TLS_1_3 = 0x0304
_REAL_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: {host}\r\n"
    "User-Agent: python-requests/2.32.3\r\nAccept-Encoding: gzip, deflate\r\n"
    "Accept: */*\r\nConnection: {connection}\r\n"
    "traceparent: 00-0000000000000007%016x-%016x-01\r\n"
    "Content-Length: %d\r\nContent-Type: application/json\r\n\r\n"
)
"""As wrk sends it in the shape `real`."""


@dataclass(frozen=True)
class Where:
    """What is called."""

    address: str
    """Host and port, or the path of a Unix socket."""
    path: str
    is_socket_file: bool = False
    ca_file: Path | None = None
    """Whom callers trust; None: they speak no TLS."""
    certificate: Path | None = None
    """Theirs, with its key."""


@dataclass(frozen=True)
class Seen:
    """What callers saw."""

    requests: int
    rate: float
    p50_ms: float
    p99_ms: float
    errors: list[str]


def call(where: Where, connections: int, seconds: float, *, closes: bool) -> Seen:
    """Send requests as in the shape `real`; `closes`: each on a connection of its own."""
    head = _REAL_HEAD.format(
        path=where.path, host=where.address, connection="close" if closes else "keep-alive"
    )
    more = {"Body": JSON_BODY, "Bodies": REAL_BODIES}
    return _run(where, head, connections, seconds, closes=closes, more=more)


def ask(where: Where, connections: int, seconds: float, *, closes: bool) -> Seen:
    """Send requests without a body, as a proxy that asks for a token."""
    connection = "close" if closes else "keep-alive"
    head = f"GET {where.path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n"
    return _run(where, head, connections, seconds, closes=closes, more={})


def measured(
    load: Callable[[int, float], Seen], connections: int, seconds: float, pids: Sequence[int]
) -> tuple[dict[str, float], list[str]]:
    """Return what `load` (connections, seconds) costs the processes, and errors.

    A second's warm-up comes first, and a second with a single caller last.
    """
    load(connections, 1)
    time.sleep(teams.SETTLE_S)
    used = teams.cpu_of(pids)
    many = load(connections, seconds)
    time.sleep(teams.SETTLE_S)
    used = teams.cpu_of(pids) - used
    alone = load(1, 1)
    figures = {
        "cpu_us": used / 1000 / max(1, many.requests),
        "rate": many.rate,
        "p50_ms": many.p50_ms,
        "alone_p50_ms": alone.p50_ms,
    }
    return figures, many.errors + alone.errors


def _run(
    where: Where,
    head: str,
    connections: int,
    seconds: float,
    *,
    closes: bool,
    more: dict[str, Any],
) -> Seen:
    program = go_program()
    if program is None:
        raise FileNotFoundError("go")
    order = {
        "Network": "unix" if where.is_socket_file else "tcp",
        "Address": where.address,
        "Head": head,
        "Connections": connections,
        "Seconds": seconds,
        "Closes": closes,
        "CaFile": str(where.ca_file or ""),
        "Certificate": str(where.certificate or ""),
        **more,
    }
    said = json.loads(output_of([str(program), "load", json.dumps(order)], seconds + 30))
    errors = [f"{count} callers: {kind}" for kind, count in said["failures"].items()]
    if not said["requests"]:
        errors.append("no request was answered")
    if where.ca_file is not None and said["tls"] != _TLS_1_3:
        errors.append("the handshake was not of TLS 1.3")
    return Seen(
        said["requests"],
        said["requests"] / said["us"] * 1e6,
        said["p50"] / 1000,
        said["p99"] / 1000,
        errors,
    )
