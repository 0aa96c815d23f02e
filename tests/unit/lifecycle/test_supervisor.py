"""What is sent to NOTIFY_SOCKET, byte for byte, and when nothing is."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.lifecycle.supervisor import Supervisor, heartbeat, supervisor_of
from gateway.observe.histogram import Histogram
from gateway.observe.metrics import LOOP_LAG_BUCKETS_S
from tests.support.until import PATIENCE_S


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        yield receiver


def test_each_state_is_one_datagram(manager: socket.socket) -> None:
    """Assignments, one a line, as sd_notify(3) wants them; a status cannot add one of its own."""
    supervisor = Supervisor(manager.getsockname())
    supervisor.ready("one\nMAINPID=1")
    supervisor.stopping()
    supervisor.alive()
    supervisor.reloading()

    assert manager.recv(999) == b"READY=1\nSTATUS=one MAINPID=1"
    assert manager.recv(999) == b"STOPPING=1\nSTATUS=draining"
    assert manager.recv(999) == b"WATCHDOG=1"
    assert manager.recv(999).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
    supervisor.close()
    supervisor.alive()  # does nothing any more


def test_a_manager_that_does_not_read_is_not_waited_for(manager: socket.socket) -> None:
    """Its queue fills up, and nobody here stops for that."""
    supervisor = Supervisor(manager.getsockname())
    for _ in range(5000):
        supervisor.ready("x" * 500)
    assert len(manager.recv(9999)) < 300, "a status has its limit"
    supervisor.close()


@pytest.mark.parametrize(
    ("environ", "every_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_is_fed_at_half_its_time(environ: dict[str, str], every_s: float | None) -> None:
    """If there is one, and if it is ours."""
    assert supervisor_of(environ, pid=7).alive_every_s == every_s


async def test_heartbeat_sees_a_loop_that_stands_still() -> None:
    """A callback that takes too long is a beat that comes too late, by about as much."""
    lag = Histogram(LOOP_LAG_BUCKETS_S)
    beating = asyncio.create_task(heartbeat(Supervisor(), lag))
    await asyncio.sleep(0)

    def stand_still() -> None:
        began = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < began + 0.4:
            pass

    asyncio.get_running_loop().call_later(0.1, stand_still)
    async with asyncio.timeout(PATIENCE_S):
        while not sum(lag.counts):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
    beating.cancel()

    assert 0.2 <= lag.total < 4
