"""The admin listener, over HTTP, with a state that the test sets."""

import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from gateway.admin.listener import admin_application
from gateway.admin.server import AdminServer
from gateway.admin.status.history import History
from gateway.identity.report import IdentityStatus, Reason
from gateway.observe.metrics import Metrics
from tests.support.client import Reply, connect
from tests.support.health import BAD, GOOD, State


class Admin:
    """A running admin listener."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.quits = 0
        self.server: AdminServer | None = None

    async def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        accept: str = "*/*",
        host: str = "localhost",
        more: str = "",
    ) -> Reply:
        caller = await connect(self.port)
        caller.send(
            f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n{more}"
            "Content-Length: 0\r\n\r\n".encode()
        )
        reply = await caller.reply()
        caller.leave()
        return reply


@asynccontextmanager
async def admin(state: State, *, may_quit: bool = False) -> AsyncIterator[Admin]:
    """Run the application on a port of its own."""
    running = Admin(0)

    def quit_requested() -> None:
        running.quits += 1

    server = running.server = AdminServer(
        admin_application(
            state,
            metrics := Metrics(),
            History(metrics),
            quit_requested=quit_requested if may_quit else None,
        )
    )
    try:
        _, running.port = await server.start("127.0.0.1", 0)
        yield running
    finally:
        await server.close()


@pytest.mark.parametrize(
    ("started", "draining", "statuses", "live", "startup", "ready", "reason"),
    [
        (True, False, (GOOD,), 200, 200, 200, "ok"),
        (True, False, (BAD, GOOD), 200, 200, 200, "ok"),
        (True, False, (BAD,), 200, 200, 503, "no service has a usable token"),
        (False, False, (GOOD,), 200, 503, 503, "starting"),
        (True, True, (GOOD,), 200, 200, 503, "draining"),
        (False, True, (BAD,), 200, 503, 503, "draining"),
    ],
)
async def test_probes(  # noqa: PLR0917  # one column of the table each
    started: bool,
    draining: bool,
    statuses: tuple[IdentityStatus, ...],
    live: int,
    startup: int,
    ready: int,
    reason: str,
) -> None:
    """Alive while it answers; ready when one service can be served and it is not on its way out."""
    state = State(*statuses)
    state.started, state.draining = started, draining
    async with admin(state) as running:
        assert (await running.ask("/livez")).status == live
        assert (await running.ask("/startupz")).status == startup
        reply = await running.ask("/readyz")
        verbose = await running.ask("/readyz?verbose")

    assert (reply.status, reply.body) == (ready, reason.encode() + b"\n")
    assert verbose.status == ready
    document = json.loads(verbose.body)
    assert document["ready"] == (ready == 200)
    assert document["reason"] == reason


async def test_verbose_names_who_cannot_be_served_and_why() -> None:
    """Per service, with the identity and its reason."""
    async with admin(State(BAD, GOOD)) as running:
        document = json.loads((await running.ask("/readyz?verbose")).body)

    assert document["services"] == {
        "service-0": f"identity-0: {Reason.REFUSED}",
        "service-1": "ok",
    }


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", b"text/plain"),
        ("text/plain;version=0.0.4", b"text/plain"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", b"application/openmetrics"),
    ],
)
async def test_metrics_in_the_format_asked_for(accept: str, content_type: bytes) -> None:
    """Text unless OpenMetrics is preferred; the version is in the content type."""
    async with admin(State()) as running:
        reply = await running.ask("/metrics", accept=accept)

    assert reply.status == 200
    [value] = reply.values(b"content-type")
    assert value.startswith(content_type)
    assert b"version=" in value
    assert b"gateway_build_info{" in reply.body


@pytest.mark.parametrize("may_quit", [True, False])
async def test_quitquitquit_only_when_enabled_and_only_by_post(may_quit: bool) -> None:
    """A stray GET ends nothing."""
    async with admin(State(), may_quit=may_quit) as running:
        assert (await running.ask("/quitquitquit")).status == (405 if may_quit else 404)
        assert running.quits == 0
        reply = await running.ask("/quitquitquit", method="POST")

    assert reply.status == (200 if may_quit else 404)
    assert running.quits == may_quit


@pytest.mark.parametrize("may_quit", [True, False])
async def test_the_index_lists_what_there_is(may_quit: bool) -> None:
    """Links for browsers, lines for others; every GET in it is answered, and no POST by a link."""
    async with admin(State(), may_quit=may_quit) as running:
        page = await running.ask("/", accept="text/html")
        text = (await running.ask("/")).body.decode()
        links = re.findall(r'href="([^"]+)"', page.body.decode())
        listed = re.findall(r"^GET +/(\S+)  ", text, re.MULTILINE)
        for path in [*links, *listed]:
            assert (await running.ask(f"/{path}")).status == 200, path

    assert page.values(b"content-type") == [b"text/html; charset=utf-8"]
    assert set(listed) <= set(links)
    assert ("POST  /quitquitquit" in text) is may_quit
    assert "POST  /log-level?level=debug" in text
    assert "quitquitquit" not in "".join(links)


@pytest.fixture
def root_level() -> Iterator[logging.Logger]:
    """The root logger, whose level is put back."""
    root = logging.getLogger()
    before = root.level
    yield root
    root.setLevel(before)


async def test_the_log_level_changes_at_once(root_level: logging.Logger) -> None:
    """By POST alone; the answer tells both levels."""
    root_level.setLevel(logging.INFO)
    async with admin(State()) as running:
        assert (await running.ask("/log-level?level=debug")).status == 405
        assert root_level.level == logging.INFO
        reply = await running.ask("/log-level?level=debug", method="POST")

    assert json.loads(reply.body) == {"level": "DEBUG", "before": "INFO"}
    assert root_level.level == logging.DEBUG


@pytest.mark.parametrize("query", ["", "?level=", "?level=loud", "?level=5", "?level=info&level=x"])
async def test_a_log_level_that_is_none_changes_nothing(
    query: str, root_level: logging.Logger
) -> None:
    """What is allowed is said."""
    before = root_level.level
    async with admin(State()) as running:
        reply = await running.ask(f"/log-level{query}", method="POST")

    assert reply.status == 400
    assert "DEBUG, INFO, WARNING, ERROR" in json.loads(reply.body)["problem"]
    assert root_level.level == before


async def test_history_is_json() -> None:
    """Empty without marks."""
    async with admin(State()) as running:
        reply = await running.ask("/status/history")

    assert json.loads(reply.body) == {"interval_s": 10, "marks": []}


@pytest.mark.parametrize("path", ["/iris", "/v1/infers/abc", "/debug", "/livez/x"])
async def test_nothing_else_is_there(path: str) -> None:
    """No services, no debugging."""
    async with admin(State()) as running:
        assert (await running.ask(path)).status == 404


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz", "/metrics", "/status", "/"])
async def test_what_only_tells_is_asked_by_get(path: str) -> None:
    """POST is refused."""
    async with admin(State()) as running:
        assert (await running.ask(path, method="POST")).status == 405


@pytest.mark.parametrize(
    "path",
    ["/", "/status", "/status/page.js", "/quitquitquit", "/log-level?level=debug", "/nothing"],
)
@pytest.mark.parametrize(
    ("host", "status"), [("evil.example:9090", 421), ("gateway.internal.evil.example", 421)]
)
async def test_a_rebound_name_gets_nothing(path: str, host: str, status: int) -> None:
    """A web page whose name was made to point here learns nothing and ends nothing."""
    async with admin(State(), may_quit=True) as running:
        for method in ("GET", "POST"):
            reply = await running.ask(path, method=method, host=host)
            assert reply.status == status
            assert b"allowed_hosts" in reply.body

    assert running.quits == 0


@pytest.mark.parametrize(
    "host", ["localhost:9090", "127.0.0.1", "[::1]:9090", "10.0.0.7:9090", "Gateway.Internal"]
)
async def test_people_reach_the_status_by_address_and_by_configured_names(host: str) -> None:
    """Loopback, a pod's address, and what `allowed_hosts` names."""
    async with admin(State()) as running:
        assert (await running.ask("/status", host=host)).status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz", "/metrics"])
async def test_machines_may_use_any_name(path: str) -> None:
    """A scraper or a probe may know the pod by a name that nobody configured."""
    async with admin(State()) as running:
        assert (await running.ask(path, host="gateway.monitoring.svc:9090")).status == 200


async def test_a_malformed_host_is_refused() -> None:
    """It is nobody's name."""
    async with admin(State()) as running:
        assert (await running.ask("/status", host="user@localhost")).status == 400


async def test_a_web_page_cannot_post() -> None:
    """A page of another origin may send POST to an address; it is told apart by its Origin."""
    async with admin(State(), may_quit=True) as running:
        for path in ("/quitquitquit", "/log-level?level=debug"):
            reply = await running.ask(path, method="POST", more="Origin: https://evil.example\r\n")
            assert reply.status == 403

    assert running.quits == 0
