"""A model that answers a few requests at a time, and throttling before it, as in the cloud."""

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from gateway.twin.duration import parse_duration
from gateway.twin.faults import FaultError

_WINDOW_S = 1.0
_MOST = 100_000


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much load the service `slow` can take."""

    slots: int = 4
    """Requests that it processes at a time; others wait."""
    service_time_s: float = 0.05
    """Seconds that it takes for each request."""
    waiting: int = 100
    """Requests that may wait for a slot; further ones get 500 `ModelArts.4302`."""
    rate: int = 0
    """Requests per second that the API gateway lets through; further ones get 429 `APIG.0308`.
    0: all."""

    def as_json(self) -> dict[str, Any]:
        """Shape of `GET /twin/capacity`, which `PUT` takes back."""
        return {
            "slots": self.slots,
            "service_time": f"{self.service_time_s * 1000:g}ms",
            "waiting": self.waiting,
            "rate": self.rate,
        }


def parse_capacity(wanted: Any, before: Capacity) -> Capacity:
    """Read the body of `PUT /twin/capacity`; what is not named stays as it was.

    Raises:
        FaultError: something in it is unknown or does not fit.
    """
    known = before.as_json()
    if not isinstance(wanted, dict) or not set(wanted) <= known.keys():
        raise FaultError(f"expected an object with some of: {', '.join(known)}")
    numbers = {}
    for name in ("slots", "waiting", "rate"):
        value = wanted.get(name, known[name])
        least = 1 if name == "slots" else 0
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
            raise FaultError(f"{name!r}: {value!r} is not a number from {least} to {_MOST}")
        numbers[name] = value
    try:
        service_time_s = parse_duration(str(wanted.get("service_time", known["service_time"])))
    except ValueError as error:
        raise FaultError(f"'service_time': {error}") from error
    return replace(before, service_time_s=service_time_s, **numbers)


class FullError(Exception):
    """The queue for slots is full."""


class Slots:
    """The slots of one service; `PUT /twin/capacity` replaces the object.

    Invariant: no more requests than `slots` are worked on at a time; first come, first served.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._free = asyncio.Semaphore(capacity.slots)
        self._waiting = 0
        self._let_through: deque[float] = deque()

    def throttles(self, now: float) -> bool:
        """Return whether a request at `now`, in seconds, exceeds the rate; count it if not."""
        rate, passed = self.capacity.rate, self._let_through
        if not rate:
            return False
        while passed and passed[0] <= now - _WINDOW_S:
            passed.popleft()
        if len(passed) >= rate:
            return True
        passed.append(now)
        return False

    async def work(self) -> None:
        """Wait for a slot, and then for the time that processing takes.

        Raises:
            FullError: too many wait already.

        Cancellation: the slot is free again.
        """
        if self._free.locked() and self._waiting >= self.capacity.waiting:
            raise FullError
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            await asyncio.sleep(self.capacity.service_time_s)
        finally:
            self._free.release()
