"""What a running gateway tells of refused logins, and that nothing else is taken for one."""

import asyncio
import json

import pytest

from gateway.diagnose.local_gateway import advised_limits, refused_logins
from gateway.settings import ListenAddress
from tests.support.upstream import answer, scripted_upstream


@pytest.mark.parametrize(
    ("next_login_s", "text"),
    [
        (843.2, " has been refused and tries again in 14 min 3 s; every"),
        (None, " has been refused; ev"),
    ],
)
async def test_identities_that_are_locked_are_named_with_the_next_login(
    next_login_s: float | None, text: str
) -> None:
    """Those alone."""
    identities = {
        "default": {"locked": True, "next_login_s": next_login_s},
        "other": {"locked": False, "next_login_s": 1.0},
    }
    status = answer(200, json.dumps({"identities": identities}).encode())
    async with scripted_upstream(status) as gateway:
        admin = ListenAddress("127.0.0.1", gateway.port)
        known = await asyncio.to_thread(refused_logins, admin)

    assert known.keys() == {"default"}
    assert f"127.0.0.1:{gateway.port}{text}" in known["default"]
    assert gateway.only.line == b"GET /status HTTP/1.1"


def test_nobody_there_tells_nothing() -> None:
    """As most often."""
    assert refused_logins(ListenAddress("127.0.0.1", 1)) == {}


@pytest.mark.parametrize(
    "reply",
    [
        answer(200, b"<html>"),
        answer(200, b"[1]"),
        answer(200, b'{"identities": {"default": 1}}'),
        answer(200, b'{"identities": {"default": {"locked": 1}}}'),
        answer(404, b'{"identities": {"default": {"locked": true}}}'),
        b"220 mail.example ESMTP\r\n",
    ],
)
async def test_whatever_else_listens_at_the_admin_address_tells_nothing(reply: bytes) -> None:
    """It may be another program's port, 9090 is a popular one."""
    async with scripted_upstream(reply) as other:
        admin = ListenAddress("0.0.0.0", other.port)
        assert await asyncio.to_thread(refused_logins, admin) == {}


async def test_limits_that_do_not_fit_are_told() -> None:
    """Of the service that is concerned."""
    service = {"limits": {"limit": 4}, "rejected": {"queue_full": 100}}
    status = answer(200, json.dumps({"services": {"llm": service}}).encode())
    async with scripted_upstream(status) as gateway:
        admin = ListenAddress("127.0.0.1", gateway.port)
        advice = await asyncio.to_thread(advised_limits, admin)

    assert advice.keys() == {"llm"}
    assert advice["llm"].startswith("100 requests were refused because of max_in_flight, 4 now")
    assert advised_limits(ListenAddress("127.0.0.1", 1)) == {}
