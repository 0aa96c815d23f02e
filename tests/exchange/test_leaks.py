"""Nothing gets out: canaries in every exchange, and a search of all that anybody can read."""

import asyncio
import base64
import gc
import io
import json
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import MethodType
from typing import Any
from urllib.parse import quote, quote_from_bytes

import aiohttp
import pytest
from blockbuster import BlockBuster

from gateway.observe.process_log import LineFormatter
from tests.exchange.leak_scenes import (
    BODY,
    CALLERS,
    EVERY,
    FORGED,
    OURS,
    PASSWORD,
    RESPONSE,
    SERVICES,
    TOKEN,
    World,
    abuse_admin,
    admin_pages,
    play,
    world,
)
from tests.support.canaries import Canary, leaks_in
from tests.support.gateway import POST, running_gateway
from tests.support.process import run
from tests.support.rows import every_row
from tests.support.tools import LONG
from tests.support.until import until
from tests.support.upstream import OK, scripted_upstream

# The search itself.

_ENCODERS: list[Callable[[bytes], bytes]] = [
    bytes,
    base64.b64encode,
    base64.urlsafe_b64encode,
    base64.encodebytes,
    lambda data: data.hex().encode(),
    lambda data: data.hex().upper().encode(),
    lambda data: quote_from_bytes(data).encode(),
    lambda data: re.sub("%..", lambda it: it[0].lower(), quote(data.decode())).encode(),
    lambda data: "".join(f"%{octet:02x}" for octet in data).encode(),
    lambda data: repr(data).encode(),
    lambda data: repr([data]).encode(),
    lambda data: repr(repr(data)).encode(),
    lambda data: json.dumps(data.decode()).encode(),
    lambda data: json.dumps({"msg": json.dumps(data.decode())}).encode(),
]


@pytest.mark.parametrize("encode", _ENCODERS)
def test_the_search_finds_every_encoding(encode: Callable[[bytes], bytes]) -> None:
    """A planted word is found, wherever in a longer text it begins; the other words are not."""
    with every_row() as trying:
        for canary in EVERY:
            with trying(canary.name):
                assert_found(canary, encode)


def assert_found(canary: Canary, encode: Callable[[bytes], bytes]) -> None:
    """Search for one word, and for all others."""
    for before in range(7):
        planted = encode(b"{" * before + canary.word + b"}}")
        assert [leak.partition(" as ")[0] for leak in leaks_in(planted, EVERY)][:1] == [canary.name]
        assert not leaks_in(planted, [other for other in EVERY if other is not canary])
    assert not leaks_in(encode(canary.word[:-1]), EVERY)


# What the exchanges must have done, and what they must not have.


def assert_played(it: World) -> None:
    """The canaries were where they belong, or not to find them would prove nothing."""
    assert TOKEN.word in it.service.received
    assert BODY.word in it.service.received
    assert leaks_in(it.iam.received, [PASSWORD])
    assert any(RESPONSE.word in received for received in it.got)
    for refusal in (b" 400 ", b" 408 ", b" 502 ", b" 504 ", b"LoginRefused", b"TokenUnavailable"):
        assert any(refusal in received for received in it.refusals), refusal


def assert_hidden(what: str, data: bytes, canaries: tuple[Canary, ...] = EVERY) -> None:
    """Fail with everything that was found."""
    assert data
    found = leaks_in(data, canaries)
    assert not found, f"{what} holds " + "\n".join(found)


def assert_answers_hide(it: World) -> None:
    """Callers read what the service answered, and nothing of ours, of others, or of cookies."""
    assert_hidden("an answer", b"\n".join(it.got), (*OURS, *CALLERS, *SERVICES))
    assert_hidden("a refusal", b"\n".join(it.refusals))
    assert not leaks_in(it.service.received, [FORGED, PASSWORD]), "the service was sent too much"


# In this process, where objects and errors can be looked at as well.


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What this process logs from now on, down to DEBUG, formatted as `serve` does."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.setLevel(before)
    root.removeHandler(handler)


_ROOMS = {"gateway", "aiohttp", "asyncio", "_asyncio", "uvloop", "functools"}


def representations() -> Iterator[str]:
    """Yield `repr` and `str` of what is alive: ours, the frameworks', methods and errors."""
    for item in gc.get_objects():
        room = str(type(item).__module__).partition(".")[0]
        if room in _ROOMS or isinstance(item, BaseException | MethodType):
            yield f"{item!r} {item}"


def errors() -> Iterator[str]:
    """Yield what anybody could print of the errors that are alive."""
    for error in [item for item in gc.get_objects() if isinstance(item, BaseException)]:
        yield repr((error.args, getattr(error, "__notes__", ())))
        yield "".join(traceback.format_exception(error))


