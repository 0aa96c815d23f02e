"""One shape on one contestant for one round: the load, what it cost, and whether it was honest."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from tests.bench import loads
from tests.bench.contestants import LAUNCHERS, Launch, Surroundings
from tests.bench.processes import (
    MIB,
    child,
    cpu_ns,
    describe_exit,
    memory,
    reset_peak,
    wait_for_port,
)
from tests.bench.shapes import SHAPES, Shape
from tests.bench.upstream import Counts

DIRECT = "direct"
"""The open loop on the upstream itself, to be subtracted."""
_SETTLE_S = 0.1


@dataclass
class Sample:
    """What one round said. Units are in the names of the figures."""

    contestant: str
    round: int
    requests: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Running:
    """A contestant that can be loaded."""

    launch: Launch
    process: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        """Return the end of its log, in one line."""
        lines = self.log.read_bytes()[-2000:].decode(errors="replace").splitlines()
        return " | ".join(lines[-5:])


class Ground:
    """The upstream, the contestants that started, and a folder; exists within `prepared`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.running: dict[str, Running] = {}
        self.ports: dict[str, int] = {}
        self.ca_file = folder / "ca.pem"

    def start_upstream(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca_file)
        certificate = self.folder / "upstream.pem"
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(certificate)
        command = [sys.executable, "-m", "tests.bench.upstream", str(certificate)]
        process = self.stack.enter_context(child(command, output=subprocess.PIPE, patience_s=1))
        assert process.stdout is not None
        said = process.stdout.readline()
        if not said:
            raise RuntimeError("the upstream did not start")
        self.ports = json.loads(said)

    def start(self, name: str) -> None:
        """Start a contestant and see both of its routes work.

        Raises:
            RuntimeError: it did not; the text says what happened, with the end of its log.
        """
        folder = self.folder / name
        folder.mkdir()
        at = Surroundings(self.ports["plain"], self.ports["secure"], self.ca_file, folder)
        launch = LAUNCHERS[name](at)
        log = folder / "log"
        output = self.stack.enter_context(log.open("ab"))
        # what configures the gateway of whoever runs this must not configure ours
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "OS_"))}
        process = self.stack.enter_context(
            child(launch.command, output=output, environment=kept | launch.environment)
        )
        running = Running(launch, process, log)
        try:
            wait_for_port(process, launch.port)
            if launch.admin_port is not None:
                wait_until_ready(launch.admin_port)
            for shape in (SHAPES["json"], SHAPES["json-tls"]):
                _probe(launch.port, shape)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise RuntimeError(f"{error}; its log ends: {running.last_words()}") from error
        self.running[name] = running

    def counts(self) -> Counts:
        """Return what the upstream answered so far."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports["plain"], timeout=10)
        try:
            connection.request("GET", "/counts")
            return Counts(**json.loads(connection.getresponse().read()))
        finally:
            connection.close()

    def measure(self, shape: Shape, name: str, number: int, seconds: int) -> Sample:
        """Load contestant `name` for `seconds` and return what that cost."""
        sample = Sample(name, number)
        running = self.running[name]
        pid = running.process.pid
        if running.process.poll() is not None:
            sample.errors.append(f"died with {describe_exit(running.process.returncode)}")
            return sample
        with _idle_connections(shape, running.launch.port) as idle:
            reset_peak(pid)
            at_first = memory(pid).now
            counted, used = self.counts(), cpu_ns(pid)
            outcome = loads.run(shape, running.launch.port, seconds, self.folder)
            time.sleep(_SETTLE_S)
            sample.errors += outcome.errors
            if closed := sum(map(_is_closed, idle)):
                sample.errors.append(f"{closed} of {len(idle)} idle connections were closed")
            if running.process.poll() is not None:
                sample.errors.append(f"died under load: {running.last_words()}")
                return sample
            used = cpu_ns(pid) - used
            at_end = memory(pid)
        sample.errors += _lies(outcome, counted, self.counts())
        sample.requests = outcome.requests
        sample.figures = {
            "cpu_us": used / 1000 / max(1, outcome.requests),
            **outcome.figures,
            "rss_mib": at_end.now / MIB,
            "peak_mib": at_end.peak / MIB,
            "growth_mib": (at_end.peak - at_first) / MIB,
        }
        if sample.errors:
            sample.errors.append(f"its log ends: {running.last_words()}")
        os.truncate(running.log, 0)  # an access log of all rounds would fill the disk
        return sample

    def measure_direct(self, shape: Shape, number: int, seconds: int) -> Sample:
        """Run an open loop on the upstream itself."""
        outcome = loads.run_open_loop(
            shape, self.ports["plain"], seconds, "/v1/infers/bench/predict", token=True
        )
        return Sample(DIRECT, number, outcome.requests, outcome.figures, outcome.errors)


@contextmanager
def prepared(folder: Path) -> Iterator[Ground]:
    """Yield a ground with its upstream up; end everything that was started on it."""
    with ExitStack() as stack:
        ground = Ground(folder, stack)
        ground.start_upstream()
        try:
            yield ground
        finally:
            for running in ground.running.values():
                running.process.terminate()  # all at once; the stack then waits for each


def _lies(outcome: loads.Outcome, before: Counts, after: Counts) -> list[str]:
    """Compare what the load saw with what the upstream saw; return what does not fit."""
    accepted = after.accepted - before.accepted
    body_bytes = after.body_bytes - before.body_bytes
    found = []
    if refused := after.refused - before.refused:
        found.append(f"the upstream refused {refused} requests (token or path wrong)")
    if accepted < outcome.requests:
        found.append(f"{outcome.requests} answers, but the upstream gave only {accepted}")
    if body_bytes != accepted * outcome.body_bytes:
        found.append(
            f"{accepted} bodies of {outcome.body_bytes} bytes arrived as {body_bytes} bytes"
        )
    return found


def wait_until_ready(port: int, patience_s: float = 20.0) -> None:
    """Return when `/readyz` says 200."""
    deadline = time.monotonic() + patience_s
    last = "nothing listened"
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/readyz?verbose")
            reply = connection.getresponse()
            text = reply.read().decode(errors="replace")
            if reply.status == 200:
                return
            last = f"{reply.status} {text[:300]}"
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    raise RuntimeError(f"not ready within {patience_s:.0f} s: {last}")


def _probe(port: int, shape: Shape) -> None:
    """See one request through."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", shape.path, shape.body(), {"Content-Type": shape.content_type})
        reply = connection.getresponse()
        text = reply.read()
    finally:
        connection.close()
    if reply.status != 200:
        raise RuntimeError(f"POST {shape.path} was answered {reply.status} {text[:300]!r}")


@contextmanager
def _idle_connections(shape: Shape, port: int) -> Iterator[list[socket.socket]]:
    """Yield the shape's idle connections, each of which has made one request."""
    body = shape.body() if shape.idle else b""
    request = (
        f"POST {shape.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: {shape.content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    with ExitStack() as stack:
        opened = []
        for _ in range(shape.idle):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            connection.sendall(request)
            opened.append(connection)
        for connection in opened:
            answer = b""
            while b"predictresult" not in answer:  # it is near the end of a body of one segment
                piece = connection.recv(65536)
                if not piece:
                    break  # counted below as closed
                answer += piece
            connection.setblocking(False)
        yield opened


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(65536) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
