"""The clocks, and alarms set by them: the one place of the gateway that reads the time."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

_LONGEST_SLEEP_S = 30.0
# A loop's timers stand still while the machine sleeps, this clock does not: an alarm that slept
# its whole time in one go would ring a night late (cloud-sql-proxy#2295).

Clock = Callable[[], float]
"""Seconds since some fixed instant; never goes backwards."""


class Alarm(Protocol):
    """Calls back once an instant of the clock has come."""

    def __call__(self, instant: float, ring: Callable[[], None]) -> Callable[[], None]:
        """Arrange for `ring()` at `instant` or soon after, never from within this call.

        Returns what cancels it; cancelling twice, or after it rang, does nothing.
        """
        ...


# A partial and not a function: it is read thrice a request, and the frame would cost the most.
boottime: Clock = partial(
    time.clock_gettime,
    getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC),  # Linux alone has the former
)
"""Seconds since the machine started, those it was suspended for included."""

wall_clock: Clock = time.time  # noqa: TID251  # here alone; everybody else gets it passed in
"""Seconds since the epoch, for people, gauges and clock skew; nothing is decided by it."""

processor_time: Clock = time.thread_time
"""Seconds for which this thread has had a processor: others who want one do not count."""


def monotonic_microseconds() -> int:
    """Return CLOCK_MONOTONIC in microseconds, as sd_notify(3) wants it."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


class LoopAlarm:
    """`Alarm` on the running event loop. Up to 30 s late after the machine was suspended."""

    def __init__(self, clock: Clock = boottime) -> None:
        self._clock = clock

    def __call__(self, instant: float, ring: Callable[[], None]) -> Callable[[], None]:
        """See `Alarm`."""
        return _Ringing(self._clock, instant, ring).cancel


class _Ringing:
    def __init__(self, clock: Clock, instant: float, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._instant = instant
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle = self._loop.call_soon(self._look)

    def cancel(self) -> None:
        self._handle.cancel()

    def _look(self) -> None:
        left_s = self._instant - self._clock()
        if left_s <= 0:
            self._ring()
        else:
            self._handle = self._loop.call_later(min(left_s, _LONGEST_SLEEP_S), self._look)
