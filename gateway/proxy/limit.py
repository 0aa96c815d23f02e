"""How many requests of a service may be in flight: a fixed number, or one that adapts to loss.

A limit that adapts has a pace, too, for what the service refuses at once.

Pure: no I/O, no clock; the caller passes `now`. Adapting follows AIMD (additive increase,
multiplicative decrease). It looks at losses and not at latency, because the latency of a model
follows the length of its response, not its load.
"""

from typing import Final

from gateway.proxy.pace import Pace

FIRST_ADAPTIVE: Final = 10
"""Where an adaptive limit begins."""
MOST_ADAPTIVE: Final = 1000
_DECREASE: Final = 0.9
_DECREASE_PAUSE_S: Final = 1.0
"""One overload causes many losses at the same time; they count as one."""


class Limit:
    """How many requests may be in flight at this moment.

    Invariants: a fixed limit never changes; an adaptive one stays within 1 and 1000, and decreases
    at most once a second.
    """

    __slots__ = ("_decreased_at", "_exact", "_good", "current", "is_adaptive", "pace")

    def __init__(self, fixed: int | None) -> None:
        """Begin with a fixed limit, or with None for an adaptive one."""
        self.is_adaptive = fixed is None
        self.current = FIRST_ADAPTIVE if fixed is None else fixed
        self.pace = Pace() if fixed is None else None
        """How many may be sent per second; None: a fixed limit has none."""
        self._exact = float(self.current)
        self._good = 0  # good responses since the last increase
        self._decreased_at = -_DECREASE_PAUSE_S

    def note_good(self, in_flight: int) -> None:
        """Increase by one after as many good responses as the limit, while it is in use.

        Args:
            in_flight: requests in flight when the response ended, that one included.
        """
        if not self.is_adaptive or in_flight * 2 <= self.current:
            return
        self._good += 1
        if self._good >= self.current:
            self._set(self._exact + 1.0)

    def note_loss(self, now: float) -> None:
        """Decrease by a tenth: the service has throttled a request or did not respond in time."""
        if self.is_adaptive and now - self._decreased_at >= _DECREASE_PAUSE_S:
            self._decreased_at = now
            self._set(self._exact * _DECREASE)

    def _set(self, exact: float) -> None:
        self._exact = min(max(exact, 1.0), float(MOST_ADAPTIVE))
        self.current = int(self._exact)
        self._good = 0
