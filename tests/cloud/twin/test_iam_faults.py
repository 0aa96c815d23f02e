"""Logins that go wrong as it is asked for."""

import asyncio
from typing import Any

import aiohttp
import pytest

from gateway.twin import FaultError, Twin
from gateway.twin.iam_faults import ErrorShape
from tests.cloud.twin.given import log_in, plan, send


@pytest.mark.parametrize(
    ("fault", "status", "body_part"),
    [
        ({"fault": "unauthorized"}, 401, "wrong"),
        ({"fault": "locked"}, 401, "IAM.0061"),
        ({"fault": "forbidden"}, 403, "not authorized"),
        ({"fault": "throttled"}, 429, "IAM.0012"),
        ({"fault": "status"}, 500, "internal"),
        ({"fault": "status", "status": 503}, 503, "internal"),
        ({"fault": "html"}, 200, "<!DOCTYPE html>"),
        ({"fault": "html", "status": 201}, 201, "<!DOCTYPE html>"),
        ({"fault": "ok-200"}, 200, "expires_at"),
        ({"fault": "no-token"}, 201, "expires_at"),
        ({"fault": "far-expiry"}, 201, "9999-12-31"),
        ({"fault": "expired"}, 201, "2026-01-02T02:04:05"),
    ],
)
async def test_iam_fault_spoils_exactly_the_logins_asked_for(
    http: aiohttp.ClientSession, twin: Twin, fault: dict[str, Any], status: int, body_part: str
) -> None:
    """Each fault answers as documented, twice, and the third login is well again."""
    assert (await plan(http, twin, iam=[{**fault, "times": 2}])).status == 200
    for _ in range(2):
        answer = await log_in(http, twin)
        assert answer.status == status
        assert body_part in answer.body.decode()
    assert "2026-01-03" in (await log_in(http, twin)).body.decode()


async def test_iam_faults_of_the_token_itself(http: aiohttp.ClientSession, twin: Twin) -> None:
    """Missing, empty, non-ASCII and large tokens; a body without expiry; a body of megabytes."""
    names = ["no-token", "empty-token", "bad-token", "large-token", "no-expiry", "big-body"]
    await plan(http, twin, iam=[{"fault": name, "times": 1} for name in names])
    assert "X-Subject-Token" not in (await log_in(http, twin)).headers
    assert (await log_in(http, twin)).headers["X-Subject-Token"] == ""
    assert not (await log_in(http, twin)).headers["X-Subject-Token"].isascii()
    assert len((await log_in(http, twin)).headers["X-Subject-Token"]) == 32768
    assert "expires_at" not in (await log_in(http, twin)).json["token"]
    assert len((await log_in(http, twin)).body) > 2 << 20
    assert twin.stats.logins == 6


async def test_throttling_may_say_when_to_come_back(
    http: aiohttp.ClientSession, twin: Twin
) -> None:
    """`Retry-After` is there when asked for, and only then."""
    faults = [{"fault": "throttled", "retry_after": 7, "times": 1}, {"fault": "throttled"}]
    await plan(http, twin, iam=faults)
    assert (await log_in(http, twin)).headers["Retry-After"] == "7"
    assert "Retry-After" not in (await log_in(http, twin)).headers


@pytest.mark.parametrize("shape", list(ErrorShape))
async def test_iam_writes_errors_in_every_shape_it_has(
    http: aiohttp.ClientSession, twin: Twin, shape: ErrorShape
) -> None:
    """Five shapes of one error, each with its own members."""
    await plan(http, twin, iam=[{"fault": "status", "status": 500, "shape": shape}])
    body = (await log_in(http, twin)).json
    members = {
        ErrorShape.KEYSTONE: ["code", "message", "title"],
        ErrorShape.VENDOR: ["error_code", "error_msg"],
        ErrorShape.CAMEL: ["errorCode", "errorMsg"],
        ErrorShape.CODE: ["code", "message"],
        ErrorShape.NESTED: ["error_code", "error_msg"],
    }
    inner = body["error"] if shape in {ErrorShape.KEYSTONE, ErrorShape.NESTED} else body
    assert list(inner) == members[shape]