def joined(texts: Iterator[str]) -> bytes:
    return "\n".join(texts).encode(errors="backslashreplace")


@pytest.fixture
def unguarded(blockbuster: BlockBuster | None) -> Iterator[None]:
    """Let the loop's debug mode look for the source of each callback: half a million `stat`."""
    if blockbuster is not None:
        blockbuster.deactivate()
    yield
    if blockbuster is not None:
        blockbuster.activate()


@pytest.mark.timeout(300)  # some 600 exchanges, and their errors
@pytest.mark.usefixtures("unguarded")
@pytest.mark.parametrize("debug", [False, pytest.param(True, marks=pytest.mark.long)])
async def test_nothing_leaks_in_process(tmp_path: Path, log: io.StringIO, debug: bool) -> None:
    """
    Zero hits in log, answers, pages, objects and errors, in asyncio's debug mode, too.
    """
    loop = asyncio.get_running_loop()
    loop.set_debug(debug)
    loop.slow_callback_duration = 0.001
    async with world(tmp_path) as it:
        async with running_gateway(
            it.service.port, settings=it.settings, anonymous=True
        ) as gateway:
            lines: list[bytes] = []

            async def collect() -> None:
                while piece := await gateway._lines.read(65536):
                    lines.append(piece)

            collecting = asyncio.create_task(collect())
            await play(it, gateway.port)
            await until(lambda: not answers_under_way())  # a login may still be reading one
            alive, raised = joined(representations()), joined(errors())
            pages = b"\n".join(await admin_pages(gateway.admin_port))
            abused = b"\n".join(await abuse_admin(gateway.admin_port))
        await collecting
    loop.set_debug(False)

    assert_played(it)
    assert_answers_hide(it)
    assert_hidden("the access log", b"".join(lines))
    assert_hidden("the log", log.getvalue().encode())
    assert_hidden("an object", alive)
    assert_hidden("an error", raised)
    assert_hidden("an admin page", pages)
    assert_hidden("an admin answer to an attack", abused, OURS)  # it may quote its own caller


def answers_under_way() -> list[object]:
    """Answers of IAM that somebody still reads, and which hold what they say until then."""
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, aiohttp.ClientResponse)]


async def test_a_bug_does_not_quote_the_token(log: io.StringIO) -> None:
    """An error that nobody foresaw is told by type and place: its text may be anything."""
    async with scripted_upstream(OK) as upstream, running_gateway(upstream.port) as gateway:
        gateway.credentials.at_hand = False
        gateway.credentials.failure = ValueError(TOKEN.times(9).decode())
        assert (await gateway.ask(POST)).status == 500

    said = "a request failed because of a defect in the gateway; please report it: ValueError in"
    assert f"{said} obtain (" in log.getvalue()
    assert_hidden("the log", log.getvalue().encode())


# As `serve` runs, in an environment that would like to know.


class Running:
    """`python -m gateway serve`, and where it listens."""

    def __init__(self, process: asyncio.subprocess.Process, out: Path, err: Path) -> None:
        self.process = process
        self.port = self.admin_port = 0
        self._out = out
        self._err = err

    @property
    def written(self) -> bytes:
        """Standard output and error so far."""
        return self._out.read_bytes() + self._err.read_bytes()

    def listens(self) -> bool:
        """Say whether it does; learn where."""
        assert self.process.returncode is None, self.written
        found = re.search(rb"listening on http://\S+:(\d+) .*admin on \S+:(\d+)", self.written)
        if found is not None:
            self.port, self.admin_port = int(found[1]), int(found[2])
        return found is not None

    def proc(self, name: str) -> bytes:
        """Return what anybody on the machine, or this user, reads below `/proc`."""
        return Path(f"/proc/{self.process.pid}/{name}").read_bytes()


async def command(*words: str, environ: dict[str, str]) -> bytes:
    """Run a command to its end; return what it prints."""
    _, out, err = await run(sys.executable, "-m", "gateway", *words, env=environ)
    return (out + err).encode()


@asynccontextmanager
async def serving(folder: Path, config: Path, environ: dict[str, str]) -> AsyncIterator[Running]:
    """Run `serve`; its output goes to files, so that nobody has to read it in time."""
    out, err = folder / "out", folder / "err"
    with out.open("wb") as to_out, err.open("wb") as to_err:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "serve", "--config", str(config)),
            stdout=to_out,
            stderr=to_err,
            env=environ,
        )
    running = Running(process, out, err)
    try:
        await until(running.listens)
        yield running
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await process.wait()


def written_as_json(file: Path, settings: dict[str, Any]) -> Path:
    """Write a configuration; JSON is YAML."""
    listeners = {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "drain": {"timeout": 1}}
    file.write_text(json.dumps(listeners | settings))
    return file


