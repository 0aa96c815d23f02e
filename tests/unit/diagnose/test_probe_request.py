"""The one harmless request: its bytes, when there is a second one, what is taken of the answer."""

import asyncio
from typing import Any

import pytest

from gateway.diagnose.probe_request import visit
from gateway.errors import ErrorCode, UpstreamError
from gateway.identity.credential import Credential
from gateway.settings import Service
from tests.support.upstream import Link, Script, Upstream, answer, answering, scripted_upstream

TOKEN = b"0123456789abcdef0123456789abcdef"
CREDENTIAL = Credential(b"X-Auth-Token: %b\r\n" % TOKEN, stale_at=9e9, expires_at=9e9)
NOT_PUBLISHED = answer(404, b'{"error_code":"APIG.0101"}', b"Server: api-gateway")


def service_at(upstream: Upstream, path: str = "/v1/infers/a", **keys: Any) -> Service:
    """A service at the scripted server."""
    return Service.model_validate({"url": f"http://127.0.0.1:{upstream.port}{path}", **keys})


@pytest.mark.parametrize(("path", "target"), [("/v1/infers/a", b"/v1/infers/a"), ("", b"/")])
async def test_a_get_without_body_and_query_is_sent(path: str, target: bytes) -> None:
    """With the token, to the service's own path; nothing that a model could predict from."""
    async with scripted_upstream(answering(answer(405))) as upstream:
        visited = await visit("iris", service_at(upstream, path), CREDENTIAL)

    [request] = upstream.requests
    assert (request.line, request.body) == (b"GET %b HTTP/1.1" % target, b"")
    assert request.values(b"x-auth-token") == [TOKEN]
    assert request.values(b"host") == [b"127.0.0.1:%d" % upstream.port]
    assert request.values(b"content-length") == []
    assert (visited.method, visited.status, visited.code) == ("GET", 405, "")


async def test_get_that_is_not_published_is_followed_by_an_empty_post() -> None:
    """What is published for POST alone may look like an address that does not exist."""
    refusal = answer(400, b'{"error_code":"MR.0105"}', b"Server: ModelArts")
    async with scripted_upstream(answering(NOT_PUBLISHED, refusal)) as upstream:
        visited = await visit("iris", service_at(upstream), CREDENTIAL)

    assert [request.line[:5] for request in upstream.requests] == [b"GET /", b"POST "]
    assert upstream.requests[1].values(b"content-length") == [b"0"]
    assert upstream.requests[1].body == b""
    assert (visited.method, visited.status, visited.code) == ("POST", 400, "MR.0105")


@pytest.mark.parametrize(
    ("reply", "keys"),
    [
        (NOT_PUBLISHED, {"methods": ["GET"]}),
        (answer(404, b"{}", b"Server: ModelArts"), {}),
        (answer(405, b'{"error_code":"MR.0105"}'), {}),
        (answer(400, b'{"error_code":"ModelArts.4203"}'), {}),
    ],
)
async def test_no_post_is_sent_when_the_get_tells(reply: bytes, keys: dict[str, Any]) -> None:
    """Nor when callers may not send one either."""
    async with scripted_upstream(answering(reply)) as upstream:
        await visit("iris", service_at(upstream, **keys), CREDENTIAL)

    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("code", "shown"),
    [(b"APIG.0101x", ""), (b"APIG.abc", ""), (TOKEN, ""), (b"MR.0105", "MR.0105")],
)
async def test_only_what_looks_like_a_code_is_shown(code: bytes, shown: str) -> None:
    """The answer is somebody else's text, which may be our token."""
    reply = answer(500, b'{"error_code":"%b"}' % code, b"X-Request-Id: %b" % TOKEN)
    async with scripted_upstream(answering(reply)) as upstream:
        visited = await visit("iris", service_at(upstream), CREDENTIAL)

    assert visited.code == shown
    assert visited.request_id == "", "it is the token"


async def test_facts_of_the_answer() -> None:
    """Server, challenge, request id and clock."""
    fields = (
        b"Server: nginx",
        b'WWW-Authenticate: Keystone uri="x"',
        b"X-Request-Id: 77777777777777777777777777777777",
        b"Date: Thu, 01 Jan 1970 00:01:00 GMT",
    )
    async with scripted_upstream(answering(answer(401, b"", *fields))) as upstream:
        visited = await visit("iris", service_at(upstream), CREDENTIAL)

    assert (visited.server, visited.keystone, visited.date) == (b"nginx", True, 60.0)
    assert visited.request_id == "7" * 32


async def silent(link: Link) -> None:
    await link.request()
    await link.hold()


async def closing(link: Link) -> None:
    await link.request()


async def half(link: Link) -> None:
    await link.request()
    link.send(b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\n{")


async def garbage(link: Link) -> None:
    await link.request()
    link.send(b"220 mail.example ESMTP\r\n")
    await link.hold()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (silent, ErrorCode.HTTP_RESPONSE_TIMEOUT),
        (closing, ErrorCode.CONNECTION_TERMINATED),
        (half, ErrorCode.HTTP_RESPONSE_INCOMPLETE),
        (garbage, ErrorCode.HTTP_PROTOCOL_ERROR),
    ],
)
async def test_answer_that_does_not_come_whole_is_an_error(script: Script, code: ErrorCode) -> None:
    """Each way of not answering has its own code, in bounded time."""
    async with scripted_upstream(script) as upstream:
        limits: dict[str, Any] = {"first_byte": "500ms"} if script is silent else {}
        with pytest.raises(UpstreamError) as caught:
            async with asyncio.timeout(100):
                await visit("iris", service_at(upstream, timeouts=limits), CREDENTIAL)

    assert caught.value.code is code
