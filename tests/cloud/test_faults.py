"""Faults F01 to F15: what goes wrong with IAM and with tokens, over real sockets.

Each test runs the stand-in cloud, a gate before its IAM and a gateway. Whatever happens, no
service may see a request without a token that was good when it came: the cloud counts those.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.admin.health import Readiness, readiness
from gateway.twin import IRIS_ID, Twin
from tests.cloud.gate import Gate, gate_before
from tests.cloud.serving import (
    CALL,
    FLOWER,
    TokenGateway,
    error_code,
    password_identity,
    retry_after,
    token_gateway,
    until,
)
from tests.support.client import Reply
from tests.support.twin import running_twin
from tests.support.upstream import OK, Link, answer, scripted_upstream

DAY = 86400.0
AT_ONCE_S = 1.7
"""Of waiting for a token: a caller that waits at all waits for 1.8 s."""
REJECTION = answer(401, b'{"error_code":"APIG.0301","error_msg":"no"}', b"Server: api-gateway")


@dataclass
class Cloud:
    """The stand-in cloud, the gate before its IAM, and a gateway that uses both."""

    twin: Twin
    gate: Gate
    gateway: TokenGateway
    rejections: int = 0
    """Requests that services may refuse for their token: those that were sent before it died."""

    @property
    def attempts(self) -> int:
        """Logins that IAM has seen."""
        return self.twin.stats.login_attempts

    @property
    def readiness(self) -> Readiness:
        return readiness(self.gateway.running.gateway)

    def fail(self, fault: str, **parameters: Any) -> None:
        """Let the next logins fail, all of them unless `times` says otherwise."""
        self.twin.plan_faults({"iam": [{"fault": fault, **parameters}]})

    async def serve_while_token_lasts(self) -> int:
        """Call until the token has expired: no caller waits and none fails. Return how many."""
        served = 0
        while self.gateway.credential is not None:
            reply, waited_s = await self.gateway.call_and_wait_s()
            if self.gateway.credential is not None:
                assert (reply.status, waited_s) == (200, 0)
                assert self.readiness.ready
                served += 1
            await asyncio.sleep(0.05)
        return served

    async def unavailable(self, code: str = "Gateway.TokenUnavailable") -> int:
        """Call, be told at once that there is no token, and return `Retry-After`."""
        reply, waited_s = await self.gateway.call_and_wait_s()
        assert (reply.status, error_code(reply)) == (503, code)
        assert waited_s < AT_ONCE_S
        return retry_after(reply)


@asynccontextmanager
async def cloud(
    folder: Path,
    *,
    ttl_s: float = DAY,
    fault: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Cloud]:
    """Run a cloud whose IAM has `fault` from the beginning; `settings` are of the service."""
    async with running_twin(token_ttl_s=ttl_s) as twin, gate_before(twin) as gate:
        if fault is not None:
            twin.plan_faults({"iam": [fault]})
        identity = password_identity(gate.auth_url, folder)
        async with token_gateway(twin.service_url(IRIS_ID), identity, **settings) as gateway:
            made = Cloud(twin, gate, gateway)
            yield made
            rejected = sum(stats.rejected for stats in twin.stats.services.values())
            assert rejected == made.rejections, "a token was sent that was not good"


def statuses(replies: list[Reply]) -> set[int]:
    return {reply.status for reply in replies}


@pytest.mark.parametrize("fault", ["refuse", "reset"])
async def test_f01_iam_refuses_or_resets_connections(tmp_path: Path, fault: str) -> None:
    """The token serves to its end, then 503 at once; tried again with pauses until it works."""
    async with cloud(tmp_path, ttl_s=3.0) as it:
        assert (await it.gateway.call()).status == 200
        await (it.gate.refuse() if fault == "refuse" else it.gate.reset())
        assert await it.serve_while_token_lasts() > 3
        for _ in range(20):
            assert 1 <= await it.unavailable() <= 31
        assert not it.readiness.ready
        assert it.readiness.services["iris"].startswith("default: IAM cannot be reached")
        assert 1 <= it.gateway.logins(result="network") <= 6, "callers or a loop ask IAM"
        await it.gate.open()
        status = it.gateway.cache.status(it.gateway.running.gateway._clock())
        assert await until(lambda: it.readiness.ready) <= (status.next_login_s or 0) + 50
        assert (await it.gateway.call()).status == 200


async def test_f02_iam_is_a_black_hole(tmp_path: Path) -> None:
    """Packets vanish: callers without a token share one attempt; with one they notice nothing."""
    async with cloud(tmp_path, ttl_s=4.0) as it:
        assert (await it.gateway.call()).status == 200
        await it.gate.swallow()
        assert await it.serve_while_token_lasts() > 3
        replies = await it.gateway.burst(20)
        assert statuses(replies) == {503}
        assert all(1 <= retry_after(reply) <= 31 for reply in replies)
        assert it.gateway.logins(result="ok") == 1
        assert 0 < it.gateway.logins(result="timeout") <= 3


async def test_f03_iam_never_answers(tmp_path: Path) -> None:
    """Callers without a token share one login and have their 503 within 2 s."""
    async with cloud(tmp_path, fault={"fault": "hang"}) as it:
        began = time.monotonic()
        replies = await it.gateway.burst(20)
        assert time.monotonic() - began > 1.5, "they wait for the login"
        assert statuses(replies) == {503}
        assert {error_code(reply) for reply in replies} == {"Gateway.TokenUnavailable"}
        assert {retry_after(reply) for reply in replies} == {1}
        assert it.attempts == 1
        assert not it.readiness.ready


async def test_f03_iam_never_answers_while_a_token_is_good(tmp_path: Path) -> None:
    """A login that hangs is nobody's business as long as there is a token."""
    async with cloud(tmp_path, ttl_s=3.0) as it:
        assert (await it.gateway.call()).status == 200
        it.fail("hang")
        assert await it.serve_while_token_lasts() > 3
        assert it.attempts == 2


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_f04_iam_fails(tmp_path: Path, status: int) -> None:
    """The old token is kept, and IAM asked again with pauses until it gives a new one."""
    async with cloud(tmp_path) as it:
        await it.gateway.has_token()
        token = it.gateway.token
        it.fail("status", status=status, times=2)
        it.gateway.cache.secret_changed()  # a login at once, without waiting for the schedule
        await until(lambda: it.gateway.logins(result="bad_reply") == 1)
        assert it.gateway.token == token
        reply, waited_s = await it.gateway.call_and_wait_s()
        assert (reply.status, waited_s) == (200, 0)
        waited_s = await until(lambda: it.gateway.logins(result="ok") == 2, 10)
        assert waited_s >= 0.9, "two pauses of at least half a second each"
        assert it.gateway.token != token
        assert it.gateway.logins(result="bad_reply") == 2


