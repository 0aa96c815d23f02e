"""The one timer behind all deadlines, with a clock that the test moves."""

import asyncio

import pytest

from gateway.proxy.deadlines import EXPIRED_TOGETHER, LOOKED_AT_TOGETHER, Deadlines, Watched
from tests.support.fake_time import FakeTime
from tests.support.until import PATIENCE_S

TICK_S = 0.01


class Item(Watched):
    """Notes its end, or moves its deadline."""

    def __init__(self, deadline: float, deadlines: Deadlines) -> None:
        self.until = deadline
        self.expired = asyncio.Event()
        self.count = 0
        self.move_to = float("inf")
        self._deadlines = deadlines

    def deadline(self) -> float:
        return self.until

    def expire(self) -> None:
        self.count += 1
        self.until = self.move_to
        self.expired.set()


async def _ticks(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(TICK_S)


async def test_what_is_past_its_deadline_expires_and_nothing_else() -> None:
    """At the deadline, not before it."""
    time = FakeTime(0.0)
    deadlines = Deadlines(time.clock, tick_s=TICK_S)
    due, later = Item(5.0, deadlines), Item(5.1, deadlines)
    deadlines.watch(due)
    deadlines.watch(later)
    time.now = 4.999
    await _ticks()
    assert not due.expired.is_set()
    time.now = 5.0
    async with asyncio.timeout(PATIENCE_S):
        await due.expired.wait()

    assert (due.count, later.count) == (1, 0)
    deadlines.close()


async def test_a_deadline_may_move() -> None:
    """In both directions; it is asked for at each look."""
    time = FakeTime(0.0)
    deadlines = Deadlines(time.clock, tick_s=TICK_S)
    item = Item(1.0, deadlines)
    deadlines.watch(item)
    item.until = 3.0
    time.now = 2.0
    await _ticks()
    assert item.count == 0
    item.until = 2.0
    async with asyncio.timeout(PATIENCE_S):
        await item.expired.wait()
    deadlines.close()


async def test_what_is_forgotten_does_not_expire_and_the_timer_rests() -> None:
    """With nothing to watch nothing runs; forgetting twice is harmless."""
    time = FakeTime(0.0)
    deadlines = Deadlines(time.clock, tick_s=TICK_S)
    item = Item(1.0, deadlines)
    deadlines.watch(item)
    deadlines.forget(item)
    deadlines.forget(item)
    time.now = 2.0
    await _ticks()
    assert item.count == 0
    assert deadlines._timer is None
    deadlines.watch(item)
    async with asyncio.timeout(PATIENCE_S):
        await item.expired.wait()
    deadlines.close()


async def test_expiring_may_forget_and_watch() -> None:
    """What happens inside `expire` does not disturb the others of the same turn."""
    time = FakeTime(0.0)
    deadlines = Deadlines(time.clock, tick_s=TICK_S)

    class Busy(Item):
        def expire(self) -> None:
            super().expire()
            deadlines.forget(self)
            deadlines.watch(Item(float("inf"), deadlines))

    items = [Busy(1.0, deadlines) for _ in range(3)]
    for item in items:
        deadlines.watch(item)
    time.now = 1.0
    async with asyncio.timeout(PATIENCE_S):
        for item in items:
            await item.expired.wait()

    assert [item.count for item in items] == [1, 1, 1]
    deadlines.close()


async def test_few_expire_in_a_turn() -> None:
    """The others in the next ones, without another wait; what is forgotten meanwhile does not."""
    time = FakeTime(1.0)
    deadlines = Deadlines(time.clock, tick_s=TICK_S)
    items = [Item(1.0, deadlines) for _ in range(3 * EXPIRED_TOGETHER)]
    for item in items:
        deadlines.watch(item)
    ended = 0
    while not ended:
        await asyncio.sleep(0)
        ended = sum(item.count for item in items)
    assert ended == EXPIRED_TOGETHER
    forgotten = next(item for item in items if not item.count)
    deadlines.forget(forgotten)
    deadlines.tick_s = PATIENCE_S
    while ended < len(items) - 1:
        before = ended
        await asyncio.sleep(0)
        ended = sum(item.count for item in items)
        assert ended - before <= EXPIRED_TOGETHER
    assert forgotten.count == 0
    deadlines.close()


class Looked(Item):
    """Counts how often it is looked at."""

    looks = 0

    def deadline(self) -> float:
        self.looks += 1
        return super().deadline()


async def test_not_all_are_looked_at_in_a_turn() -> None:
    """With thousands of clients, a look at all would take a tenth of a second."""
    time = FakeTime(0.0)
    deadlines = Deadlines(time.clock, tick_s=TICK_S)
    items = [Looked(1.0, deadlines) for _ in range(3 * LOOKED_AT_TOGETHER)]
    for item in items:
        deadlines.watch(item)
    seen = 0
    while seen < len(items):
        before = seen
        await asyncio.sleep(0)
        seen = sum(item.looks > 0 for item in items)
        assert seen - before <= LOOKED_AT_TOGETHER
    deadlines.close()


async def test_close_stops_everything() -> None:
    """Nothing is expired any more."""
    time = FakeTime(0.0)
    deadlines = Deadlines(time.clock, tick_s=TICK_S)
    item = Item(1.0, deadlines)
    deadlines.watch(item)
    deadlines.close()
    time.now = 2.0
    await _ticks()

    assert item.count == 0


class Faulty(Item):
    """Fails when its deadline has come: a defect of ours."""

    def expire(self) -> None:
        super().expire()
        self.until = 0.0
        raise ValueError(self.count)


async def test_a_defect_costs_nobody_else_his_deadline(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and looking goes on."""
    time = FakeTime(1.0)
    deadlines = Deadlines(time.clock, tick_s=TICK_S)
    items = [Faulty(0.5, deadlines), *(Item(0.5, deadlines) for _ in range(8))]
    for item in items:
        deadlines.watch(item)
    async with asyncio.timeout(PATIENCE_S):
        for item in items:
            await item.expired.wait()
    late = Item(0.5, deadlines)
    deadlines.watch(late)
    async with asyncio.timeout(PATIENCE_S):
        await late.expired.wait()

    assert "defect" in caplog.text
    deadlines.close()
