"""Tokens of a real Keystone, judged by services that ask it, through real gateways.

Tokens live for `TOKEN_LIFE_S`, so that what takes a day elsewhere takes seconds here.
"""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.serving import (
    error_code,
    password_identity,
    retry_after,
    served_gateway,
    token_gateway,
    until,
)
from tests.support.keystone import DOMAIN, PROJECT, TOKEN_LIFE_S, Keystone, User

# Starting, let alone installing, is not a test's own time.
pytestmark = pytest.mark.timeout(300, func_only=True)

GOOD, BAD = "good", "bad"


def identity_of(keystone: Keystone, user: User, folder: Path, **changes: Any) -> dict[str, Any]:
    """Settings to log in as `user` for the project by name."""
    return password_identity(
        keystone.auth_url,
        folder,
        **{
            "username": user.name,
            "user_domain": DOMAIN,
            "password": user.password,
            "project": PROJECT,
            **changes,
        },
    )


def verdicts(keystone: Keystone, since: int) -> list[str]:
    """What Keystone said of the tokens of all calls after the first `since`."""
    return [verdict for _, _, verdict in keystone.calls(since)]


@pytest.mark.parametrize("scope", ["name", "name and domain", "id"])
def test_password_logs_in_for_a_project(keystone: Keystone, tmp_path: Path, scope: str) -> None:
    """By name and domain, which is the user's unless given, and by id; one login each."""
    user = keystone.new_user()
    scopes: dict[str, dict[str, str | None]] = {
        "name": {},
        "name and domain": {"project_domain": DOMAIN},
        "id": {"project": None, "project_id": user.project_id},
    }
    identity = identity_of(keystone, user, tmp_path, **scopes[scope])
    with served_gateway(tmp_path, keystone.service_url("strict"), identity) as gateway:
        answer = gateway.call()
        assert (answer.status_code, answer.json()["project"]) == (200, PROJECT)
        assert gateway.readiness()[0] == 200
    assert keystone.logins(user.name) == [201]


def test_application_credential_logs_in(keystone: Keystone, tmp_path: Path) -> None:
    """It brings its own project, and the user's password is not needed."""
    identifier, secret = keystone.new_application_credential(keystone.new_user())
    (tmp_path / "secret").write_text(secret)
    identity = {
        "method": "application_credential",
        "auth_url": keystone.auth_url.removesuffix("/v3"),
        "id": identifier,
        "secret_file": str(tmp_path / "secret"),
    }
    with served_gateway(tmp_path, keystone.service_url("strict"), identity) as gateway:
        answer = gateway.call()
        assert (answer.status_code, answer.json()["project"]) == (200, PROJECT)
    assert keystone.logins(identifier) == [201]


async def test_calls_over_several_lives_all_succeed(keystone: Keystone, tmp_path: Path) -> None:
    """Each token is replaced at 50-80 % of its life, before anybody sees it end, and not sooner."""
    user = await asyncio.to_thread(keystone.new_user)
    since, lives = len(keystone.calls()), 2
    identity = identity_of(keystone, user, tmp_path)
    async with token_gateway(keystone.service_url("strict"), identity) as gateway:
        end = time.monotonic() + lives * TOKEN_LIFE_S
        while time.monotonic() < end:
            assert (await gateway.call()).status == 200
            await asyncio.sleep(0.1)
        made = gateway.logins()
        assert gateway.logins(trigger="schedule", result="ok") == made - 1
    assert lives / 0.8 <= made <= lives / 0.5 + 1
    under_way = 1  # at most, when the gateway was closed
    assert made <= len(keystone.logins(user.name)) <= made + under_way
    assert set(keystone.logins(user.name)) == {201}
    assert set(verdicts(keystone, since)) == {GOOD}


@pytest.mark.parametrize("service", ["strict", "plain"])
async def test_revoked_token_is_replaced_behind_the_callers_back(
    keystone: Keystone, tmp_path: Path, service: str
) -> None:
    """One login and one resend, by the vendor's error code and by keystonemiddleware's own 401."""
    user = await asyncio.to_thread(keystone.new_user)
    identity = identity_of(keystone, user, tmp_path)
    async with token_gateway(keystone.service_url(service), identity) as gateway:
        assert (await gateway.call()).status == 200
        revoked = gateway.token
        await asyncio.to_thread(keystone.revoke, revoked)
        assert (await gateway.call()).status == 200
        assert gateway.token != revoked
        assert gateway.logins(trigger="rejected", result="ok") == 1
        assert gateway.logins(trigger="demand") == 0
        retries = "gateway_upstream_retries_total"
        assert gateway.running.sample(retries, service="iris", reason="token_rejected") == 1


