"""Callers who never pause, across the end of a gateway: what was accepted is answered.

More runs: `NOTHING_LOST_RUNS=10`.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Caller, connect
from tests.support.gateway import POST
from tests.support.served import served
from tests.support.until import PATIENCE_S, until
from tests.support.upstream import OK, Link, Script, scripted_upstream

RUNS = int(os.environ.get("NOTHING_LOST_RUNS", "1"))
LAST_POST = POST.replace(b"Host:", b"Connection: close\r\nHost:")


async def half_a_second(link: Link) -> None:
    """Answer as slowly as a small model."""
    while True:
        await link.request()
        await asyncio.sleep(0.5)
        link.send(OK)


async def ask(caller: Caller, request: bytes, seen: Counter[str]) -> bool:
    """Send a request and count what comes; return whether another may follow."""
    caller.send(request)
    try:
        reply = await caller.reply()
    except EOFError:
        seen["reset" if caller.was_reset else "lost"] += 1
        return False
    told = b"Gateway.Draining" in reply.body
    seen["told" if told else str(reply.status) if reply.complete else "cut"] += 1
    return not reply.closes


async def keep_calling(port: int, seen: Counter[str]) -> None:
    """Send the next request as soon as the last is answered, on the same connection if possible."""
    while (caller := await connect_or_leave(port, seen)) is not None:
        while await ask(caller, POST, seen):
            pass
        caller.leave()


async def call_anew(port: int, seen: Counter[str]) -> None:
    """Send each request on a connection of its own, without a pause."""
    while (caller := await connect_or_leave(port, seen)) is not None:
        await ask(caller, LAST_POST, seen)
        caller.leave()


async def connect_or_leave(port: int, seen: Counter[str]) -> Caller | None:
    """Return a connection; None: nobody listens any more."""
    try:
        return await connect(port)
    except ConnectionRefusedError:
        return None
    except OSError:
        seen["not accepted"] += 1
        return None


def under_way(seen: Counter[str], answered: int) -> bool:
    """Return whether more than so many requests have been answered."""
    return seen.total() > answered


@pytest.mark.parametrize(
    ("call", "service", "callers", "announce"),
    [
        pytest.param(keep_calling, half_a_second, 40, "0s", id="kept-0s"),
        pytest.param(keep_calling, half_a_second, 40, "2s", id="kept-2s"),
        pytest.param(call_anew, OK, 20, "0s", id="anew-0s"),
    ],
)
async def test_the_end_loses_nothing(
    call: Callable[[int, Counter[str]], Coroutine[Any, Any, None]],
    service: Script | bytes,
    callers: int,
    announce: str,
    tmp_path: Path,
) -> None:
    """Every request sent on a connection is answered, until nobody listens: by the service, or with
    503 where a busy machine has kept its caller from sending it for longer than a second.
    """
    seen: Counter[str] = Counter()
    for _ in range(RUNS):
        before = seen.total()
        settings = {"drain": {"announce": announce, "timeout": "20s"}}
        async with (
            scripted_upstream(service) as upstream,
            served(tmp_path, upstream.port, settings) as process,
        ):
            calls = [asyncio.create_task(call(process.port, seen)) for _ in range(callers)]
            await until(partial(under_way, seen, before + 2 * callers))
            process.signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*calls)
            assert await process.ended() == 0
        assert set(seen) <= {"200", "told"}, seen
