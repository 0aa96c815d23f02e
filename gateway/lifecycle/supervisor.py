"""Notifications to the service manager, such as systemd: the protocol of sd_notify(3)."""

import asyncio
import logging
import socket
from collections.abc import Mapping
from contextlib import suppress

from gateway.clock import monotonic_microseconds
from gateway.observe.histogram import Histogram

_LONGEST_STATUS = 200
_BEAT_S = 0.25

_log = logging.getLogger("gateway.lifecycle")


class Supervisor:
    """The service manager that started this process and watches it.

    Invariants: never blocks and never raises, so that a service manager that does not read cannot
    stop the gateway; without an address it does nothing.
    """

    def __init__(self, address: str = "", *, watchdog_s: float | None = None) -> None:
        """Prepare to write to a datagram socket; `@` begins the name of an abstract one.

        `watchdog_s` is the silence after which it restarts us; None: it does not watch.
        """
        self.alive_every_s = None if watchdog_s is None else watchdog_s / 2
        """How often `alive` is to be called, as sd_watchdog_enabled(3) recommends; None: never."""
        self._socket: socket.socket | None = None
        if not address.startswith(("/", "@")):
            return
        name = "\0" + address[1:] if address.startswith("@") else address
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.connect(name)
        except OSError as error:
            self.close()
            _log.warning("NOTIFY_SOCKET cannot be written to: %s", error.strerror)

    def ready(self, status: str) -> None:
        """Report that requests are accepted, after a start or a reload."""
        self._tell("READY=1", f"STATUS={status[:_LONGEST_STATUS]}")

    def reloading(self) -> None:
        """Report that the configuration is being read; `ready` must follow."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={monotonic_microseconds()}")

    def stopping(self) -> None:
        """Report that the gateway is shutting down."""
        self._tell("STOPPING=1", "STATUS=draining")

    def alive(self) -> None:
        """Report that the event loop works."""
        self._tell("WATCHDOG=1")

    def close(self) -> None:
        """Say no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, *lines: str) -> None:
        if self._socket is not None:
            # While the service manager restarts, or its queue is full, this one is lost.
            with suppress(OSError):
                self._socket.send("\n".join(line.replace("\n", " ") for line in lines).encode())


def supervisor_of(environ: Mapping[str, str], *, pid: int) -> Supervisor:
    """Return the service manager that the environment names, if it names one.

    `WATCHDOG_PID`, when set, names the process that is watched: it may be a wrapper and not us.
    """
    watchdog_s = None
    if environ.get("WATCHDOG_PID", str(pid)) == str(pid):
        with suppress(ValueError):
            watchdog_s = int(environ.get("WATCHDOG_USEC", "0")) / 1e6 or None
    return Supervisor(environ.get("NOTIFY_SOCKET", ""), watchdog_s=watchdog_s)


async def heartbeat(supervisor: Supervisor, lag: Histogram) -> None:
    """Report that the event loop works, and observe by how many seconds it is late.

    Cancellation: the only way out.
    """
    loop, every_s = asyncio.get_running_loop(), supervisor.alive_every_s
    pause_s = _BEAT_S if every_s is None else min(_BEAT_S, every_s)
    now = tell_at = loop.time()
    while True:
        due = now + pause_s  # from the last look on, so that no pause falls between two
        await asyncio.sleep(due - loop.time())
        now = loop.time()
        lag.observe(max(0.0, now - due))
        if every_s is not None and now >= tell_at - pause_s / 2:
            tell_at = now + every_s
            supervisor.alive()
