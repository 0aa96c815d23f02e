"""Running a gateway: what its log says, and in which form."""

import errno
import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gateway.lifecycle.binding import binding
from gateway.settings.addresses import parse_listen
from tests.support.process import run

_SCRIPT = textwrap.dedent("""
    import asyncio, contextlib, os, signal
    from gateway.assembly.gateway import build_gateway
    from gateway.lifecycle.run import run_until_told, set_up_logging
    from gateway.lifecycle.signals import Signals
    from gateway.settings import load

    def fail(text):
        raise ValueError(text)

    @contextlib.asynccontextmanager
    async def build(access_log):
        settings = load(file=None, environ={}, flags={
            "listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0",
            "identities": {"default": {"method": "none"}},
            "services": {"iris": {"url": "http://127.0.0.1:1/"}},
        }).settings
        loop = asyncio.get_running_loop()
        loop.call_soon(fail, "sesame-sesame")
        loop.call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)
        yield build_gateway(settings, access_log)

    set_up_logging()
    run_until_told(build, lambda data, admin: None, Signals())
""")

_LINE = """
import logging, os, sys
from gateway.lifecycle.run import set_up_logging
for asked in sys.argv[1:]:
    if (child := os.fork()) == 0:
        os.environ["GATEWAY_LOG_FORMAT"] = asked
        set_up_logging()
        logging.getLogger("gateway.test").warning("hello")
        os._exit(0)
    os.waitpid(child, 0)
"""


async def test_a_fault_in_the_event_loop_is_told_without_its_text() -> None:
    """One line with type and place; the gateway goes on until it is told to end."""
    code, out, err = await run(sys.executable, "-c", _SCRIPT, env={"PATH": os.environ["PATH"]})

    assert (code, out) == (0, "")
    [line, *_] = err.splitlines()
    told = json.loads(line)
    assert (told["level"], told["logger"]) == ("ERROR", "gateway.observe")
    assert told["message"] == "event loop: Exception in callback"
    assert told["error"].startswith("ValueError in fail (")
    assert "sesame" not in err


async def test_the_log_is_json_unless_a_terminal_shows_it() -> None:
    """Or what the environment asks for."""
    environment = {"PATH": os.environ["PATH"]}
    asked = ["", "auto", "json", "text"]
    _, _, err = await run(sys.executable, "-c", _LINE, *asked, env=environment)

    *as_json, as_text = err.splitlines()
    assert [json.loads(line)["message"] for line in as_json] == ["hello"] * 3
    assert as_text.endswith(" WARNING gateway.test: hello")


def test_the_exit_code_is_ours_where_nothing_can_be_written() -> None:
    """Python would make it 120."""
    script = (
        "from gateway.lifecycle.ending import end_with; from gateway.lifecycle.run import say\n"
        "print('x'); say('y'); end_with(3)"
    )
    environment = {"PATH": os.environ["PATH"]}  # without PYTHONUNBUFFERED
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", script],
            stdout=full, stderr=full, env=environment, timeout=100, check=False,
        )  # fmt: skip
    assert ended.returncode == 3


def test_memory_is_hidden_from_dumps_and_tracers() -> None:
    """Of this process alone: a command that it starts is as it would be without us."""
    get_dumpable = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)"
    script = (
        "import subprocess, sys; from gateway.lifecycle.run import hide_memory; hide_memory()\n"
        f"{get_dumpable}; subprocess.run([sys.executable, '-c', {get_dumpable!r}], check=True)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=100, check=True
    )
    assert ran.stdout.split() == [b"0", b"1"]


def test_garbage_is_looked_for_rarely() -> None:
    """By default it is once in 140 requests, and there is none."""
    code = """
    import gc
    from gateway.lifecycle.run import collect_rarely
    collect_rarely()
    seen = []
    gc.callbacks.append(lambda phase, facts: seen.append(facts["generation"]))
    kept = [[] for _ in range(4000)]
    assert not seen, "for a few objects"
    kept += [[] for _ in range(4000)]
    assert max(seen) == 0, "among all"
    kept += [[] for _ in range(12_000)]
    assert max(seen) == 1, "among very many, later"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_on_a_terminal_it_is_text() -> None:
    """A person reads it there."""
    ours, its = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", _LINE, ""], stderr=its, env={"PATH": os.environ["PATH"]}
    ) as process:
        assert process.wait(120) == 0
    told = os.read(ours, 4096)
    os.close(ours)
    os.close(its)
    assert told.endswith(b" WARNING gateway.test: hello\r\n")


_IN_USE = OSError(errno.EADDRINUSE, "address already in use")


@pytest.mark.parametrize(
    ("key", "address", "error", "told"),
    [
        ("listen", "127.0.0.1:8080", _IN_USE, "it is in use by another program; stop that, "),
        ("admin_listen", "127.0.0.1:9090", _IN_USE, "program (9090 is Prometheus' own port); "),
        ("listen", "10.9.9.9:8080", OSError(errno.EADDRNOTAVAIL, ""), "no interface of this "),
        ("listen", "0.0.0.0:80", OSError(errno.EACCES, "Permission denied"), "CAP_NET_BIND_"),
        ("listen", "nowhere.invalid:80", socket.gaierror(-2, "unknown"), "no such host name"),
        ("token_listen", "unix:/none/x", OSError(errno.ENOENT, "No such file"), "make its folder"),
        ("listen", "unix:/etc/x", OSError(errno.EACCES, "Permission denied"), "write to its fold"),
        ("listen", "127.0.0.1:8080", OSError(0, "odd"), "(listen, --listen or GATEWAY_"),
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_bound(key: str, address: str, error: OSError, told: str) -> None:
    """The key, the address, the reason and the remedy are in one sentence."""
    with pytest.raises(OSError, match=f"^.*{key}: cannot listen on ") as caught:  # noqa: SIM117
        with binding(key, parse_listen(address)):
            raise error

    assert told in str(caught.value)
