"""The load that `make bench-planes` makes says what it saw, errors included."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import trustme

from tests.programs.bench import callers, peers
from tests.programs.bench.shapes import REAL_BODIES
from tests.support.tools import lacking

pytestmark = pytest.mark.timeout(300, func_only=True)


@pytest.fixture(autouse=True)
def go() -> None:
    if peers.find("go") is None:
        lacking(f"go is not installed ({peers.how_to_install('go')})")


class Server(ThreadingHTTPServer):
    """Answers all with one status, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = status
        self.connections = 0
        self.requests: list[tuple[str, bytes]] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.headers["traceparent"], body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(status: int, context: ssl.SSLContext | None = None) -> Iterator[Server]:
    with Server(status) as server:
        if context is not None:
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def where(server: Server) -> callers.Where:
    return callers.Where(f"127.0.0.1:{server.server_address[1]}", "/bench/real")


@pytest.mark.parametrize("closes", [False, True])
def test_no_request_is_like_another(closes: bool) -> None:
    """Each has its own trace, and bodies have many lengths; connections stay open, or do not."""
    with serving(200) as server:
        seen = callers.call(where(server), 2, 0.3, closes=closes)

        assert seen.errors == []
        assert 0 < seen.requests == len(server.requests)
        assert len({trace for trace, _ in server.requests}) == seen.requests
        lengths = {len(body) for _, body in server.requests}
        assert len(lengths) >= min(seen.requests // 2, REAL_BODIES)  # both begin alike
        assert server.connections == (seen.requests if closes else 2)
        assert 0 < seen.p50_ms <= seen.p99_ms


def test_other_answers_are_errors() -> None:
    """Of each caller, who stops then."""
    with serving(503) as server:
        seen = callers.call(where(server), 2, 5.0, closes=False)

    assert seen.requests == 0
    assert "2 callers: answered HTTP/1.1 503 Service Unavailable" in seen.errors
    assert "no request was answered" in seen.errors


def test_a_certificate_is_shown_or_nobody_is_served(tmp_path: Path) -> None:
    """By TLS 1.3, to a server that asks for one."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    client = tmp_path / "client.pem"
    authority.issue_cert("app.example").private_key_and_cert_chain_pem.write_to_path(client)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    context.load_verify_locations(tmp_path / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with serving(200, context) as server:
        to = callers.Where(where(server).address, "/x", ca_file=tmp_path / "ca.pem")
        assert callers.call(to, 1, 0.3, closes=True).requests == 0
        known = callers.Where(to.address, "/x", ca_file=to.ca_file, certificate=client)
        seen = callers.call(known, 1, 0.3, closes=True)
        assert seen.errors == []
        assert seen.requests == len(server.requests) > 0
