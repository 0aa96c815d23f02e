"""What a request of at most 10 KiB may cost: processor, memory, lines in the log, series."""

import asyncio
import json
import logging
import random
import re
import signal
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest

from gateway.http.request_head import METHODS
from gateway.observe.process_log import BURST, LineFormatter
from gateway.proxy.accounting import REFUSALS_AT_ONCE
from tests.exchange.costly_rows import EVERY, MAX_BYTES, PLAIN
from tests.support.client import connect
from tests.support.gateway import GET, POST, RunningGateway, running_gateway
from tests.support.served import served
from tests.support.until import until
from tests.support.upstream import OK, Link, answer, answering, scripted_upstream

KIB, MIB = 2**10, 2**20
MAX_LINE_BYTES = 2 * KIB
TIMES_PLAIN = 100
_TIMES = 4
"""How often a row is sent at once, so that its cost is not that of one unlucky moment."""
_SERVICE = {"methods": ["GET", "HEAD", "POST"]}
_SEEN = re.compile(
    rf'gateway_requests_total\{{code="(?:[0-9]{{3}}|[0-9]xx)",method="(?:{"|".join(METHODS)}|other)",'
    r'service="(?:iris|other)"\}'
)
"""What is there once it has been seen."""


def test_rows_are_small() -> None:
    """Or they would prove nothing."""
    assert [name for name, sent in EVERY.items() if len(sent) > MAX_BYTES] == []


async def ask(port: int, request: bytes) -> None:
    """Send a request on a connection of its own; wait for an answer, but not for long."""
    caller = await connect(port)
    caller.send(request)
    with suppress(EOFError, TimeoutError, AssertionError):
        async with asyncio.timeout(0.1):
            await caller.reply(to_head=request.startswith(b"HEAD"))
    caller.half_close()
    await caller.rest()
    caller.leave()


async def cpu_s(read_clock: Callable[[], float], work: Callable[[], Awaitable[object]]) -> float:
    """Return what `work` costs a process, by the clock of its processor time."""
    before = read_clock()
    await work()
    return read_clock() - before


@pytest.mark.timeout(300)
async def test_no_small_request_costs_much_cpu(tmp_path: Path) -> None:
    """
    Less than a hundred times a plain one on a connection that is kept, connecting included.
    """
    async with scripted_upstream(OK) as upstream:
        url = f"http://127.0.0.1:{upstream.port}/v1/infers/abc"
        settings = {"services": {"iris": {"url": url, **_SERVICE}}}
        async with served(tmp_path, upstream.port, settings) as process:
            clock_id = (~process.process.pid << 3) | 2  # as clock_getcpuclockid(3) makes it

            def clock() -> float:
                return time.clock_gettime(clock_id)

            async def plain() -> None:
                caller = await connect(process.port)
                for _ in range(500):
                    caller.send(PLAIN)
                    await caller.reply()
                caller.leave()

            await plain()
            limit_s = await cpu_s(clock, plain) / 500 * TIMES_PLAIN
            for name, sent in EVERY.items():

                async def at_once(sent: bytes = sent) -> None:
                    await asyncio.gather(*(ask(process.port, sent) for _ in range(_TIMES)))

                least_s = float("inf")
                for _ in range(3):
                    least_s = min(least_s, await cpu_s(clock, at_once) / _TIMES)
                    if least_s < limit_s:
                        break
                assert least_s < limit_s, f"{name}: {least_s / limit_s * TIMES_PLAIN:.0f} times"


