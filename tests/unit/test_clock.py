"""The clock that goes on while the machine sleeps, and alarms by it."""

import asyncio
import time

from gateway.clock import LoopAlarm, boottime
from tests.support.until import PATIENCE_S


def test_boottime_is_the_clock_that_counts_suspension() -> None:
    """On Linux; it is ahead of the monotonic clock by the time spent suspended."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= boottime() <= time.clock_gettime(time.CLOCK_BOOTTIME)


async def test_alarm_rings_by_the_clock_it_was_given() -> None:
    """Once, and not while that clock stands still, however long the loop runs."""
    now, rung = 10.0, asyncio.Event()
    LoopAlarm(lambda: now)(10.02, rung.set)
    await asyncio.sleep(0.05)
    assert not rung.is_set()
    now = 10.02
    async with asyncio.timeout(PATIENCE_S):
        await rung.wait()


async def test_due_alarm_does_not_ring_within_the_call() -> None:
    """The code that sets it can note it before it rings."""
    rung = asyncio.Event()
    LoopAlarm(lambda: 10.0)(9.0, rung.set)
    assert not rung.is_set()
    async with asyncio.timeout(PATIENCE_S):
        await rung.wait()


async def test_cancelled_alarm_stays_silent() -> None:
    """At once, after it has looked at the clock, and twice."""
    now, rings = 10.0, 0

    def ring() -> None:
        nonlocal rings
        rings += 1

    early = LoopAlarm(lambda: now)(10.01, ring)
    early()
    late = LoopAlarm(lambda: now)(10.01, ring)
    await asyncio.sleep(0.03)
    late()
    late()
    now = 11.0
    await asyncio.sleep(0.03)
    assert rings == 0


async def test_alarm_looks_at_the_clock_at_least_twice_a_minute() -> None:
    """A night's suspension must not delay a refresh by a night."""
    loop = asyncio.get_running_loop()
    asked: list[float] = []

    def clock() -> float:
        asked.append(loop.time())
        return 0.0

    cancel = LoopAlarm(clock)(86400.0, lambda: None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    due = [handle.when() - loop.time() for handle in loop._scheduled]  # type: ignore[attr-defined]
    cancel()
    assert len(asked) == 1
    assert min(due) <= 30.0
