"""One line of JSON per request, formatted and written in batches, never blocking.

A line formatted between two requests costs 12 µs, one of a batch 3: the code is still in the
processor's cache (2026-11, Python 3.11, measured as a difference between two running gateways).
"""

import os
import select
import stat
import time
from collections.abc import Iterable
from typing import Final

_MAX_PENDING_BYTES: Final = 4 * 1024 * 1024
"""Bytes that may wait, about 15 000 lines; further lines are dropped and counted."""
_CHUNK_BYTES: Final = 4096
"""What a pipe that is ready to be written takes without blocking (PIPE_BUF on Linux)."""
_NO_WAITS: Final = ',"queue_us":0,"credential_us":0,"connect_us":0,"first_byte_us":'
_GOOD_END: Final = ',"retries":0,"error":"","rejection":"","upstream_request_id":""}\n'


class Record:
    """What is logged of one request, filled in when it has ended. Not changed afterwards.

    Times are in seconds; texts are plain, and written unquoted.

    The reference of the access log is made from the docstrings.
    """

    ended_at: float = 0.0
    """When the request ended, in UTC. Here on the clock that `write` is told the time of."""
    request_id: str = ""
    """The caller's `X-Request-Id` if it sent one, else the gateway's; the response has it too."""
    service: str = ""
    """Name of the service; `other` if none was found."""
    method: str = ""
    """Method that the service's `methods` names; `other` for any else."""
    status: int = 0
    """HTTP status that the caller got; 0 if it had left before it got one."""
    duration_s: float = 0.0
    """From the request's head to the last byte of its response; the others are parts of it."""
    queue_s: float = 0.0
    """Waited for a place in flight (`max_in_flight`)."""
    credential_s: float = 0.0
    """Waited for a login, because there was no usable token."""
    connect_s: float = 0.0
    """Waited for a new connection to the service; 0 on a kept one."""
    first_byte_s: float = 0.0
    """From the request sent to the response's first byte; 0 if none came."""
    first_chunk_s: float = 0.0
    """From the request sent to the first byte of the response's body; 0 if none came."""
    overhead_s: float = 0.0
    """The gateway's own share, all waiting excluded."""
    request_bytes: int = 0
    """Length of the request's body."""
    response_bytes: int = 0
    """Length of the response's body, as far as the caller got it."""
    retries: int = 0
    """How often the request was sent again."""
    error: str = ""
    """What went wrong: label `error` of `gateway_errors_total`; empty if nothing did."""
    rejection: str = ""
    """Why it was not taken: label `reason` of `gateway_requests_rejected_total`; else empty."""
    upstream_request_id: str = ""
    """The request id in the service's response, for its owner's log; empty without one."""
    layer: str = ""
    """Label `layer` of `gateway_errors_total` if there is an error; not in the line."""


class AccessLog:
    """Writes lines to a file descriptor that it does not own.

    Invariants: never blocks on a pipe or terminal; memory is bounded; what is dropped or cannot
    be written is counted in `lost`.
    """

    def __init__(self, fd: int) -> None:
        self.lost = 0
        """Lines that were dropped or could not be written."""
        self._fd = fd
        self._pending = bytearray()
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def write(self, records: Iterable[Record], *, now: float, wall_now: float) -> None:
        """Format and write a batch, and what an earlier one could not.

        Args:
            records: in the order they ended.
            now: the instant, on the clock of `Record.ended_at`.
            wall_now: the same instant in seconds since the epoch.
        """
        lines = []
        offset = wall_now - now
        second = millisecond = 0
        until_second = stamp = ""
        service = method = what = ""
        status = -1
        for record in records:
            at = int((record.ended_at + offset) * 1000)
            if at != millisecond:
                millisecond = at
                if at // 1000 != second:
                    second = at // 1000
                    until_second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
                # Three digits; compiled, a format of its own costs six times that.
                milliseconds = str(1000 + at % 1000)[1:]
                stamp = f'{{"time":"{until_second}.{milliseconds}Z","request_id":"'
            # What is nearly always the same is not formatted again: half of the whole line.
            if record.status != status or record.service != service or record.method != method:
                status, service, method = record.status, record.service, record.method
                what = (
                    f'","service":"{service}","method":"{method}","status":{status},"duration_us":'
                )
            waits = _NO_WAITS
            if record.credential_s or record.connect_s or record.queue_s:
                waits = (
                    f',"queue_us":{int(record.queue_s * 1e6)},'
                    f'"credential_us":{int(record.credential_s * 1e6)},'
                    f'"connect_us":{int(record.connect_s * 1e6)},"first_byte_us":'
                )
            first_byte_us = first_chunk_us = str(int(record.first_byte_s * 1e6))
            if record.first_chunk_s != record.first_byte_s:
                first_chunk_us = str(int(record.first_chunk_s * 1e6))
            end = _GOOD_END
            if record.retries or record.error or record.upstream_request_id:
                end = (
                    f',"retries":{record.retries},"error":"{record.error}",'
                    f'"rejection":"{record.rejection}",'
                    f'"upstream_request_id":"{record.upstream_request_id}"}}\n'
                )
            lines.append(
                f"{stamp}{record.request_id}{what}{int(record.duration_s * 1e6)}"
                f"{waits}{first_byte_us},"
                f'"first_chunk_us":{first_chunk_us},"overhead_us":{int(record.overhead_s * 1e6)},'
                f'"request_bytes":{record.request_bytes},'
                f'"response_bytes":{record.response_bytes}{end}'
            )
        if len(self._pending) > _MAX_PENDING_BYTES:
            self.lost += len(lines)
        else:
            self._pending += "".join(lines).encode("ascii")
        self.flush()

    def flush(self) -> None:
        """Write as much of what is pending as can be written without blocking."""
        pending = self._pending
        while pending:
            if not self._is_file and not self._poll.poll(0):
                return
            try:
                written = os.write(
                    self._fd, pending if self._is_file else memoryview(pending)[:_CHUNK_BYTES]
                )
            except OSError:
                self.lost += pending.count(b"\n")
                self._pending = bytearray()  # tracebacks may still refer to the other one
                return
            del pending[:written]
