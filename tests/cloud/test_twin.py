"""The stand-in cloud behaves as the vendor's documents say, and breaks as it is asked to."""

import asyncio
import gzip
import hashlib
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
import trustme
from PIL import Image
from yarl import URL

from gateway.twin import ECHO_ID, IMAGE_ID, IRIS_ID, Account, Clock, FaultError, Twin
from gateway.twin.duration import parse_duration
from gateway.twin.faults import FAULT_NAMES, Faults, faults_in_query, parse_faults
from gateway.twin.form import MAX_PARTS, FormError, parse_form
from gateway.twin.iam_faults import ErrorShape, IamFault
from gateway.twin.iris import classify, flowers
from gateway.twin.services import MAX_BODY, MAX_FIELD
from tests.support.twin import login_body, running_twin
from tests.support.until import PATIENCE_S

ACCOUNT = Account()
FLOWER = {"sepal_length": 3, "sepal_width": 1, "petal_length": 2.2, "petal_width": 4}


class MovableTime:
    """Both clocks of a twin, moved by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
        self.uptime = 1000.0

    def pass_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.uptime += seconds

    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.uptime)


@pytest.fixture
def time_of_twin() -> MovableTime:
    return MovableTime()


@pytest.fixture
async def twin(time_of_twin: MovableTime) -> AsyncIterator[Twin]:
    async with running_twin(clock=time_of_twin.clock()) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(max_field_size=1 << 18) as session:
        yield session


class Answer:
    """A complete answer."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status, self.headers, self.body = response.status, response.headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def send(http: aiohttp.ClientSession, method: str, url: str | URL, **kwargs: Any) -> Answer:
    async with http.request(method, url, **kwargs) as response:
        return Answer(response, await response.read())


async def log_in(http: aiohttp.ClientSession, twin: Twin, body: Any = None) -> Answer:
    url = twin.auth_url + "/auth/tokens?nocatalog=true"
    return await send(http, "POST", url, json=login_body() if body is None else body)


async def token_of(http: aiohttp.ClientSession, twin: Twin, body: Any = None) -> str:
    answer = await log_in(http, twin, body)
    assert answer.status == 201, answer.body
    return answer.headers["X-Subject-Token"]


async def predict(
    http: aiohttp.ClientSession, twin: Twin, service: str = ECHO_ID, tail: str = "", **kwargs: Any
) -> Answer:
    headers = {"X-Auth-Token": await token_of(http, twin), **kwargs.pop("headers", {})}
    method = kwargs.pop("method", "POST")
    url = twin.service_url(service) + tail
    return await send(http, method, url, headers=headers, **kwargs)


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


def _changed(path: str, value: Any) -> dict[str, Any]:
    body = login_body()
    *parents, last = path.split(".")
    at: Any = body
    for parent in parents:
        at = at[parent]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return body


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


WRONG = _changed("auth.identity.password.user.password", "wrong")


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


# IAM's faults


async def plan(http: aiohttp.ClientSession, twin: Twin, **wanted: Any) -> Answer:
    return await send(http, "PUT", twin.url + "/twin/faults", json=wanted)


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
    assert asyncio.get_running_loop().time() - started >= 0.1
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


# The API gateway's checks


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("X-Auth-Token", "MIISnonsense")],
        [("X-Auth-Token", "")],
        [("X-Auth-Token", "GOOD"), ("X-Auth-Token", "GOOD")],
        [("X-Auth-Token", "GOOD"), ("Authorization", "Bearer abc")],
    ],
)
async def test_anything_but_one_good_token_is_apig_0301(
    http: aiohttp.ClientSession, twin: Twin, headers: list[tuple[str, str]]
) -> None:
    """Missing, unknown, doubled, or beside a bearer token: 401 of the API gateway."""
    token = await token_of(http, twin)
    sent = [(name, value.replace("GOOD", token)) for name, value in headers]
    answer = await send(http, "POST", twin.service_url(ECHO_ID), headers=sent)
    assert answer.status == 401
    assert answer.json["error_code"] == "APIG.0301"
    assert answer.json["request_id"] == answer.headers["X-Request-Id"]
    assert answer.headers["Server"] == "api-gateway"
    assert twin.stats.services["echo"].rejected == 1
    assert twin.stats.services["echo"].predictions == 0


