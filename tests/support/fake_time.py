"""A clock that only moves when told to, with the alarms that are set by it."""

import asyncio
import heapq
import itertools
from collections.abc import Callable

SETTLING_STEPS = 12
"""More turns of the event loop than any chain of ready callbacks in the code under test."""


class FakeTime:
    """Implements `gateway.clock.Clock` by `clock` and `Alarm` by `alarm`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self._order = itertools.count()
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []
        self._cancelled: set[int] = set()

    def clock(self) -> float:
        return self.now

    def alarm(self, instant: float, ring: Callable[[], None]) -> Callable[[], None]:
        number = next(self._order)
        heapq.heappush(self._alarms, (instant, number, ring))
        return lambda: self._cancelled.add(number)

    @property
    def next_alarm(self) -> float | None:
        """Instant of the next alarm that still stands."""
        while self._alarms and self._alarms[0][1] in self._cancelled:
            self._cancelled.discard(heapq.heappop(self._alarms)[1])
        return self._alarms[0][0] if self._alarms else None

    async def advance(self, seconds: float) -> None:
        """Move on, ringing what falls due in order, and let the loop settle after each."""
        end = self.now + seconds
        await self.settle()
        while (instant := self.next_alarm) is not None and instant <= end:
            self.now = max(self.now, instant)
            heapq.heappop(self._alarms)[2]()
            await self.settle()
        self.now = end

    def suspend(self, seconds: float) -> None:
        """Move on without ringing anything, as while a machine is suspended."""
        self.now += seconds

    async def settle(self) -> None:
        """Let everything run that can run without time passing."""
        for _ in range(SETTLING_STEPS):
            await asyncio.sleep(0)
