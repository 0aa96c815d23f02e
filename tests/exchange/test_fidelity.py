"""What comes through unchanged, and what must not: status, fields, framing, both ways."""

import asyncio
from email.utils import parsedate_to_datetime

import pytest

from gateway.clock import wall_clock
from tests.support.client import Reply
from tests.support.gateway import GET, POST, running_gateway
from tests.support.upstream import OK, Link, answer, answering, scripted_upstream

HEAD = GET.replace(b"GET", b"HEAD")
OLD = POST.replace(b"HTTP/1.1", b"HTTP/1.0")


async def reply_to(request: bytes, *said: bytes) -> Reply:
    """Return what the caller gets when the upstream says `said`."""
    async with (
        scripted_upstream(answering(*said)) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        return await gateway.ask(request)


@pytest.mark.parametrize(
    "status", [200, 201, 206, 302, 307, 400, 404, 409, 418, 429, 500, 503, 599]
)
async def test_status_reason_and_body_pass_as_they_are(status: int) -> None:
    """Redirects are not followed, errors of the service are not ours."""
    said = (
        b"HTTP/1.1 %d Some \xe4 reason\r\nDate: x\r\nLocation: http://other.example/\r\n"
        b"Retry-After: 7\r\nContent-Length: 3\r\n\r\n\x00\xff\n" % status
    )

    reply = await reply_to(POST, said)

    assert reply.head + reply.body == said


async def test_a_missing_date_is_added() -> None:
    """RFC 9110 section 6.6.1: to what is forwarded without one, and to errors of our own."""
    forwarded = await reply_to(POST, OK)
    own = await reply_to(POST.replace(b"/iris", b"/nobody"), OK)

    for reply in (forwarded, own):
        [date] = reply.values(b"date")
        assert abs(parsedate_to_datetime(date.decode()).timestamp() - wall_clock()) < 60


@pytest.mark.parametrize("fields", [(), (b"Location: /v1/infers/abc/next",)])
async def test_an_answer_that_comes_again_and_again_stays_as_it_is(fields: tuple[bytes]) -> None:
    """Though it is remembered what became of it: for each kind of caller that is another thing."""
    requests = [
        *([POST] * 4),
        OLD,
        OLD.replace(b"Host", b"Connection: keep-alive\r\nHost"),
        POST.replace(b"/iris", b"/v1/infers/abc"),
        POST.replace(b"Host", b"Connection: close\r\nHost"),
        POST,
        POST[:-1].replace(b"Host", b"Early: 1\r\nHost"),
    ]

    async def script(link: Link) -> None:
        while True:
            request = await link.head()
            await link.read(1 if request.values(b"early") else 2)
            link.send(answer(201, b"ok", b"X-Own: 1", b"Date: x", *fields))

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        for request in requests:
            async with running_gateway(upstream.port) as new:
                expected = await new.ask(request)
            assert await gateway.ask(request) == expected
        assert len(upstream.links) == 1 + len(requests)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/iris/predict", b"/iris/next?a=%2F"),
        (b"/v1/infers/abc/predict", b"/v1/infers/abc/next?a=%2F"),
    ],
)
async def test_redirect_within_the_service_stays_at_the_gateway(
    target: bytes, expected: bytes
) -> None:
    """It is not followed; `Location` names the path by which the caller knows the service."""

    async def script(link: Link) -> None:
        request = await link.request()
        here = request.values(b"host")[0]
        said = b"Location: http://" + here + b"/v1/infers/abc/next?a=%2F"
        link.send(answer(307, b"", b"X-First: 1", said, b"X-Last: 2"))

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        reply = await gateway.ask(POST.replace(b"/iris/predict", target))

        assert len(upstream.requests) == 1
    assert reply.status == 307
    assert reply.fields[:3] == [(b"X-First", b"1"), (b"Location", expected), (b"X-Last", b"2")]


async def test_an_allowed_origin_may_call() -> None:
    """Its field reaches the service, which decides what the page may read; others get 403."""
    origins = {"allowed_origins": ["https://app.example"]}
    async with (
        scripted_upstream(answer(200, b"ok", b"Access-Control-Allow-Origin: x")) as upstream,
        running_gateway(upstream.port, settings=origins) as gateway,
    ):
        said = [b"Origin: https://app.example\r\n", b"Sec-Fetch-Site: cross-site\r\n"]
        allowed = await gateway.ask(POST.replace(b"Content-T", b"".join(said) + b"Content-T"))
        refused = [
            await gateway.ask(POST.replace(b"Content-T", line + b"Content-T"))
            for line in (
                said[1], b"Origin: null\r\n", b"Origin: https://app.example:8443\r\n",
                b"Origin: http://app.example\r\n", b"Origin: https://app.example.evil\r\n",
            )
        ]  # fmt: skip

        assert upstream.only.values(b"origin") == [b"https://app.example"]
        assert upstream.only.values(b"sec-fetch-site") == []
    assert allowed.values(b"access-control-allow-origin") == [b"x"]
    assert [reply.status for reply in refused] == [403] * 5
    assert not any(b"access-control" in reply.head.lower() for reply in refused)


