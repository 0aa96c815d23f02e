"""Logins by ID token at the stand-in cloud: Huawei Cloud's one step, and Keystone's two."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.twin import IRIS_ID, Account, Twin
from gateway.twin.federation import IDP, PROTOCOL, SUBJECT
from tests.cloud.serving import token_gateway, until
from tests.support.twin import running_twin, twin_in_thread
from tests.unit.cli.conftest import Ran, Run, run  # noqa: F401  # a fixture

ACCOUNT = Account()
FORMS = ("one step", "two steps")


def write_token(twin: Twin, folder: Path, **claims: Any) -> None:
    """Give the pod another ID token, as the kubelet does: at once, never half."""
    state = twin._state
    made = state.issuer.issue(state.clock.wall().timestamp(), **claims)
    (folder / "new").write_text(made)
    (folder / "new").rename(folder / "id-token")


def identity_of(twin: Twin, folder: Path, form: str, **changes: Any) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "method": "oidc",
        "auth_url": twin.auth_url,
        "idp": IDP,
        "id_token_file": str(folder / "id-token"),
        "project": ACCOUNT.project,
    }
    if form == "two steps":
        keys |= {"protocol": PROTOCOL, "project_domain": ACCOUNT.domain}
    return {key: value for key, value in (keys | changes).items() if value is not None}


def config_of(twin: Twin, identity: dict[str, Any]) -> dict[str, Any]:
    services = {"iris": {"url": twin.service_url(IRIS_ID)}}
    return {"identities": {"default": identity}, "services": services}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("by", ["name", "id"])
async def test_an_id_token_is_exchanged_for_a_projects_token(
    tmp_path: Path, form: str, by: str
) -> None:
    """By the project's name or id."""
    changes: dict[str, Any] = {}
    if by == "id":
        changes = {"project": None, "project_id": ACCOUNT.project_id, "project_domain": None}
    async with running_twin() as twin:
        write_token(twin, tmp_path)
        identity = identity_of(twin, tmp_path, form, **changes)
        async with token_gateway(twin.service_url(IRIS_ID), identity) as gateway:
            await gateway.has_token()
            assert (await gateway.call()).status == 200


@pytest.mark.parametrize("form", FORMS)
async def test_each_login_begins_with_the_id_token_of_the_moment(tmp_path: Path, form: str) -> None:
    """Tokens live for seconds here; a rotation is no change of secret, and costs no login."""
    async with running_twin(token_ttl_s=4.0) as twin:
        write_token(twin, tmp_path)
        identity = identity_of(twin, tmp_path, form)
        async with token_gateway(twin.service_url(IRIS_ID), identity) as gateway:
            await gateway.has_token()
            while gateway.logins(result="ok") < 4:
                write_token(twin, tmp_path)
                assert (await gateway.call()).status == 200
                await asyncio.sleep(0.05)
            assert gateway.logins(trigger="secret_change") == 0
            assert gateway.logins(trigger="startup") == 1


@pytest.mark.parametrize("form", FORMS)
async def test_a_revoked_token_is_replaced_within_the_call(tmp_path: Path, form: str) -> None:
    """As with a password."""
    async with running_twin() as twin:
        write_token(twin, tmp_path)
        identity = identity_of(twin, tmp_path, form)
        async with token_gateway(twin.service_url(IRIS_ID), identity) as gateway:
            await gateway.has_token()
            twin.revoke_tokens()
            assert (await gateway.call()).status == 200
            assert gateway.logins(trigger="rejected", result="ok") == 1


async def test_a_foreign_account_stops_the_logins_until_another_is_there(tmp_path: Path) -> None:
    """The account counts: a rotation of the same one changes nothing."""
    async with running_twin() as twin:
        write_token(twin, tmp_path, subject="system:serviceaccount:demo:other")
        identity = identity_of(twin, tmp_path, "two steps")
        async with token_gateway(twin.service_url(IRIS_ID), identity) as gateway:
            await until(lambda: gateway.logins(result="refused") == 1, 10)
            assert (await gateway.call()).status == 503
            assert gateway.gauge("gateway_identity_locked") == 1
            write_token(twin, tmp_path)
            await until(lambda: gateway.logins(trigger="secret_change", result="ok") == 1, 15)
            assert (await gateway.call()).status == 200


