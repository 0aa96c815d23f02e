"""Memory of a real `serve` process: bodies pass through it and do not stay."""

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.downstream.connection import _CROWD_BUFFER_BYTES, _CROWD_SEND_BYTES, CROWD
from tests.support.client import Caller, connect
from tests.support.gateway import GET, running_gateway
from tests.support.tools import LONG
from tests.support.until import until
from tests.support.upstream import OK, Link, scripted_upstream

MIB = 2**20
PIECE = bytes(MIB)


class Serving:
    """A gateway in a process of its own."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self._pid = pid

    def rss_mib(self) -> float:
        """Return what the process holds in memory."""
        pages = int(Path(f"/proc/{self._pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / MIB


@asynccontextmanager
async def serving(upstream_port: int, folder: Path) -> AsyncIterator[Serving]:
    """Run `serve` with service `iris` at `upstream_port`, and callers that may stall for minutes.

    On a busy machine some were cut off with 408 or 504 before all had sent what is measured.
    """
    config = folder / "gateway.yaml"
    patient = "timeouts: {connect: 5m, upload_rate: 0, idle: 5m}"
    config.write_text(
        "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\n"
        "identities: {default: {method: none}}\n"
        f"services: {{iris: {{url: 'http://127.0.0.1:{upstream_port}', {patient}}}}}\n",
        encoding="ascii",
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "serve", "--config", str(config)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        told = None
        while told is None:
            line = await process.stderr.readline()
            assert line, "serve has ended"
            told = re.search(rb"listening on http://127\.0\.0\.1:(\d+)", line)
        yield Serving(int(told[1]), process.pid)
    finally:
        process.terminate()
        await process.communicate()


async def swallow(link: Link) -> None:
    """Read each request without keeping it, and answer."""
    while True:
        request = await link.head()
        left = int(request.values(b"content-length")[0])
        while left:
            left -= len(await link.read(min(left, 65536)))
            link.received.clear()
        link.send(OK)


def head_of(length: int) -> bytes:
    return b"POST /iris HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length


async def upload(caller: Caller, megabytes: int) -> None:
    """Send a body and take the answer."""
    caller.send(head_of(megabytes * MIB))
    for _ in range(megabytes):
        caller.send(PIECE)
        await caller.flush()
    assert (await caller.reply()).body == b"ok"


async def warm_up(gateway: Serving) -> float:
    """Use everything once; return what that needs."""
    caller = await connect(gateway.port)
    for _ in range(3):
        await upload(caller, 1)
    caller.leave()
    return gateway.rss_mib()


async def test_uploads_pass_through(tmp_path: Path) -> None:
    """Fifty callers send 10 MiB each at the same time: one read of each is in memory, not more."""
    async with scripted_upstream(swallow) as upstream, serving(upstream.port, tmp_path) as gateway:
        before = await warm_up(gateway)
        callers = [await connect(gateway.port) for _ in range(50)]
        most = before

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, gateway.rss_mib())
                await asyncio.sleep(0.02)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(upload(caller, 10) for caller in callers))
        watching.cancel()
        for caller in callers:
            caller.leave()

    assert most - before < 30


async def test_answer_waits_for_its_reader(tmp_path: Path) -> None:
    """64 MiB for a caller that does not read stay with the service: less than 4 MiB more."""

    async def script(link: Link) -> None:
        while True:
            request = await link.request()
            if request.content != b"large":
                link.send(OK)
                continue
            link.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
            for _ in range(64):
                link.send(PIECE)
                await link.flush()

    async with scripted_upstream(script) as upstream, serving(upstream.port, tmp_path) as gateway:
        before = await warm_up(gateway)
        caller = await connect(gateway.port, read_buffer=65536)
        caller.send(head_of(5) + b"large")
        await caller.head()
        most = before
        for _ in range(32):
            assert len(await caller.take(MIB)) == MIB
            most = max(most, gateway.rss_mib())
            await asyncio.sleep(0.005)
        assert upstream.links[0].sent < 64 * MIB
        assert len(await caller.take(32 * MIB)) == 32 * MIB
        caller.leave()

    assert most - before < 4


async def test_kernel_keeps_less_for_a_crowd() -> None:
    """The first connections are as fast as may be; beyond `CROWD` each takes less ahead."""
    async with scripted_upstream(OK) as upstream, running_gateway(upstream.port) as gateway:
        buffers = []
        for _ in range(CROWD + 1):
            caller = await gateway.connect()
            caller.send(GET)
            await caller.reply()
            newest = gateway.gateway._parts.data.clients()[-1]
            assert newest.stream.transport is not None
            sock = newest.stream.transport.get_extra_info("socket")
            buffers.append(
                [
                    sock.getsockopt(socket.SOL_SOCKET, option)
                    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF)
                ]
            )

    for received, sent in buffers[:CROWD]:
        assert received > buffers[CROWD][0]
        assert sent > 2 * _CROWD_SEND_BYTES  # Linux doubles what it is told, and adds nothing
    assert buffers[CROWD] == [2 * _CROWD_BUFFER_BYTES, 2 * _CROWD_SEND_BYTES]


@pytest.mark.parametrize(
    ("declared", "sent"),
    [
        (900 * 1024, 899 * 1024),
        pytest.param(900 * 1024, 300_000, marks=pytest.mark.long),
        (10 * MIB, 900_000),
    ],
)
async def test_stalled_uploads_are_cheap(tmp_path: Path, declared: int, sent: int) -> None:
    """150 callers that stop within their bodies cost less than 20 MiB, kept for replay or not."""
    async with scripted_upstream(swallow) as upstream, serving(upstream.port, tmp_path) as gateway:
        before = await warm_up(gateway)
        callers = [await connect(gateway.port) for _ in range(150)]
        for caller in callers:
            caller.send(head_of(declared) + bytes(sent))
        most = before
        async with asyncio.timeout(250):
            while any(caller.unsent for caller in callers):
                await asyncio.sleep(0.02)
                most = max(most, gateway.rss_mib())
            while sum(len(link.requests) for link in upstream.links) < 150 + 3:  # noqa: ASYNC110  # nobody signals it
                await asyncio.sleep(0.02)
        most = max(most, gateway.rss_mib())
        for caller in callers:
            caller.leave()

    assert most - before < 20


SMALL_CHUNKS = b"2\r\nxx\r\n" * 40_000


async def test_stalled_uploads_in_small_chunks_are_cheap(tmp_path: Path) -> None:
    """Callers that stop after 40 000 chunks of two bytes cost no more than others: 20 MiB.

    Each would need more than a megabyte if a chunk were kept by itself.
    """
    count = 150 if LONG else 25
    seen = 0

    async def drain(link: Link) -> None:
        nonlocal seen
        await link.head()
        while await link._more():
            seen += len(link.received)
            link.received.clear()

    async with scripted_upstream(drain) as upstream, serving(upstream.port, tmp_path) as gateway:
        (await connect(gateway.port)).leave()
        before = gateway.rss_mib()
        callers = [await connect(gateway.port) for _ in range(count)]
        for caller in callers:
            caller.send(
                b"POST /iris HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            caller.send(SMALL_CHUNKS)
        most = before
        async with asyncio.timeout(250):
            while seen < count * 2 * 40_000 or any(caller.unsent for caller in callers):
                await asyncio.sleep(0.02)
                most = max(most, gateway.rss_mib())
        for caller in callers:
            caller.reset()

    assert most - before < 20


async def test_answer_in_small_chunks_waits_for_its_reader(tmp_path: Path) -> None:
    """However small its pieces, what waits for a caller that does not read is bounded: 6 MiB."""

    async def script(link: Link) -> None:
        await link.request()
        link.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            link.send(SMALL_CHUNKS)
            await link.flush()

    async with scripted_upstream(script) as upstream, serving(upstream.port, tmp_path) as gateway:
        caller = await connect(gateway.port, read_buffer=65536)
        before = gateway.rss_mib()
        caller.send(head_of(2) + b"{}")
        await caller.head()
        await until(lambda: upstream.links[0].unsent)
        sent = -1
        while sent < upstream.links[0].sent:  # until all buffers on the way are full
            sent = upstream.links[0].sent
            await asyncio.sleep(0.2)
        most = gateway.rss_mib()
        caller.reset()

    assert sent < 100 * len(SMALL_CHUNKS)
    assert most - before < 6