async def test_fields_keep_order_case_duplicates_and_octets() -> None:
    """What a response says is relayed line by line."""
    lines = (
        b'b: 1\r\nA: 2\r\nB:   3  \r\nETag: W/"x"\r\nX-8bit: \xff\xc3\xa4\r\nEmpty:\r\n'
        b"Via: 1.0 other\r\nWarning: a\r\nWarning: b\r\nServer: ModelArts\r\nX-Tab: a\tb\r\n"
        b"date: 1\r\n"
    )

    reply = await reply_to(POST, b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 0\r\n\r\n")

    assert reply.fields == [
        (b"b", b"1"), (b"A", b"2"), (b"B", b"3"), (b"ETag", b'W/"x"'), (b"X-8bit", b"\xff\xc3\xa4"),
        (b"Empty", b""), (b"Via", b"1.0 other"), (b"Warning", b"a"), (b"Warning", b"b"),
        (b"Server", b"ModelArts"), (b"X-Tab", b"a\tb"), (b"date", b"1"), (b"Content-Length", b"0"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "field",
    [
        b"Set-Cookie: session=stolen", b"Set-Cookie2: stolen", b"X-Subject-Token: stolen",
        b"x-auth-token: stolen", b"Keep-Alive: timeout=stolen", b"Proxy-Authenticate: stolen",
        b"Proxy-Authorization: stolen", b"Upgrade: stolen", b"TE: stolen", b"Trailer: stolen",
        b"Proxy-Connection: stolen", b"X-Named: stolen",
    ],
)  # fmt: skip
async def test_hop_by_hop_cookies_and_tokens_do_not_reach_the_caller(field: bytes) -> None:
    """What concerns one hop, one caller or the gateway alone ends here."""
    reply = await reply_to(
        POST,
        b"HTTP/1.1 200 OK\r\nConnection: X-Named, keep-alive\r\n"
        + field
        + b"\r\nContent-Length: 2\r\n\r\nok",
    )

    assert reply.status == 200
    assert b"stolen" not in reply.head
    assert not reply.closes


async def test_connection_cannot_delete_framing() -> None:
    """`Connection: Content-Length` of a response leaves the length where it is."""
    reply = await reply_to(
        POST, b"HTTP/1.1 200 OK\r\nConnection: Content-Length\r\nContent-Length: 2\r\n\r\nok"
    )

    assert reply.values(b"content-length") == [b"2"]
    assert reply.body == b"ok"


async def test_close_of_the_service_is_not_the_callers() -> None:
    """The caller keeps its connection when the service closes its own."""
    async with (
        scripted_upstream(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
        ) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        for _ in range(2):
            caller.send(POST)
            assert (await caller.reply()).body == b"ok"

    assert len(upstream.links) == 2


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 404 No\r\nContent-Length: 7\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
async def test_head_has_no_body_whatever_its_length(said: bytes) -> None:
    """And the next request on both connections is not taken for that body."""
    async with (
        scripted_upstream(answering(said, OK)) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(HEAD)
        reply = await caller.reply(to_head=True)
        caller.send(POST)
        second = await caller.reply()

    assert reply.values(b"content-length") == Reply(said, b"", complete=True).values(
        b"content-length"
    )
    assert second.body == b"ok"
    assert len(upstream.links) == (1 if Reply(said, b"", complete=True).fields else 2)


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nDate: x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nDate: x\r\nETag: x\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nDate: x\r\nContent-Length: 99\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_no_body_where_there_is_none(said: bytes) -> None:
    """204 and 304 pass as they are, and both connections serve the next request."""
    async with (
        scripted_upstream(answering(said, OK)) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST)
        assert (await caller.head()) == said
        caller.send(POST)
        assert (await caller.reply()).body == b"ok"

    assert len(upstream.links) == 1


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
async def test_interim_answers_are_absorbed(interim: bytes) -> None:
    """The caller sees the final answer alone, with its own fields alone."""
    said = b"HTTP/1.1 " + interim + b"\r\nLink: </a>\r\nContent-Length: 3\r\n\r\n"
    if interim.startswith(b"100"):
        said = said.replace(b"Content-Length: 3\r\n", b"")

    reply = await reply_to(POST, said.replace(b"Content-Length: 3\r\n", b"") * 3 + answer(200))

    assert [name for name, _ in reply.fields] == [b"Content-Length", b"Date"]


@pytest.mark.parametrize(("count", "status"), [(16, 200), (17, 502)])
async def test_interim_answers_are_counted(count: int, status: int) -> None:
    """Sixteen pass; a flood would otherwise keep the exchange alive for ever."""
    reply = await reply_to(POST, b"HTTP/1.1 102 Processing\r\n\r\n" * count + OK)

    assert reply.status == status


CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'3;ext="x"\r\nabc\r\n1\r\nd\r\n0\r\nX-Trailer: stolen\r\n\r\n'
)


async def test_chunked_answer_stays_chunked() -> None:
    """Extensions and trailers are dropped, the bytes are the same, connections stay."""
    async with (
        scripted_upstream(answering(CHUNKED, OK)) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST)
        reply = await caller.reply()
        caller.send(POST)
        assert (await caller.reply()).body == b"ok"

    assert (reply.body, reply.complete) == (b"abcd", True)
    assert reply.values(b"transfer-encoding") == [b"chunked"]
    assert b"stolen" not in caller.received
    assert len(upstream.links) == 1


@pytest.mark.parametrize("wish", [b"", b"Connection: keep-alive\r\n"])
async def test_http_1_0_caller_gets_no_chunks(wish: bytes) -> None:
    """A chunked answer ends with the connection for a caller that does not know chunks."""
    async with scripted_upstream(CHUNKED) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(b"POST /iris HTTP/1.0\r\n" + wish + b"Content-Length: 2\r\n\r\n{}")
        reply = await caller.reply()
        assert await caller.rest() == b""

    assert reply.body == b"abcd"
    assert not caller.was_reset
    assert reply.closes
    assert not reply.values(b"transfer-encoding")
    assert upstream.only.line == b"POST /v1/infers/abc HTTP/1.1"


async def test_http_1_0_caller_may_keep_its_connection() -> None:
    """If it asks for that, it is told so, and may ask again."""
    async with scripted_upstream(OK) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        request = b"POST /iris HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}"
        for _ in range(2):
            caller.send(request)
            reply = await caller.reply()
            assert reply.values(b"connection") == [b"keep-alive"]
        caller.send(request.replace(b"Connection: keep-alive\r\n", b""))
        assert (await caller.reply()).closes
        assert await caller.rest() == b""

    assert len(upstream.requests) == 3


async def test_http_1_0_answer_is_relayed_and_its_connection_not_kept() -> None:
    """Its keep-alive has no specification that could be relied on."""
    said = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"
    async with scripted_upstream(said) as upstream, running_gateway(upstream.port) as gateway:
        for _ in range(2):
            assert (await gateway.ask(POST)).head.startswith(b"HTTP/1.1 200 OK\r\n")

    assert len(upstream.links) == 2


async def test_expectation_is_met_once_the_body_is_wanted() -> None:
    """The head goes up first, then the caller hears 100, and the answer follows the body."""

    async def script(link: Link) -> None:
        await link.request()
        link.send(OK)

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(POST.replace(b"\r\n\r\n{}", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert await caller.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        caller.send(b"{}")
        assert (await caller.reply()).body == b"ok"

    assert upstream.only.content == b"{}"
    assert not upstream.only.values(b"expect")


@pytest.mark.parametrize(
    ("target", "expect", "status"),
    [
        (b"/nowhere", b"100-continue", 404),
        (b"/iris", b"101-strange", 417),
        (b"/iris/..", b"100-continue", 400),
    ],
)
async def test_refused_expectation_is_answered_without_100(
    target: bytes, expect: bytes, status: int
) -> None:
    """A caller that waits for leave to send is told no, and the value is not echoed."""
    async with scripted_upstream(OK) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(
            b"POST " + target + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n"
            b"Expect: " + expect + b"\r\n\r\n"
        )
        reply = await caller.reply()
        assert await caller.rest() == b""

    assert reply.status == status
    assert reply.closes
    assert b"strange" not in reply.body
    assert upstream.links == []


async def test_no_100_when_the_service_cannot_be_reached() -> None:
    """The body is asked for only once there is somebody to send it to."""
    async with scripted_upstream(OK) as upstream:
        port = upstream.port
    async with running_gateway(port) as gateway:
        reply = await gateway.ask(POST.replace(b"\r\n\r\n{}", b"\r\nExpect: 100-continue\r\n\r\n"))

    assert reply.status == 502


async def test_close_delimited_answer_is_passed_and_closes() -> None:
    """What ends with the service's connection ends with the caller's."""

    async def script(link: Link) -> None:
        await link.request()
        link.send(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\nsome body")

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        reply = await gateway.ask(POST)
        record = await gateway.next_record()

    assert (reply.body, reply.complete, reply.closes) == (b"some body", True, True)
    assert record["error"] == ""


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 600 High\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 20 Short\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 Long\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 O\x1bK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok",
        b"HTTP/1.1 200 OK\r\n Content-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: a\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX\xff: a\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x01\r\nContent-Length: 0\r\n\r\n",
        *(
            b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\nok"
            for length in (
                b"-2",
                b"",
                b"2;",
                b"0x2",
                b"2 2",
                b"2_0",
                b"two",
                b"\xb2",
                b"2\x00",
                b"1000000000000000",
                b"18446744073709551618",
            )
        ),
        *(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n"
            for coding in (
                b"",
                b"identity",
                b"chunked, gzip",
                b"chunked, chunked",
                b"chunked;a",
                b"\x0bchunked",
                b"chunked,",
                b"chunked\x00",
            )
        ),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 100 Go\r\nContent-Length: 2\r\n\r\nok" + OK,
        b"HTTP/1.1 103 Go\r\nTransfer-Encoding: chunked\r\n\r\n" + OK,
        b"HTTP/1.1 102 G\x00o\r\n\r\n" + OK,
        b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 101 Up\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 000 Nil\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2x0 Hm\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 -200 Hm\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1\t200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 " + b"O" * 70000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\r\n" + OK,
        b"\n" + OK,
        b" " + OK,
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00",
        b"garbage\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.0\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"<html>",
    ],
)
async def test_malformed_answer_is_502_and_the_connection_ends(said: bytes) -> None:
    """Nothing of it reaches the caller, and the caller keeps its own connection."""
    async with (
        scripted_upstream(answering(said, OK)) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST)
        reply = await caller.reply()
        record = await gateway.next_record()
        caller.send(POST)
        assert (await caller.reply()).body == b"ok"

    assert reply.status == 502
    assert b"Gateway.HttpProtocolError" in reply.body
    assert not reply.closes
    assert record["error"] == "http_protocol_error"
    assert len(upstream.links) == 2


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"X: y\r\n" * 255, 200),
        (b"X: y\r\n" * 256, 502),
        (b"X: " + b"y" * 65000 + b"\r\n", 200),
        (b"X: " + b"y" * 65536 + b"\r\n", 502),
        (b"X: " + b"y" * 300000 + b"\r\n", 502),
        (b"X: " + b"y" * 30000 + b"\r\n" + b"Z: " + b"y" * 30000 + b"\r\n", 200),
        ((b"X: " + b"y" * 30000 + b"\r\n") * 3, 502),
    ],
)
async def test_answers_head_has_a_limit(fields: bytes, status: int) -> None:
    """256 fields and 64 KiB, from client and service alike."""
    reply = await reply_to(POST, b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 2\r\n\r\nok")

    assert reply.status == status


async def test_endless_trailers_of_an_answer_break_it_off() -> None:
    """The reader keeps a trailer until it ends; 64 KiB of them are enough."""
    begun = asyncio.Event()

    async def script(link: Link) -> None:
        await link.request()
        link.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: ")
        await begun.wait()
        for _ in range(100):
            link.send(b"y" * 65536)
            await link.flush()
        await link.hold()

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        caller = await gateway.connect()
        caller.send(POST)
        assert (await caller.head()).endswith(b"\r\n\r\n")
        begun.set()
        rest = await caller.rest()
        record = await gateway.next_record()

    assert rest == b"2\r\nok\r\n"
    assert record["error"] == "http_protocol_error"


async def test_body_bytes_of_every_coding_pass_untouched() -> None:
    """A gzip body is not opened, broken or not, and a bomb stays as small as it is."""
    for body in (b"\x1f\x8b\x08 broken", b"\x00" * 1000):
        said = answer(200, body, b"Content-Encoding: gzip", b"Date: x")
        reply = await reply_to(POST, said)
        assert reply.head + reply.body == said
