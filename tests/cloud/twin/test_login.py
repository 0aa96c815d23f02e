"""Logging in at the stand-in IAM, as Keystone and the vendor's documents say."""

import json
from typing import Any

import aiohttp
import pytest

from gateway.twin import ECHO_ID, IRIS_ID, Account, Twin
from tests.cloud.twin.given import WRONG, MovableTime, _changed, log_in, predict, send, token_of
from tests.support.twin import login_body, running_twin

ACCOUNT = Account()


# IAM


async def test_login_answers_201_with_the_token_in_a_header(
    http: aiohttp.ClientSession, twin: Twin
) -> None:
    """A project login yields status, header fields, body members and time format of IAM."""
    answer = await log_in(http, twin)
    assert answer.status == 201
    token = answer.headers["X-Subject-Token"]
    assert len(token) == 183
    assert token.startswith("MIIS")
    assert answer.headers["Date"] == "Fri, 02 Jan 2026 03:04:05 GMT"
    assert len(answer.headers["X-Request-Id"]) == 32
    assert answer.headers["X-IAM-Trace-Id"]
    body = answer.json["token"]
    assert set(body) == {"methods", "issued_at", "expires_at", "user", "project", "roles"}
    assert body["methods"] == ["password"]
    assert body["issued_at"] == "2026-01-02T03:04:05.000678Z"
    assert body["expires_at"] == "2026-01-03T03:04:05.000678Z"
    assert body["user"]["name"] == "infer"
    assert body["project"]["name"] == "ap-southeast-1"
    assert body["project"]["domain"]["name"] == "my-account"
    assert token not in answer.body.decode()


async def test_catalog_is_there_unless_declined(http: aiohttp.ClientSession, twin: Twin) -> None:
    """Without `nocatalog` the body also holds the catalog."""
    answer = await send(http, "POST", twin.auth_url + "/auth/tokens", json=login_body())
    assert {entry["type"] for entry in answer.json["token"]["catalog"]} == {"iam", "modelarts"}


async def test_token_size_is_what_was_asked_for(http: aiohttp.ClientSession) -> None:
    """A token of 40 000 bytes comes whole, and dies at the API gateway's limit, not before."""
    async with running_twin(token_size=40_000) as twin:
        token = await token_of(http, twin)
        assert len(token) == 40_000
        answer = await predict(http, twin)
        assert (answer.status, answer.json["error_code"]) == (494, "APIG.0201")
    async with running_twin(token_size=32_000) as twin:
        assert (await predict(http, twin)).status == 200


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ({"project": {"name": "ap-southeast-1", "domain": {"name": "my-account"}}}, 201),
        ({"project": {"name": "ap-southeast-1", "domain": {"id": ACCOUNT.domain_id}}}, 201),
        ({"project": {"id": ACCOUNT.project_id}}, 201),
        ({"project": {"name": "ap-southeast-1"}}, 400),
        ({"project": {"domain": {"name": "my-account"}}}, 400),
        ({"project": {"name": "elsewhere", "domain": {"name": "my-account"}}}, 401),
        ({"project": {"name": "ap-southeast-1", "domain": {"name": "other"}}}, 401),
        ({"project": {"id": "0" * 32}}, 401),
        ({"domain": {"name": "my-account"}}, 201),
        ({"domain": {"name": "other"}}, 401),
        ({"unscoped": {}}, 201),
        ({"project": {}, "domain": {}}, 400),
    ],
)
async def test_scope_is_judged_as_strictly_as_by_keystone(
    http: aiohttp.ClientSession, twin: Twin, scope: dict[str, Any], status: int
) -> None:
    """Projects by id, or by name plus domain; what does not exist is 401, what is vague 400."""
    answer = await log_in(http, twin, login_body(**scope))
    assert answer.status == status
    if status != 201:
        assert answer.json["error"]["code"] == status
        assert "X-Subject-Token" not in answer.headers