async def test_burst_on_a_revoked_token_makes_one_login(keystone: Keystone, tmp_path: Path) -> None:
    """Fifty callers find the token dead; one login serves them all, and all get their answer."""
    user = await asyncio.to_thread(keystone.new_user)
    identity = identity_of(keystone, user, tmp_path)
    async with token_gateway(keystone.service_url("strict"), identity) as gateway:
        assert (await gateway.call()).status == 200
        await asyncio.to_thread(keystone.revoke, gateway.token)
        since = len(keystone.calls())
        replies = await gateway.burst(50)
        assert [reply.status for reply in replies] == [200] * 50
        assert gateway.logins(trigger="rejected") == 1
        assert gateway.logins(trigger="demand") == 0
        seen = verdicts(keystone, since)
        assert seen.count(GOOD) == 50
        assert seen.count(BAD) > 1, "the burst was no burst"


def test_changed_password_is_taken_from_its_file(keystone: Keystone, tmp_path: Path) -> None:
    """The change kills the token: one refused login, then silence until the file has the new one.

    `serve` in its own process, with the real watch on the file.
    """
    user = keystone.new_user()
    identity = identity_of(keystone, user, tmp_path)
    with served_gateway(tmp_path, keystone.service_url("strict"), identity) as gateway:
        assert gateway.call().status_code == 200
        keystone.change_password(user, "another-password")
        time.sleep(1.1)  # Keystone's revocations have seconds
        answers = [gateway.call() for _ in range(20)]
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.json()["error_code"] for answer in answers} == {"Gateway.LoginRefused"}
        assert keystone.logins(user.name).count(401) == 1
        (tmp_path / "password").write_text("another-password\n")
        assert gateway.until(lambda: gateway.call().status_code == 200) < 15
        assert gateway.sample("gateway_token_refreshes_total", trigger="secret_change") == 1
    assert keystone.logins(user.name).count(401) == 1


async def test_rotation_with_the_next_password_loses_no_request(
    keystone: Keystone, tmp_path: Path
) -> None:
    """50 calls a second over the change: no error. One refused login, then the new password.

    Keystone kills the token and all that it issues in the same second.
    """
    user = await asyncio.to_thread(keystone.new_user)
    (tmp_path / "next").write_text("another-password\n")
    identity = identity_of(keystone, user, tmp_path, next_password_file=str(tmp_path / "next"))
    async with token_gateway(keystone.service_url("strict"), identity) as gateway:
        assert (await gateway.call()).status == 200
        is_over = asyncio.Event()
        statuses = []

        async def call_again_and_again() -> None:
            while not is_over.is_set():
                rest = asyncio.create_task(asyncio.sleep(0.2))
                statuses.append((await gateway.call()).status)
                await rest

        # Ten callers, each five times a second: on a slow machine they wait, and pile up nowhere.
        callers = [asyncio.create_task(call_again_and_again()) for _ in range(10)]
        await asyncio.sleep(1)
        await asyncio.to_thread(keystone.change_password, user, "another-password")
        await asyncio.sleep(3)
        is_over.set()
        await asyncio.gather(*callers)
        assert statuses.count(200) == len(statuses)
        assert gateway.gauge("gateway_identity_locked") == 0
    assert keystone.logins(user.name).count(401) == 1


def test_wrong_password_never_locks_the_user(keystone: Keystone, tmp_path: Path) -> None:
    """However many call, however long: two refused logins at most; and it says what is wrong."""
    user = keystone.new_user()
    identity = identity_of(keystone, user, tmp_path, password="wrong-canary")
    with served_gateway(tmp_path, keystone.service_url("strict"), identity) as gateway:
        gateway.until(lambda: gateway.sample("gateway_identity_locked") == 1)
        for _ in range(100):
            answer = gateway.call()
            assert answer.status_code == 503
            assert answer.json()["error_code"] == "Gateway.LoginRefused"
            assert 1 <= int(answer.headers["Retry-After"]) <= 16.5 * 60
        status, ready = gateway.readiness()
        assert (status, ready["ready"]) == (503, False)
        assert "refuses the login" in ready["services"]["iris"]
        # A second secret that is wrong, too, is the last one to be tried.
        (tmp_path / "password").write_text("wrong-canary-again")
        gateway.until(lambda: len(keystone.logins(user.name)) == 2)
        assert keystone.logins(user.name) == [401, 401]
        assert gateway.call().status_code == 503
        log = "".join(gateway.log)
        assert log.count("IAM refuses the login") == 1
        assert "canary" not in log
    assert keystone.logins(user.name) == [401, 401]
    # Keystone itself would have locked after five; it has not.
    assert keystone.token(user.name, user.password, DOMAIN, PROJECT)


