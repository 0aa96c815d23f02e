"""F49, F51, F52: what a machine runs out of, and peers that take nothing; callers are served."""

import asyncio
import os
import resource
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.client import Caller, connect
from tests.support.gateway import POST
from tests.support.served import Served, served
from tests.support.until import PATIENCE_S
from tests.support.upstream import OK, Link, answer, scripted_upstream

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


async def ask(process: Served) -> bytes:
    """Send one request on a connection of its own; return the answer's body."""
    caller = await connect(process.port)
    caller.send(POST)
    async with asyncio.timeout(100):
        reply = await caller.reply()
    caller.leave()
    return reply.body


def cpu_s(pid: int) -> float:
    """Return the CPU time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(pid: int) -> int:
    """Return what a process has in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def room_for_files(pid: int) -> int:
    """How many files the kernel's table of a process has room for."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("FDSize:")[2].split()[0])


def connected(port: int) -> socket.socket:
    """Return a socket that has been connected, and may have been closed by the other side."""
    connection = socket.socket()
    connection.settimeout(PATIENCE_S)
    with suppress(ConnectionError):
        connection.connect(("127.0.0.1", port))
    return connection


async def test_too_many_callers_are_told_so(tmp_path: Path) -> None:
    """F49: at the limit of open files those there are served, the rest gets 503 or is closed;
    probes are answered, no CPU is burnt, and once callers leave all is as before."""
    limit = ["sh", "-c", 'ulimit -n 176; exec "$@"', "sh"]
    async with (
        scripted_upstream(OK) as upstream,
        served(tmp_path, upstream.port, prefix=limit) as process,
    ):
        first = [await connect(process.port) for _ in range(32)]
        for caller in first:
            caller.send(POST)
            assert (await caller.reply()).body == b"ok"
        more = [await connect(process.port) for _ in range(16)]
        for caller in more:
            reply = await caller.reply()
            assert (reply.status, reply.closes) == (503, True)
            assert b"Gateway.Overloaded" in reply.body
            assert reply.values(b"retry-after") == [b"1"]
        flood = [connected(process.port) for _ in range(200)]  # far beyond the limit
        for caller in first:
            caller.send(POST)
            assert (await caller.reply()).body == b"ok"
        assert (await process.ask_admin("/livez")).status == 200
        before = cpu_s(process.process.pid)
        await asyncio.sleep(1)  # what it does while nobody asks anything is the subject
        assert cpu_s(process.process.pid) - before < 0.5
        for caller in [*first, *more]:
            caller.leave()
        for connection in flood:
            connection.close()
        served_again = False
        async with asyncio.timeout(PATIENCE_S):
            while not served_again:  # until it has noticed them leave
                with suppress(EOFError):  # a refusal may be cut off by the reset behind it
                    served_again = await ask(process) == b"ok"
        assert await process.sample("gateway_requests_in_flight") == 0


async def test_memory_stays_bounded_whatever_waits(tmp_path: Path) -> None:
    """B2: unfinished heads, then readers of nothing, many times the budget: callers are served."""
    settings = {"limits": {"memory": "8MiB", "connections": 1000}}
    begin = b"POST /iris HTTP/1.1\r\nHost: x\r\n" + b"X: %b\r\n" % (b"x" * 20_000) * 5
    async with (
        scripted_upstream(scene) as upstream,
        served(tmp_path, upstream.port, settings) as process,
    ):
        assert await ask(process) == b"ok"
        before = memory_bytes(process.process.pid)
        for sent, read_buffer in ((begin, 4096), (POST.replace(b"/iris", b"/iris/large"), 4096)):
            callers = []
            for number in range(400):
                callers.append(await connect(process.port, read_buffer=read_buffer))
                callers[-1].send(sent)
                if number % 50 == 49:
                    assert await ask(process) == b"ok"
                    assert memory_bytes(process.process.pid) - before < 40 * 2**20
            held = await process.sample("gateway_memory_waiting_bytes")
            assert held is not None
            assert held <= 9 * 2**20
            for caller in callers:
                caller.reset()
        assert (await process.sample("gateway_requests_rejected_total", reason="memory") or 0) > 100
        assert await process.sample("gateway_memory_budget_bytes") == 8 * 2**20


async def scene(link: Link) -> None:
    """Answer more to some requests than their callers will ever read."""
    while True:
        request = await link.request()
        link.send(answer(200, b"x" * 2**20) if b"large" in request.line else OK)


async def test_no_caller_waits_for_the_table_of_files_to_grow(tmp_path: Path) -> None:
    """The kernel would stop the process for 10 to 30 ms each time: it has room from the start."""
    limit = ["sh", "-c", 'ulimit -n 4096; exec "$@"', "sh"]
    async with (
        scripted_upstream(OK) as upstream,
        served(tmp_path, upstream.port, prefix=limit) as process,
    ):
        assert room_for_files(process.process.pid) >= 4096


async def test_callers_are_limited_by_a_setting(tmp_path: Path) -> None:
    """However many files there may be: those above it are told so, and leave room when they go.

    C4: and what a crash leaves holds no secret, since no core is left.
    """
    settings = {"limits": {"connections": 3}}
    async with (
        scripted_upstream(OK) as upstream,
        served(tmp_path, upstream.port, settings) as process,
    ):
        # Unlimited is -1.
        assert set(resource.prlimit(process.process.pid, resource.RLIMIT_CORE)) <= {0, 1}
        first = [await connect(process.port) for _ in range(3)]
        for caller in first:
            caller.send(POST)
            assert (await caller.reply()).body == b"ok"
        further = await connect(process.port)
        assert (await further.reply()).status == 503
        rejected = await process.sample("gateway_requests_rejected_total", reason="connections")
        assert rejected == 1
        for caller in [*first, further]:
            caller.leave()
        async with asyncio.timeout(100):
            while await ask(process) != b"ok":  # noqa: ASYNC110  # until it has noticed them leave
                await asyncio.sleep(0.05)


async def test_the_admin_listener_cannot_take_the_callers_files(tmp_path: Path) -> None:
    """More silent connections to it than there are files: callers, probes, scrapes are served."""
    limit = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh"]
    async with (
        scripted_upstream(OK) as upstream,
        served(tmp_path, upstream.port, prefix=limit) as process,
    ):
        silent = [connected(process.admin_port) for _ in range(300)]
        callers = [await connect(process.port) for _ in range(72)]  # as many as it takes
        for caller in callers:
            caller.send(POST)
        for caller in callers:
            assert (await caller.reply()).body == b"ok"
        assert (await process.ask_admin("/readyz")).status == 200
        assert await process.sample("gateway_requests_in_flight") == 0
        for caller in callers:
            caller.leave()
        for connection in silent:
            connection.close()


@pytest.mark.parametrize(
    "redirection",
    [
        *(pytest.param(one, marks=pytest.mark.long) for one in (">&-", ">/dev/full")),
        ">&- 2>&- <&-",
        ">/dev/full 2>&1",
    ],
)
async def test_a_log_that_cannot_be_written_stops_nothing(redirection: str, tmp_path: Path) -> None:
    """F51: closed or full, from the start: requests are served, lines that are lost are counted."""
    settings = {}
    for key in ("listen", "admin_listen"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            settings[key] = f"127.0.0.1:{free.getsockname()[1]}"
    # What it says goes nowhere: the shell says it instead.
    announced = f"""