@pytest.mark.timeout(300)
async def test_no_small_request_takes_much_memory_or_log() -> None:
    """
    Less than 1 MiB at its peak, both ends of the conversation included; no line above 2 KiB.
    """
    text = StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(LineFormatter())
    gateway_log = logging.getLogger("gateway")
    gateway_log.addHandler(handler)
    gateway_log.setLevel(logging.DEBUG)
    try:
        async with (
            scripted_upstream(OK) as upstream,
            running_gateway(upstream.port, service=_SERVICE) as gateway,
        ):
            for _ in range(3):
                await ask(gateway.port, PLAIN)
            tracemalloc.start()
            for name, sent in EVERY.items():
                tracemalloc.reset_peak()
                before, _ = tracemalloc.get_traced_memory()
                await ask(gateway.port, sent)
                peak = tracemalloc.get_traced_memory()[1] - before
                assert peak < MIB, f"{name}: {peak / KIB:.0f} KiB"
            await gateway.settled()
            record = await gateway.next_record()
            longest = len(json.dumps(record))
            while record["request_id"] != "last":
                if not gateway._lines._buffer:  # type: ignore[attr-defined]  # nothing more to come
                    await gateway.ask(POST.replace(b"Host", b"X-Request-Id: last\r\nHost"))
                record = await gateway.next_record()
                longest = max(longest, len(json.dumps(record)))
    finally:
        tracemalloc.stop()
        gateway_log.removeHandler(handler)
        gateway_log.setLevel(logging.NOTSET)

    assert 100 < longest <= MAX_LINE_BYTES
    lines = text.getvalue().splitlines()
    assert len(lines) > 100
    assert max(len(line.encode()) for line in lines) < MAX_LINE_BYTES


async def test_held_requests_take_little_memory(tmp_path: Path) -> None:
    """Three hundred of the costlier ones, waiting for their answers: a quarter of 1 MiB each."""
    names = ("Connection names 2400 fields", "a hundred long fields", "long target of letters")
    held = asyncio.Event()

    async def script(link: Link) -> None:
        await link.request()
        await held.wait()
        link.send(OK)

    async with scripted_upstream(script) as upstream:
        url = f"http://127.0.0.1:{upstream.port}/v1/infers/abc"
        settings = {"services": {"iris": {"url": url, **_SERVICE}}}
        async with served(tmp_path, upstream.port, settings) as process:

            def rss() -> int:
                status = Path(f"/proc/{process.process.pid}/status").read_text()
                return int(status.partition("VmRSS:")[2].split()[0]) * KIB

            async with asyncio.timeout(100):
                before = rss()
                callers = [await connect(process.port) for _ in range(300)]
                for number, caller in enumerate(callers):
                    caller.send(EVERY[names[number % len(names)]])
                while len(upstream.requests) < len(callers):  # noqa: ASYNC110  # nobody tells
                    await asyncio.sleep(0.01)
                after = rss()
                held.set()
                for caller in callers:
                    assert (await caller.reply()).status == 200
                    caller.leave()

    assert (after - before) / len(callers) < MIB / 4


# Floods.


async def flood(gateway: RunningGateway, requests: list[bytes]) -> None:
    """Send requests from many callers at a time."""
    at_once = asyncio.Semaphore(50)

    async def one(request: bytes) -> None:
        async with at_once:
            caller = await connect(gateway.port)
            caller.send(request)
            assert (await caller.reply()).status >= 200
            caller.leave()

    await asyncio.gather(*map(one, requests))
    await gateway.settled()


async def records_of(gateway: RunningGateway, last_id: str) -> list[str]:
    """Return the error of every line in the access log up to the request called `last_id`."""
    errors = []
    while (record := await gateway.next_record())["request_id"] != last_id:
        errors.append(record["error"])
    return errors


_REFUSED = [
    b"no request at all\r\n\r\n",
    GET.replace(b"/iris", b"/iris/../x"),
    GET.replace(b"/iris", b"/nowhere"),
    GET.replace(b"localhost", b"evil.example"),
    GET.replace(b"GET", b"DELETE"),
    POST.replace(b"Length: 2", b"Length: 99999999"),
]


