"""Callers on a Unix socket: who may connect, and whose file it is, whatever happened before."""

import asyncio
import os
import signal
import socket
import stat
from pathlib import Path

import pytest

from tests.support.client import Caller
from tests.support.client import connect as connect_tcp
from tests.support.gateway import POST
from tests.support.served import served
from tests.support.until import PATIENCE_S, until
from tests.support.upstream import OK, scripted_upstream


async def connect(path: Path) -> Caller:
    return Caller(*await asyncio.open_unix_connection(path))


async def ask(path: Path) -> bytes:
    """Send one request; return the body of the answer."""
    caller = await connect(path)
    caller.send(POST)
    reply = await caller.reply()
    caller.leave()
    return reply.body


@pytest.mark.parametrize(
    ("mode", "bits"),
    [
        ("0600", 0o600),
        *(pytest.param(*row, marks=pytest.mark.long) for row in ((None, 0o660), ("666", 0o666))),
    ],
)
async def test_it_serves_there_and_takes_the_file_away(
    mode: str | None, bits: int, tmp_path: Path
) -> None:
    """With the mode that was asked for, whatever the umask; the drain is that of any listener."""
    path = tmp_path / "gateway.sock"
    settings = {"listen": f"unix:{path}"} | ({"listen_mode": mode} if mode else {})
    async with (
        scripted_upstream(OK) as upstream,
        served(
            tmp_path, upstream.port, settings, prefix=["sh", "-c", 'umask 077; exec "$@"', "sh"]
        ) as process,
    ):
        assert process.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == bits
        assert await ask(path) == b"ok"
        idle = await connect(path)
        process.signal(signal.SIGTERM)
        assert await idle.rest() == b""
        idle.leave()
        assert await process.ended() == 0
        assert not path.exists()


async def test_a_killed_ones_file_is_replaced(tmp_path: Path) -> None:
    """F44: after SIGKILL the next one starts at once, on the same socket and the same port."""
    path = tmp_path / "gateway.sock"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        admin = free.getsockname()[1]
    settings = {"listen": f"unix:{path}", "admin_listen": f"127.0.0.1:{admin}"}
    async with scripted_upstream(OK) as upstream:
        async with served(tmp_path, upstream.port, settings) as process:
            assert await ask(path) == b"ok"
            busy = await connect_tcp(admin)  # a connection of its port is open when it dies
            process.signal(signal.SIGKILL)
            assert await process.ended() == -signal.SIGKILL
            assert await busy.rest() == b""
            busy.leave()
        assert path.exists()
        async with served(tmp_path, upstream.port, settings) as process:
            assert process.admin_port == admin
            assert await ask(path) == b"ok"


@pytest.mark.long
async def test_a_port_is_free_again_at_once(tmp_path: Path) -> None:
    """F44: connections of the killed process do not keep the next one from listening."""
    async with scripted_upstream(OK) as upstream:
        async with served(tmp_path, upstream.port) as process:
            caller = await connect_tcp(process.port)
            caller.send(POST)
            assert (await caller.reply()).body == b"ok"
            port = process.port
            process.signal(signal.SIGKILL)
            await process.ended()
            caller.leave()
        settings = {"listen": f"127.0.0.1:{port}"}
        async with served(tmp_path, upstream.port, settings) as process:
            caller = await connect_tcp(port)
            caller.send(POST)
            assert (await caller.reply()).body == b"ok"
            caller.leave()


async def _refused(folder: Path, path: Path) -> str:
    """Start one that must not start; return what it says."""
    with pytest.raises(AssertionError) as caught:
        async with served(folder, 1, {"listen": f"unix:{path}"}) as process:
            await process.ended()
    return str(caught.value)


async def test_a_running_ones_file_is_left_alone(tmp_path: Path) -> None:
    """The second does not start, says why, and the first goes on."""
    path = tmp_path / "gateway.sock"
    async with (
        scripted_upstream(OK) as upstream,
        served(tmp_path, upstream.port, {"listen": f"unix:{path}"}) as process,
    ):
        (tmp_path / "second").mkdir()
        said = await _refused(tmp_path / "second", path)
        assert "cannot listen" in said
        assert "in use" in said
        assert await ask(path) == b"ok"
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    """A mistyped path costs nobody a file."""
    path = tmp_path / "notes"
    path.write_text("mine")
    assert "is no socket" in await _refused(tmp_path, path)
    assert path.read_text() == "mine"


async def test_a_successors_file_is_left_alone(tmp_path: Path) -> None:
    """Who ends late does not take away what the next one has put there."""
    path = tmp_path / "gateway.sock"
    async with served(tmp_path, 1, {"listen": f"unix:{path}"}) as process:
        path.unlink()
        async with asyncio.timeout(PATIENCE_S):
            with socket.socket(socket.AF_UNIX) as successor:
                successor.bind(os.fspath(path))
                process.signal(signal.SIGTERM)
                assert await process.ended() == 0
                assert path.exists()


@pytest.mark.long
async def test_a_caller_that_leaves_is_noticed(tmp_path: Path) -> None:
    """As on TCP: the call upstream is given up."""
    path = tmp_path / "gateway.sock"
    async with (
        scripted_upstream(lambda link: link.hold()) as upstream,
        served(tmp_path, upstream.port, {"listen": f"unix:{path}"}),
    ):
        caller = await connect(path)
        caller.send(POST)
        await until(lambda: upstream.links)
        caller.leave()
        async with asyncio.timeout(PATIENCE_S):
            await upstream.links[0].ended.wait()
