"""One coarse timer for all deadlines, in place of a timer handle for each."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from mypy_extensions import mypyc_attr

EXPIRED_TOGETHER: Final = 32
"""In a turn of the loop: to end a thousand at once would take a tenth of a second."""
LOOKED_AT_TOGETHER: Final = 256
"""In a turn: a millisecond."""

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
        self._unseen: list[Watched] = []  # in the look that is under way
        self._timer: asyncio.Handle | None = None  # of the next look, or the rest of this one

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
        self._unseen.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._unseen = list(self._watched)
        self._expire_some()

    def _expire_some(self) -> None:
        """Look at what is watched; go on in the next turn of the loop where many are due."""
        now, left = self._clock(), EXPIRED_TOGETHER
        for _ in range(min(LOOKED_AT_TOGETHER, len(self._unseen))):
            if not left:
                break
            item = self._unseen.pop()
            try:
                if item in self._watched and item.deadline() <= now:
                    left -= 1
                    item.expire()
            except Exception:  # noqa: BLE001  # logged; the others' deadlines stand
                _log.exception(
                    "a deadline failed because of a defect in the gateway; please report it"
                )
        loop = asyncio.get_running_loop()
        self._timer = None
        if self._unseen:
            self._timer = loop.call_soon(self._expire_some)
        elif self._watched:
            self._timer = loop.call_later(self.tick_s, self._tick)
