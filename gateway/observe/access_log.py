"""One line of JSON per request, at a cost of few microseconds and without ever blocking.

A thread does the writing, so that a full disk or a stalled reader of our output holds up nobody.
"""

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable

_FLUSH_BYTES = 64 * 1024
_FLUSH_AFTER_S = 0.1
_MAX_PENDING_BYTES = 4 * 1024 * 1024
"""Above this, lines are dropped and counted: about 15 000 lines behind."""


class LineWriter:
    """Writes lines to a file descriptor from a thread of its own.

    Invariants: `put` never blocks; memory is bounded; what is dropped or cannot be written is
    counted in `lost`.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: list[bytes] = []
        self._size = 0
        # Each counter has one writing thread; the sums may be read from any.
        self._handed_over = 0
        self._taken = 0
        self._dropped = 0
        self._unwritten = 0
        self._blocks: queue.SimpleQueue[list[bytes] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Lines that were dropped or could not be written."""
        return self._dropped + self._unwritten

    def put(self, line: bytes) -> bool:
        """Take a line, ended by a newline.

        Returns:
            Whether it is the first since the last `flush`, which the caller should then arrange.
        """
        if self._handed_over - self._taken > _MAX_PENDING_BYTES:
            self._dropped += 1
            return False
        first = not self._lines
        self._lines.append(line)
        self._size += len(line)
        if self._size >= _FLUSH_BYTES:
            self.flush()
            return False
        return first

    def flush(self) -> None:
        """Hand what has been put to the thread."""
        if self._lines:
            self._handed_over += self._size
            self._blocks.put(self._lines)
            self._lines = []
            self._size = 0

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is left, waiting no longer than `timeout_s`."""
        self.flush()
        self._blocks.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (lines := self._blocks.get()) is not None:
            block = b"".join(lines)
            try:
                _write_all(self._fd, block)
            except OSError:
                self._unwritten += len(lines)
            self._taken += len(block)


class AccessLog:
    """Formats a finished request. Values are numbers, closed sets, or checked by the caller."""

    def __init__(self, writer: LineWriter, *, wall_clock: Callable[[], float]) -> None:
        self._writer = writer
        self._wall_clock = wall_clock
        self._second = 0
        self._stamp = ""

    def record(  # noqa: PLR0917  # keywords cost as much as the line itself
        self,
        request_id: str,
        service: str,
        method: str,
        status: int,
        duration_s: float,
        credential_s: float,
        connect_s: float,
        first_byte_s: float,
        overhead_s: float,
        request_bytes: int,
        response_bytes: int,
        retries: int,
        error: str,
        upstream_request_id: str,
    ) -> None:
        """Write one line.

        Args:
            request_id: plain characters only, as `upstream_request_id`; both go out as they are.
            service: configured name.
            method: from a closed set.
            status: what the caller got; 0 when it had left.
            duration_s: from head to last byte; the other `_s` are its parts.
            credential_s: waiting for a token.
            connect_s: opening a connection.
            first_byte_s: from request sent to first byte; 0 when none came.
            overhead_s: our own share.
            request_bytes: of the body.
            response_bytes: of the body.
            retries: how often the request was sent again.
            error: metric label of what went wrong, or empty.
            upstream_request_id: the service's own id, or empty.
        """
        now = self._wall_clock()
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        line = (
            f'{{"time":"{self._stamp}.{int(now * 1000) % 1000:03}Z","request_id":"{request_id}",'
            f'"service":"{service}","method":"{method}","status":{status},'
            f'"duration_ms":{duration_s * 1000:.3f},"credential_ms":{credential_s * 1000:.3f},'
            f'"connect_ms":{connect_s * 1000:.3f},"first_byte_ms":{first_byte_s * 1000:.3f},'
            f'"overhead_ms":{overhead_s * 1000:.3f},"request_bytes":{request_bytes},'
            f'"response_bytes":{response_bytes},"retries":{retries},"error":"{error}",'
            f'"upstream_request_id":"{upstream_request_id}"}}\n'
        )
        if self._writer.put(line.encode("ascii")):
            asyncio.get_running_loop().call_later(_FLUSH_AFTER_S, self._writer.flush)


def _write_all(fd: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(fd, view) :]
