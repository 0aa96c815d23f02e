"""How many requests a second a service is sent that throttles: learnt from what it refuses.

Pure: no I/O, no clock; the caller passes `now` in seconds. A limit of requests in flight does not
hold back what a service refuses at once, since each refusal makes room for the next request. But
what it accepts while it refuses others is what it can take.
"""

from collections import deque
from typing import Final

_WINDOW_S: Final = 2.0
"""What was accepted is measured over so long."""
_SLICE_S: Final = 0.1
_LEAST_PER_S: Final = 1.0
"""Never fewer, so that there are responses to learn from."""
_HOLD_S: Final = 1.0
"""After a refusal the pace stays for so long, and then grows."""
_GROWTH: Final = 0.02
"""Times the cube of the seconds: slow near what was refused, fast where that is long ago."""
_FORGET: Final = 20.0
"""A pace that has grown so many times limits nobody any more."""
_CATCH_UP_S: Final = 0.02
"""Timers are late: what could have been sent in so long is sent at once."""

# Where each refusal costs a pause, for which the service has asked (`Retry-After`):
_LONGEST_PAUSE_S: Final = 30.0
_HOLD_PER_PAUSE: Final = 10.0
"""The pace stays for so many times the pause, at most for 30 s."""
_LONGEST_HOLD_S: Final = 30.0
_MEASURED_PER_PAUSE: Final = 0.2
"""A pace is not measured over less than this share of the pause, up to 1 s: what is too high costs
another pause, what is too low grows."""
_SOON: Final = 0.8
"""A pace that is refused before it has grown goes down to this share."""
_LATE: Final = 0.95

_NEVER: Final = float("-inf")


class Pace:
    """The pace of one service; none until it throttles.

    Invariants: nothing is sent in a pause that the service has asked for, up to 30 s; else a pace
    is at least one request a second.
    """

    __slots__ = ("_base", "_hold_s", "_next_at", "_paused_until", "_slices", "_throttled_at")

    def __init__(self) -> None:
        """Begin without a pace."""
        self._base = 0.0  # requests per second after it last throttled; 0: there is no pace
        self._hold_s = _HOLD_S
        self._throttled_at = _NEVER
        self._paused_until = _NEVER
        self._next_at = _NEVER  # when the pace lets the next request through
        self._slices: deque[tuple[float, int]] = deque()  # begin, how many were accepted

    def per_s(self, now: float) -> float | None:
        """Return how many requests a second may be sent; None: as many as there are."""
        if not self._base:
            return None
        grown_s = max(0.0, now - self._throttled_at - self._hold_s)
        growth = 1.0 + _GROWTH * grown_s * grown_s * grown_s
        return None if growth >= _FORGET else self._base * growth

    def opens_at(self, now: float) -> float:
        """Return when the next request may be sent; not later than `now` if it may at once."""
        if not self._base:
            return now
        if self.per_s(now) is None:
            self._base = 0.0
            return now
        return max(self._paused_until, self._next_at)

    def note_sent(self, now: float) -> None:
        """Count a request that is sent."""
        self._count(now, 1)
        per_s = self.per_s(now)
        if per_s is not None:
            self._next_at = max(self._next_at, now - _CATCH_UP_S) + 1.0 / per_s

    def note_throttled(self, now: float, asked_s: float) -> None:
        """Slow down to what the service accepts: it has refused a request.

        Args:
            now: seconds.
            asked_s: for how long it wants to be left alone; 0: it has not said so.
        """
        self._count(now, -1)
        pause_s = min(asked_s, _LONGEST_PAUSE_S)
        is_paused = now < self._paused_until
        self._paused_until = max(self._paused_until, now + pause_s)
        if is_paused:
            return  # it was sent before the pause began
        before = self.per_s(now)
        if not pause_s:
            base = self._accepted_per_s(now, _SLICE_S)
            if before is not None:
                base = min(base, before)
            self._hold_s = _HOLD_S
        else:
            if before is not None and now < self._throttled_at + self._hold_s:
                base = before * _SOON
            else:
                least_s = min(max(_SLICE_S, _MEASURED_PER_PAUSE * pause_s), 1.0)
                base = self._accepted_per_s(now, least_s) * _LATE
            self._slices.clear()  # nothing is sent in the pause
            self._hold_s = min(max(_HOLD_S, _HOLD_PER_PAUSE * pause_s), _LONGEST_HOLD_S)
        self._base = max(base, _LEAST_PER_S)
        self._throttled_at = now

    def _count(self, now: float, count: int) -> None:
        slices = self._slices
        if slices and now < slices[-1][0] + _SLICE_S:
            begun_at, before = slices[-1]
            slices[-1] = (begun_at, before + count)
            return
        slices.append((now, count))
        while slices[0][0] < now - _WINDOW_S:
            slices.popleft()

    def _accepted_per_s(self, now: float, least_s: float) -> float:
        """Return how many requests a second were accepted of late, over `least_s` at least."""
        slices = self._slices
        if not slices:
            return 0.0
        accepted = sum(count for _, count in slices)
        return max(0, accepted) / max(now - slices[0][0], least_s)