async def test_f05_iam_throttles(tmp_path: Path) -> None:
    """`Retry-After` is obeyed, to the callers passed on, and nobody makes another login."""
    fault = {"fault": "throttled", "retry_after": 2, "times": 1}
    async with cloud(tmp_path, fault=fault) as it:
        await until(lambda: it.gateway.logins(result="throttled") == 1)
        throttled_at = time.monotonic()
        assert it.readiness.services["iris"].startswith("default: IAM throttles logins")
        assert 1 <= await it.unavailable("Gateway.LoginThrottled") <= 3
        while it.attempts == 1:
            await it.gateway.call()
            await asyncio.sleep(0.05)
        assert time.monotonic() - throttled_at >= 1.9
        await until(lambda: it.readiness.ready)
        assert it.attempts == 2
        assert (await it.gateway.call()).status == 200


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        ("unauthorized", "check the secret, then username"),
        ("locked", "too many wrong logins"),
        ("forbidden", "IAM forbids the login"),
    ],
)
async def test_f06_iam_refuses_the_login(
    tmp_path: Path, fault: str, remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One login, however many call; said in metrics, readiness, log and to the callers."""
    caplog.set_level(logging.INFO, "gateway")
    async with cloud(tmp_path, fault={"fault": fault}) as it:
        await until(lambda: it.gateway.logins(result="refused") == 1)
        replies = await it.gateway.burst(50)
        assert statuses(replies) == {503}
        assert {error_code(reply) for reply in replies} == {"Gateway.LoginRefused"}
        assert all(14 * 60 < retry_after(reply) <= 16.5 * 60 for reply in replies)
        assert it.attempts == 1
        assert it.gateway.gauge("gateway_identity_locked") == 1
        assert not it.readiness.ready
        assert "refuses the login" in it.readiness.services["iris"]
        assert remedy in it.readiness.services["iris"]
        assert all(remedy in json.loads(reply.body)["error_msg"] for reply in replies)
        [line] = [record.getMessage() for record in caplog.records if "refused" in record.message]
        assert remedy in line


@pytest.mark.parametrize(
    "fault",
    [
        *("no-token", "empty-token", "bad-token", "ok-200", "html", "big-body"),
        *("expired", "far-expiry", "no-expiry"),
    ],
)
async def test_f07_iam_answers_what_must_not_be_believed(tmp_path: Path, fault: str) -> None:
    """Nothing is forwarded without a token; a token that works is kept; the next login counts."""
    async with cloud(tmp_path, fault={"fault": fault, "times": 1}) as it:
        await until(lambda: it.gateway.logins(result="bad_reply") == 1)
        await it.unavailable()
        assert "iris" not in it.twin.stats.services, "a call was forwarded without a token"
        await it.gateway.has_token()
        assert (await it.gateway.call()).status == 200
        token = it.gateway.token
        it.fail(fault, times=1)
        it.gateway.cache.secret_changed()
        await until(lambda: it.gateway.logins(result="bad_reply") == 2)
        assert it.gateway.token == token
        assert (await it.gateway.call()).status == 200


async def test_f08_iam_is_slow_near_expiry(tmp_path: Path) -> None:
    """Replaced in the background: over several lives, no request waits for a slow login."""
    async with cloud(tmp_path, ttl_s=6.0) as it:
        await it.gateway.has_token()
        it.fail("slow", delay="1500ms")
        slowest_s = 0.0
        while it.gateway.logins(trigger="schedule", result="ok") < 2:
            reply, waited_s = await it.gateway.call_and_wait_s()
            assert reply.status == 200
            slowest_s = max(slowest_s, waited_s)
            await asyncio.sleep(0.05)
        assert slowest_s < 1.4, "a caller waited for a login"
        assert it.gateway.logins(trigger="demand") == 0


async def test_f09_cold_herd_makes_one_login(tmp_path: Path) -> None:
    """Two hundred callers before the first token, fifty of whom leave: the others are served."""
    fault = {"fault": "slow", "delay": "1s", "times": 1}
    async with cloud(tmp_path, fault=fault) as it:
        staying = asyncio.gather(*(it.gateway.call() for _ in range(150)))
        leaving = [await it.gateway.running.connect() for _ in range(50)]
        for caller in leaving:
            caller.send(CALL)
            await caller.flush()
        in_flight = "gateway_requests_in_flight"
        await until(lambda: it.gateway.running.sample(in_flight, service="iris") == 200)
        for caller in leaving:
            caller.reset()
        assert statuses(await staying) == {200}
        assert it.attempts == 1
        assert it.twin.stats.services["iris"].calls == 150


async def test_f10_leader_of_the_herd_leaves(tmp_path: Path) -> None:
    """The caller that began the login goes away; the login goes on for the other."""
    async with cloud(tmp_path) as it:
        await it.gateway.has_token()
        it.twin.revoke_tokens()
        it.rejections = 1
        it.fail("slow", delay="500ms")
        leader = await it.gateway.running.connect()
        leader.send(CALL)
        await until(lambda: it.attempts == 2)
        follower = asyncio.create_task(it.gateway.call())
        in_flight = "gateway_requests_in_flight"
        await until(lambda: it.gateway.running.sample(in_flight, service="iris") == 2)
        leader.reset()
        await until(lambda: it.gateway.running.sample(in_flight, service="iris") == 1)
        assert it.gateway.logins(trigger="rejected") == 0, "it was over before the leader left"
        assert (await follower).status == 200
        assert it.attempts == 2


async def test_f11_revoked_token_is_replaced_and_the_call_sent_again(tmp_path: Path) -> None:
    """One login, one resend; the caller sees nothing but his answer."""
    async with cloud(tmp_path) as it:
        assert (await it.gateway.call()).status == 200
        it.twin.revoke_tokens()
        it.rejections = 1
        assert (await it.gateway.call()).status == 200
        assert it.attempts == 2
        assert it.twin.stats.services["iris"].predictions == 2


@pytest.mark.parametrize(("over", "status"), [(0, 200), (1, 503)])
async def test_f11_call_too_large_to_be_sent_again(tmp_path: Path, over: int, status: int) -> None:
    """One byte over `replay_buffer` its caller has to send it again; the token is replaced."""
    async with cloud(tmp_path, replay_buffer=len(FLOWER)) as it:
        await it.gateway.has_token()
        it.twin.revoke_tokens()
        it.rejections = 1
        call = CALL.replace(b": %d\r\n" % len(FLOWER), b": %d\r\n" % (len(FLOWER) + over))
        reply = await it.gateway.running.ask(call + b" " * over)
        assert reply.status == status
        if status == 503:
            assert error_code(reply) == "Gateway.TokenRenewed"
            assert retry_after(reply) == 1
        assert (await it.gateway.call()).status == 200
        assert it.attempts == 2


async def test_f12_storm_of_rejections_makes_one_login(tmp_path: Path) -> None:
    """Fifty callers at once find the token revoked; all get their answer, after one login."""
    async with cloud(tmp_path) as it:
        assert (await it.gateway.call()).status == 200
        it.twin.revoke_tokens()
        assert statuses(await it.gateway.burst(50)) == {200}
        it.rejections = it.twin.stats.services["iris"].rejected
        assert 1 <= it.rejections <= 50
        assert it.attempts == 2


async def test_f12_late_rejection_spares_the_new_token(tmp_path: Path) -> None:
    """A 401 that was long on its way is about the old token: sent again, no other login."""
    answers_late = asyncio.Event()
    old: list[bytes] = []

    async def script(link: Link) -> None:
        while True:
            request = await link.request()
            [token] = request.values(b"x-auth-token")
            if not old:
                old.append(token)
            if token != old[0]:
                link.send(OK)
                continue
            if request.target.endswith(b"/late"):
                await answers_late.wait()
            link.send(REJECTION)

    async with running_twin() as twin, scripted_upstream(script) as upstream:
        identity = password_identity(twin.auth_url, tmp_path)
        url = f"http://127.0.0.1:{upstream.port}/v1/infers/abc"
        async with token_gateway(url, identity) as gateway:
            await gateway.has_token()
            late = asyncio.create_task(
                gateway.running.ask(CALL.replace(b" /iris ", b" /iris/late "))
            )
            await until(lambda: len(upstream.requests) == 1)
            assert (await gateway.call()).status == 200
            token = gateway.token
            answers_late.set()
            assert (await late).status == 200
            assert gateway.token == token
            assert twin.stats.login_attempts == 2


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "ModelArts.0210"),
        (403, "APIG.0302"),
        (401, "ModelArts.0207"),
        (401, "MR.0105"),
        (503, "APIG.0613"),
    ],
)
async def test_f13_refusals_that_no_token_cures(tmp_path: Path, status: int, code: str) -> None:
    """What is not about the token passes untouched, without a login."""
    async with cloud(tmp_path) as it:
        faults = {"status": status, "code": code}
        it.twin.plan_faults({"services": [{"faults": faults}]})
        for reply in await it.gateway.burst(10):
            assert (reply.status, error_code(reply)) == (status, code)
        assert it.attempts == 1


async def test_f13_service_that_rejects_every_token(tmp_path: Path) -> None:
    """One login finds that out; then its 401 passes, for half a minute without another."""
    async with cloud(tmp_path) as it:
        it.twin.plan_faults({"services": [{"faults": {"code": "APIG.0301"}}]})
        replies = [await it.gateway.call() for _ in range(30)]
        assert {(reply.status, error_code(reply)) for reply in replies} == {(401, "APIG.0301")}
        assert it.attempts == 3, "the second may have been born dead, and is replaced, too"
        assert it.readiness.ready


@pytest.mark.parametrize("ttl_s", [0.4, 1.6])
async def test_f15_token_lives_shorter_than_any_margin(tmp_path: Path, ttl_s: float) -> None:
    """Used for most of its life; at most one login a second; never sent when it is over."""
    async with cloud(tmp_path, ttl_s=ttl_s) as it:
        began = time.monotonic()
        good = 0
        while (took_s := time.monotonic() - began) < 4:
            reply = await it.gateway.call()
            assert reply.status in {200, 503}
            good += reply.status == 200
            await asyncio.sleep(0.005)
        assert good > 5
        assert it.attempts <= took_s + 2


async def test_two_revocations_in_half_a_minute_are_both_healed(tmp_path: Path) -> None:
    """The first new token was accepted, so the second revocation is worth a login as well."""
    async with cloud(tmp_path) as it:
        assert (await it.gateway.call()).status == 200
        for revocations in (1, 2):
            it.twin.revoke_tokens()
            it.rejections = revocations
            assert (await it.gateway.call()).status == 200
        assert it.attempts == 3