@pytest.mark.parametrize("scope", [{"domain": {"name": "my-account"}}, {"unscoped": {}}])
async def test_token_without_project_is_refused_by_the_dispatcher(
    http: aiohttp.ClientSession, twin: Twin, scope: dict[str, Any]
) -> None:
    """ModelArts wants a project: 401 `ModelArts.0207`."""
    answer = await log_in(http, twin, login_body(**scope))
    assert "project" not in answer.json["token"]
    headers = {"X-Auth-Token": answer.headers["X-Subject-Token"]}
    refused = await send(http, "POST", twin.service_url(IRIS_ID), headers=headers)
    assert (refused.status, refused.json["error_code"]) == (401, "ModelArts.0207")
    assert refused.headers["Server"] == "ModelArts"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (_changed("auth.identity.password.user.password", "wrong"), 401),
        (_changed("auth.identity.password.user.name", "nobody"), 401),
        (_changed("auth.identity.password.user.domain", {"name": "other"}), 401),
        (_changed("auth.identity.password.user.domain", None), 400),
        (_changed("auth.identity.password.user.name", None), 400),
        (_changed("auth.identity.password.user.password", None), 400),
        (_changed("auth.identity.password.user.password", 7), 400),
        (_changed("auth.identity.password", None), 400),
        (_changed("auth.identity.methods", []), 400),
        (_changed("auth.identity.methods", ["totp"]), 401),
        (_changed("auth.identity", None), 400),
        (_changed("auth", None), 400),
        ([], 400),
        ("auth", 400),
    ],
)
async def test_bad_login_is_refused_in_keystones_shape(
    http: aiohttp.ClientSession, twin: Twin, body: Any, status: int
) -> None:
    """400 for what is not well formed, 401 for what is wrong; never a token."""
    answer = await log_in(http, twin, body)
    assert answer.status == status
    assert set(answer.json["error"]) == {"code", "message", "title"}
    assert twin.stats.logins == 0


async def test_login_that_is_not_json_is_400(http: aiohttp.ClientSession, twin: Twin) -> None:
    """IAM says 400 to a body that is no JSON."""
    answer = await send(http, "POST", twin.auth_url + "/auth/tokens", data=b"{")
    assert answer.status == 400


async def test_user_by_id_may_log_in(http: aiohttp.ClientSession, twin: Twin) -> None:
    """A user's id needs no domain."""
    body = login_body()
    user = {"id": ACCOUNT.user_id, "password": ACCOUNT.password}
    body["auth"]["identity"]["password"]["user"] = user
    assert (await log_in(http, twin, body)).status == 201


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 201),
        ({"name": "other"}, 401),
        ({"user": {"name": "other", "domain": {"name": ACCOUNT.domain}}}, 401),
        ({"user": {"name": ACCOUNT.user}}, 400),
        ({"user": None}, 400),
        ({"name": None}, 400),
    ],
)
async def test_application_credential_by_name_needs_its_user(
    http: aiohttp.ClientSession, twin: Twin, changes: dict[str, Any], status: int
) -> None:
    """And the user his domain, as Keystone has it."""
    user = {"name": ACCOUNT.user, "domain": {"name": ACCOUNT.domain}}
    credential = {"name": "gateway", "user": user, "secret": "twin-secret"} | changes
    credential = {key: value for key, value in credential.items() if value is not None}
    identity = {"methods": ["application_credential"], "application_credential": credential}
    assert (await log_in(http, twin, {"auth": {"identity": identity}})).status == status


@pytest.mark.parametrize(
    ("version", "field", "status"),
    [
        ("v2", ("Authorization", "Bearer twin-api-key"), 200),
        ("v2", ("Authorization", "Bearer other"), 401),
        ("v2", ("X-Apig-AppCode", "twin-app-code"), 401),
        ("v1", ("Authorization", "Bearer twin-api-key"), 401),
        ("v1", ("X-Apig-AppCode", "twin-app-code"), 200),
        ("v1", ("X-Apig-AppCode", "other"), 401),
    ],
)
async def test_new_services_take_a_key_and_old_ones_an_app_code(
    http: aiohttp.ClientSession, twin: Twin, version: str, field: tuple[str, str], status: int
) -> None:
    """And nothing shows either of them."""
    url = twin.service_url(ECHO_ID).replace("/v1/", f"/{version}/")
    answer = await send(http, "POST", url, headers=[field])
    assert answer.status == status
    assert field[1] not in json.dumps(answer.json)
    assert twin.stats.services["echo"].rejected == (status == 401)