async def test_token_dies_exactly_at_the_end_of_its_life(
    http: aiohttp.ClientSession, time_of_twin: MovableTime
) -> None:
    """Good just before `expires_at`, APIG.0301 from then on."""
    async with running_twin(clock=time_of_twin.clock(), token_ttl_s=60) as twin:
        headers = {"X-Auth-Token": await token_of(http, twin)}
        url = twin.service_url(ECHO_ID)
        time_of_twin.pass_by(59.5)
        assert (await send(http, "POST", url, headers=headers)).status == 200
        time_of_twin.pass_by(0.5)
        answer = await send(http, "POST", url, headers=headers)
        assert (answer.status, answer.json["error_code"]) == (401, "APIG.0301")
        assert "expires" in answer.json["error_msg"]


@pytest.mark.parametrize(("how", "code"), [("revoke", "APIG.0307"), ("expire", "APIG.0301")])
async def test_all_tokens_can_be_killed(
    http: aiohttp.ClientSession, twin: Twin, how: str, code: str
) -> None:
    """`/twin/revoke` and `/twin/expire` end every good token; a new login works at once."""
    tokens = [await token_of(http, twin) for _ in range(3)]
    answer = await send(http, "POST", f"{twin.url}/twin/{how}")
    assert list(answer.json.values()) == [3]
    for token in tokens:
        headers = {"X-Auth-Token": token}
        refused = await send(http, "POST", twin.service_url(ECHO_ID), headers=headers)
        assert (refused.status, refused.json["error_code"]) == (401, code)
    assert (await predict(http, twin)).status == 200
    assert twin.revoke_tokens() == 1
    assert twin.expire_tokens() == 0


async def test_new_token_leaves_the_old_one_good(http: aiohttp.ClientSession, twin: Twin) -> None:
    """Overlap is safe, as with the real cloud."""
    old = await token_of(http, twin)
    await token_of(http, twin)
    headers = {"X-Auth-Token": old}
    assert (await send(http, "POST", twin.service_url(ECHO_ID), headers=headers)).status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/v1/infers/{ECHO_ID}", 200),
        (f"/v2/infers/{ECHO_ID}", 200),
        (f"/v1/infers/{ECHO_ID}/", 200),
        (f"/v1/infers/{ECHO_ID}/a/b%2Fc?d=e", 200),
        (f"/v1/infers/{ECHO_ID}x", 404),
        ("/v1/infers/", 404),
        ("/v3/infers/" + ECHO_ID, 404),
        ("/", 404),
        ("/twin/", 404),
    ],
)
async def test_services_are_found_by_id_and_below(
    http: aiohttp.ClientSession, twin: Twin, path: str, status: int
) -> None:
    """Ids answer at their path and below it; all else is APIG.0101."""
    headers = {"X-Auth-Token": await token_of(http, twin)}
    answer = await send(http, "POST", twin.url + path, headers=headers)
    assert answer.status == status
    if status == 404:
        assert answer.json["error_code"] == "APIG.0101"


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_limit_is_twelve_megabytes(
    http: aiohttp.ClientSession, twin: Twin, chunked: bool
) -> None:
    """12 MiB pass, one byte more is 413 `APIG.0201`, with a length or in chunks."""

    async def stream(size: int) -> AsyncIterator[bytes]:
        for start in range(0, size, 1 << 20):
            yield bytes(min(1 << 20, size - start))

    for size, status in ((MAX_BODY, 200), (MAX_BODY + 1, 413)):
        answer = await predict(
            http, twin, data=stream(size) if chunked else io.BytesIO(bytes(size))
        )
        assert answer.status == status
        if status == 413:
            assert answer.json["error_code"] == "APIG.0201"
        else:
            assert answer.json["body"]["bytes"] == size


