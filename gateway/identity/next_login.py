"""When a cache is to log in by itself, and why."""

import math
from collections.abc import Callable

from gateway.clock import Alarm
from gateway.identity.refresh import RefreshTrigger


class NextLogin:
    """Owns the one alarm that is set for the next login."""

    def __init__(self, alarm: Alarm, begin: Callable[[], None]) -> None:
        """Set no alarm yet; `begin` is called whenever one rings."""
        self._alarm = alarm
        self._begin = begin
        self._cancel: Callable[[], None] = _nothing
        self.due_at = math.inf
        """For when the alarm was set last; `inf`: none is set."""
        self.trigger = RefreshTrigger.STARTUP
        """Why that login is made."""

    def set_for(self, instant: float) -> None:
        """Set the alarm for `instant`, and not for any earlier choice; never if it is `inf`."""
        self._cancel()
        self._cancel = _nothing
        self.due_at = instant
        if instant < math.inf:
            self._cancel = self._alarm(instant, self._begin)


def _nothing() -> None:
    pass
