"""The way to a host: what each step says, and that none of them can hold the doctor up."""

import asyncio
import socket
import ssl
import subprocess
import sys
import threading
from typing import Any

import pytest

from gateway.diagnose.findings import Finding, Level, Step
from gateway.diagnose.reachability import walk


async def walked(host: str, port: int, **options: Any) -> list[tuple[Level, Step, str]]:
    """Go to `host` without TLS, unless `options` say otherwise."""
    found: list[Finding] = await walk(
        "services.iris", host, port, **({"tls": None, "server_name": None, "limit_s": 5} | options)
    )
    assert {finding.key for finding in found} == {"services.iris"}
    return [(finding.level, finding.step, finding.text) for finding in found]


def info(address: str, port: int) -> Any:
    """What a resolver returns for an IPv4 address."""
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))


async def test_name_and_connection_have_a_line_each() -> None:
    """The addresses are shown in the order in which they are tried, each once, not too many."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        others = [info(f"127.0.0.{n}", port) for n in (2, 3, 4, 5)]

        found = await walked(
            "m.example",
            port,
            lookup=lambda *_, **__: [info("127.0.0.1", port), info("127.0.0.1", port), *others],
        )

    assert found == [
        (
            Level.OK,
            Step.DNS,
            "m.example is 127.0.0.1, 127.0.0.2, 127.0.0.3, 127.0.0.4, …",
        ),
        (Level.OK, Step.TCP, f"connected to 127.0.0.1:{port}"),
    ]


async def test_second_address_is_tried_when_the_first_refuses() -> None:
    """As any client does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        both = [info("127.0.0.9", port), info("127.0.0.1", port)]

        found = await walked("m.example", port, lookup=lambda *_, **__: both)

    assert found[-1] == (Level.OK, Step.TCP, f"connected to 127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), "check its spelling and DNS"),
        (socket.gaierror(socket.EAI_AGAIN, "x"), "no name server answers properly; check"),
        (OSError(24, "x"), "check its spelling and DNS"),
        (UnicodeError("x"), "check its spelling and DNS"),
    ],
)
async def test_name_that_is_not_resolved_is_told_from_dns_that_does_not_work(
    error: Exception, why: str
) -> None:
    """And whatever a look-up raises is a finding."""

    def lookup(*_: Any, **__: Any) -> list[Any]:
        raise error

    [(level, step, text)] = await walked("m.example", 443, lookup=lookup)

    assert (level, step) == (Level.FAIL, Step.DNS)
    assert text.startswith(f"the host name m.example cannot be resolved: {why}")


async def test_name_servers_that_are_silent_are_given_up() -> None:
    """Within the limit, although the look-up itself goes on."""
    release = threading.Event()

    def lookup(*_: Any, **__: Any) -> list[Any]:
        release.wait(20)
        return []

    try:
        async with asyncio.timeout(100):
            [(level, step, text)] = await walked("m.example", 443, lookup=lookup, limit_s=0.1)
    finally:
        release.set()

    assert (level, step) == (Level.FAIL, Step.DNS)
    assert text.startswith("the host name m.example is not resolved within 0.1 s: no name server")


def test_look_up_that_hangs_does_not_keep_the_process() -> None:
    """A resolver may take half a minute; the command ends when it has said what it has to say."""
    code = (
        "import asyncio, time\n"
        "from gateway.diagnose.reachability import walk\n"
        "print(asyncio.run(walk('k', 'm.example', 1, tls=None, server_name=None, limit_s=0.1,"
        " lookup=lambda *a, **k: time.sleep(600)))[0].step)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=120, check=True
    )
    assert done.stdout == b"dns\n"


async def test_server_that_says_nothing_in_tls_is_given_up() -> None:
    """It accepts, so that TCP is well, and that is all."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

        port = server.getsockname()[1]
        [tcp, tls] = await walked("127.0.0.1", port, tls=context, limit_s=0.3)

    assert tcp[:2] == (Level.OK, Step.TCP)
    assert tls[:2] == (Level.FAIL, Step.TLS)
    assert "accepts connections, but no TLS handshake ends within 0.3 s" in tls[2]
