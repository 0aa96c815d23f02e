"""A well-behaved caller, probe and scraper beside an attack, in a process of its own.

Its service answers at once. It runs until its standard input ends, then writes its counts.
"""

import asyncio
import json
import sys
import time
from collections import Counter

import uvloop

from tests.support.client import connect
from tests.support.gateway import POST
from tests.support.upstream import OK, scripted_upstream

PAUSE_S = 0.02
ADMIN_PAUSE_S = 0.5
ENOUGH_S = 25.0


class Seen:
    """What came, by kind: status or failure, and how long it took in seconds."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.times: list[float] = []

    async def ask(self, port: int, request: bytes) -> None:
        """Send one request on a connection of its own."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(ENOUGH_S):
                caller = await connect(port)
                caller.send(request)
                status = str((await caller.reply()).status)
                caller.leave()
        except (OSError, EOFError) as failure:
            status = type(failure).__name__
        self.counts[status] += 1
        self.times.append(time.monotonic() - began)

    def summary(self) -> dict[str, object]:
        """Return counts and times in milliseconds."""
        times = sorted(self.times) or [0.0]
        return {
            "counts": dict(self.counts),
            "p50_ms": round(times[len(times) // 2] * 1000, 1),
            "p99_ms": round(times[len(times) * 99 // 100] * 1000, 1),
            "max_ms": round(times[-1] * 1000, 1),
        }


def admin_request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


async def main() -> None:
    loop = asyncio.get_running_loop()
    calls, probes, scrapes = Seen(), Seen(), Seen()

    async def repeat(seen: Seen, port: int, request: bytes, pause_s: float) -> None:
        while True:
            await seen.ask(port, request)
            await asyncio.sleep(pause_s)

    async with scripted_upstream(OK) as upstream:
        print(upstream.port, flush=True)  # the scene reads it
        ports = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
        asked = [(calls, ports["data"], POST, PAUSE_S)]
        if ports["admin"] is not None:
            for seen, path in ((probes, "/livez"), (scrapes, "/metrics")):
                asked.append((seen, ports["admin"], admin_request(path), ADMIN_PAUSE_S))
        tasks = [asyncio.create_task(repeat(*what)) for what in asked]
        while command := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
            summary = {
                "calls": calls.summary(), "probes": probes.summary(), "scrapes": scrapes.summary()
            }  # fmt: skip
            print(json.dumps(summary), flush=True)  # as above
            for seen in (calls, probes, scrapes):
                seen.counts.clear()
                seen.times.clear()
            if command == "end":
                break
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    uvloop.run(main())
