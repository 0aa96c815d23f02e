"""System calls per exchange of a real `serve` process, by strace: one caller, one at a time."""

import json
import os
import re
import signal
import socket
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cost.exchanges import SHAPES
from tests.programs.bench.processes import child, free_port, wait_for_port

_COUNT = 400
_FIRST, _LAST = b"/bench/count-from-here", b"/bench/count-to-here"
_NOT_OURS = frozenset({"futex", "restart_syscall", "getpid"})
"""Threads of the C library and of the event loop talking to each other."""


@contextmanager
def _service(answer: bytes) -> Iterator[int]:
    """Answer whatever comes in one segment, on one connection at a time; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    while connection.recv(1 << 16):
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def _ask(caller: socket.socket, request: bytes, answer_bytes: int) -> None:
    caller.sendall(request)
    left = answer_bytes
    while left > 0:
        left -= len(caller.recv(1 << 16)) or left


def _answer_bytes(port: int, request: bytes) -> int:
    """Return how long the gateway's answer is."""
    with socket.create_connection(("127.0.0.1", port), 30) as caller:
        caller.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += caller.recv(1 << 16)
        head, _, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if b" 200 " not in head or length is None:
            raise RuntimeError(f"the gateway answered {head[:200]!r}")
        while len(body) < int(length[1]):
            body += caller.recv(1 << 16)
        return len(head) + 4 + len(body)


def system_calls() -> dict[str, float]:
    """Return system calls per exchange of JSON, by name.

    Raises:
        RuntimeError: strace may not trace here, or the gateway did not answer.
    """
    [([request], [answer])] = SHAPES["json"]
    with tempfile.TemporaryDirectory(prefix="gateway-cost-") as name, _service(answer) as service:
        folder, port = Path(name), free_port()
        config = {
            "listen": f"127.0.0.1:{port}",
            "admin_listen": "127.0.0.1:0",
            "identities": {"default": {"method": "none"}},
            "services": {
                "bench": {"url": f"http://127.0.0.1:{service}/bench", "methods": ["POST"]}
            },
        }
        (folder / "gateway.yaml").write_text(json.dumps(config), encoding="ascii")
        command = [
            *("strace", "--follow-forks", "--string-limit=64", f"--output={folder}/trace"),
            *(sys.executable, "-m", "gateway", "serve", "--config", str(folder / "gateway.yaml")),
        ]
        with (folder / "log").open("wb") as log, child(command, output=log) as process:
            wait_for_port(process, port, 60)
            length = _answer_bytes(port, request)
            with socket.create_connection(("127.0.0.1", port), 30) as caller:
                _ask(caller, request.replace(b"/bench/predict", _FIRST), length)
                for _ in range(_COUNT):
                    _ask(caller, request, length)
                _ask(caller, request.replace(b"/bench/predict", _LAST), length)
            # strace would let go of it and leave it running.
            traced = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii")
            os.kill(int(traced), signal.SIGTERM)
            process.wait(20)
        lines = (folder / "trace").read_text(encoding="ascii").splitlines()
    marks = [
        at
        for at, line in enumerate(lines)
        if "read(" in line and any(mark.decode() in line for mark in (_FIRST, _LAST))
    ]
    if len(marks) < 2:
        raise RuntimeError("strace has not seen the requests: may it trace processes here?")
    found = (re.match(r"\d+ +(\w+)\(", line) for line in lines[marks[0] : marks[-1]])
    counts = Counter(one[1] for one in found if one and one[1] not in _NOT_OURS)
    return {name: count / (_COUNT + 1) for name, count in counts.most_common()}
