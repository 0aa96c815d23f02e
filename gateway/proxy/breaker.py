"""Whether a service that fails again and again is left alone for a while.

Pure: no I/O, no clock; the caller passes `now` in seconds. A dead service would hold each caller
for as long as `timeouts.first_byte`.
"""

from enum import Enum, StrEnum, auto
from typing import Final

_LONGEST_S: Final = 60.0
"""A pause doubles up to this; one that is configured to be longer stays as it is."""
_JITTER: Final = 0.2


class BreakerState(StrEnum):
    """Label `to` of `gateway_breaker_transitions_total`."""

    CLOSED = "closed"
    """Requests pass."""
    OPEN = "open"
    """Requests are refused until the pause is over."""
    HALF_OPEN = "half_open"
    """One request is under way to find out; others are refused."""


CLOSED: Final = BreakerState.CLOSED
OPEN: Final = BreakerState.OPEN
HALF_OPEN: Final = BreakerState.HALF_OPEN


class Verdict(Enum):
    """What becomes of a request."""

    PASSES = auto()
    PROBES = auto()
    """It passes, and its end decides."""
    REFUSED = auto()


PASSES: Final = Verdict.PASSES
PROBES: Final = Verdict.PROBES
REFUSED: Final = Verdict.REFUSED


class Breaker:
    """Opens after some failures in a row, and closes when one request succeeds.

    Invariants: while it is open no request passes; one probe at a time; a pause is at most twice
    the one before it.
    """

    __slots__ = ("_failed", "_failures", "_first_pause_s", "_pause_s", "_until", "state")

    def __init__(self, failures: int, pause_s: float) -> None:
        """Begin closed.

        Args:
            failures: so many in a row open it.
            pause_s: for how long, the first time.
        """
        self.state: BreakerState = CLOSED
        self._failures = failures
        self._failed = 0  # in a row
        self._first_pause_s = pause_s
        self._pause_s = pause_s
        self._until = 0.0

    def admit(self, now: float) -> Verdict:
        """Decide about a request; the first one after a pause becomes the probe."""
        if self.state is CLOSED:
            return PASSES
        if self.state is OPEN and now >= self._until:
            self.state = HALF_OPEN
            return PROBES
        return REFUSED

    def remaining_s(self, now: float) -> float:
        """Return the rest of the pause."""
        return max(0.0, self._until - now)

    def note_success(self, *, is_probe: bool) -> None:
        """Close, or begin to count anew: the service is up."""
        if self.state is CLOSED:
            self._failed = 0
        elif self.state is HALF_OPEN and is_probe:
            self.state = CLOSED
            self._failed = 0
            self._pause_s = self._first_pause_s

    def note_failure(self, now: float, draw: float, *, is_probe: bool) -> None:
        """Open after a failure too many, or again after a probe that failed.

        Args:
            now: seconds.
            draw: a random number from 0 to 1, which spreads the pauses by a fifth either way.
            is_probe: the request was the probe.
        """
        if self.state is CLOSED:
            self._failed += 1
            if self._failed >= self._failures:
                self._open(now, draw)
        elif self.state is HALF_OPEN and is_probe:
            self._pause_s = max(self._first_pause_s, min(self._pause_s * 2.0, _LONGEST_S))
            self._open(now, draw)

    def note_nothing(self, now: float, *, is_probe: bool) -> None:
        """Make the next request the probe: this one ended without a verdict on the service."""
        if self.state is HALF_OPEN and is_probe:
            self.state = OPEN
            self._until = now

    def _open(self, now: float, draw: float) -> None:
        self.state = OPEN
        self._failed = 0
        self._until = now + self._pause_s * (1.0 - _JITTER + 2.0 * _JITTER * draw)