async def test_announced_body_over_the_limit_is_refused_unread(twin: Twin) -> None:
    """413 comes on the head alone: no byte of the body was sent."""
    got, _ = await _raw_call(twin, "", announced=MAX_BODY + 1)
    assert got.startswith(b"HTTP/1.1 413")


async def test_header_limits_are_the_api_gateways(http: aiohttp.ClientSession, twin: Twin) -> None:
    """One field of 32 KB or 128 KB in all pass; more is 494."""
    largest = "x" * MAX_FIELD
    assert (await predict(http, twin, headers={"A": largest})).status == 200
    assert (await predict(http, twin, headers={"A": largest + "x" * 16})).status == 494
    three = dict.fromkeys("ABC", largest)
    assert (await predict(http, twin, headers=three)).status == 200
    answer = await predict(http, twin, headers={**three, "D": largest})
    assert (answer.status, answer.json["error_code"]) == (494, "APIG.0201")


# The services


def test_flowers_are_fishers() -> None:
    """150 flowers, 50 of a kind, with the two rows that other copies have wrong."""
    rows = flowers()
    assert len(rows) == 150
    assert [sum(s == name for _, s in rows) for name in ("setosa", "versicolor", "virginica")] == [
        50
    ] * 3
    assert rows[34] == ((4.9, 3.1, 1.5, 0.2), "setosa")
    assert rows[37] == ((4.9, 3.6, 1.4, 0.1), "setosa")
    # Means of the third and fourth feature as Fisher prints them, table 2.
    sums = [
        round(sum(p[2] for p, s in rows if s == name) / 50, 3) for name in ("setosa", "virginica")
    ]
    assert sums == [1.462, 5.552]


def test_iris_model_knows_its_flowers() -> None:
    """Five neighbours name 145 of the 150 right when each may count itself: it classifies."""
    assert sum(classify(point) == species for point, species in flowers()) == 145
    assert classify((5.1, 3.5, 1.4, 0.2)) == "setosa"
    assert classify((5.9, 2.8, 4.3, 1.3)) == "versicolor"
    assert classify((6.7, 3.1, 5.6, 2.3)) == "virginica"


async def test_iris_answers_the_manuals_json(http: aiohttp.ClientSession, twin: Twin) -> None:
    """One result per input, with the inputs and `predictresult`; the uuid comes back."""
    uuid = "10eb0091-887f-4839-9929-cbc884f1e20e"
    setosa = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
    body = {"meta": {"uuid": uuid}, "data": {"req_data": [FLOWER, setosa]}}
    answer = await predict(http, twin, IRIS_ID, json=body)
    assert answer.status == 200
    assert answer.headers["Server"] == "ModelArts"
    assert answer.headers["X-Request-Id"]
    assert answer.json["meta"] == {"uuid": uuid}
    first, second = answer.json["data"]["resp_data"]
    assert first == {**FLOWER, "predictresult": "versicolor"}
    assert second == {**setosa, "predictresult": "setosa"}


@pytest.mark.parametrize("meta", [{}, {"meta": {}}, {"meta": ""}, {"meta": {"uuid": ""}}])
async def test_uuid_is_blank_when_none_was_sent(
    http: aiohttp.ClientSession, twin: Twin, meta: dict[str, Any]
) -> None:
    """`meta` may be blank or missing."""
    body = {**meta, "data": {"req_data": [FLOWER]}}
    assert (await predict(http, twin, IRIS_ID, json=body)).json["meta"] == {"uuid": ""}


