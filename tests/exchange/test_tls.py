"""The way to a service over TLS: who is believed, and what is said of those who are not."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.errors import UpstreamError
from tests.support.client import Reply
from tests.support.gateway import POST, RunningGateway, running_gateway
from tests.support.until import PATIENCE_S, until
from tests.support.upstream import OK, Link, Upstream, scripted_upstream


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def server_context(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    """Return the context of a server with a certificate for `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@asynccontextmanager
async def secured(
    server: ssl.SSLContext | None, tls: Mapping[str, Any]
) -> AsyncIterator[tuple[Upstream, RunningGateway]]:
    """Run an upstream, and a gateway that reaches it over https."""
    async with (
        scripted_upstream(OK, tls=server) as upstream,
        running_gateway(upstream.port, scheme="https", service={"tls": tls}) as gateway,
    ):
        yield upstream, gateway


async def refused(server: ssl.SSLContext | None, tls: Mapping[str, Any]) -> tuple[Reply, str]:
    """Return the answer and the error on record of a request that reaches no service."""
    async with secured(server, tls) as (upstream, gateway):
        caller = await gateway.connect()
        caller.send(POST)
        reply = await caller.reply()
        record = await gateway.next_record()
        pool = gateway.services[0].pool
        assert (pool.active, pool.idle) == (0, 0)
    assert b"token-" not in upstream.received
    assert upstream.requests == []
    assert (reply.status, reply.closes) == (502, False)
    return reply, str(record["error"])


async def test_certificate_of_the_given_authority_is_believed(
    authority: trustme.CA, ca_file: str
) -> None:
    """And the connection is kept for the next request."""
    async with secured(server_context(authority), {"ca_file": ca_file}) as (upstream, gateway):
        for _ in range(2):
            assert (await gateway.ask(POST)).body == b"ok"

    assert len(upstream.links) == 1
    assert upstream.requests[0].values(b"x-auth-token") == [b"token-1"]


async def test_certificate_of_another_authority_is_not_believed(ca_file: str) -> None:
    """502 before a byte of the request, the token least of all."""
    reply, error = await refused(server_context(trustme.CA()), {"ca_file": ca_file})

    assert b"Gateway.TlsCertificateError" in reply.body
    assert reply.values(b"proxy-status") == [b"modelarts-gateway; error=tls_certificate_error"]
    assert error == "tls_certificate_error"


async def test_systems_authorities_do_not_know_a_private_one(authority: trustme.CA) -> None:
    """Without `ca_file` the certificate must be publicly signed."""
    _, error = await refused(server_context(authority), {})

    assert error == "tls_certificate_error"


async def test_given_authority_replaces_the_systems(ca_file: str) -> None:
    """A user who pins an authority wants that one only."""
    async with running_gateway(1, scheme="https", service={"tls": {"ca_file": ca_file}}) as gateway:
        context = gateway.services[0].pool.origin.tls
        assert context is not None
        assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize("name", ["localhost", "127.0.0.2", "other.example"])
async def test_certificate_for_another_name_is_not_believed(
    authority: trustme.CA, ca_file: str, name: str
) -> None:
    """The name is part of the proof."""
    _, error = await refused(server_context(authority, name), {"ca_file": ca_file})

    assert error == "tls_certificate_error"


async def test_common_name_is_no_name(authority: trustme.CA, ca_file: str) -> None:
    """A3, RFC 9110 section 4.3.4: only the subject's alternative names count."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(common_name="service.example").configure_cert(context)
    _, error = await refused(context, {"ca_file": ca_file, "server_name": "service.example"})

    assert error == "tls_certificate_error"


async def test_server_name_takes_the_hosts_place(authority: trustme.CA, ca_file: str) -> None:
    """In the handshake and in the check; Host stays what the URL says."""
    asked: list[str | None] = []
    server = server_context(authority, "models.example")
    server.sni_callback = lambda _socket, name, _context: asked.append(name)
    tls = {"ca_file": ca_file, "server_name": "models.example"}
    async with secured(server, tls) as (upstream, gateway):
        assert (await gateway.ask(POST)).body == b"ok"

    assert asked == ["models.example"]
    assert upstream.only.values(b"host") == [b"127.0.0.1:%d" % upstream.port]


async def test_wrong_server_name_is_not_believed(authority: trustme.CA, ca_file: str) -> None:
    """It is checked instead of the host, not beside it."""
    _, error = await refused(
        server_context(authority), {"ca_file": ca_file, "server_name": "models.example"}
    )

    assert error == "tls_certificate_error"


async def test_verification_can_be_turned_off() -> None:
    """Then anybody's certificate will do, whatever its name."""
    server = server_context(trustme.CA(), "other.example")
    async with secured(server, {"verify": False}) as (_, gateway):
        assert (await gateway.ask(POST)).body == b"ok"


async def test_plain_server_behind_https_is_named() -> None:
    """A service that does not speak TLS is 502 as such, not as a refused connection."""

    async def script(link: Link) -> None:
        await link._more()
        link.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await link.hold()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, scheme="https") as gateway,
    ):
        reply = await gateway.ask(POST)
        record = await gateway.next_record()

    assert reply.status == 502
    assert b"Gateway.TlsProtocolError" in reply.body
    assert record["error"] == "tls_protocol_error"
    assert b"token-" not in upstream.received


@pytest.mark.parametrize("end", [Link.close, Link.reset])
async def test_handshake_that_is_cut_is_named(end: Any) -> None:
    """A server that hangs up on TLS is not one that refuses connections."""

    async def script(link: Link) -> None:
        await link._more()
        end(link)

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, scheme="https") as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST)
        reply = await caller.reply()
        record = await gateway.next_record()

    assert (reply.status, record["error"]) == (502, "tls_protocol_error")


async def test_old_protocol_version_is_refused(authority: trustme.CA, ca_file: str) -> None:
    """TLS 1.2 is the least."""
    server = server_context(authority)
    server.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        server.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        server.maximum_version = ssl.TLSVersion.TLSv1_1
    _, error = await refused(server, {"ca_file": ca_file})

    assert error == "tls_protocol_error"


async def test_cancelled_handshake_leaves_nothing(authority: trustme.CA) -> None:
    """A connect that is given up half-way closes its socket and is not counted."""

    async def script(link: Link) -> None:
        await link.hold()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, scheme="https") as gateway,
    ):
        pool = gateway.services[0].pool
        connecting = asyncio.create_task(pool.connect())
        await until(lambda: upstream.received)
        assert (pool.active, pool.idle) == (1, 0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        assert (pool.active, pool.idle) == (0, 0)
        async with asyncio.timeout(PATIENCE_S):
            await upstream.links[0].ended.wait()


async def test_failed_connect_may_be_tried_again_and_is_not_counted(ca_file: str) -> None:
    """Nothing was written, which is what `replayable` says."""
    async with secured(server_context(trustme.CA()), {"ca_file": ca_file}) as (_, gateway):
        pool = gateway.services[0].pool
        with pytest.raises(UpstreamError) as caught:
            await pool.connect()
        assert caught.value.replayable
        assert pool.active == 0


async def test_body_streams_over_tls_both_ways(authority: trustme.CA, ca_file: str) -> None:
    """Several records long, with the service reading late."""
    body = bytes(range(256)) * 8192

    async def script(link: Link) -> None:
        request = await link.request()
        link.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.body))
        link.send(request.body)
        await link.hold()

    async with (
        scripted_upstream(script, tls=server_context(authority)) as upstream,
        running_gateway(
            upstream.port, scheme="https", service={"tls": {"ca_file": ca_file}}
        ) as gateway,
    ):
        reply = await gateway.ask(
            b"POST /iris HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )

    assert reply.body == body
