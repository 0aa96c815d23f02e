"""Rejected tokens: what is hidden, sent again, passed on, and what is kept for it."""

import asyncio
import json
import re

import pytest

from gateway.errors import CredentialError, ErrorCode
from tests.support.client import Reply
from tests.support.gateway import GET, POST, RunningGateway, running_gateway
from tests.support.turns import turns_counted
from tests.support.until import PATIENCE_S, until
from tests.support.upstream import OK, Link, Script, answer, scripted_upstream

APIG = b'{"error_msg":"Incorrect IAM token","error_code":"APIG.0301","request_id":"r1"}'
REJECTED = answer(401, APIG, b"Content-Type: application/json")
KEYSTONE = answer(401, b"Authentication required", b"WWW-Authenticate: Keystone uri='x'")
MULTIPART = (
    b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    b"\x00\xff\r\n--b--\r\n"
)
CHUNKED_REJECTION = (
    b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'19\r\n{"error_code":"APIG.0301"\r\n1\r\n}\r\n0\r\n\r\n'
)
CHUNKED = b"POST /iris HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


def without_date(response: bytes) -> bytes:
    """Return a response without the Date that the gateway adds where the service has none."""
    return re.sub(rb"\r\nDate: [^\r]+ GMT\r\n", b"\r\n", response, count=1)


def upload(body: bytes, media_type: bytes = b"application/octet-stream") -> bytes:
    """A POST with a length."""
    return (
        b"POST /iris HTTP/1.1\r\nHost: localhost\r\nContent-Type: %b\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (media_type, len(body), body)
    )


def in_chunks(*pieces: bytes) -> bytes:
    """A chunked POST."""
    return CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


def rejecting_first_token(link_says: bytes = REJECTED) -> Script:
    """Reject token-1, accept every other, after the whole request."""

    async def script(link: Link) -> None:
        while True:
            request = await link.request()
            rejected = request.values(b"x-auth-token") == [b"token-1"]
            link.send(link_says if rejected else OK)

    return script


def assert_our_503(reply: Reply, code: str) -> None:
    """Hold an answer against the shape of ours."""
    assert reply.status == 503
    assert json.loads(reply.body)["error_code"] == f"Gateway.{code}"
    assert reply.values(b"retry-after") == [b"1"]


def assert_nothing_is_kept(gateway: RunningGateway) -> None:
    """Nothing is in flight and no body is in memory."""
    proxy = gateway.gateway._parts.data.context
    assert proxy.replay_budget.kept_bytes == 0
    assert gateway.sample("gateway_requests_in_flight") == 0