@pytest.mark.parametrize(
    ("given", "results"),
    [([5.1, 3.5, 1.4, 0.2], 1), (FLOWER, 1), ([FLOWER, FLOWER], 2), ([[1, 2, 3, 4]], 1)],
)
async def test_iris_answers_the_python_example_too(
    http: aiohttp.ClientSession, twin: Twin, given: Any, results: int
) -> None:
    """`{"input": …}` takes four numbers, a flower, or several; no `Content-Type` is needed."""
    answer = await predict(http, twin, IRIS_ID, data=json.dumps({"input": given}))
    assert answer.status == 200
    assert len(answer.json["data"]["resp_data"]) == results


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"data":[]}',
        b'{"data":{"req_data":[]}}',
        b'{"data":{"req_data":[7]}}',
        b'{"data":{"req_data":[{"sepal_length":1}]}}',
        b'{"input":[]}',
        b'{"input":[1,2,3]}',
        b'{"input":[1,2,3,true]}',
        b'{"input":[1,2,3,NaN]}',
        b'{"input":[1,2,3,"4"]}',
        b'{"input":[1,2,3,1' + b"0" * 400 + b"]}",
        b"[" * 100_000,
    ],
)
async def test_iris_refuses_other_bodies_in_the_vendors_shape(
    http: aiohttp.ClientSession, twin: Twin, body: bytes
) -> None:
    """400 `MR.0105` from the model, never a 500."""
    answer = await predict(http, twin, IRIS_ID, data=body)
    assert answer.status == 400
    assert set(answer.json) == {"error_code", "error_msg", "request_id"}
    assert answer.json["error_code"] == "MR.0105"
    assert answer.headers["Server"] == "ModelArts"


async def test_models_answer_post_only(http: aiohttp.ClientSession, twin: Twin) -> None:
    """`iris` and `image` say 405 to other methods; `echo` takes any."""
    for service, status in ((IRIS_ID, 405), (IMAGE_ID, 405), (ECHO_ID, 200)):
        assert (await predict(http, twin, service, method="GET")).status == status


def _form(content: bytes, content_type: str = "image/png", field: str = "images") -> Any:
    form = aiohttp.FormData()
    form.add_field("before", "1")
    form.add_field(field, content, filename="test.png", content_type=content_type)
    form.add_field("after", "2")
    return form


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


async def test_iris_refuses_files_and_says_where_to_send_them(
    http: aiohttp.ClientSession, twin: Twin
) -> None:
    """A form at `iris` is `MR.0105` with a hint."""
    answer = await predict(http, twin, IRIS_ID, data=_form(b"x"))
    assert (answer.status, answer.json["error_code"]) == (400, "MR.0105")
    assert "image service" in answer.json["error_msg"]