"$@" {redirection} 3>&- & child=$!
trap 'kill $child' TERM
echo 'listening on http://{settings["listen"]} for /;' \
     'admin on http://{settings["admin_listen"]}' >&3
wait $child; wait $child; echo "ended with $?" >&3
"""
    async with (
        scripted_upstream(OK) as upstream,
        served(
            tmp_path, upstream.port, settings, prefix=["sh", "-c", f"exec 3>&2; {announced}", "sh"]
        ) as process,
    ):
        async with asyncio.timeout(100):
            while True:
                try:
                    assert await ask(process) == b"ok"
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.05)
        for _ in range(20):
            assert await ask(process) == b"ok"
        lost = await process.sample("gateway_access_log_lost_lines_total")
        assert lost == (21 if "full" in redirection else 0)
        process.process.terminate()
        assert "ended with 0" in await process.says("ended with")


def full_pipe() -> tuple[int, int]:
    """Return both ends of a pipe that takes no more."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    return reader, writer


async def test_a_log_that_nobody_reads_stops_nothing(tmp_path: Path) -> None:
    """F51: neither a full standard output nor a full standard error is waited for."""
    async with scripted_upstream(OK) as upstream:
        reader, writer = full_pipe()
        async with served(tmp_path, upstream.port, stdout=writer) as process:
            for _ in range(50):
                assert await ask(process) == b"ok"
            process.write({"services": {f"s{number}": {} for number in range(100)}})
            process._reading.cancel()  # nobody reads its standard error any more either
            await asyncio.sleep(0)
            for _ in range(20):  # each writes some ten thousand bytes
                assert (await process.ask_admin("/reload", method="POST")).status == 422
            assert await ask(process) == b"ok"
        os.close(reader)
        os.close(writer)


async def slow_scraper(port: int, times: int) -> Caller:
    """Ask for metrics again and again, and read nothing of it."""
    caller = await connect(port, read_buffer=4096)
    caller.send(SCRAPE * times)
    return caller


async def test_scrapers_that_hang_do_not_slow_callers(tmp_path: Path) -> None:
    """F52: pages that nobody reads cost the data path neither time nor, beyond bounds, memory."""
    async with scripted_upstream(OK) as upstream, served(tmp_path, upstream.port) as process:
        alone = await fastest(process)
        # The last one's pages fill every buffer on the way.
        hanging = [await slow_scraper(process.admin_port, times) for times in [*[2] * 20, 200]]
        among = await fastest(process)
        assert among < alone + 1.0
        assert (await process.ask_admin("/readyz")).status == 200
        assert memory_bytes(process.process.pid) < 200 * 2**20
        used = -1.0
        async with asyncio.timeout(100):
            while used != (used := cpu_s(process.process.pid)):  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.4)  # until every buffer is full and nothing is left to do
        process.signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await process.ended() == 0, "nor do they keep it from ending"
        for caller in hanging:
            caller.reset()


async def fastest(process: Served) -> float:
    """Return the best time of some requests, in seconds."""
    times = []
    for _ in range(15):
        began = time.perf_counter()
        assert await ask(process) == b"ok"
        times.append(time.perf_counter() - began)
    return min(times)