async def test_refused_requests_cannot_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """
    A bounded number has a line each, the rest are told as a number at the end; all are counted,
    and what is not refused keeps its lines.
    """
    count = 250 * len(_REFUSED)
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port, service=_SERVICE) as gateway,
    ):
        began = time.monotonic()
        reading = asyncio.create_task(records_of(gateway, "last"))
        await flood(gateway, [*_REFUSED, POST] * 250)
        took_s = time.monotonic() - began
        await gateway.ask(POST.replace(b"Host", b"X-Request-Id: last\r\nHost"))
        errors = await reading

        assert gateway.sample("gateway_errors_total", layer="client") == count
        assert errors.count("") == 250
        logged = len(errors) - 250
        assert REFUSALS_AT_ONCE <= logged <= REFUSALS_AT_ONCE + 20 * (took_s + 1)
    told = [line for line in caplog.messages if "have no line in the access log" in line]
    assert sum(int(line.split()[0]) for line in told) == count - logged


async def test_nonsense_on_the_admin_listener_cannot_flood_the_log(tmp_path: Path) -> None:
    """Where aiohttp would write a traceback each, there is a bounded number of short lines."""
    async with served(tmp_path, 1) as process:
        began = time.monotonic()
        for _ in range(300):
            await ask(process.admin_port, b"GET http://[::1:99 HTTP/1.1\r\nHost: a\r\n\r\n")
        took_s = time.monotonic() - began
        process.signal(signal.SIGTERM)
        await process.ended()
        await until(lambda: process._silent)
        lines = process.log

    found = [line for line in lines if "InvalidURLError" in line]
    assert BURST <= len(found) <= BURST + took_s + 1
    assert len(lines) < len(found) + 8, "tracebacks, too"
    assert max(map(len, lines)) < MAX_LINE_BYTES


async def test_few_refused_requests_have_their_lines(caplog: pytest.LogCaptureFixture) -> None:
    """The bound is for floods: what an application does wrong now and then is all there."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port, service=_SERVICE) as gateway,
    ):
        for _ in range(20):
            for request in _REFUSED:
                await gateway.ask(request)
        await gateway.ask(POST.replace(b"Host", b"X-Request-Id: last\r\nHost"))

        assert len(await records_of(gateway, "last")) == 20 * len(_REFUSED)
    assert "have no line" not in caplog.text


async def test_callers_that_leave_have_their_lines() -> None:
    """A call that went upstream is no refusal, whichever side ended it."""

    async def script(link: Link) -> None:
        while True:
            await link.request()
            link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

    count = REFUSALS_AT_ONCE + 50
    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:

        async def leave() -> None:
            caller = await gateway.connect()
            caller.send(POST)
            await caller.head()
            caller.reset()

        for _ in range(count // 50):
            await asyncio.gather(*(leave() for _ in range(50)))
        await gateway.settled()
        async with asyncio.timeout(100):
            ends = [(await gateway.next_record())["error"] for _ in range(count)]

    assert ends == ["client_disconnected"] * count


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.long)])
async def test_odd_requests_make_no_series(count: int) -> None:
    """Random paths, methods, hosts and statuses: the same series as before, and all are counted.

    Only a method and a code that have been seen have a series, both from a closed set.
    """
    chance = random.Random(7)
    statuses = [200, 205, 299, 302, 404, 418, 451, 500, 511, 599]

    def word() -> bytes:
        return bytes(chance.choices(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=chance.randint(1, 6)))

    def odd() -> bytes:
        method = chance.choice([b"GET", b"POST", b"PUT", word()])
        path = chance.choice([b"/iris", b"/iris/" + word(), b"/" + word()])
        host = chance.choice([b"localhost", word() + b".example"])
        return b"%b %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (method, path, host)

    async with (
        scripted_upstream(answering(*[answer(s) for s in statuses * (count // 10)])) as upstream,
        running_gateway(upstream.port, service={"methods": "GET,POST"}) as gateway,
    ):
        before = gateway.series()
        assert len(set(before)) == len(before)
        await flood(gateway, [odd() for _ in range(count)])

        series = gateway.series()
        seen = set(series) - set(before)
        assert [name for name in series if name not in seen] == before
        assert all(_SEEN.fullmatch(name) for name in seen)
        assert gateway.sample("gateway_requests_total") == count
        assert gateway.sample("gateway_request_duration_seconds_count") == count
