"""What a gateway under overload must not do, counted at the service: the second half of
`python -m tests.programs.bench.overload`.

Callers that hang up cost the service nothing; a service that throttles is not asked for much more
than it takes; a dead one is left alone; retries keep within their budget. The first of these is
asked of the other proxies as well; they have nothing like the others.
"""

import asyncio
import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.programs.bench.open_loop import percentile
from tests.programs.bench.processes import child, wait_for_port
from tests.programs.bench.slow_service import CAPACITY, THROTTLED_RATE

_PATIENCE_S = 1.0
_HANGS_UP_AFTER_S = 0.2
_HANGS_UP_EVERY = 10
_NOTICED_S = 0.05
"""That a caller has left is known to a proxy a little later."""

_DEAD_RATE = 10.0
"""Requests per second to a dead service: few, so that they fail one after the other."""

Start = Callable[[int, Path], tuple[list[str], int]]
"""Makes the command of a contestant, and the port that it listens on, of the service's port."""


@dataclass(frozen=True)
class Call:
    """One request and what came of it. Instants are on the monotonic clock."""

    number: int
    begun: float
    ended: float
    status: int
    """0: none came before the caller left."""
    hung_up: bool = False
    """It left long before its patience was over."""


@dataclass(frozen=True)
class Proof:
    """One row of the table."""

    says: str
    who: str
    found: str
    wanted: str


async def _call(port: int, number: int, patience_s: float) -> Call:
    begun, status, writer = time.monotonic(), 0, None
    try:
        async with asyncio.timeout(patience_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"POST /slow/x HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Number: %d\r\n"
                b"Content-Length: 2\r\n\r\n{}" % number
            )
            status = int((await reader.readuntil(b"\r\n\r\n"))[9:12])
    except (TimeoutError, OSError, asyncio.IncompleteReadError):
        pass
    finally:
        if writer is not None:
            writer.transport.abort()
    hung_up = patience_s < _PATIENCE_S and status == 0
    return Call(number, begun, time.monotonic(), status, hung_up)


async def _calls(port: int, rate: float, seconds: float, *, leaving: bool = False) -> list[Call]:
    """Send so many a second, whatever the answers do; `leaving`: every tenth caller hangs up."""
    start = time.monotonic()
    tasks = []
    for number in range(int(rate * seconds)):
        ahead = start + number / rate - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
        leaves = leaving and number % _HANGS_UP_EVERY == 0
        patience_s = _HANGS_UP_AFTER_S if leaves else _PATIENCE_S
        tasks.append(asyncio.create_task(_call(port, number, patience_s)))
    return list(await asyncio.gather(*tasks))


@contextmanager
def _running(kind: str, start: Start) -> Iterator[tuple[int, int]]:
    """Run a service of a kind with a contestant before it; yield the ports of both."""
    command = [sys.executable, "-m", "tests.programs.bench.slow_service", kind]
    with child(command, output=subprocess.PIPE) as process, tempfile.TemporaryDirectory() as folder:
        assert process.stdout is not None
        service = int(process.stdout.readline())
        contestant, port = start(service, Path(folder))
        with child(contestant, output=subprocess.DEVNULL) as started:
            wait_for_port(started, port)
            yield service, port


def _seen(service: int) -> list[tuple[int, float]]:
    """Return when each request came to the service, by its number."""
    connection = http.client.HTTPConnection("127.0.0.1", service, timeout=10)
    try:
        connection.request("GET", "/seen")
        return [(number, at) for number, at in json.loads(connection.getresponse().read())]
    finally:
        connection.close()


def gone_callers(who: str, start: Start, seconds: float) -> Proof:
    """Twice the capacity, of which every tenth caller hangs up after 0.2 s."""
    with _running("slots", start) as (service, port):
        calls = asyncio.run(_calls(port, 2 * CAPACITY, seconds, leaving=True))
        left_at = {call.number: call.ended for call in calls if call.hung_up}
        late = [n for n, at in _seen(service) if n in left_at and at > left_at[n] + _NOTICED_S]
    return Proof(
        "callers that hang up at twice the capacity: calls to the service after they had left",
        who,
        f"{len(late)} of {len(left_at)}",
        "0",
    )


def throttling(start: Start, seconds: float) -> Proof:
    """Twice what a service takes that answers 429 beyond it; judged in the second half."""
    with _running("throttled", start) as (service, port):
        begun = time.monotonic()
        calls = asyncio.run(_calls(port, 2 * THROTTLED_RATE, seconds))
        half = begun + seconds / 2
        sent = [at for _, at in _seen(service) if half <= at < begun + seconds]
        later = [call for call in calls if call.begun >= half]
    able = THROTTLED_RATE * seconds / 2
    good = sum(call.status == 200 for call in later)
    refused = sum(call.status == 429 for call in later)
    return Proof(
        f"a service that takes {THROTTLED_RATE:.0f}/s, refuses more with 429 at once and is "
        f"offered twice that, `max_in_flight: auto`, after {seconds / 2:.0f} s: good answers",
        "this",
        f"{100 * good / able:.0f} % of what it takes; it was sent {100 * len(sent) / able:.0f} %, "
        f"and {refused} callers got its 429",
        "sent at most 120 %, good 95 % or more",
    )


def dead_service(start: Start, seconds: float) -> Proof:
    """Requests to a service that closes every connection, with a breaker of 5 and 1 s."""
    with _running("dead", start) as (service, port):
        calls = asyncio.run(_calls(port, _DEAD_RATE, seconds))
        attempts = len(_seen(service))
    quick = sorted(call.ended - call.begun for call in calls if call.status == 503)
    probes, pause_s, at = 0, 1.0, 0.0
    while at < seconds:
        at += 0.8 * pause_s
        pause_s = min(2 * pause_s, 60.0)
        probes += 1
    return Proof(
        f"a dead service, `breaker: {{failures: 5, open: 1s}}`, {len(calls)} requests in "
        f"{seconds:.0f} s: attempts at the service",
        "this",
        f"{attempts}; the others refused in {1e3 * percentile(quick, 0.99):.1f} ms (p99)",
        f"at most {5 + probes}: 5 and one for each pause, which doubles",
    )


def retry_budget(start: Start, seconds: float) -> Proof:
    """Three of ten answers are 503, and may be retried."""
    with _running("failing", start) as (service, port):
        calls = asyncio.run(_calls(port, 40.0, seconds))
        attempts = len(_seen(service))
    retried = attempts - len(calls)
    failed = sum(call.status != 200 for call in calls)
    return Proof(
        f"three of ten answers are 503, `retry: {{on: [unavailable], budget: 20%}}`, {len(calls)} "
        "requests: retries",
        "this",
        f"{retried} ({100 * retried / len(calls):.0f} %); {100 * failed / len(calls):.0f} % of "
        "callers got no good answer",
        f"at most {0.2 * len(calls) + 3:.0f}",
    )


def table(proofs: list[Proof]) -> str:
    """Return the proofs as Markdown."""
    rows = [f"| {one.says} | {one.who} | {one.found} | {one.wanted} |" for one in proofs]
    return "\n".join(["| | by | found | wanted |", "|---|---|---|---|", *rows])