@pytest.mark.parametrize("content_type", ["image/png", "multipart/form-data", "x/y"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
async def test_image_looks_at_the_file_whatever_its_part_is_called(
    http: aiohttp.ClientSession, twin: Twin, content_type: str, kind: str
) -> None:
    """Format, size, colour and hash are those of the file sent, between other parts."""
    content = _file(Image.new("RGB", (30, 20), (40, 70, 210)), kind)
    answer = await predict(http, twin, IMAGE_ID, data=_form(content, content_type))
    assert answer.status == 200
    [result] = answer.json["data"]["resp_data"]
    assert (result["format"], result["width"], result["height"]) == (kind, 30, 20)
    assert result["label"] == "blue"
    assert all(abs(a - b) <= 2 for a, b in zip(result["mean_rgb"], (40, 70, 210), strict=True))
    assert result["bytes"] == len(content)
    assert result["sha256"] == hashlib.sha256(content).hexdigest()


async def test_image_refuses_what_is_no_picture(http: aiohttp.ClientSession, twin: Twin) -> None:
    """No form, no such field, no PNG or JPEG, a damaged one: all `MR.0105`."""
    png = _file(Image.new("RGB", (3, 3)), "PNG")
    for data in (b"{}", _form(png, field="image"), _form(b"GIF89a"), _form(png[:-20])):
        answer = await predict(http, twin, IMAGE_ID, data=data)
        assert (answer.status, answer.json["error_code"]) == (400, "MR.0105")


async def test_echo_tells_what_arrived_but_not_the_token(
    http: aiohttp.ClientSession, twin: Twin
) -> None:
    """Method, raw target, all fields in order, body length and hash, of the bytes on the wire."""
    token = await token_of(http, twin)
    body = gzip.compress(b"abc")
    answer = await send(
        http,
        "PATCH",
        URL(twin.service_url(ECHO_ID) + "/%7Ea%2f/..;b?q=%41&r", encoded=True),
        headers=[
            ("X-Auth-Token", token),
            ("X-Two", "1"),
            ("X-Two", "2"),
            ("Content-Encoding", "gzip"),
        ],
        data=body,
    )
    seen = answer.json
    assert seen["method"] == "PATCH"
    assert seen["target"] == f"/v1/infers/{ECHO_ID}/%7Ea%2f/..;b?q=%41&r"
    fields = [tuple(field) for field in seen["headers"]]
    assert [f for f in fields if f[0].lower() == "x-two"] == [("X-Two", "1"), ("X-Two", "2")]
    print_of_token = "sha256:" + hashlib.sha256(token.encode()).hexdigest()[:16]
    assert ("X-Auth-Token", print_of_token) in fields
    assert token not in answer.body.decode()
    assert seen["body"] == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}


# Faults of the services


@pytest.mark.parametrize(
    ("query", "status", "answered_by"),
    [
        ("twin-code=APIG.0202", 502, ("api-gateway", "APIG.0202")),
        ("twin-status=503&twin-code=APIG.0202", 503, ("api-gateway", "APIG.0202")),
        ("twin-code=ModelArts.4503", 500, ("ModelArts", "ModelArts.4503")),
        ("twin-status=401&twin-code=MR.0100", 401, ("ModelArts", "MR.0100")),
        ("twin-status=401", 401, ("ModelArts", None)),
        ("twin-status=201&twin-retry-after=9", 201, ("ModelArts", None)),
    ],
)
async def test_any_status_and_code_on_request(
    http: aiohttp.ClientSession,
    twin: Twin,
    *,
    query: str,
    status: int,
    answered_by: tuple[str, str | None],
) -> None:
    """The layer that is asked for answers, in its own shape; the good token changes nothing."""
    answer = await predict(http, twin, IRIS_ID, "?" + query)
    assert answer.status == status
    assert (answer.headers["Server"], answer.json.get("error_code")) == answered_by
    assert answer.headers.get("Retry-After") == ("9" if "retry" in query else None)


async def test_answer_can_be_late(http: aiohttp.ClientSession, twin: Twin) -> None:
    """`twin-delay` waits before the head, and then the model answers."""
    started = asyncio.get_running_loop().time()
    assert (await predict(http, twin, tail="?twin-delay=100ms")).status == 200
    assert asyncio.get_running_loop().time() - started >= 0.1


async def test_hanging_call_ends_with_its_caller(http: aiohttp.ClientSession, twin: Twin) -> None:
    """No answer comes, and the twin can be stopped while callers wait."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await predict(http, twin, tail="?twin-hang")
    waiting = asyncio.create_task(predict(http, twin, tail="?twin-hang"))
    while twin.stats.services["echo"].calls < 2:  # noqa: ASYNC110  # a counter, not an event
        await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE_S):
        await twin.stop()
    with pytest.raises(aiohttp.ClientError):
        await waiting


async def _raw_call(twin: Twin, tail: str, announced: int = 3) -> tuple[bytes, bool]:
    """What comes back over the wire for a body of three bytes, and whether a reset ended it.

    Of a longer body nothing is sent, and only the first line of the answer is awaited.
    """
    async with aiohttp.ClientSession() as http:
        token = await token_of(http, twin)
    host, port = twin.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST /v1/infers/{ECHO_ID}{tail} HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {token}\r\n"
        f"Content-Length: {announced}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode() + (b"abc" if announced == 3 else b""))
    got = bytearray()
    was_reset = False
    try:
        while piece := await reader.read(65536):
            got += piece
            if announced != 3 and b"\r\n" in got:
                break
    except ConnectionResetError:
        was_reset = True
    writer.close()
    return bytes(got), was_reset


@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])  # their sockets differ
async def test_connection_is_reset_before_the_head(twin: Twin) -> None:
    """`twin-reset=head`: not one byte, then RST."""
    assert await _raw_call(twin, "?twin-reset=head") == (b"", True)


@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])  # their sockets differ
@pytest.mark.parametrize("framing", ["", "&twin-chunked"])
async def test_connection_is_reset_in_the_body(twin: Twin, framing: str) -> None:
    """`twin-reset=body`: a head that promises a whole body, some of it, RST."""
    got, was_reset = await _raw_call(twin, f"?twin-reset=body&twin-size=1000{framing}")
    assert was_reset
    # What has come before a reset is often lost in the receiver's kernel.
    assert b"0\r\n\r\n" not in got
    assert len(got.partition(b"\r\n\r\n")[2]) <= 520


@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])  # their sockets differ
async def test_cut_keeps_the_promised_length(twin: Twin) -> None:
    """`twin-cut=3`: full Content-Length, three bytes, FIN."""
    got, was_reset = await _raw_call(twin, "?twin-cut=3&twin-size=100")
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"content-length: 100" in head.lower()
    assert (body, was_reset) == (b"012", False)


@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])  # their sockets differ
async def test_cut_leaves_chunks_without_an_end(twin: Twin) -> None:
    """`twin-cut=3&twin-chunked`: one chunk, no last chunk, FIN."""
    got, was_reset = await _raw_call(twin, "?twin-cut=3&twin-size=100&twin-chunked")
    assert got.endswith(b"\r\n\r\n3\r\n012\r\n")
    assert not was_reset
    assert b"transfer-encoding: chunked" in got.lower()


async def test_chunked_answer_is_complete(twin: Twin) -> None:
    """`twin-chunked` alone frames the model's answer with chunks and ends them."""
    got, _ = await _raw_call(twin, "?twin-chunked")
    assert got.endswith(b"\r\n0\r\n\r\n")
    assert b"\r\ncontent-length" not in got.lower()


async def test_slow_answer_comes_in_pieces(http: aiohttp.ClientSession, twin: Twin) -> None:
    """`twin-slow=100B/20ms` with 300 bytes takes two pauses, and every byte comes."""
    started = asyncio.get_running_loop().time()
    answer = await predict(http, twin, tail="?twin-slow=100B/20ms&twin-size=300")
    assert asyncio.get_running_loop().time() - started >= 0.04
    assert answer.body == (b"0123456789abcdef" * 19)[:300]


async def test_large_answer_has_the_size_asked_for(http: aiohttp.ClientSession, twin: Twin) -> None:
    """`twin-size` at 0, 1, and beyond any buffer."""
    for size in (0, 1, 65536, 5_000_001):
        answer = await predict(http, twin, tail=f"?twin-size={size}")
        assert len(answer.body) == size
        assert answer.headers["Content-Length"] == str(size)


async def test_event_stream_is_streamed(http: aiohttp.ClientSession, twin: Twin) -> None:
    """`twin-sse=3` sends three events with a gap, chunked, and ends cleanly."""
    started = asyncio.get_running_loop().time()
    answer = await predict(http, twin, tail="?twin-sse=3&twin-gap=20ms")
    assert asyncio.get_running_loop().time() - started >= 0.04
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.body == b"".join(b'data: {"event":%d}\n\n' % n for n in range(3))


async def test_early_answer_comes_before_the_body(twin: Twin) -> None:
    """`twin-early` answers while the request's body is still owed."""
    async with aiohttp.ClientSession() as http:
        token = await token_of(http, twin)
    host, port = twin.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST /v1/infers/{ECHO_ID}?twin-early&twin-status=503 HTTP/1.1\r\nHost: x\r\n"
        f"X-Auth-Token: {token}\r\nContent-Length: 1000\r\n\r\nabc".encode()
    )
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 503")
    writer.close()
    assert twin.stats.services["echo"].predictions == 0