async def test_an_expired_id_token_is_tried_again_soon(tmp_path: Path) -> None:
    """The kubelet may have been late; nobody is locked out."""
    async with running_twin() as twin:
        write_token(twin, tmp_path, life_s=-5.0)
        identity = identity_of(twin, tmp_path, "one step")
        async with token_gateway(twin.service_url(IRIS_ID), identity) as gateway:
            await until(lambda: gateway.logins(result="bad_reply") >= 1, 10)
            write_token(twin, tmp_path)
            await gateway.has_token(15)
            assert gateway.gauge("gateway_identity_locked") == 0


Fault = tuple[str, dict[str, Any], dict[str, Any], str]
FAULTS: list[Fault] = [
    # form, claims of the ID token, changes of the identity, words of the remedy
    ("one step", {"subject": "other"}, {}, "an identity conversion rule knows its subject"),
    ("one step", {"audience": "other"}, {}, "its audience is the provider's client id"),
    ("one step", {}, {"idp": "other"}, "no such identity provider or X-Idp-Id: check idp"),
    ("one step", {}, {"project": "other"}, "IAM"),
    ("two steps", {"subject": "other"}, {}, "no mapping rule of the identity provider knows it"),
    ("two steps", {"audience": "other"}, {}, "check that its audience is the client id there"),
    ("two steps", {}, {"idp": "other"}, "no such identity provider or protocol: check idp"),
    ("two steps", {}, {"project": "other"}, "IAM refuses the project: check project"),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_doctor_has_a_remedy_for_each_refusal(
    run: Run,  # noqa: F811
    tmp_path: Path,
    fault: Fault,
) -> None:
    """It shows whom the ID token is about, never the token."""
    form, claims, changes, words = fault
    with twin_in_thread() as twin:
        write_token(twin, tmp_path, **claims)
        said = run("doctor", config=config_of(twin, identity_of(twin, tmp_path, form, **changes)))
    assert said.code == 3
    assert words in said.out
    assert_no_token(said, tmp_path)


def test_the_doctor_shows_the_claims(run: Run, tmp_path: Path) -> None:  # noqa: F811
    """Issuer, subject, audience and expiry."""
    with twin_in_thread() as twin:
        write_token(twin, tmp_path)
        said = run("doctor", config=config_of(twin, identity_of(twin, tmp_path, "one step")))
        who = run("whoami", config=config_of(twin, identity_of(twin, tmp_path, "two steps")))
    assert (said.code, who.code) == (0, 0)
    [line] = [line for line in said.out.splitlines() if "ID token: iss" in line]
    assert f"iss https://kubernetes.default.svc.cluster.local, sub {SUBJECT}, aud twin-c" in line
    assert " exp 20" in line
    assert "(in 59 min" in line or "(in 1 h)" in line
    assert ACCOUNT.user in who.out
    assert_no_token(said, tmp_path)
    assert_no_token(who, tmp_path)


def test_an_expired_id_token_is_named_before_anybody_is_asked(
    run: Run,  # noqa: F811
    tmp_path: Path,
) -> None:
    """The fault is on this machine."""
    with twin_in_thread() as twin:
        write_token(twin, tmp_path, life_s=-600.0)
        said = run("doctor", config=config_of(twin, identity_of(twin, tmp_path, "one step")))
        attempts = twin.stats.login_attempts
    assert (said.code, attempts) == (2, 0)
    assert "the ID token has expired 10 min" in said.out


@pytest.mark.parametrize("content", ["", "no jwt", "a.b.c"])
def test_check_names_what_is_no_id_token(run: Run, tmp_path: Path, content: str) -> None:  # noqa: F811
    """Offline."""
    (tmp_path / "id-token").write_text(content)
    identity = {
        "method": "oidc",
        "auth_url": "http://127.0.0.1:1",
        "idp": "cce",
        "project_id": "p",
        "id_token_file": str(tmp_path / "id-token"),
    }
    services = {"iris": {"url": "http://127.0.0.1:1/x"}}
    ran = run("check", config={"identities": {"default": identity}, "services": services})
    assert ran.code == 2
    assert "identities.default.id_token_file: " in ran.err


def assert_no_token(ran: Ran, folder: Path) -> None:
    """Neither the whole of it nor its signature."""
    token = (folder / "id-token").read_text()
    assert token not in ran.out + ran.err
    assert token.rpartition(".")[2] not in ran.out + ran.err
