"""One shape on one contestant for one round: the load, what it cost, and whether it was honest."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from tests.programs.bench import loads
from tests.programs.bench.contestants import LAUNCHERS, Launch, Surroundings
from tests.programs.bench.processes import (
    MIB,
    child,
    cpu_ns,
    describe_exit,
    memory,
    reset_peak,
    wait_for_port,
)
from tests.programs.bench.services import Kind, Service, start_all
from tests.programs.bench.shapes import SHAPES, STREAM_MS, Load, Shape
from tests.programs.bench.upstream import Counts

DIRECT = "direct"
"""The open loop on the upstream itself, to be subtracted."""
CLIENT = "app.example"
"""The name in the certificate of callers that have one."""
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
    """The services, and a folder; exists within `prepared`."""

    def __init__(self, folder: Path, services: list[Service]) -> None:
        self.folder = folder
        self.services = services
        self.ca_file = folder / "ca.pem"
        self.certificate = folder / "service.pem"
        self.client_certificate = folder / "client.pem"
        """Of a caller named `CLIENT`, with its key."""
        self._started = 0

    def has(self, shape: Shape) -> bool:
        """Whether the shape's service is there."""
        return any(service.kind is shape.service for service in self.services)

    def surroundings(self, folder: Path) -> Surroundings:
        """Return what a contestant is told whose folder this is."""
        return Surroundings(self.services, self.ca_file, self.certificate, folder)

    @contextmanager
    def started(self, name: str, shape: Shape) -> Iterator[Running]:
        """Start a contestant, see it answer the shape's path, and end it.

        Raises:
            RuntimeError: it did not; the text says what happened, with the end of its log.
        """
        self._started += 1
        folder = self.folder / f"{name}-{self._started}"
        folder.mkdir()
        launch = LAUNCHERS[name](self.surroundings(folder))
        log = folder / "log"
        # what configures a gateway of the user must not configure ours
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "OS_"))}
        with (
            log.open("ab") as output,
            child(launch.command, output=output, environment=kept | launch.environment) as process,
        ):
            running = Running(launch, process, log)
            try:
                wait_for_port(process, launch.port)
                if launch.admin_port is not None:
                    wait_until_ready(launch.admin_port)
                _probe(launch.port, SHAPES["json"])
                _probe(launch.port, shape)
            except (OSError, RuntimeError, http.client.HTTPException) as error:
                raise RuntimeError(f"{error}; its log ends: {running.last_words()}") from error
            yield running
        shutil.rmtree(folder)  # an access log of all rounds would fill the disk

    def counts(self, shape: Shape) -> Counts | None:
        """Return what the shape's service has answered so far; None: it does not count."""
        if shape.service is Kind.NGINX:
            return None
        port = next(one.port for one in self.services if one.kind is shape.service)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/counts")
            return Counts(**json.loads(connection.getresponse().read()))
        finally:
            connection.close()

    def measure(self, shape: Shape, name: str, number: int, seconds: int, warm_up_s: int) -> Sample:
        """Start contestant `name`, warm it up, load it for `seconds`; return what that cost."""
        sample = Sample(name, number)
        try:
            with self.started(name, shape) as running:
                warmed = loads.run_wrk(
                    shape if shape.load is Load.WRK else SHAPES["json"],
                    running.launch.port,
                    warm_up_s,
                    self.folder,
                )
                if not warmed.requests:
                    sample.errors.append("warming up: no request was answered")
                self._settle(shape)
                self._load(sample, shape, running, seconds)
        except RuntimeError as error:
            sample.errors.append(str(error))
        return sample

    def _settle(self, shape: Shape) -> None:
        """Wait until the service has answered what was under way when the warm-up ended."""
        for _ in range(20):
            before = self.counts(shape)
            time.sleep(_SETTLE_S)
            if self.counts(shape) == before:
                return

    def _load(self, sample: Sample, shape: Shape, running: Running, seconds: int) -> None:
        """Load what runs, and write into `sample` what it cost."""
        pid = running.process.pid
        with _idle_connections(shape, running.launch.port) as idle:
            reset_peak(pid)
            at_first = memory(pid).now
            counted, used = self.counts(shape), cpu_ns(pid)
            outcome = loads.run(shape, running.launch.port, seconds, self.folder)
            time.sleep(_SETTLE_S)
            sample.errors += outcome.errors
            if closed := sum(map(_is_closed, idle)):
                sample.errors.append(f"{closed} of {len(idle)} idle connections were closed")
            if running.process.poll() is not None:
                code = describe_exit(running.process.returncode)
                sample.errors.append(f"died under load with {code}: {running.last_words()}")
                return
            used = cpu_ns(pid) - used
            at_end = memory(pid)
        after = self.counts(shape)
        if counted is not None and after is not None:
            sample.errors += _lies(outcome, counted, after)
        sample.requests = outcome.requests
        sample.figures = {
            "cpu_us": used / 1000 / max(1, _parts(shape, outcome, counted, after)),
            **outcome.figures,
            **({"stretch": outcome.figures["p50_ms"] / STREAM_MS} if shape.parts > 1 else {}),
            "rss_mib": at_end.now / MIB,
            "peak_mib": at_end.peak / MIB,
            "growth_mib": (at_end.peak - at_first) / MIB,
        }
        if sample.errors:
            sample.errors.append(f"its log ends: {running.last_words()}")

    def measure_direct(self, shape: Shape, number: int, seconds: int) -> Sample:
        """Run an open loop on the upstream itself."""
        outcome = loads.run_open_loop(
            shape, self.services[0].port, seconds, "/v1/infers/bench/predict", token=True
        )
        return Sample(DIRECT, number, outcome.requests, outcome.figures, outcome.errors)


@contextmanager
def prepared(folder: Path) -> Iterator[Ground]:
    """Yield a ground with its services up; end them."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = folder / "service.pem"
    for file, names in (
        (certificate, ("localhost", "127.0.0.1")),
        (folder / "client.pem", (CLIENT,)),
    ):
        issued = authority.issue_cert(*names)
        issued.private_key_and_cert_chain_pem.write_to_path(file)
    with ExitStack() as stack:
        yield Ground(folder, start_all(folder, certificate, stack))


def _parts(
    shape: Shape, outcome: loads.Outcome, before: Counts | None, after: Counts | None
) -> int:
    """Return how many requests were answered, or events sent.

    A stream that the load's end cuts off has cost as much per event as another. In a round of a
    second that is one of five, or of four, by how long each takes.
    """
    if shape.parts == 1 or before is None or after is None:
        return outcome.requests
    return after.events - before.events


def _lies(outcome: loads.Outcome, before: Counts, after: Counts) -> list[str]:
    """Compare what the load saw with what the service saw; return what does not fit."""
    accepted = after.accepted - before.accepted
    body_bytes = after.body_bytes - before.body_bytes
    found = []
    if refused := after.refused - before.refused:
        found.append(f"the service refused {refused} requests (token or path wrong)")
    if accepted < outcome.requests:
        found.append(f"{outcome.requests} answers, but the service gave only {accepted}")
    if not accepted * outcome.least_body <= body_bytes <= accepted * outcome.most_body:
        found.append(
            f"{accepted} bodies of {outcome.least_body} to {outcome.most_body} bytes arrived as "
            f"{body_bytes} bytes"
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