async def test_faults_for_the_next_calls_of_one_service(
    http: aiohttp.ClientSession, twin: Twin
) -> None:
    """A planned fault spoils so many calls of its service, and no others."""
    spoilt = {"faults": {"code": "APIG.0203"}, "service": "echo", "times": 2}
    await plan(http, twin, services=[spoilt])
    body = {"input": [1, 2, 3, 4]}
    assert (await predict(http, twin, IRIS_ID, json=body)).status == 200
    assert [(await predict(http, twin)).status for _ in range(3)] == [504, 504, 200]


async def test_planned_fault_without_service_or_times_spoils_all(
    http: aiohttp.ClientSession, twin: Twin
) -> None:
    """Until it is taken away."""
    await plan(http, twin, services=[{"faults": {"status": 503}}])
    for service in (IRIS_ID, ECHO_ID, IMAGE_ID, ECHO_ID):
        assert (await predict(http, twin, service)).status == 503
    await send(http, "DELETE", twin.url + "/twin/faults")
    assert (await predict(http, twin)).status == 200


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("twin-dealy=2s", "delay, hang"),
        ("twin-status=200000", "200 to 599"),
        ("twin-code=nonsense", "APIG.0202"),
        ("twin-code=APIG.9999", "status"),
        ("twin-reset=tail", "head"),
        ("twin-slow=0/1s", "1 to"),
        ("twin-delay=-1", "500ms"),
        ("twin-early=no", "no value"),
    ],
)
async def test_unknown_faults_in_a_call_are_refused(
    http: aiohttp.ClientSession, twin: Twin, query: str, hint: str
) -> None:
    """400 `Twin.UnknownFault` with what is known, from the twin itself."""
    answer = await predict(http, twin, tail="?" + query)
    assert (answer.status, answer.json["error_code"]) == (400, "Twin.UnknownFault")
    assert answer.headers["Server"] == "twin"
    assert hint in answer.json["error_msg"]


