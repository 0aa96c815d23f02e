"""Logins by ID token at a real Keystone, with what mod_auth_openidc does in front of it."""

from pathlib import Path
from typing import Any

import pytest

from tests.cloud.serving import token_gateway, until
from tests.support.cluster import Cluster
from tests.support.keystone import DOMAIN, PROJECT, Keystone
from tests.unit.cli.conftest import Run, run  # noqa: F401  # a fixture

# Starting, let alone installing, is not a test's own time.
pytestmark = pytest.mark.timeout(300, func_only=True)

SUBJECT = "system:serviceaccount:demo:gateway"
CLIENT = """
import sys
from keystoneauth1 import session
from keystoneauth1.identity import v3
auth = v3.OidcAccessToken(
    auth_url=sys.argv[1], identity_provider="cce", protocol="openid", access_token=sys.argv[2],
    project_name=sys.argv[3], project_domain_name=sys.argv[4],
)
access = auth.get_access(session.Session())
print(access.username, access.project_name, *access.role_names)
"""


@pytest.fixture(scope="session")
def cluster(keystone: Keystone) -> Cluster:
    """A cluster whose service account `SUBJECT` may log in."""
    made = Cluster()
    keystone.trust_cluster(made, SUBJECT)
    return made


def identity_of(keystone: Keystone, folder: Path, token: str) -> dict[str, Any]:
    (folder / "new").write_text(token)
    (folder / "new").rename(folder / "id-token")
    return {
        "method": "oidc",
        "auth_url": keystone.auth_url,
        "idp": "cce",
        "protocol": "openid",
        "id_token_file": str(folder / "id-token"),
        "project": PROJECT,
        "project_domain": DOMAIN,
    }


async def test_a_service_account_calls_without_a_password(
    keystone: Keystone, cluster: Cluster, tmp_path: Path
) -> None:
    """Through renewals, each with the ID token of the moment; tokens live for 5 s here."""
    identity = identity_of(keystone, tmp_path, cluster.id_token(SUBJECT))
    async with token_gateway(keystone.service_url("strict"), identity) as gateway:
        await gateway.has_token(20)
        while gateway.logins(result="ok") < 3:
            identity_of(keystone, tmp_path, cluster.id_token(SUBJECT))
            assert (await gateway.call()).status == 200
        assert gateway.logins(trigger="secret_change") == 0


def test_keystones_own_client_agrees(
    keystone: Keystone,
    cluster: Cluster,
    run: Run,  # noqa: F811
    tmp_path: Path,
) -> None:
    """`keystoneauth1` and `whoami` get the same account, project and role for the same token."""
    token = cluster.id_token(SUBJECT)
    user, project, role = keystone.run_client(
        CLIENT, keystone.auth_url, token, PROJECT, DOMAIN
    ).split()
    services = {"a": {"url": keystone.service_url("strict")}}
    identity = identity_of(keystone, tmp_path, token)
    who = run("whoami", config={"identities": {"default": identity}, "services": services})
    assert who.code == 0
    rows = {line[2:14].strip(): line[15:] for line in who.lines[1:]}
    assert (rows["user"], rows["project"], rows["roles"]) == (user, project, role)
    assert user == SUBJECT


@pytest.mark.parametrize(
    "fault",
    [
        (SUBJECT, {"audience": "other"}, "check that its audience is the client id there"),
        ("system:serviceaccount:demo:other", {}, "no mapping rule of the identity provider knows"),
        (SUBJECT, {"life_s": -5}, "the ID token has expired "),
    ],
)
def test_what_keystone_refuses_is_said_in_words(
    keystone: Keystone,
    cluster: Cluster,
    run: Run,  # noqa: F811
    tmp_path: Path,
    fault: tuple[str, dict[str, Any], str],
) -> None:
    """A wrong audience, a foreign account, an expired token: 401, and what to do."""
    subject, changes, words = fault
    identity = identity_of(keystone, tmp_path, cluster.id_token(subject, **changes))
    services = {"a": {"url": keystone.service_url("strict")}}
    ran = run("whoami", config={"identities": {"default": identity}, "services": services})
    assert ran.code == 3
    assert "status 401" in ran.err
    assert words in ran.err


async def test_an_application_credential_is_found_by_its_name(
    keystone: Keystone, tmp_path: Path
) -> None:
    """With its user and his domain."""
    user = keystone.new_user()
    _, secret = keystone.new_application_credential(user)
    (tmp_path / "secret").write_text(secret)
    identity = {
        "method": "application_credential",
        "auth_url": keystone.auth_url,
        "name": "gateway",
        "username": user.name,
        "user_domain": DOMAIN,
        "secret_file": str(tmp_path / "secret"),
    }
    async with token_gateway(keystone.service_url("strict"), identity) as gateway:
        await until(lambda: gateway.credential is not None, 20)
        assert (await gateway.call()).status == 200