async def test_application_credential_brings_its_own_project(
    http: aiohttp.ClientSession, twin: Twin
) -> None:
    """Right id and secret: a project token; wrong secret, or a scope as well: 401."""
    credential = {"id": "twin-credential", "secret": "twin-secret"}
    identity = {"methods": ["application_credential"], "application_credential": credential}
    answer = await log_in(http, twin, {"auth": {"identity": identity}})
    assert answer.status == 201
    assert answer.json["token"]["methods"] == ["application_credential"]
    assert answer.json["token"]["project"]["name"] == "ap-southeast-1"
    scope = {"project": {"id": ACCOUNT.project_id}}
    assert (
        await log_in(http, twin, {"auth": {"identity": identity, "scope": scope}})
    ).status == 401
    credential["secret"] = "wrong"
    assert (await log_in(http, twin, {"auth": {"identity": identity}})).status == 401
    del credential["secret"]
    assert (await log_in(http, twin, {"auth": {"identity": identity}})).status == 400


async def test_five_wrong_passwords_lock_for_fifteen_minutes(
    http: aiohttp.ClientSession, twin: Twin, time_of_twin: MovableTime
) -> None:
    """After the fifth even the right password is `IAM.0061`, until 15 minutes have gone."""
    for _ in range(4):
        assert (await log_in(http, twin, WRONG)).status == 401
    assert (await log_in(http, twin)).status == 201  # four do no harm and are forgotten
    for _ in range(5):
        assert "error" in (await log_in(http, twin, WRONG)).json
    answer = await log_in(http, twin)
    assert (answer.status, answer.json["error_code"]) == (401, "IAM.0061")
    time_of_twin.pass_by(899.9)
    assert (await log_in(http, twin)).status == 401
    time_of_twin.pass_by(0.2)
    assert (await log_in(http, twin)).status == 201


async def test_wrong_passwords_count_within_fifteen_minutes_only(
    http: aiohttp.ClientSession, twin: Twin, time_of_twin: MovableTime
) -> None:
    """The fifth wrong password more than 15 minutes after the first does not lock."""
    await log_in(http, twin, WRONG)
    time_of_twin.pass_by(900)
    for _ in range(4):
        await log_in(http, twin, WRONG)
    assert (await log_in(http, twin)).status == 201


async def test_lock_is_of_one_user(http: aiohttp.ClientSession) -> None:
    """Another user of the same cloud still gets in, and a malformed login never counts."""
    other = Account(user="other", credential_id="other-credential")
    async with running_twin(accounts=(ACCOUNT, other)) as twin:
        for _ in range(6):
            await log_in(http, twin, _changed("auth.identity.password.user.password", None))
        assert (await log_in(http, twin)).status == 201
        for _ in range(5):
            await log_in(http, twin, WRONG)
        assert (await log_in(http, twin)).status == 401
        assert (await log_in(http, twin, login_body(other))).status == 201


async def test_token_can_be_shown_and_revoked(http: aiohttp.ClientSession, twin: Twin) -> None:
    """`GET` describes the subject token, `DELETE` ends it at once and only it."""
    url = twin.auth_url + "/auth/tokens"
    mine, other = await token_of(http, twin), await token_of(http, twin)
    headers = {"X-Auth-Token": mine, "X-Subject-Token": other}
    shown = await send(http, "GET", url + "?nocatalog=true", headers=headers)
    assert (shown.status, shown.headers["X-Subject-Token"]) == (200, other)
    assert shown.json["token"]["user"]["name"] == "infer"
    assert "catalog" in (await send(http, "GET", url, headers=headers)).json["token"]
    assert (await send(http, "DELETE", url, headers=headers)).status == 204
    assert (await send(http, "GET", url, headers=headers)).status == 404
    assert (await send(http, "GET", url, headers={"X-Subject-Token": mine})).status == 401
    call = twin.service_url(ECHO_ID)
    assert (await send(http, "POST", call, headers={"X-Auth-Token": other})).status == 401
    assert (await send(http, "POST", call, headers={"X-Auth-Token": mine})).status == 200