async def test_faults_need_a_good_token_first(http: aiohttp.ClientSession, twin: Twin) -> None:
    """Nobody gets past the API gateway with a fault, and no planned fault is used up."""
    await plan(http, twin, services=[{"faults": {"status": 503}, "times": 1}])
    url = twin.service_url(ECHO_ID) + "?twin-status=200"
    assert (await send(http, "POST", url)).status == 401
    assert (await predict(http, twin)).status == 503


# Statistics, life cycle


async def test_one_login_for_any_number_of_calls_can_be_seen(
    http: aiohttp.ClientSession, twin: Twin
) -> None:
    """`/twin/stats` tells logins, calls, rejections, predictions and statuses."""
    headers = {"X-Auth-Token": await token_of(http, twin)}
    await log_in(http, twin, WRONG)
    for _ in range(3):
        await send(http, "POST", twin.service_url(ECHO_ID), headers=headers)
    await send(http, "POST", twin.service_url(ECHO_ID))
    url = twin.url + "/twin/stats"
    assert (await send(http, "GET", url)).json == {
        "login_attempts": 2,
        "logins": 1,
        "login_status": {"201": 1, "401": 1},
        "services": {
            "echo": {
                "calls": 4,
                "rejected": 1,
                "predictions": 3,
                "status": {"200": 3, "401": 1},
            }
        },
        "tokens_good": 1,
    }
    cleared = (await send(http, "DELETE", url)).json
    assert (cleared["logins"], cleared["services"], cleared["tokens_good"]) == (0, {}, 1)


async def test_twins_share_nothing(http: aiohttp.ClientSession, twin: Twin) -> None:
    """A token of one cloud is unknown to another."""
    async with running_twin() as other:
        headers = {"X-Auth-Token": await token_of(http, twin)}
        assert (await send(http, "POST", other.service_url(ECHO_ID), headers=headers)).status == 401


async def test_twin_speaks_tls(http: aiohttp.ClientSession) -> None:
    """With a server's context the listener is HTTPS, resets included."""
    import ssl

    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    async with running_twin(ssl_context=server) as twin:
        assert twin.url.startswith("https://")
        token = (
            await send(http, "POST", twin.auth_url + "/auth/tokens", json=login_body(), ssl=client)
        ).headers["X-Subject-Token"]
        call = {"headers": {"X-Auth-Token": token}, "ssl": client}
        assert (await send(http, "POST", twin.service_url(ECHO_ID), **call)).status == 200
        with pytest.raises(aiohttp.ClientOSError):
            await send(http, "POST", twin.service_url(ECHO_ID) + "?twin-reset=head", **call)


