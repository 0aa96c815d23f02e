"""This replica's access to what the fleet shares, and whether it works at present."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gateway.identity.fleet.keys import FleetKeys
from gateway.identity.fleet.shelf import Shelf, ShelfError

_LOG = logging.getLogger("gateway.identity")
_STEP_S = 0.8
"""Seconds. A login must not wait long for a Redis that hangs: callers get a response within 2 s."""
_CONNECT_S = 1.2
"""Seconds until Redis must have responded after the start; then the gateway logs in by itself."""
_PROBE_DOWN_S, _PROBE_UP_S = 1.0, 5.0
_LAST_TURNS = 8
_MOST_OWED = 64
_MARK = b"modelarts-gateway"
_OTHER_KEY = "another gateway uses another key; give all replicas the same key_file"

_T = TypeVar("_T")


class FleetDownError(Exception):
    """The fleet's store cannot be used now: continue without it."""


class Fleet:
    """Owns the shelf, from `watch` to `aclose`. One per process.

    Invariants: no step takes longer than 0.8 s; while the shelf does not work nobody waits
    for it: only `watch` tries it, once a second. One warning per outage.
    """

    def __init__(
        self, shelf: Shelf, keys: FleetKeys, *, probe_every_s: float = _PROBE_UP_S
    ) -> None:
        """Take the shelf; while it works it is probed every `probe_every_s`."""
        self._probe_every_s = probe_every_s
        self.shelf = shelf
        self.keys = keys
        self.up = False
        """Whether the shelf works, and holds what our keys can read."""
        self.errors = 0
        """Steps that failed since the start."""
        self._known = asyncio.Event()
        self._warned = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._owed: deque[Callable[[], Coroutine[Any, Any, None]]] = deque(maxlen=_MOST_OWED)

    async def watch(self) -> None:
        """Check at intervals whether the shelf works.

        Cancellation: the only way out.
        """
        while True:
            await self._probe()
            self._known.set()
            await asyncio.sleep(self._probe_every_s if self.up else _PROBE_DOWN_S)

    async def ready(self) -> bool:
        """Return whether the shelf works; wait until that is known for the first time."""
        if not self._known.is_set():
            try:
                async with asyncio.timeout(_CONNECT_S):
                    await self._known.wait()
            except TimeoutError:
                return False
        return self.up

    async def do(self, step: Coroutine[Any, Any, _T]) -> _T:
        """Return what a step of the shelf returns.

        Raises:
            FleetDownError: it fails, takes too long, or the shelf does not work anyway.
        """
        if not self.up:
            step.close()
            raise FleetDownError
        try:
            return await _within(step, _STEP_S)
        except ShelfError as error:
            self._failed(str(error))
        raise FleetDownError

    async def trial(self, limit_s: float) -> str:
        """Return why the shelf cannot be used, in words; empty if it can. Logs nothing."""
        try:
            return "" if await _within(self._check(), limit_s) else _OTHER_KEY
        except ShelfError as error:
            return str(error)

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in the background; it must raise nothing but FleetDownError."""

        async def quietly() -> None:
            try:
                await work
            except FleetDownError:
                return

        task = asyncio.create_task(quietly(), name="fleet")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def once_up(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do `work`, as `in_background` does, as soon as the shelf works."""
        if self.up:
            self.in_background(work())
        else:
            self._owed.append(work)

    async def aclose(self) -> None:
        """Wait for work in the background, and close connections."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_STEP_S)
            for task in late:
                task.cancel()
        await self.shelf.aclose()

    async def _probe(self) -> None:
        try:
            is_ours = await _within(self._check(), _CONNECT_S)
        except ShelfError as error:
            self._failed(str(error))
            return
        if not is_ours:
            self._failed(_OTHER_KEY)
            return
        if self._warned:
            _LOG.info("fleet: Redis works again; logins are shared")
        self.up, self._warned = True, False
        while self._owed:
            self.in_background(self._owed.popleft()())

    async def _check(self) -> bool:
        """Return whether the shelf holds what our keys can read."""
        found = await self.shelf.check(self.keys.encrypt(_MARK))
        if self.keys.decrypt(found) != _MARK:
            return False
        if not self.keys.is_by_first(found):  # tells the other replicas that the new key is in use
            await self.shelf.check(self.keys.encrypt(_MARK), replace=True)
        return True

    def _failed(self, reason: str) -> None:
        self.up = False
        self.errors += 1
        if not self._warned:
            self._warned = True
            _LOG.warning(
                "fleet: Redis cannot be used: %s; until it can, this replica logs in by itself",
                reason,
            )


async def _within(step: Coroutine[Any, Any, _T], limit_s: float) -> _T:
    """Return what `step` returns.

    If this event loop was busy meanwhile, what has arrived is still read before time is up.

    Raises:
        ShelfError: it fails, or takes longer than `limit_s`.
    """
    task = asyncio.create_task(step)
    try:
        await asyncio.wait({task}, timeout=limit_s)
        for _ in range(_LAST_TURNS):
            if task.done():
                return task.result()
            await asyncio.sleep(0)
    finally:
        task.cancel()
    raise ShelfError("it does not respond in time")
