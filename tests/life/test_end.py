"""F42, F43: the end of a real process with everything in flight that there can be."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from tests.support.client import Caller, connect
from tests.support.gateway import POST
from tests.support.served import Served, served, settings_of
from tests.support.until import PATIENCE_S, until
from tests.support.upstream import Link, scripted_upstream

UPLOAD = b"POST /iris/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\n"
STREAM = POST.replace(b"/predict", b"/stream")
EVENT = b"data: %d\n\n"


class Service:
    """Answers at once, but for `/stream`: events as it is told, without an end of its own."""

    def __init__(self) -> None:
        self.more = asyncio.Semaphore(0)
        """Released for each event, and once more for the end."""

    async def __call__(self, link: Link) -> None:
        while True:
            request = await link.request()
            if not request.target.endswith(b"/stream"):
                link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                continue
            link.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            for number in range(3):
                await self.more.acquire()
                event = EVENT % number
                link.send(b"%x\r\n%b\r\n" % (len(event), event))
            await self.more.acquire()
            link.send(b"0\r\n\r\n")


async def begin_end(process: Served, how: str) -> None:
    """Tell it to end, in one of the ways."""
    if how == "quitquitquit":
        assert (await process.ask_admin("/quitquitquit", method="POST")).status == 200
    else:
        process.signal(signal.Signals[how])


@pytest.mark.parametrize("how", ["SIGTERM", pytest.param("quitquitquit", marks=pytest.mark.long)])
async def test_everything_in_flight_comes_to_its_end(how: str, tmp_path: Path) -> None:
    """Not ready at once; while that is announced, new callers are served, each once; then none.
    An upload and a stream of events go on to their ends, what is idle is closed; exit 0.
    """
    service = Service()
    settings = {"drain": {"announce": "4s", "timeout": "20s"}, "quitquitquit": True}
    async with (
        scripted_upstream(service) as upstream,
        served(tmp_path, upstream.port, settings) as process,
    ):
        idle, upload, stream, late = [await connect(process.port) for _ in range(4)]
        stream.send(STREAM)
        service.more.release()
        await stream.head()
        assert await stream.take(14) == b"9\r\n" + EVENT % 0 + b"\r\n"
        upload.send(UPLOAD + b"abc")
        await until(lambda: len(upstream.requests) == 2)

        await begin_end(process, how)
        await until_not_ready(process)

        document = json.loads((await process.ask_admin("/readyz?verbose")).body)
        assert (document["ready"], document["reason"]) == (False, "draining")
        assert (await process.ask_admin("/livez")).status == 200
        new = await connect(process.port)
        new.send(POST)
        reply = await new.reply()
        assert (reply.status, reply.body, reply.closes) == (200, b"ok", True)
        assert await new.rest() == b""
        late.send(POST[:20])  # a request that has begun to arrive, and no more than that
        assert await idle.rest() == b"", "announced for long enough"

        reply = await late.reply()
        assert (reply.status, reply.closes) == (503, True)
        assert b"Gateway.Draining" in reply.body
        assert reply.values(b"retry-after") == [b"1"]
        with pytest.raises(ConnectionRefusedError):
            await connect(process.port)
        upload.send(b"def")
        assert (await upload.reply()).body == b"ok"
        assert await upload.rest() == b""
        for _ in range(3):
            service.more.release()
        assert (
            await stream.rest()
            == b"".join(b"9\r\n" + EVENT % number + b"\r\n" for number in (1, 2)) + b"0\r\n\r\n"
        )
        assert not stream.was_reset
        assert await process.ended() == 0
        for caller in (idle, upload, stream, late, new):
            caller.leave()


async def until_not_ready(process: Served) -> None:
    """Ask until readiness has been withdrawn."""
    async with asyncio.timeout(PATIENCE_S):
        while (await process.ask_admin("/readyz")).status != 503:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.005)


async def test_what_outlasts_the_drain_is_cut_off_visibly(tmp_path: Path) -> None:
    """F43: a stream without end is reset, so that it cannot pass for one that has ended."""
    service = Service()
    async with (
        scripted_upstream(service) as upstream,
        served(tmp_path, upstream.port, {"drain": {"timeout": "300ms"}}) as process,
    ):
        stream = await connect(process.port)
        stream.send(STREAM)
        service.more.release()
        await stream.head()
        process.signal(signal.SIGTERM)
        assert b"0\r\n\r\n" not in await stream.rest()
        assert stream.was_reset
        stream.leave()
        await process.says("requests still in flight were cut off; there were 1 request in")
        assert await process.ended() == 0


async def test_the_log_tells_of_the_end_and_of_what_it_waits_for(tmp_path: Path) -> None:
    """From the signal through the drain to the exit code, in this order; each line is JSON."""
    service = Service()
    async with (
        scripted_upstream(service) as upstream,
        served(tmp_path, upstream.port) as process,
    ):
        stream = await connect(process.port)
        stream.send(STREAM)
        service.more.release()
        await stream.head()
        process.signal(signal.SIGTERM)
        await process.says("drain begins")
        stream.leave()
        assert await process.ended() == 0

    told = [json.loads(line)["message"] for line in process.log]
    assert told[0].startswith("modelarts-gateway ")
    assert told[1].startswith("listening on ")
    assert told[2:4] == [
        "SIGTERM received: the gateway ends",
        "drain begins: not ready from now on, accepting for 0 s more, 1 request in flight",
    ]
    assert told[4].startswith("drain ends after ")
    assert told[5:] == ["ended, exit code 0"]


async def interrupted(number: signal.Signals, folder: Path) -> tuple[int, str]:
    """Start one, signal it while libraries are imported; return exit code and what it said.

    One that goes on to serve is then told to end.
    """
    file = folder / "gateway.yaml"
    file.write_text(json.dumps(settings_of(1)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-X", "importtime", "-m", "gateway", "serve", "--config", str(file),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    said, told = "", False
    async with asyncio.timeout(100):
        while line := (await process.stderr.readline()).decode():
            if not told and "aiohttp." in line:
                told = True
                process.send_signal(number)
            if not line.startswith("import time:"):
                said += line
            if "configuration reloaded" in line:
                process.send_signal(signal.SIGTERM)
        code = await process.wait()
    process._transport.close()  # type: ignore[attr-defined]  # else the pipe stays open
    assert told
    return code, said


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
async def test_a_signal_during_the_start_is_an_end_in_order(
    number: signal.Signals, tmp_path: Path
) -> None:
    """Handlers are there before anything slow: no traceback, no listener, exit 0."""
    code, said = await interrupted(number, tmp_path)

    assert code == 0
    assert "listening" not in said
    assert "Traceback" not in said
    assert "nothing was opened" in said


async def test_a_hangup_during_the_start_is_a_reload(tmp_path: Path) -> None:
    """It ends no gateway that is not ready yet, and is not forgotten."""
    code, said = await interrupted(signal.SIGHUP, tmp_path)

    assert code == 0
    assert said.index("listening on") < said.index("configuration reloaded")


async def test_idle_callers_do_not_hold_it_up(tmp_path: Path) -> None:
    """With nothing in flight it ends at once, however many connections are open."""
    async with served(tmp_path, 1, {"drain": {"timeout": "25s"}}) as process:
        idle: list[Caller] = [await connect(process.port) for _ in range(50)]
        process.signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            for caller in idle:
                assert await caller.rest() == b""
                caller.leave()
            assert await process.ended() == 0
