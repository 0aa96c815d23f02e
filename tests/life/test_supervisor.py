"""A service manager that watches: what systemd would be told, by a real process (sd_notify(3))."""

import asyncio
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.exchange.test_drain import Gate
from tests.support.client import connect
from tests.support.gateway import POST
from tests.support.served import served, settings_of
from tests.support.until import until
from tests.support.upstream import scripted_upstream


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.told: list[dict[str, str]] = []
        self._changed = asyncio.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self) -> None:
        lines = self._socket.recv(4096).decode().split("\n")
        self.told.append(dict(line.split("=", 1) for line in lines))
        self._changed.set()

    def count(self, key: str) -> int:
        return sum(key in said for said in self.told)

    async def hears(self, key: str, *, times: int = 1) -> dict[str, str]:
        """Wait until `key` has been said so many times; return what was said with it."""
        async with asyncio.timeout(100):
            while self.count(key) < times:
                self._changed.clear()
                await self._changed.wait()
        return [said for said in self.told if key in said][times - 1]

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    running = Manager(f"@{tmp_path / 'notify'}")
    yield running
    running.close()


async def test_it_is_told_of_start_reload_and_end(manager: Manager, tmp_path: Path) -> None:
    """READY once requests are taken; RELOADING with the time, READY again; STOPPING at once."""
    gate = Gate()
    async with (
        scripted_upstream(gate) as upstream,
        served(tmp_path, upstream.port, environ={"NOTIFY_SOCKET": manager.address}) as process,
    ):
        ready = await manager.hears("READY")
        assert ready["READY"] == "1"
        assert re.search(r"serving on http://127\.0\.0\.1:\d+, admin on http", ready["STATUS"])

        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        process.signal(signal.SIGHUP)
        reloading = await manager.hears("RELOADING")
        await manager.hears("READY", times=2)
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert reloading["RELOADING"] == "1"
        assert before <= int(reloading["MONOTONIC_USEC"]) <= after

        process.write({"nonsense": 1})
        assert (await process.ask_admin("/reload", method="POST")).status == 422
        failed = await manager.hears("READY", times=3)  # it serves as before
        assert failed["STATUS"].startswith("reload failed, old configuration: ")

        busy = await connect(process.port)
        busy.send(POST)
        await until(lambda: upstream.requests)
        process.signal(signal.SIGTERM)
        stopping = await manager.hears("STOPPING")
        assert stopping["STOPPING"] == "1"
        gate.open.set()
        assert (await busy.reply()).status == 200
        busy.leave()
        assert await process.ended() == 0
    assert manager.count("READY") == 3
    assert manager.count("WATCHDOG") == 0, "nobody asked for it"


async def test_the_event_loop_feeds_the_watchdog(manager: Manager, tmp_path: Path) -> None:
    """F50: at half of WATCHDOG_USEC, during a drain too; a loop that stands still does not."""
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "400000"}
    gate = Gate()
    async with (
        scripted_upstream(gate) as upstream,
        served(tmp_path, upstream.port, environ=environ) as process,
    ):
        began = time.monotonic()
        await manager.hears("WATCHDOG", times=4)
        assert time.monotonic() - began > 0.4, "far more often than asked for"

        process.signal(signal.SIGSTOP)
        await asyncio.sleep(0.3)  # what was sent before has been read
        told = manager.count("WATCHDOG")
        await asyncio.sleep(0.8)  # as above
        assert manager.count("WATCHDOG") == told
        process.signal(signal.SIGCONT)
        await manager.hears("WATCHDOG", times=told + 2)
        late = await process.sample("gateway_event_loop_lag_seconds_bucket", le="0.5")
        every = await process.sample("gateway_event_loop_lag_seconds_count")
        assert late is not None
        assert every is not None
        assert every - late >= 1

        busy = await connect(process.port)
        busy.send(POST)
        await until(lambda: upstream.requests)
        process.signal(signal.SIGTERM)
        await manager.hears("STOPPING")
        told = manager.count("WATCHDOG")
        await manager.hears("WATCHDOG", times=told + 2)
        gate.open.set()
        await busy.reply()
        busy.leave()
        assert await process.ended() == 0


@pytest.mark.parametrize(
    "environ",
    [
        {"NOTIFY_SOCKET": "@nobody-listens-here"},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "nonsense"},
    ],
)
async def test_nobody_need_listen(environ: dict[str, str], tmp_path: Path) -> None:
    """A manager that is gone, or of an unknown kind, keeps nobody from serving and ending."""
    async with served(tmp_path, 1, environ=environ) as process:
        assert (await process.ask_admin("/reload", method="POST")).status == 200
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0


async def test_deadlines_go_on_while_the_loop_stands_still(
    manager: Manager, tmp_path: Path
) -> None:
    """F50: they are instants, not sleeps: what was over while nothing ran is over at once.

    The loop's own beats tell how long that takes, five a second: none is made up for, and a busy
    machine makes fewer. If the pause did not count, there would be twenty.
    """
    settings = settings_of(0)
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "400000"}
    async with scripted_upstream(Gate()) as upstream:
        settings["services"]["iris"] |= {
            "url": f"http://127.0.0.1:{upstream.port}/x",
            "timeouts": {"first_byte": "4s"},
        }
        async with served(tmp_path, 0, settings, environ=environ) as process:
            caller = await connect(process.port)
            caller.send(POST)
            await until(lambda: upstream.requests)
            os.kill(process.process.pid, signal.SIGSTOP)
            await asyncio.sleep(5)  # the pause itself is the subject
            told = manager.count("WATCHDOG")
            os.kill(process.process.pid, signal.SIGCONT)
            async with asyncio.timeout(100):
                reply = await caller.reply()
            beats = manager.count("WATCHDOG") - told
            await manager.hears("WATCHDOG", times=told + beats + 1)
            caller.leave()
            assert reply.status == 504
            assert beats < 10, "counted from the end of the pause"
