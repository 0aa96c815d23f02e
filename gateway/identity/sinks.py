"""Keeps an identity's sinks up to date: each holds the token in use, and none that has expired."""

import asyncio
import logging
import math
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from gateway.clock import Alarm, Clock
from gateway.identity.credential import Credential
from gateway.identity.refresh import RefreshResult, RefreshTrigger
from gateway.identity.sink_file import SinkFile, content_of, expiry_in

_LOG = logging.getLogger("gateway.identity")
_AGAIN_S = 5.0
_LAST_WRITE_S = 1.0
"""For how long a disk that hangs may keep the gateway from starting or ending."""


class SinkResult(StrEnum):
    """How a write ended: label `result` of `gateway_sink_writes_total`."""

    OK = "ok"
    FAILED = "failed"


class SinkObserver(Protocol):
    """Told of logins and of writes."""

    def refreshed(self, trigger: RefreshTrigger, result: RefreshResult, duration_s: float) -> None:
        """Count one login. Must not raise."""
        ...

    def sink_written(self, result: SinkResult) -> None:
        """Count one write. Must not raise."""
        ...


@dataclass(slots=True)
class _Sink:
    """One file, and what is known of it."""

    file: SinkFile
    written: bytes | None = None
    """Its content, if we have written it."""
    kept_until: float = -math.inf
    """Until this instant of the clock a token from an earlier process stays in it; `inf`: until a
    login has ended."""
    failing: bool = False


class Sinks:
    """Owns an identity's sinks from `start` to `aclose`. Implements the cache's `Observer`.

    Invariants: one write at a time; a file never holds a credential for longer than it is valid,
    as far as the disk can be written to; a token that an earlier process has left stays until the
    expiry that the file names, or without one until the first login has ended, because a restart
    must not take a good token away. A file that is missing is made at once, without a token: some
    data planes do not start without it.

    Used from one event loop; files are written in a thread.
    """

    def __init__(
        self,
        identity: str,
        files: Iterable[SinkFile],
        *,
        observer: SinkObserver,
        clock: Clock,
        wall_clock: Clock,
        alarm: Alarm,
    ) -> None:
        """Take the files; nothing is written before `start`."""
        self._identity = identity
        self._sinks = [_Sink(file) for file in files]
        self._observer = observer
        self._clock = clock
        self._wall_clock = wall_clock
        self._alarm = alarm
        self._credential: Credential | None = None
        self._login_ended = False
        self._changed = asyncio.Event()
        self._begun = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._left: Collection[Path] = ()

    def refreshed(self, trigger: RefreshTrigger, result: RefreshResult, duration_s: float) -> None:
        """Note that a login has ended, and count it."""
        self._login_ended = True
        self._changed.set()
        self._observer.refreshed(trigger, result, duration_s)

    def credential_changed(self, credential: Credential | None) -> None:
        """Write `credential`, the one in use from now on; None takes the last one out."""
        self._credential = credential
        for sink in self._sinks:
            sink.kept_until = -math.inf
        self._changed.set()

    def start(self, after: Sequence[asyncio.Task[None]] = ()) -> None:
        """Begin to write; not before `after`, which may still write the same files."""
        if self._sinks:
            self._task = asyncio.create_task(self._write(after), name=f"sinks-{self._identity}")
            self._task.add_done_callback(self._report_defect)

    async def begun(self) -> None:
        """Return when every file is there, or could not be made, or the disk hangs."""
        if self._sinks:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WRITE_S):
                    await self._begun.wait()

    def paths(self) -> frozenset[Path]:
        """Return the files."""
        return frozenset(sink.file.path for sink in self._sinks)

    async def aclose(self, left: Collection[Path] = ()) -> None:
        """Write no more; first take the token out of the files that are set to `remove_on_exit`.

        Args:
            left: files that somebody else writes from now on.
        """
        self._left = left
        self._closing = True
        self._changed.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_LAST_WRITE_S)
            self._task.cancel()

    async def _write(self, after: Sequence[asyncio.Task[None]]) -> None:
        if after:
            await asyncio.wait(after)
        for sink in self._sinks:
            await self._look_at(sink)
        while not self._closing:
            self._changed.clear()
            now = self._clock()
            for sink in self._sinks:
                await self._update(sink, now)
            self._begun.set()
            await self._wait_until(self._next_change(now))
        for sink in self._sinks:
            if sink.file.remove_on_exit and sink.file.path not in self._left:
                await self._put(sink, content_of(sink.file, None))

    def _report_defect(self, task: asyncio.Task[None]) -> None:
        """Log what has ended the writing; nobody waits for it who would see."""
        self._begun.set()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            text = "identity %s: its sinks are not written any more because of a defect"
            _LOG.error(text, self._identity, exc_info=error)

    async def _wait_until(self, instant: float) -> None:
        """Return at `instant`, or earlier if something has changed."""
        if instant == math.inf:
            await self._changed.wait()
            return
        cancel_alarm = self._alarm(instant, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            cancel_alarm()

    async def _look_at(self, sink: _Sink) -> None:
        """Check whether the file holds a token that may stay until the first login has ended."""
        try:
            found = await asyncio.to_thread(sink.file.read)
        except OSError:
            return
        if found and self._credential is None:
            wall_expiry = expiry_in(found)
            left_s = math.inf if wall_expiry is None else wall_expiry - self._wall_clock()
            sink.kept_until = self._clock() + left_s

    async def _update(self, sink: _Sink, now: float) -> None:
        credential = self._credential
        if credential is not None and now >= credential.expires_at:
            credential = None
        if credential is None:
            if now < sink.kept_until < math.inf:
                return
            if sink.kept_until == math.inf and not self._login_ended:
                return
        content = content_of(sink.file, credential)
        if content != sink.written:
            await self._put(sink, content)

    async def _put(self, sink: _Sink, content: bytes) -> None:
        try:
            await asyncio.to_thread(sink.file.replace, content)
        except OSError as error:
            self._observer.sink_written(SinkResult.FAILED)
            sink.written = None
            if not sink.failing:
                _LOG.warning(
                    "identity %s: sink %s cannot be written: %s; its last content stays, and "
                    "writing is tried again every %.0f s; correct the folder's mode or owner",
                    self._identity,
                    sink.file.path,
                    error.strerror,
                    _AGAIN_S,
                )
            sink.failing = True
            return
        self._observer.sink_written(SinkResult.OK)
        if sink.failing:
            _LOG.info("identity %s: sink %s is written again", self._identity, sink.file.path)
        sink.written, sink.failing = content, False

    def _next_change(self, now: float) -> float:
        """Return when a file has to be looked at again, if nothing happens before."""
        instants = [now + _AGAIN_S for sink in self._sinks if sink.failing]
        instants += [s.kept_until for s in self._sinks if now < s.kept_until]
        if self._credential is not None and now < self._credential.expires_at:
            instants.append(self._credential.expires_at)
        return min(instants, default=math.inf)
