"""An event loop on which a year takes seconds, and the clocks of a machine that runs on it."""

import asyncio
import itertools
import selectors
from collections.abc import Callable
from dataclasses import dataclass

EPOCH = 1.8e9
"""What a right wall clock shows when a loop begins."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time stands still while anything can run; then it jumps to the next timer.

    No socket ever becomes ready, and what is meant for a thread runs at once, in place.
    """

    def __init__(self) -> None:
        self.virtual_s = 0.0
        self.turns = 0
        self.on_turn: Callable[[bool], None] = lambda _quiet: None
        """Called on every turn; whether nothing can run before time passes is told."""
        super().__init__(_Leaping(self))

    def time(self) -> float:
        return self.virtual_s

    def run_in_executor(  # type: ignore[override]  # generic there; none of its callers is here
        self, _executor: object, func: Callable[..., object], *args: object
    ) -> asyncio.Future[object]:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # handed on, as a thread's would be
            future.set_exception(error)
        return future


class _Leaping(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits for ever"
        self._loop.turns += 1
        self._loop.on_turn(timeout > 0)
        self._loop.virtual_s += max(0.0, timeout)
        return []


@dataclass(slots=True, eq=False)
class _Set:
    instant: float
    ring: Callable[[], None]
    handle: asyncio.TimerHandle


class Machine:
    """Keeps the clocks, implements `gateway.clock.Alarm`, and can be suspended.

    Its alarms behave as `LoopAlarm`'s, at a small part of the cost: the loop's timers stand still
    during a suspension, and are looked at again within half a minute after it.
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self.wall_off_s = 0.0
        """Our wall clock minus the true one."""
        self._loop = loop
        self._suspended_s = 0.0
        self._set: dict[int, _Set] = {}
        self._numbers = itertools.count()

    def clock(self) -> float:
        """Seconds since the loop began, suspensions included; the truth as far as IAM goes."""
        return self._loop.virtual_s + self._suspended_s

    def wall(self) -> float:
        return EPOCH + self.clock() + self.wall_off_s

    def alarm(self, instant: float, ring: Callable[[], None]) -> Callable[[], None]:
        number = next(self._numbers)
        handle = self._loop.call_at(instant - self._suspended_s, self._ring, number)
        self._set[number] = _Set(instant, ring, handle)
        return lambda: self._cancel(number)

    def suspend(self, seconds: float, *, late_s: float) -> None:
        """Lose `seconds`; alarms are looked at `late_s` after that, or when they were due."""
        self._suspended_s += seconds
        look_at = self._loop.virtual_s + late_s
        for number, alarm in self._set.items():
            when = min(alarm.handle.when(), max(alarm.instant - self._suspended_s, look_at))
            alarm.handle.cancel()
            alarm.handle = self._loop.call_at(when, self._ring, number)

    def _ring(self, number: int) -> None:
        self._set.pop(number).ring()

    def _cancel(self, number: int) -> None:
        if (alarm := self._set.pop(number, None)) is not None:
            alarm.handle.cancel()