async def test_twin_can_be_stopped_twice_and_refuses_a_taken_port() -> None:
    """Stopping is idempotent; a port in use is an `OSError` and leaves nothing behind."""
    async with running_twin() as first:
        second = Twin()
        with pytest.raises(OSError, match="address already in use"):
            await second.start(port=int(first.url.rpartition(":")[2]))
        await second.stop()
        await first.stop()


async def test_twin_writes_nothing_to_the_log(
    http: aiohttp.ClientSession, twin: Twin, caplog: pytest.LogCaptureFixture
) -> None:
    """Not for good calls, refusals, resets or hanging up."""
    caplog.set_level("DEBUG")
    await predict(http, twin)
    await _raw_call(twin, "?twin-reset=head")
    await _raw_call(twin, "?twin-cut=1")
    await send(http, "POST", twin.url + "/nowhere")
    assert [r for r in caplog.records if not r.name.startswith("asyncio")] == []


# Grammar of faults


def test_every_service_fault_can_be_asked_for() -> None:
    """Each known name parses with a fitting value and changes something."""
    values = {
        "delay": "1",
        "first-token": "1",
        "status": "500",
        "code": "APIG.0101",
        "retry-after": "1",
        "size": "1",
        "sse": "1",
        "gap": "1m",
        "slow": "1/1s",
        "cut": "0",
        "reset": "body",
    }
    for name in FAULT_NAMES:
        assert parse_faults({name: values.get(name, "")}) != Faults()
    assert faults_in_query("/x?a=1&twin-cut=0&xtwin-cut=y").cut == 0
    assert faults_in_query("/twin-cut=0?a=1") == Faults()


@pytest.mark.parametrize(
    ("text", "seconds"), [("2", 2), ("500ms", 0.5), ("1.5m", 90), ("0", 0), ("1h", 3600)]
)
def test_durations(text: str, seconds: float) -> None:
    """Numbers are seconds; ms, s, m and h are units."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "1d", "1 s", "1s\n", "inf", "1e3", "9999999"])
def test_other_durations_are_refused(text: str) -> None:
    """Nothing else is a duration."""
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


def test_iam_faults_have_distinct_names() -> None:
    """Names are what users type: lower case, with dashes."""
    assert all(fault == fault.lower() and " " not in fault for fault in IamFault)


# Forms


def _body(*parts: tuple[str, bytes], end: bytes = b"--B--\r\n") -> bytes:
    return (
        b"".join(
            f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
            + content
            + b"\r\n"
            for name, content in parts
        )
        + end
    )


def test_form_keeps_every_byte() -> None:
    """Line ends, dashes and near-boundaries in a file stay; preamble and epilogue go."""
    tricky = b"\r\n--b\r\n\r\n--\x00\r\n\n-B--\r\n"
    body = b"preamble\r\n" + _body(("a", tricky), ("b", b"")) + b"epilogue"
    parts = parse_form('multipart/form-data; boundary="B"', body)
    assert [(part.name, part.content) for part in parts] == [("a", tricky), ("b", b"")]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", _body(("a", b"1"))),
        ("multipart/form-data; boundary=", _body(("a", b"1"))),
        ("multipart/form-data; boundary=C", _body(("a", b"1"))),
        ("multipart/form-data; boundary=B", _body(("a", b"1"), end=b"")),
        ("multipart/form-data; boundary=B", b"--B\r\nno head end\r\n--B--"),
        ("multipart/form-data; boundary=B", b"--B\r\nA: b\r\n\r\nx\r\n--B--"),
        ("multipart/form-data; boundary=B", b""),
    ],
)
def test_broken_forms_are_refused(content_type: str, body: bytes) -> None:
    """No boundary, a wrong one, no end, no name: each says so."""
    with pytest.raises(FormError):
        parse_form(content_type, body)


def test_form_limit() -> None:
    """A hundred parts are read, one more is refused."""
    content_type = "multipart/form-data; boundary=B"
    many = [("a", b"1")] * MAX_PARTS
    assert len(parse_form(content_type, _body(*many))) == MAX_PARTS
    with pytest.raises(FormError):
        parse_form(content_type, _body(*many, ("a", b"1")))
