"""The requests that wait for a login, each for a limited time."""

import asyncio
from functools import partial

from gateway.clock import Alarm


class Waiters:
    """Owns one future per waiting caller; none outlives its caller's wait."""

    def __init__(self, alarm: Alarm, longest_s: float) -> None:
        """Limit each wait to `longest_s`."""
        self._alarm = alarm
        self._longest_s = longest_s
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self, now: float) -> None:
        """Return once `wake` is called, or after the longest wait, counted from `now`.

        Cancellation: gives up this caller's wait alone.
        """
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        cancel_alarm = self._alarm(now + self._longest_s, partial(_resolve, waiter))
        try:
            await waiter
        finally:
            cancel_alarm()
            self._waiting.discard(waiter)

    async def pause(self, now: float, seconds: float) -> None:
        """Return after `seconds`, counted from `now`, even if others are woken meanwhile.

        Cancellation: safe.
        """
        over = asyncio.get_running_loop().create_future()
        cancel_alarm = self._alarm(now + seconds, partial(_resolve, over))
        try:
            await over
        finally:
            cancel_alarm()

    def wake(self) -> None:
        """Let all who wait go on."""
        for waiter in self._waiting:
            _resolve(waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
