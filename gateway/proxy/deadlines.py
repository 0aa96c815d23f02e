"""One coarse timer for all deadlines, in place of a timer handle for each."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from mypy_extensions import mypyc_attr

_log: Final = logging.getLogger("gateway.proxy")


@mypyc_attr(allow_interpreted_subclasses=True)
class Watched:
    """Something that must not last for ever. Hashable by identity."""

    __slots__ = ()

    def deadline(self) -> float:
        """Return when to look at it again: seconds on the clock of the `Deadlines`."""
        raise NotImplementedError

    def expire(self) -> None:
        """Decide what being past the deadline means."""
        raise NotImplementedError


class Deadlines:
    """Calls `expire` of whatever is past its deadline; idle while nothing is watched."""

    def __init__(self, clock: Callable[[], float], *, tick_s: float = 0.5) -> None:
        """Prepare to watch."""
        self._clock = clock
        self.tick_s = tick_s
        """How late a deadline may be noticed; heeded from the next look on."""
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, item: Watched) -> None:
        """Begin to watch `item`."""
        self._watched.add(item)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.tick_s, self._tick)

    def forget(self, item: Watched) -> None:
        """Stop watching `item`; harmless if it is not watched."""
        self._watched.discard(item)

    def close(self) -> None:
        """Stop the timer; nothing is expired any more."""
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        now = self._clock()
        for item in list(self._watched):
            try:
                if item in self._watched and item.deadline() <= now:
                    item.expire()
            except Exception:  # noqa: BLE001  # logged; the others' deadlines stand
                _log.exception(
                    "a deadline failed because of a defect in the gateway; please report it"
                )
        if self._watched and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.tick_s, self._tick)
