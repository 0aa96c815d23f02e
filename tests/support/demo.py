"""`modelarts-gateway demo` in a process of its own."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "NO_PROXY": "*", "no_proxy": "*"}
START_LIMIT_S = 25


@dataclass(frozen=True)
class Demo:
    """A running `modelarts-gateway demo`."""

    url: str
    admin_url: str
    twin_url: str
    process: subprocess.Popen[bytes]
    printed: Path
    """The file that gets its standard output and standard error."""


_FROM_SOURCE = (sys.executable, "-m", "gateway", "demo")


@contextmanager
def running_demo(folder: Path, *, command: Sequence[str] = _FROM_SOURCE) -> Iterator[Demo]:
    """Run it on free ports until it is ready, with its output in `folder`; end it at the end."""
    port, admin_port = _free_ports(2)
    admin_url = f"http://127.0.0.1:{admin_port}"
    printed = folder / "printed"
    where = ("--listen", f"127.0.0.1:{port}", "--admin-listen", f"127.0.0.1:{admin_port}")
    with (
        printed.open("wb") as output,
        subprocess.Popen(
            [*command, *where],
            cwd=ROOT if command == _FROM_SOURCE else folder,
            env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            deadline = time.monotonic() + START_LIMIT_S
            while not _is_ready(admin_url):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"the demo did not get ready:\n{printed.read_text()}")
                time.sleep(0.05)
            found = re.search(
                r"^\s*stand-in cloud\s+(http://127\.0\.0\.1:\d+)", printed.read_text(), re.MULTILINE
            )
            assert found, f"the demo does not tell where its cloud is:\n{printed.read_text()}"
            yield Demo(f"http://127.0.0.1:{port}", admin_url, found[1], process, printed)
        finally:
            process.terminate()
            try:
                process.wait(100)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _is_ready(admin_url: str) -> bool:
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.get(f"{admin_url}/readyz", timeout=2).status_code == 200
        except requests.RequestException:
            return False