def test_crash_loop_with_a_wrong_password_is_refused_once(
    keystone: Keystone, tmp_path: Path
) -> None:
    """Four times killed and started again: what IAM has said is remembered, and no secret is."""
    user = keystone.new_user()
    state = tmp_path / "state"
    state.mkdir()
    identity = identity_of(keystone, user, tmp_path, password="wrong-canary")
    url = keystone.service_url("strict")
    for _ in range(5):
        with served_gateway(tmp_path, url, identity, state_dir=str(state)) as gateway:
            gateway.until(lambda: gateway.sample("gateway_identity_locked") == 1)
            answer = gateway.call()
            assert answer.json()["error_code"] == "Gateway.LoginRefused"
            assert 800 < int(answer.headers["Retry-After"]) <= 990
            gateway.kill()
    assert keystone.logins(user.name) == [401]
    assert all("canary" not in file.read_text() for file in state.iterdir())
    (tmp_path / "password").write_text(user.password)
    with served_gateway(tmp_path, url, identity, state_dir=str(state)) as gateway:
        gateway.until(lambda: gateway.readiness()[0] == 200)
    assert keystone.logins(user.name)[:2] == [401, 201]


def test_corrected_password_is_used_within_seconds(keystone: Keystone, tmp_path: Path) -> None:
    """After a refused login the file is what ends the pause of 15 minutes."""
    user = keystone.new_user()
    identity = identity_of(keystone, user, tmp_path, password="wrong")
    with served_gateway(tmp_path, keystone.service_url("strict"), identity) as gateway:
        gateway.until(lambda: gateway.sample("gateway_identity_locked") == 1)
        # As the kubelet does it: another file takes the name.
        (tmp_path / "password.new").write_text(user.password)
        (tmp_path / "password.new").replace(tmp_path / "password")
        assert gateway.until(lambda: gateway.readiness()[0] == 200) < 15
        assert gateway.call().status_code == 200
        assert gateway.sample("gateway_identity_locked") == 0
    assert keystone.logins(user.name) == [401, 201]


async def test_keystone_restarts_unnoticed(keystone: Keystone, tmp_path: Path) -> None:
    """Its keys and its database are the same, so no token dies of it."""
    user = await asyncio.to_thread(keystone.new_user)
    since = len(keystone.calls())
    identity = identity_of(keystone, user, tmp_path)
    async with token_gateway(keystone.service_url("strict"), identity) as gateway:
        assert (await gateway.call()).status == 200
        await asyncio.to_thread(keystone.stop)
        await asyncio.to_thread(keystone.start)
        await gateway.has_token()  # on a slow machine the start outlasts the token
        assert (await gateway.call()).status == 200
        assert gateway.logins(trigger="rejected") == 0
    assert set(verdicts(keystone, since)) == {GOOD}


async def test_outage_of_keystone_is_survived(keystone: Keystone, tmp_path: Path) -> None:
    """A token that is good serves to its end; then 503 at once; then it comes back by itself.

    Service `cached` knows what it has been told of a token, as the vendor's gateway does.
    """
    user = await asyncio.to_thread(keystone.new_user)
    since = len(keystone.calls())
    identity = identity_of(keystone, user, tmp_path)
    async with token_gateway(keystone.service_url("cached"), identity) as gateway:
        assert (await gateway.call()).status == 200
        await asyncio.to_thread(keystone.stop)
        try:
            served = 0
            while gateway.credential is not None:
                reply, waited_s = await gateway.call_and_wait_s()
                if gateway.credential is not None:
                    assert reply.status == 200
                    assert waited_s < 1.0
                    served += 1
                await asyncio.sleep(0.05)
            assert served > 10
            for _ in range(20):
                reply, waited_s = await gateway.call_and_wait_s()
                assert reply.status == 503
                assert error_code(reply) == "Gateway.TokenUnavailable"
                assert 1 <= retry_after(reply) <= 31
                assert waited_s < 1.0
            assert gateway.cache.status(gateway.running.gateway._clock()).locked is False
        finally:
            await asyncio.to_thread(keystone.start)
        pause_s = gateway.cache.status(gateway.running.gateway._clock()).next_login_s
        waited_s = await until(lambda: gateway.credential is not None, 30)
        assert waited_s <= (pause_s or 0) + 10
        assert (await gateway.call()).status == 200
    assert set(verdicts(keystone, since)) == {GOOD}, "an expired token was sent"


async def test_refusal_of_what_a_token_may_do_is_passed_on(
    keystone: Keystone, tmp_path: Path
) -> None:
    """Another token would not be allowed more: no login, and the service's own words."""
    user = await asyncio.to_thread(keystone.new_user)
    identity = identity_of(keystone, user, tmp_path)
    async with token_gateway(keystone.service_url("forbidding"), identity) as gateway:
        for reply in await gateway.burst(10):
            assert reply.status == 403
            assert json.loads(reply.body)["error_code"] == "ModelArts.0210"
        assert gateway.logins(trigger="rejected") == 0