@pytest.mark.parametrize(
    "rejection",
    [
        *(
            answer(401, b'{"error_code":"%b"}' % code)
            for code in (
                b"APIG.0301", b"APIG.0307", b"ModelArts.0201", b"ModelArts.0202", b"ModelArts.0203",
                b"ModelArts.0204", b"ModelArts.4127", b"ModelArts.4201",
            )
        ),
        answer(403, b'{"error_code":"ModelArts.0203"}'),
        answer(401, b'{"error":{"code":"ModelArts.0203"}}', b"Server: ModelArts"),
        answer(401, b' \n {"errorCode":"APIG.0301"}'),
        KEYSTONE,
        answer(401, b'{"error":{"code":401,"title":"Unauthorized"}}',
        b"www-authenticate: KEYSTONE u"),
        CHUNKED_REJECTION,
    ],
)  # fmt: skip
async def test_a_rejection_is_healed_out_of_sight(rejection: bytes) -> None:
    """The caller gets the second answer; the rejected token goes, the new one is approved of."""
    async with (
        scripted_upstream(rejecting_first_token(rejection)) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        reply = await gateway.ask(POST)

        assert without_date(reply.head + reply.body) == OK
        assert gateway.credentials.rejected == [b"X-Auth-Token: token-1\r\n"]
        assert gateway.credentials.healed == [b"X-Auth-Token: token-2\r\n"]
        assert gateway.sample("gateway_upstream_retries_total", reason="token_rejected") == 1
        assert gateway.sample("gateway_errors_total") == 0
        assert (await gateway.next_record())["retries"] == 1
        assert_nothing_is_kept(gateway)

    first, second = upstream.requests
    assert first.head.replace(b"token-1", b"token-2") == second.head
    assert first.body == second.body == b"{}"


@pytest.mark.parametrize(
    "passing",
    [
        answer(401, b'{"erno":1}', b"Server: ModelArts"),
        answer(401, b"Unauthorized", b"Server: ModelArts", b"WWW-Authenticate: Keystone uri='x'"),
        answer(401, b'{"error_code":"MR.0105"}'),
        answer(401, b'{"error_code":"ModelArts.0207"}'),
        answer(401, b'{"error_code":"ModelArts.0212"}'),
        answer(401, b'{"error_code":"ModelArts.4119"}'),
        answer(401, b'{"error_code":"MR.1"}', b"WWW-Authenticate: Keystone uri='x'"),
        answer(401, b"please log in", b"WWW-Authenticate: Basic realm=x"),
        answer(401),
        answer(401, b'{"error_code":"APIG.0301"'),
        answer(403, b'{"error_code":"APIG.0301"}'),
        answer(403, b'{"error_code":"ModelArts.0210"}'),
        answer(403, b'{"error_code":"APIG.0304"}', b"WWW-Authenticate: Keystone uri='x'"),
        answer(400, b'{"error_code":"APIG.0301"}'),
        answer(500, b'{"error_code":"APIG.0301"}'),
        answer(503, b'{"error_code":"APIG.0613"}', b"Retry-After: 3"),
    ],
)
async def test_what_says_nothing_about_the_token_passes(passing: bytes) -> None:
    """Byte for byte, once, and the token stays."""
    async with (
        scripted_upstream(passing) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        reply = await gateway.ask(POST)

        assert without_date(reply.head + reply.body) == passing
        assert gateway.credentials.rejected == []
        assert gateway.credentials.healed == []
        assert_nothing_is_kept(gateway)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("begin", [b"Unauthorized", b"<html>", b"[1"])
async def test_what_cannot_be_the_vendors_passes_at_once(begin: bytes) -> None:
    """The beginning of the model's own 401 arrives although its end has not been sent.

    What is held is passed on after a second, which is hundreds of thousands of turns of the loop.
    """
    release = asyncio.Event()
    sent_at = 0
    async with turns_counted() as turns:

        async def script(link: Link) -> None:
            nonlocal sent_at
            await link.request()
            sent_at = turns.now()
            link.send(b"HTTP/1.1 401 No\r\nContent-Length: 100\r\n\r\n" + begin)
            await release.wait()
            link.send(b"x" * (100 - len(begin)))
            await link.hold()

        async with (
            scripted_upstream(script) as upstream,
            running_gateway(upstream.port) as gateway,
        ):
            caller = await gateway.connect()
            caller.send(POST)
            await caller.head()
            assert await caller.take(len(begin)) == begin
            turns_taken = turns.now() - sent_at
            release.set()
            assert len(await caller.take(100 - len(begin))) == 100 - len(begin)
    assert turns_taken < 1000


async def test_a_held_answer_is_released_after_a_second() -> None:
    """A 401 whose body does not end is passed on; its late end still replaces the token."""
    release = asyncio.Event()

    async def script(link: Link) -> None:
        await link.request()
        link.send(REJECTED[:-10])
        await release.wait()
        link.send(REJECTED[-10:])
        await link.hold()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        began = asyncio.get_running_loop().time()
        caller.send(POST)
        head = await caller.head()
        waited = asyncio.get_running_loop().time() - began
        release.set()
        body = await caller.take(len(APIG))

        assert without_date(head + body) == REJECTED
        assert waited > 0.9
        assert gateway.credentials.rejected == [b"X-Auth-Token: token-1\r\n"]
        assert gateway.credentials.healed == []
        await gateway.settled()
        assert_nothing_is_kept(gateway)
    assert len(upstream.requests) == 1


async def test_a_caller_may_leave_while_its_answer_is_held() -> None:
    """The call is aborted, and the timer that would have released the answer finds nothing."""

    async def script(link: Link) -> None:
        await link.request()
        link.send(REJECTED[:-10])
        await link.hold()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(POST)
        await until(lambda: not (not upstream.requests or not upstream.only.whole))
        caller.reset()
        await gateway.settled()
        await asyncio.sleep(1.1)  # past the moment of release
        assert_nothing_is_kept(gateway)
        assert (await gateway.next_record())["status"] == 0


@pytest.mark.parametrize(("padding", "hidden"), [(8 * 1024, True), (8 * 1024 + 1, False)])
async def test_a_rejection_is_recognised_up_to_8_kib(padding: int, hidden: bool) -> None:
    """A body of 8 KiB is read; one byte more makes it the model's own."""
    start, end = b'{"error_code":"APIG.0301","x":"', b'"}'
    body = start + b"x" * (padding - len(start) - len(end)) + end
    async with (
        scripted_upstream(rejecting_first_token(answer(401, body))) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        reply = await gateway.ask(POST)

    assert reply.body == (b"ok" if hidden else body)


async def test_a_large_401_streams() -> None:
    """Several megabytes of 401 arrive whole, and the token stays."""
    body = b'{"x":"' + b"x" * 3_000_000 + b'"}'
    async with (
        scripted_upstream(answer(401, body)) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        reply = await gateway.ask(POST)

        assert reply.body == body
        assert gateway.credentials.rejected == []


@pytest.mark.parametrize("rejection", [REJECTED, KEYSTONE])
async def test_the_second_rejection_passes(rejection: bytes) -> None:
    """It is shown as it is, after two tries, and nobody says that the token was accepted."""
    async with (
        scripted_upstream(rejection) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        reply = await gateway.ask(POST)

        assert without_date(reply.head + reply.body) == rejection
        assert gateway.credentials.rejected == [
            b"X-Auth-Token: token-1\r\n",
            b"X-Auth-Token: token-2\r\n",
        ]
        assert gateway.credentials.healed == []
        assert_nothing_is_kept(gateway)
    assert len(upstream.requests) == 2


async def test_success_with_the_rejected_token_proves_nothing() -> None:
    """A request that went out before; the next one with the new token does, and once is enough."""
    gate = asyncio.Event()

    async def script(link: Link) -> None:
        while True:
            request = await link.request()
            if b"/slow" in request.target:
                await gate.wait()
            elif request.values(b"x-auth-token") == [b"token-1"]:
                link.send(REJECTED)
                continue
            link.send(OK)

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service={"replay_buffer": 0}) as gateway,
    ):
        slow = await gateway.connect()
        slow.send(POST.replace(b"/predict", b"/slow"))
        await until(lambda: upstream.requests)
        assert_our_503(await gateway.ask(POST), "TokenRenewed")
        gate.set()
        assert (await slow.reply()).status == 200
        assert gateway.credentials.healed == []
        for _ in range(2):
            assert (await gateway.ask(POST)).status == 200
            assert gateway.credentials.healed == [b"X-Auth-Token: token-2\r\n"]


async def test_a_rejection_that_no_login_cures_passes() -> None:
    """When `reject` says so there is one try, and its answer is shown."""
    async with (
        scripted_upstream(REJECTED) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        gateway.credentials.renews = False
        reply = await gateway.ask(POST)

        assert without_date(reply.head + reply.body) == REJECTED
        assert gateway.sample("gateway_errors_total", layer="apig", error="unauthorized") == 1
    assert len(upstream.requests) == 1


async def test_without_a_credential_there_is_nothing_to_reject() -> None:
    """A service without identity passes every 401, even the vendor's."""
    async with (
        scripted_upstream(REJECTED) as upstream,
        running_gateway(upstream.port, anonymous=True) as gateway,
    ):
        reply = await gateway.ask(POST)

    assert without_date(reply.head + reply.body) == REJECTED
    assert len(upstream.requests) == 1


LIMIT = 1000


@pytest.mark.parametrize(
    ("request_bytes", "again"),
    [
        (upload(b'{"x": [1, 2]}', b"application/json"), True),
        (upload(MULTIPART, b"multipart/form-data; boundary=b"), True),
        (upload(b""), True),
        (GET, True),
        (upload(b"x" * LIMIT), True),
        (upload(b"x" * (LIMIT + 1)), False),
        (in_chunks(b"x" * 600, b"y" * 400), True),
        (in_chunks(b"x" * 600, b"y" * 401), False),
        (in_chunks(), True),
    ],
    ids=["json", "form", "empty", "get", "limit", "limit+1", "chunks", "chunks+1", "no chunks"],
)
async def test_what_is_held_is_sent_again(request_bytes: bytes, again: bool) -> None:
    """Up to `replay_buffer` the same content goes twice; beyond it the caller sends it again."""
    async with (
        scripted_upstream(rejecting_first_token()) as upstream,
        running_gateway(upstream.port, service={"replay_buffer": LIMIT}) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(request_bytes)
        reply = await caller.reply()
        if again:
            assert without_date(reply.head + reply.body) == OK
        else:
            assert_our_503(reply, "TokenRenewed")
            assert not reply.closes
            assert gateway.sample("gateway_errors_total", error="token_renewed") == 1
        assert gateway.credentials.rejected == [b"X-Auth-Token: token-1\r\n"]
        assert_nothing_is_kept(gateway)
        caller.send(request_bytes)
        assert (await caller.reply()).status == 200
        assert_nothing_is_kept(gateway)
        assert gateway.credentials.healed == [b"X-Auth-Token: token-2\r\n"]

    contents = {request.content for request in upstream.requests}
    assert len(contents) == 1
    assert len(upstream.requests) == (3 if again else 2)


@pytest.mark.parametrize("budget_left", [2, 1])
async def test_all_requests_share_one_budget(budget_left: int) -> None:
    """A body that fills what is left is kept; one byte more is not, and is counted nowhere."""
    async with (
        scripted_upstream(rejecting_first_token()) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        proxy = gateway.gateway._parts.data.context
        proxy.replay_budget.max_bytes = 100
        proxy.replay_budget.kept_bytes = 100 - budget_left
        reply = await gateway.ask(POST)

        if budget_left == 2:
            assert reply.status == 200
        else:
            assert_our_503(reply, "TokenRenewed")
        assert proxy.replay_budget.kept_bytes == 100 - budget_left


async def test_a_body_under_way_gives_its_share_of_the_budget_back() -> None:
    """What outgrows the budget in the middle is forgotten at once, and still arrives whole."""

    async def script(link: Link) -> None:
        await link.request()
        link.send(OK)
        await link.hold()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        proxy = gateway.gateway._parts.data.context
        proxy.replay_budget.max_bytes = 10
        caller = await gateway.connect()
        caller.send(CHUNKED + b"a\r\n0123456789\r\n")
        await until(lambda: proxy.replay_budget.kept_bytes == 10)
        caller.send(b"1\r\nx\r\n")
        await until(lambda: not (proxy.replay_budget.kept_bytes))
        caller.send(b"0\r\n\r\n")
        assert (await caller.reply()).status == 200
    assert upstream.only.content == b"0123456789x"


@pytest.mark.parametrize("ending", ["caller leaves", "caller resets", "upstream cuts", "malformed"])
async def test_every_ending_gives_back_what_was_kept(ending: str) -> None:
    """However a request with a kept body ends, nothing of it stays."""
    cut = asyncio.Event()

    async def script(link: Link) -> None:
        await link.head()
        await link.read(5)
        await cut.wait()
        if ending == "upstream cuts":
            link.reset()
        await link.hold()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        proxy = gateway.gateway._parts.data.context
        caller = await gateway.connect()
        caller.send(CHUNKED + b"5\r\nhello\r\n")
        await until(lambda: proxy.replay_budget.kept_bytes == 5)
        cut.set()
        match ending:
            case "caller leaves":
                caller.leave()
            case "caller resets":
                caller.reset()
            case "malformed":
                caller.send(b"zz\r\n")
            case _:
                pass
        await gateway.settled()
        assert_nothing_is_kept(gateway)


@pytest.mark.parametrize("held", [True, False])
async def test_a_rejection_during_the_upload(held: bool) -> None:
    """A small upload is begun anew with the new token; a large one is 503, closing."""
    seen_first = asyncio.Event()

    async def script(link: Link) -> None:
        request = await link.head()
        if request.values(b"x-auth-token") == [b"token-1"]:
            await link.read(5)
            link.send(REJECTED)
            seen_first.set()
            await link.hold()
        else:
            request.raw += await link.read(10)
            link.send(OK)
            await link.hold()

    async with (
        scripted_upstream(script) as upstream,
        running_gateway(upstream.port, service={"replay_buffer": 10 if held else 9}) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(upload(b"0123456789")[:-5])
        await seen_first.wait()
        if held:
            await until(lambda: not (len(upstream.links) < 2))
            caller.send(b"56789")
            reply = await caller.reply()
            assert without_date(reply.head + reply.body) == OK
            assert upstream.links[1].requests[0].body == b"0123456789"
            assert gateway.credentials.healed == [b"X-Auth-Token: token-2\r\n"]
        else:
            reply = await caller.reply()
            assert_our_503(reply, "TokenRenewed")
            assert reply.closes
        await gateway.settled()
        assert_nothing_is_kept(gateway)
        async with asyncio.timeout(PATIENCE_S):
            await upstream.links[0].ended.wait()  # half a request is on it: never used again


async def test_a_login_that_fails_after_a_rejection_is_told() -> None:
    """The rejection is not shown; the caller hears why there is no other token."""
    async with (
        scripted_upstream(REJECTED) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        gateway.credentials.failure = CredentialError(ErrorCode.LOGIN_REFUSED, retry_after_s=900.0)
        reply = await gateway.ask(POST)

        assert reply.status == 503
        assert json.loads(reply.body)["error_code"] == "Gateway.LoginRefused"
        assert reply.values(b"retry-after") == [b"900"]
        assert_nothing_is_kept(gateway)


# Without a token.


async def test_callers_without_a_token_wait_together() -> None:
    """All are sent once there is one, and none before."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        gateway.credentials.at_hand = False
        gateway.credentials.gate.clear()
        callers = [await gateway.connect() for _ in range(20)]
        for caller in callers:
            caller.send(POST)
        await until(lambda: not (gateway.sample("gateway_requests_in_flight") < 20))
        assert upstream.links == []
        gateway.credentials.gate.set()
        replies = [await caller.reply() for caller in callers]

    assert [reply.status for reply in replies] == [200] * 20


@pytest.mark.parametrize(
    ("code", "seconds", "shown"),
    [
        (ErrorCode.TOKEN_UNAVAILABLE, 0.2, b"1"),
        (ErrorCode.TOKEN_UNAVAILABLE, 1.0, b"1"),
        (ErrorCode.LOGIN_THROTTLED, 29.01, b"30"),
        (ErrorCode.LOGIN_REFUSED, 900.0, b"900"),
    ],
)
async def test_no_token_is_503_and_nothing_is_sent(
    code: ErrorCode, seconds: float, shown: bytes
) -> None:
    """With the reason, and the pause rounded up; the connection goes on."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        gateway.credentials.at_hand = False
        gateway.credentials.failure = CredentialError(code, "secret detail", retry_after_s=seconds)
        caller = await gateway.connect()
        caller.send(POST)
        reply = await caller.reply()

        assert reply.status == 503
        assert json.loads(reply.body)["error_code"] == f"Gateway.{code.value.name}"
        assert reply.values(b"retry-after") == [shown]
        assert b"secret detail" not in reply.body
        assert not reply.closes
        assert upstream.links == []
        assert gateway.sample("gateway_errors_total", layer="identity", error=code.label) == 1

        gateway.credentials.failure = None
        caller.send(POST)
        assert (await caller.reply()).status == 200


async def test_a_caller_that_leaves_while_waiting_for_a_token_leaves_nothing() -> None:
    """No task, no body, nothing in flight, nothing sent; the others still get theirs."""
    async with (
        scripted_upstream(OK) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        gateway.credentials.at_hand = False
        gateway.credentials.gate.clear()
        one, other = await gateway.connect(), await gateway.connect()
        for caller in (one, other):
            caller.send(POST)
        await until(lambda: not (gateway.sample("gateway_requests_in_flight") < 2))
        one.leave()
        await until(lambda: not (gateway.sample("gateway_requests_in_flight") > 1))
        gateway.credentials.gate.set()
        assert (await other.reply()).status == 200
        assert_nothing_is_kept(gateway)
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "exchange"]
    assert len(upstream.requests) == 1


async def test_body_that_trickles_in_is_kept_in_few_pieces_and_sent_again_whole() -> None:
    """An object for every two bytes would cost 28 times what is counted."""
    pieces = [b"%02d" % number for number in range(60)]
    async with (
        scripted_upstream(rejecting_first_token()) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        caller = await gateway.connect()
        caller.send(CHUNKED)
        await until(lambda: upstream.requests)
        for piece in pieces:
            caller.send(b"2\r\n%b\r\n" % piece)
            await until(lambda piece=piece: piece in upstream.requests[0].body)  # type: ignore[misc]
        [downstream] = gateway.gateway._parts.data.connections
        assert len(downstream.exchange._body._kept) <= 17  # type: ignore[attr-defined]
        caller.send(b"0\r\n\r\n")
        assert (await caller.reply()).body == b"ok"
        assert_nothing_is_kept(gateway)

    assert [request.content for request in upstream.requests] == [b"".join(pieces)] * 2
