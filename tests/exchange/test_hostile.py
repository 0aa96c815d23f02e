"""Hostile requests: for every row the same oracles, on the exact bytes of both sides."""

import asyncio
import json
import logging
import re
from contextlib import suppress
from urllib.parse import unquote_to_bytes

import pytest

from tests.exchange.hostile_rows import CLASSES, Row
from tests.support.client import Caller, Reply
from tests.support.gateway import running_gateway
from tests.support.rows import every_row
from tests.support.until import PATIENCE_S
from tests.support.upstream import OK, Link, Request, scripted_upstream

_SERVICE_PATH = b"/v1/infers/abc"
_HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"trailer",
    b"proxy-authenticate", b"proxy-authorization", b"http2-settings", b"expect",
}  # fmt: skip
_PIECEWISE_LIMIT = 2000
"""Longer rows are not sent in pieces: it would take seconds and prove nothing more."""


def _resolved(path: bytes) -> bytes:
    """Return `path` as a server might see it: decoded and with dot segments removed."""
    stack: list[bytes] = []
    for segment in re.split(rb"[/\\]", path):
        if segment.partition(b";")[0] == b"..":
            del stack[-1:]
        elif segment.partition(b";")[0] not in {b"", b"."}:
            stack.append(segment)
    return b"/" + b"/".join(stack)


def assert_confined(path: bytes) -> None:
    """Hold the path against every reading of it."""
    for _ in range(4):
        resolved = _resolved(path)
        assert resolved == _SERVICE_PATH or resolved.startswith(_SERVICE_PATH + b"/"), path
        path = unquote_to_bytes(path)


def assert_safe_upstream(request: Request, upstream_port: int) -> None:
    """Hold a request that the upstream saw against section 1 of the rules."""
    assert re.fullmatch(rb"[A-Z]+ [!-~]+ HTTP/1\.1", request.line)
    assert_confined(request.target.partition(b"?")[0])
    assert request.values(b"host") == [b"127.0.0.1:%d" % upstream_port]
    assert request.values(b"x-auth-token") == [b"token-1"]
    names = [name.lower() for name, _ in request.fields]
    framing = request.values(b"content-length") + request.values(b"transfer-encoding")
    assert len(framing) <= 1
    assert not _HOP_BY_HOP & set(names)
    assert not any(name.startswith((b"x-forwarded-", b"proxy-", b"x-sdk-")) for name in names)
    for name, value in request.fields:
        assert re.fullmatch(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name)
        assert not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value)
    assert b"stolen" not in request.head


def assert_safe_reply(reply: Reply, upstream_port: int, *, to_head: bool) -> None:
    """Hold an answer that the caller got against the same."""
    whole = reply.head + reply.body
    assert reply.complete
    assert b"token-" not in whole
    assert b"%d" % upstream_port not in whole
    assert b"aiohttp" not in whole.lower()
    assert not reply.values(b"access-control-allow-origin")
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", reply.head)
    if reply.status != 200:
        assert reply.values(b"content-type") == [b"application/json"]
        assert len(reply.values(b"x-request-id")) == len(reply.values(b"proxy-status")) == 1
        if not to_head:
            assert set(json.loads(reply.body)) == {"error_code", "error_msg", "request_id"}


async def tolerant(link: Link) -> None:
    """Answer OK to every whole request."""
    while True:
        await link.request()
        link.send(OK)


async def converse(caller: Caller, row: Row) -> tuple[list[Reply], bytes]:
    """Read the answers that should come, and whatever else comes until the end."""
    if row.ends:
        caller.half_close()
    async with asyncio.timeout(PATIENCE_S):
        replies = [
            await caller.reply(to_head=index == 0 and row.sent.startswith(b"HEAD "))
            for index in range(len(row.statuses))
        ]
        if replies and not replies[-1].closes:
            caller.half_close()
        return replies, await caller.rest()


def assert_outcome(
    row: Row, replies: list[Reply], rest: bytes, requests: list[Request], upstream_port: int
) -> None:
    """Compare what has come of a row with what should."""
    assert tuple(reply.status for reply in replies) == row.statuses
    assert rest == b"", "more answers than requests"
    whole = [request for request in requests if request.whole]
    assert len(whole) == row.forwarded
    for request in requests:
        assert_safe_upstream(request, upstream_port)
    for reply in replies:
        assert_safe_reply(reply, upstream_port, to_head=row.sent.startswith(b"HEAD "))
    assert all(row.check(request) for request in whole)


@pytest.mark.parametrize("name", CLASSES)
async def test_hostile(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The row's own outcome, and every oracle; logs stay short and tell nothing."""
    caplog.set_level(logging.DEBUG)
    async with scripted_upstream(tolerant) as upstream, running_gateway(upstream.port) as gateway:
        with every_row() as trying:
            for row in CLASSES[name]:
                upstream.forget()
                caplog.clear()
                with trying(row.name):
                    caller = await gateway.connect()
                    caller.send(row.sent)
                    replies, rest = await converse(caller, row)
                    assert_outcome(row, replies, rest, upstream.requests, upstream.port)
                    assert not replies or replies[-1].closes == row.closes
                    assert b"stolen" not in upstream.received or row.name.startswith("GET whose")
                    await gateway.settled()
                    assert_logs_tell_nothing(caplog)


def assert_logs_tell_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Hold what was logged against the same."""
    assert not any("stolen" in line or "token-" in line for line in caplog.messages)
    assert not any(len(line) > 2048 or "\n" in line for line in caplog.messages)
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.long  # in memory it is tests/unit/http/test_hostile_rows.py
@pytest.mark.parametrize("name", CLASSES)
async def test_hostile_in_pieces(name: str) -> None:
    """One octet at a time a row comes to the same, but that refusals do not await the body."""
    seen: list[Request] = []

    async def script(link: Link) -> None:
        while True:
            request = await link.head()
            seen.append(request)
            await link.body_of(request)
            link.send(OK)

    async with scripted_upstream(script) as upstream, running_gateway(upstream.port) as gateway:
        for row in CLASSES[name]:
            if len(row.sent) > _PIECEWISE_LIMIT or b"100-" in row.sent:
                continue
            seen.clear()
            caller = await gateway.connect()
            with suppress(RuntimeError):  # refused and closed before we had said it all
                for octet in row.sent:
                    caller.send(bytes([octet]))
                    await asyncio.sleep(0)
            try:
                replies, rest = await converse(caller, row)
                assert_outcome(row, replies, rest, seen, upstream.port)
            except (AssertionError, TimeoutError, EOFError) as failure:
                raise AssertionError(row.name) from failure
