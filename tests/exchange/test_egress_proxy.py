"""The way out through an egress proxy, Debian's tinyproxy: a tunnel, or an error that says why."""

import asyncio
import json
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.diagnose.findings import Level, Step
from gateway.diagnose.reachability import walk
from gateway.errors import ErrorCode
from gateway.http.connect import EgressProxy
from tests.cloud.serving import CALL, password_identity, token_gateway
from tests.support.client import Reply
from tests.support.egress import PASSWORD, USER, running_tinyproxy
from tests.support.gateway import POST, RunningGateway, running_gateway
from tests.support.twin import running_twin
from tests.support.upstream import OK, Upstream, scripted_upstream


@pytest.fixture
def server_tls(tmp_path: Path) -> ssl.SSLContext:
    """A server's context for 127.0.0.1; its authority is in `ca.pem`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    return server


def settings_of(proxy: EgressProxy, folder: Path, password: str = PASSWORD) -> dict[str, Any]:
    (folder / "proxy-password").write_text(password + "\n")
    return {
        "url": f"http://{proxy.authority}",
        "username": USER,
        "password_file": str(folder / "proxy-password"),
    }


@asynccontextmanager
async def gateway_behind(
    upstream: Upstream, egress_proxy: dict[str, Any], folder: Path, **timeouts: str
) -> AsyncIterator[RunningGateway]:
    service = {
        "tls": {"ca_file": str(folder / "ca.pem")},
        "egress_proxy": egress_proxy,
        "timeouts": timeouts,
    }
    async with running_gateway(upstream.port, scheme="https", service=service) as gateway:
        yield gateway


def assert_ours(reply: Reply, code: ErrorCode) -> None:
    assert reply.status == code.status
    assert json.loads(reply.body)["error_code"] == f"Gateway.{code.value.name}"


def tunnels(folder: Path) -> int:
    """How many tunnels the proxy has been asked for."""
    return (folder / "proxy.log").read_text().count("CONNECT 127.0.0.1")


async def test_requests_share_a_tunnel_and_the_proxy_sees_no_token(
    server_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    """One tunnel for several requests; the service gets the token, the proxy's log does not."""
    async with (
        scripted_upstream(OK, tls=server_tls) as upstream,
        running_tinyproxy(tmp_path, upstream.port) as proxy,
        gateway_behind(upstream, settings_of(proxy, tmp_path), tmp_path) as gateway,
    ):
        caller = await gateway.connect()
        for _ in range(3):
            caller.send(POST)
            assert (await caller.reply()).status == 200
        requests = upstream.requests

    assert tunnels(tmp_path) == 1
    assert len(requests) == 3
    for request in requests:
        assert request.values(b"x-auth-token") == [b"token-1"]
        assert not request.values(b"proxy-authorization")
    assert "token-1" not in (tmp_path / "proxy.log").read_text()