_ASKED = {
    "default", "refused", "forbidden", "moved", "other-project", "two-tokens", "token-with-cr",
    "token-as-line", "token-as-chunk", "cut", "iam-tls", "iam-tls-untrusted", "app", "file",
}  # fmt: skip
"""Identities that the commands try, which do it one after the other."""


def few(settings: dict[str, Any]) -> dict[str, Any]:
    """Return `settings` with these alone."""
    return {
        "identities": {k: v for k, v in settings["identities"].items() if k in _ASKED},
        "services": {
            k: v
            for k, v in settings["services"].items()
            if v.get("identity") in _ASKED or k in {"iris", "tls", "tls-untrusted", "nobody"}
        },
    }


def unreadable(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return settings of one identity, whose password is in no file that can be used."""
    default = settings["identities"]["default"] | {"password_file": str(folder / "not-utf8")}
    return {
        "identities": {"default": default},
        "services": {"iris": settings["services"]["iris"]},
    }


def curious_environment(folder: Path, proxy_port: int, *, debug: bool) -> dict[str, str]:
    """Return an environment with everything that makes other clients divert or tell."""
    netrc = folder / ".netrc"
    netrc.write_text("machine 127.0.0.1 login stranger password netrc-was-read\n")
    netrc.chmod(0o600)
    proxy = f"http://127.0.0.1:{proxy_port}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY")
    return {
        "PATH": os.environ["PATH"],
        **{spelt: proxy for name in names for spelt in (name, name.lower())},
        "HOME": str(folder),
        "NETRC": str(netrc),
        "SSLKEYLOGFILE": str(folder / "keys"),
        "GATEWAY_LOG_LEVEL": "DEBUG",
        **({"PYTHONASYNCIODEBUG": "1", "PYTHONDEVMODE": "1"} if debug else {}),
    }


@pytest.mark.timeout(300)
@pytest.mark.parametrize("debug", [False, pytest.param(True, marks=pytest.mark.long)])
async def test_nothing_leaks_from_serve(tmp_path: Path, debug: bool) -> None:
    """
    Zero hits in all that it writes, at DEBUG and in Python's development mode, too, and in what
    `/proc` shows; proxies, `.netrc` and SSLKEYLOGFILE of its environment change nothing. LONG: with
    hostile requests, and by every command.
    """
    diverted: list[asyncio.StreamWriter] = []

    def divert(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        diverted.append(writer)
        writer.close()

    proxy = await asyncio.start_server(divert, "127.0.0.1", 0)
    environ = curious_environment(tmp_path, proxy.sockets[0].getsockname()[1], debug=debug)
    async with world(tmp_path) as it:
        config = written_as_json(tmp_path / "gateway.yaml", it.settings)
        async with serving(tmp_path, config, environ) as running:
            await play(it, running.port, hostile=LONG)
            pages = await admin_pages(running.admin_port)
            abused = await abuse_admin(running.admin_port)
            seen = running.proc("cmdline") + running.proc("environ")
        short = written_as_json(tmp_path / "short.yaml", few(it.settings))
        spoilt = written_as_json(tmp_path / "spoilt.yaml", unreadable(it.settings, tmp_path))
        plain = {k: v for k, v in environ.items() if not k.startswith("PYTHON")}
        asked = [["check", "--show"], ["doctor"]]
        if LONG:
            asked += [["check", "--online"], ["whoami"]]
        printed = await asyncio.gather(
            *(command(*words, "--config", str(short), environ=plain) for words in asked)
        )
        refused = await command("serve", "--config", str(spoilt), environ=plain)
    proxy.close()

    assert not diverted, "a proxy of the environment was used"
    assert_played(it)
    assert_answers_hide(it)
    assert running.process.returncode == 0
    assert b'"level": "DEBUG"' in running.written
    assert_hidden("standard output or error", running.written)
    assert_hidden("an admin page", b"\n".join(pages))
    assert_hidden("an admin answer to an attack", b"\n".join(abused), OURS)
    assert_hidden("/proc", seen)
    assert_hidden("a command's output", b"".join(printed) + refused)
    assert b"not UTF-8" in refused
    assert all(b"infer" in output for output in printed)
    assert not (tmp_path / "keys").exists(), "TLS keys were written"
    assert b"\r\nauthorization: basic" not in it.iam.received.lower()
    assert b"netrc" not in it.iam.received
    answered = [line for line in running.written.splitlines() if b'"status":200' in line]
    assert any(b'"service":"tls"' in line for line in answered)
    assert any(b'"service":"by-iam-tls"' in line for line in answered)