async def test_iam_can_be_slow_hang_and_reset(http: aiohttp.ClientSession, twin: Twin) -> None:
    """A delay is kept; a hanging login answers nothing; a reset breaks the connection."""
    await plan(http, twin, iam=[{"fault": "slow", "delay": "100ms", "times": 1}])
    started = asyncio.get_running_loop().time()
    assert (await log_in(http, twin)).status == 201
    took_s = asyncio.get_running_loop().time() - started
    assert round(took_s, 2) >= 0.1  # the loop's clock counts milliseconds
    await plan(http, twin, iam=[{"fault": "hang", "times": 1}, {"fault": "reset", "times": 1}])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await log_in(http, twin)
    with pytest.raises(aiohttp.ClientOSError):
        await log_in(http, twin)
    assert (await log_in(http, twin)).status == 201


async def test_faults_are_listed_replaced_and_taken_away(
    http: aiohttp.ClientSession, twin: Twin
) -> None:
    """`GET` answers what `PUT` takes; `PUT` replaces; `DELETE` heals, as does an empty plan."""
    wanted = {
        "iam": [{"fault": "throttled", "times": 3, "retry_after": 2}],
        "services": [{"faults": {"status": 503, "early": True}, "service": "iris"}],
    }
    shown = (await plan(http, twin, **wanted)).json
    assert shown["iam"][0]["times"] == 3
    assert (await plan(http, twin, **shown)).json == shown
    await log_in(http, twin)
    url = twin.url + "/twin/faults"
    assert (await send(http, "GET", url)).json["iam"][0]["times"] == 2
    assert (await send(http, "DELETE", url)).json == {"iam": [], "services": []}
    assert (await log_in(http, twin)).status == 201
    twin.plan_faults(wanted)
    twin.plan_faults({})
    assert (await log_in(http, twin)).status == 201


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ({"iam": [{"fault": "exploding"}]}, "throttled"),
        ({"iam": [{"fault": "html", "color": 1}]}, "retry_after"),
        ({"iam": [{"fault": "html", "times": 0}]}, "1 to"),
        ({"iam": [{"fault": "html", "delay": "soon"}]}, "500ms"),
        ({"iam": [{"fault": "html", "shape": "round"}]}, "keystone"),
        ({"iam": {}}, "list"),
        ({"iam": ["html"]}, "list"),
        ({"login": []}, "services"),
        ({"services": [{"faults": {"explode": 1}}]}, "delay, hang"),
        ({"services": [{"faults": {}}]}, "faults"),
        ({"services": [{"faults": {"hang": True}, "service": "rose"}]}, "llm, echo, slow"),
        ({"services": [{"faults": {"hang": True}, "often": 1}]}, "times"),
        ({"services": [{"faults": {"status": 99}}]}, "200 to 599"),
    ],
)
async def test_unknown_faults_are_refused_with_what_is_known(
    http: aiohttp.ClientSession, twin: Twin, wanted: dict[str, Any], hint: str
) -> None:
    """400, a hint, and the plan that was there stays."""
    await plan(http, twin, iam=[{"fault": "throttled"}])
    answer = await plan(http, twin, **wanted)
    assert (answer.status, answer.json["error_code"]) == (400, "Twin.UnknownFault")
    assert hint in answer.json["error_msg"]
    with pytest.raises(FaultError):
        twin.plan_faults(wanted)
    assert (await log_in(http, twin)).status == 429


async def test_control_refuses_what_is_not_json(http: aiohttp.ClientSession, twin: Twin) -> None:
    """The control API says so instead of failing."""
    answer = await send(http, "PUT", twin.url + "/twin/faults", data=b"{")
    assert (answer.status, answer.json["error_code"]) == (400, "Twin.NotJson")
