"""The timer for a cache's next login in the background, and its reason."""

import math
from collections.abc import Callable

from gateway.clock import Alarm
from gateway.identity.refresh import RefreshTrigger


class NextLogin:
    """Owns the timer of the next login."""

    def __init__(self, alarm: Alarm, begin: Callable[[], None]) -> None:
        """Begin without a timer; `begin` is called whenever one fires."""
        self._alarm = alarm
        self._begin = begin
        self._cancel: Callable[[], None] = _nothing
        self.due_at = math.inf
        """The instant of the timer; `inf`: none is set."""
        self.trigger = RefreshTrigger.STARTUP
        """Why that login is made."""

    def set_for(self, instant: float) -> None:
        """Set the timer to `instant` in place of any earlier one; `inf` sets none."""
        self._cancel()
        self._cancel = _nothing
        self.due_at = instant
        if instant < math.inf:
            self._cancel = self._alarm(instant, self._begin)


def _nothing() -> None:
    pass