async def test_a_password_that_the_proxy_refuses_is_502(
    server_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    """Nothing reaches the service."""
    async with (
        scripted_upstream(OK, tls=server_tls) as upstream,
        running_tinyproxy(tmp_path, upstream.port) as proxy,
        gateway_behind(upstream, settings_of(proxy, tmp_path, "wrong"), tmp_path) as gateway,
    ):
        assert_ours(await gateway.ask(POST), ErrorCode.EGRESS_PROXY_ERROR)
        assert gateway.sample("gateway_errors_total", error="egress_proxy_error") == 1
        assert gateway.sample("gateway_upstream_connections") == 0
        assert upstream.requests == []


async def test_a_port_that_the_proxy_does_not_allow_is_502(
    server_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    async with (
        scripted_upstream(OK, tls=server_tls) as upstream,
        running_tinyproxy(tmp_path, 443) as proxy,
        gateway_behind(upstream, settings_of(proxy, tmp_path), tmp_path) as gateway,
    ):
        assert_ours(await gateway.ask(POST), ErrorCode.EGRESS_PROXY_ERROR)


async def test_a_proxy_that_is_not_there_is_502(server_tls: ssl.SSLContext, tmp_path: Path) -> None:
    async with scripted_upstream(OK, tls=server_tls) as upstream:
        async with running_tinyproxy(tmp_path, upstream.port) as proxy:
            gone = settings_of(proxy, tmp_path)
        async with gateway_behind(upstream, gone, tmp_path) as gateway:
            assert_ours(await gateway.ask(POST), ErrorCode.EGRESS_PROXY_ERROR)


@asynccontextmanager
async def proxy_that_says(answer: bytes) -> AsyncIterator[EgressProxy]:
    """A proxy that answers so to every CONNECT, and then waits."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await done.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield EgressProxy(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    finally:
        done.set()
        server.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_a_proxy_that_hangs_is_504(
    answer: bytes, server_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    """Before, in, or after its answer: `timeouts.connect` is for all of it together."""
    async with (
        scripted_upstream(OK, tls=server_tls) as upstream,
        proxy_that_says(answer) as proxy,
        gateway_behind(
            upstream, {"url": f"http://{proxy.authority}"}, tmp_path, connect="300ms"
        ) as gateway,
    ):
        assert_ours(await gateway.ask(POST), ErrorCode.CONNECTION_TIMEOUT)
        assert gateway.sample("gateway_upstream_connections") == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nearly",
        b"HTTP/1.1 200 OK\r\nx\n\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://login.example\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000,
    ],
)
async def test_what_opens_no_tunnel_is_502(
    answer: bytes, server_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    """No HTTP, bytes that nobody asked for, a login page, a head without end."""
    async with (
        scripted_upstream(OK, tls=server_tls) as upstream,
        proxy_that_says(answer) as proxy,
        gateway_behind(upstream, {"url": f"http://{proxy.authority}"}, tmp_path) as gateway,
    ):
        assert_ours(await gateway.ask(POST), ErrorCode.EGRESS_PROXY_ERROR)


@pytest.mark.parametrize("password", [PASSWORD, "wrong"])
async def test_logins_go_through_the_identity_s_proxy(
    password: str, server_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    """With a token as the result; or with none, and the proxy as the reason."""
    async with (
        running_twin(ssl_context=server_tls) as cloud,
        running_twin() as services,
        running_tinyproxy(tmp_path, int(cloud.url.rpartition(":")[2])) as proxy,
    ):
        identity = password_identity(
            cloud.auth_url,
            tmp_path,
            tls={"ca_file": str(tmp_path / "ca.pem")},
            egress_proxy=settings_of(proxy, tmp_path, password),
        )
        async with token_gateway(services.url + "/v1/infers/x", identity) as gateway:
            if password == PASSWORD:
                await gateway.has_token()
                assert cloud.stats.logins == 1
                assert tunnels(tmp_path) == 1
            else:
                reply = await gateway.running.ask(CALL)
                assert reply.status == 503
                assert cloud.stats.login_attempts == 0
                assert gateway.logins(result="network") >= 1


async def test_the_doctor_goes_the_same_way(server_tls: ssl.SSLContext, tmp_path: Path) -> None:
    """The proxy has a step of its own, with the remedy for what it refuses."""
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    good = b"Basic " + b64encode(f"{USER}:{PASSWORD}".encode())
    async with (
        scripted_upstream(OK, tls=server_tls) as upstream,
        running_tinyproxy(tmp_path, upstream.port) as proxy,
    ):

        async def steps(authorization: bytes, port: int) -> list[tuple[Step, Level, str]]:
            way = EgressProxy(host=proxy.host, port=proxy.port, authorization=authorization)
            found = await walk(
                "services.iris", "127.0.0.1", port,
                tls=context, server_name=None, limit_s=10.0, proxy=way,
            )  # fmt: skip
            return [(one.step, one.level, one.text) for one in found]

        whole = await steps(good, upstream.port)
        refused = await steps(b"Basic eDp5", upstream.port)
        forbidden = await steps(good, 9)

    assert [step for step, _, _ in whole] == [Step.TCP, Step.PROXY, Step.TLS]
    assert all(level is Level.OK for _, level, _ in whole)
    assert refused[-1][:2] == (Step.PROXY, Level.FAIL)
    assert "egress_proxy.password_file" in refused[-1][2]
    assert "have this host and port allowed there" in forbidden[-1][2]
