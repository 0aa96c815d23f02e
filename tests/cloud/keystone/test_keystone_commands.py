"""`whoami`, `check --online` and `doctor` at a real Keystone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.serving import password_identity
from tests.support.keystone import DOMAIN, PROJECT, TOKEN_LIFE_S, Keystone, User

pytestmark = pytest.mark.timeout(300, func_only=True)


def run(
    folder: Path, *words: str, identity: dict[str, Any], url: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    config = folder / "gateway.yaml"
    settings = {
        "admin_listen": "127.0.0.1:1",  # nobody's, so that no gateway of this machine is asked
        "identities": {"default": identity},
        "services": {"iris": {"url": url}},
    }
    config.write_text(json.dumps(settings))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("GATEWAY_", "OS_"))}
    return subprocess.run(
        [sys.executable, "-m", "gateway", *words, "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=clean,
    )


def identity_of(keystone: Keystone, user: User, folder: Path, **changes: Any) -> dict[str, Any]:
    keys = {"username": user.name, "user_domain": DOMAIN, "project": PROJECT}
    return password_identity(
        keystone.auth_url, folder, **{**keys, "password": user.password, **changes}
    )


@pytest.mark.parametrize("method", ["password", "application_credential"])
def test_whoami_shows_whom_keystone_sees(keystone: Keystone, tmp_path: Path, method: str) -> None:
    """User, domain, project and roles of either method; the token only by length and mark."""
    user = keystone.new_user()
    if method == "password":
        who, identity = user.name, identity_of(keystone, user, tmp_path)
    else:
        who, secret = keystone.new_application_credential(user)
        (tmp_path / "secret").write_text(secret)
        identity = {"auth_url": keystone.auth_url, "method": method, "id": who}
        identity["secret_file"] = str(tmp_path / "secret")
    ran = run(tmp_path, "whoami", identity=identity, url=keystone.service_url("strict"))
    assert (ran.returncode, ran.stderr.count("Traceback")) == (0, 0), ran.stderr
    shown = {line[2:14].strip(): line[15:] for line in ran.stdout.splitlines()[1:]}
    assert shown["method"] == method
    assert (shown["user"], shown["domain"]) == (user.name, DOMAIN)
    assert (shown["project"], shown["project id"]) == (PROJECT, user.project_id)
    assert shown["roles"] == "reader"
    assert shown["expires in"] in {f"{left} s" for left in range(TOKEN_LIFE_S + 1)}
    assert shown["token"].partition(" bytes, fingerprint ")[0].isdigit()
    assert "gAAAA" not in ran.stdout + ran.stderr, "that is how its tokens begin"
    assert keystone.logins(who)[-1:] == [201]


@pytest.mark.parametrize("command", [("whoami",), ("check", "--online"), ("doctor",)])
@pytest.mark.parametrize("wrong", ["password", "user_domain", "project"])
def test_refusal_of_keystone_is_explained(
    keystone: Keystone, tmp_path: Path, command: tuple[str, ...], wrong: str
) -> None:
    """Keystone does not tell what was wrong, so all of it is named; one login, exit code 3."""
    user = keystone.new_user()
    changes = {"project_domain": DOMAIN, wrong: "wrong-canary"}
    identity = identity_of(keystone, user, tmp_path, **changes)
    ran = run(tmp_path, *command, identity=identity, url=keystone.service_url("strict"))
    assert ran.returncode == 3
    told = ran.stdout + ran.stderr
    assert "check username, user_domain, the secret, the project and the user's role" in told
    assert "canary" not in told
    assert keystone.logins(user.name) == [401]


def test_check_finds_nothing_wrong(keystone: Keystone, tmp_path: Path) -> None:
    """One line for the identity, one for the service, after one login."""
    user = keystone.new_user()
    identity = identity_of(keystone, user, tmp_path)
    ran = run(tmp_path, "check", "--online", identity=identity, url=keystone.service_url("strict"))
    assert ran.returncode == 0
    first, second, last = ran.stdout.splitlines()
    assert first.startswith(f"OK    identities.default  logged in as {user.name} of {DOMAIN} for ")
    assert second.startswith("OK    services.iris  connected to 127.0.0.1:")
    assert last.startswith("good: ")
    assert keystone.logins(user.name) == [201]


def test_doctor_finds_nothing_wrong(keystone: Keystone, tmp_path: Path) -> None:
    """Login, project and a service behind keystonemiddleware, after one login."""
    user = keystone.new_user()
    identity = identity_of(keystone, user, tmp_path)
    ran = run(tmp_path, "doctor", identity=identity, url=keystone.service_url("strict"))
    said = {tuple(line.split()[1:3]): line for line in ran.stdout.splitlines()[:-1]}
    assert ran.returncode == 0, ran.stdout
    assert f"for project {PROJECT} (id {user.project_id})" in said["identities.default", "scope"]
    assert said["services.iris", "probe"].startswith("OK ")
    assert "gAAAA" not in ran.stdout + ran.stderr, "that is how its tokens begin"
    assert keystone.logins(user.name) == [201]


def test_doctor_tells_a_token_that_the_service_does_not_take(
    keystone: Keystone, tmp_path: Path
) -> None:
    """As keystonemiddleware refuses it, or the application behind it."""
    (tmp_path / "token").write_text("gAAAAA-canary")
    identity = {"method": "file", "token_file": str(tmp_path / "token")}
    for kind in ("strict", "plain"):
        ran = run(tmp_path, "doctor", identity=identity, url=keystone.service_url(kind))
        assert ran.returncode == 3, ran.stdout
        assert "the token in token_file is rejected" in ran.stdout
        assert "canary" not in ran.stdout + ran.stderr
