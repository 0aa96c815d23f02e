"""Load at a fixed rate, whatever the answers do; a process of its own that prints JSON.

Latency counts from the instant a request was due, so that a stall shows in every request it held
up (wrk, a closed loop, stops asking during a stall). Closed and open loops: Schroeder et al. 2006.
"""

import asyncio
import json
import selectors
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import cast

CONNECTIONS = 64


@dataclass(frozen=True)
class Order:
    """What to send."""

    port: int
    rate: int
    """Requests per second."""
    seconds: float
    head: str
    body: str


def percentile(ordered: list[float], share: float) -> float:
    """Return the smallest of `ordered` that at least `share` of all do not exceed; 0 of none."""
    if not ordered:
        return 0.0
    return ordered[max(0, min(len(ordered) - 1, -int(-share * len(ordered) // 1) - 1))]


class Connection(asyncio.Protocol):
    """One kept connection with at most one request on it."""

    def __init__(self, load: "Load") -> None:
        self.load = load
        self.transport: asyncio.Transport
        self.due: float | None = None
        self.pending = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.load.open.append(self)

    def send(self, due: float) -> None:
        self.due = due
        self.load.lateness.append(time.perf_counter() - due)
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        self.pending += data
        end = self.pending.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.pending[: end + 2]).lower()
        at = head.find(b"\r\ncontent-length:")
        if at < 0:
            self.load.failures.append("answer without Content-Length")
            self.transport.abort()
            return
        length = int(head[at + 17 : head.index(b"\r\n", at + 2)])
        if len(self.pending) < end + 4 + length:
            return
        self.pending.clear()
        if not head.startswith(b"http/1.1 200 "):
            self.load.failures.append(head[:16].decode("latin-1").strip())
        due, self.due = self.due, None
        if due is not None:
            self.load.answered(self, due)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.load.lost(self)


class Load:
    """Requests that are due go to a free connection, or wait for the next one."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.open: list[Connection] = []
        self.free: list[Connection] = []
        self.waiting: deque[float] = deque()
        self.latencies: list[float] = []
        self.lateness: list[float] = []
        self.failures: list[str] = []
        self.over = False
        self.expected = 0
        self.complete = asyncio.Event()

    async def finish(self, count: int) -> None:
        """Return when `count` answers are in, or after 5 s."""
        self.expected = count
        self.complete.clear()
        if len(self.latencies) < count:
            with suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await self.complete.wait()

    def lost(self, connection: Connection) -> None:
        self.open.remove(connection)
        if connection in self.free:
            self.free.remove(connection)
        if not self.over:
            self.failures.append("connection closed")

    def ask(self, due: float) -> None:
        if self.free:
            self.free.pop().send(due)
        else:
            self.waiting.append(due)

    def answered(self, connection: Connection, due: float) -> None:
        self.latencies.append(time.perf_counter() - due)
        if len(self.latencies) == self.expected:
            self.complete.set()
        if self.waiting:
            connection.send(self.waiting.popleft())
        else:
            self.free.append(connection)


async def run(order: Order) -> dict[str, object]:
    """Return percentiles in milliseconds, after a warm-up request on every connection.

    `late` is the 99th percentile of how much later than due requests left: large values mean
    that this process was starved and the figures are not those of the contestant.
    """
    request = (order.head + f"Content-Length: {len(order.body)}\r\n\r\n" + order.body).encode()
    load = Load(request)
    loop = asyncio.get_running_loop()
    for _ in range(CONNECTIONS):
        await loop.create_connection(lambda: Connection(load), "127.0.0.1", order.port)
    for connection in load.open:
        connection.send(time.perf_counter())
    await load.finish(CONNECTIONS)
    load.latencies.clear()
    load.lateness.clear()
    total = int(order.rate * order.seconds)
    start = time.perf_counter()
    for number in range(total):
        due = start + number / order.rate
        ahead = due - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
        load.ask(due)
    await load.finish(total)
    elapsed = time.perf_counter() - start
    load.over = True
    for connection in list(load.open):
        connection.transport.abort()
    if missing := total - len(load.latencies):
        load.failures.append(f"{missing} requests without answer")
    ordered = sorted(load.latencies)
    return {
        "requests": len(ordered),
        "rate": len(ordered) / elapsed,
        "p50": percentile(ordered, 0.5) * 1e3,
        "p99": percentile(ordered, 0.99) * 1e3,
        "p999": percentile(ordered, 0.999) * 1e3,
        "late": percentile(sorted(load.lateness), 0.99) * 1e3,
        "failures": sorted(set(load.failures)),
    }


def ask_for(order: Order) -> list[str]:
    """Return the command that runs `order`."""
    return [sys.executable, "-m", "tests.programs.bench.open_loop", json.dumps(asdict(order))]


if __name__ == "__main__":
    given = Order(**json.loads(sys.argv[1]))
    # select(2) waits in microseconds; epoll, here and in uvloop, rounds up to milliseconds
    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())
    ) as runner:
        print(json.dumps(runner.run(run(given))))
