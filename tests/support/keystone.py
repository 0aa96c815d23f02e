"""A real Keystone and services that ask it about tokens, in processes of their own.

Installed once into `.venv/keystone`, with a blank database beside it; started once per test run.
"""

import base64
import fcntl
import itertools
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.support.cluster import ISSUER, Cluster

PACKAGES = ("keystone==30.0.0", "keystonemiddleware==13.0.1", "waitress==3.0.2")
TOKEN_LIFE_S = 5
DOMAIN, PROJECT = "my-account", "region-1"

_HOME = Path(__file__).parents[2] / ".venv" / "keystone"
_INSTALL_S, _START_S = 1200, 120
_CONF = """\
[DEFAULT]
use_stderr = false
log_file = {folder}/keystone.log
[database]
connection = sqlite:///{folder}/keystone.db
[token]
provider = fernet
expiration = {life_s}
allow_expired_window = 0
caching = false
[cache]
enabled = true
backend = dogpile.cache.memory
[revoke]
caching = false
[auth]
methods = password,token,application_credential,mapped,openid
[openid]
remote_id_attribute = HTTP_OIDC_ISS
[identity]
password_hash_rounds = 4
[security_compliance]
lockout_failure_attempts = 5
lockout_duration = 900
[fernet_tokens]
key_repository = {folder}/fernet
[fernet_receipts]
key_repository = {folder}/fernet
[credential]
key_repository = {folder}/credential
"""


class KeystoneMissingError(Exception):
    """Keystone cannot be installed or started here; the text says why, in one line."""


@dataclass(frozen=True)
class User:
    """Somebody who may log in, and the project that is meant for him."""

    id: str
    name: str
    password: str
    project_id: str


class Keystone:
    """A running Keystone, its services, and an administrator's hand."""

    def __init__(self, folder: Path, life_s: int = TOKEN_LIFE_S) -> None:
        self._folder = folder
        self._life_s = life_s
        self._admin_password = secrets.token_urlsafe(12)
        self._numbers = itertools.count(1)
        self._session = requests.Session()
        self._session.trust_env = False
        self._identity: subprocess.Popen[bytes] | None = None
        self._services: subprocess.Popen[bytes] | None = None
        self._port, self._services_port = _free_port(), _free_port()
        self._project_id = ""
        self._domain_id = ""
        self._role_id = ""

    @property
    def auth_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v3"

    def service_url(self, name: str) -> str:
        """URL of the service `strict`, `cached`, `plain` or `forbidding`."""
        return f"http://127.0.0.1:{self._services_port}/v1/infers/{name}"

    def logins(self, name: str) -> list[int]:
        """Return the statuses of all logins by a user's name or a credential's id."""
        rows = (line.rsplit(" ", 1) for line in self._notes("logins"))
        return [int(status) for who, status in rows if who == name]

    def calls(self, since: int = 0) -> list[tuple[str, str, str]]:
        """Return service, token's fingerprint and verdict of the calls after the first `since`."""
        rows = (line.split(" ") for line in self._notes("calls")[since:])
        return [(service, mark, verdict) for service, mark, verdict in rows]

    def new_user(self) -> User:
        """Make a user with a role on the project."""
        name, password = f"infer-{next(self._numbers)}", secrets.token_urlsafe(12)
        user = {"name": name, "password": password, "domain_id": self._domain_id}
        made = self._admin("POST", "/users", {"user": user})["user"]
        path = f"/projects/{self._project_id}/users/{made['id']}/roles/{self._role_id}"
        self._admin("PUT", path)
        return User(made["id"], name, password, self._project_id)

    def new_application_credential(self, user: User) -> tuple[str, str]:
        """Make one of `user`'s; return its id and secret."""
        made = self._call(
            "POST",
            f"/users/{user.id}/application_credentials",
            {"application_credential": {"name": "gateway"}},
            self.token(user.name, user.password, DOMAIN, PROJECT),
        )["application_credential"]
        return made["id"], made["secret"]

    def trust_cluster(self, cluster: Cluster, subject: str) -> None:
        """Let an account of the cluster's log in by ID token, with a role on the project."""
        (self._folder / "cluster.pem").write_bytes(cluster.public_key)
        group = {"name": "workloads", "domain_id": self._domain_id}
        group_id = self._admin("POST", "/groups", {"group": group})["group"]["id"]
        self._admin("PUT", f"/projects/{self._project_id}/groups/{group_id}/roles/{self._role_id}")
        provider = {"enabled": True, "remote_ids": [ISSUER], "domain_id": self._domain_id}
        home = "/OS-FEDERATION/identity_providers/cce"
        self._admin("PUT", home, {"identity_provider": provider})
        remote = [
            {"type": "HTTP_OIDC_SUB"},
            {"type": "HTTP_OIDC_SUB", "any_one_of": [subject]},
        ]
        local = [{"user": {"name": "{0}"}, "group": {"id": group_id}}]
        rules = {"rules": [{"local": local, "remote": remote}]}
        self._admin("PUT", "/OS-FEDERATION/mappings/cce", {"mapping": rules})
        protocol = {"mapping_id": "cce"}
        self._admin("PUT", f"{home}/protocols/openid", {"protocol": protocol})

    def run_client(self, script: str, *arguments: str) -> str:
        """Run a script with what Keystone's own clients need; return what it prints."""
        done = subprocess.run(
            [str(_HOME / "bin" / "python"), "-I", "-c", script, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.strip()

    def change_password(self, user: User, password: str) -> None:
        """Change it as an administrator, which kills the user's tokens."""
        self._admin("PATCH", f"/users/{user.id}", {"user": {"password": password}})

    def revoke(self, token: str) -> None:
        """Revoke one token."""
        answer = self._session.delete(
            f"{self.auth_url}/auth/tokens",
            headers={"X-Auth-Token": self._admin_token(), "X-Subject-Token": token},
            timeout=60,
        )
        answer.raise_for_status()

    def token(self, name: str, password: str, domain: str, project: str) -> str:
        """Log in, not by the gateway."""
        user = {"name": name, "password": password, "domain": {"name": domain}}
        scope = {"project": {"name": project, "domain": {"name": domain}}}
        identity = {"methods": ["password"], "password": {"user": user}}
        answer = self._session.post(
            f"{self.auth_url}/auth/tokens",
            json={"auth": {"identity": identity, "scope": scope}},
            timeout=60,
        )
        answer.raise_for_status()
        return answer.headers["X-Subject-Token"]

    def start(self) -> None:
        """Start Keystone, the same one again after `stop`."""
        server = Path(__file__).with_name("keystone_server.py")
        self._identity = self._run(str(server), str(self._folder), str(self._port))
        _until_answered(f"{self.auth_url}/", self._identity)

    def stop(self) -> None:
        """Stop Keystone; the services go on and find nobody to ask."""
        _end(self._identity)
        self._identity = None

    def prepare(self) -> None:
        """Start everything on a copy of the blank database, with a domain, project and role."""
        shutil.copytree(_HOME / "blank", self._folder, dirs_exist_ok=True)
        _write_conf(self._folder, self._life_s)
        _manage(
            self._folder,
            "bootstrap",
            f"--bootstrap-password={self._admin_password}",  # it may begin with a dash
            "--bootstrap-public-url",
            self.auth_url,
            "--bootstrap-internal-url",
            self.auth_url,
            "--bootstrap-region-id",
            "here",
        )
        self.start()
        upstream = Path(__file__).with_name("keystone_upstream.py")
        self._services = self._run(
            str(upstream),
            str(self._folder),
            str(self._services_port),
            self.auth_url,
            self._admin_password,
        )
        domain = self._admin("POST", "/domains", {"domain": {"name": DOMAIN}})["domain"]
        self._domain_id = domain["id"]
        project = {"name": PROJECT, "domain_id": self._domain_id}
        self._project_id = self._admin("POST", "/projects", {"project": project})["project"]["id"]
        self._role_id = self._admin("GET", "/roles?name=reader")["roles"][0]["id"]
        _until_answered(self.service_url("strict"), self._services)

    def close(self) -> None:
        """Stop everything."""
        self.stop()
        _end(self._services)
        self._session.close()

    def _admin(self, method: str, path: str, body: Any = None) -> Any:
        return self._call(method, path, body, self._admin_token())

    def _admin_token(self) -> str:
        return self.token("admin", self._admin_password, "Default", "admin")

    def _call(self, method: str, path: str, body: Any, token: str) -> Any:
        answer = self._session.request(
            method,
            f"{self.auth_url}{path}",
            json=body,
            headers={"X-Auth-Token": token},
            timeout=60,
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def _notes(self, name: str) -> list[str]:
        path = self._folder / name
        return path.read_text().splitlines() if path.exists() else []

    def _run(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / "output").open("ab") as output:
            return subprocess.Popen(
                # -I: beside the scripts lies this module, which has the name of what they import
                [str(_HOME / "bin" / "python"), "-I", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )


@contextmanager
def running_keystone(
    folder: Path, say: Callable[[str], None], *, life_s: int = TOKEN_LIFE_S
) -> Iterator[Keystone]:
    """Install Keystone if that has not been done, start it, and stop it at the end.

    Args:
        folder: where it keeps everything; empty.
        say: is told in one line what takes long.
        life_s: of its tokens.

    Raises:
        KeystoneMissingError: it cannot be had.
    """
    _install(say)
    keystone = Keystone(folder, life_s)
    try:
        keystone.prepare()
        yield keystone
    finally:
        keystone.close()


def _install(say: Callable[[str], None]) -> None:
    """Make the environment and the blank database, once; a second test run waits for the first."""
    stamp = _HOME / "installed"
    wanted = "\n".join(PACKAGES)
    _HOME.parent.mkdir(exist_ok=True)
    with (_HOME.parent / "keystone.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return
        say(f"== Installing {PACKAGES[0]} for tests into .venv/keystone (first time only)")
        shutil.rmtree(_HOME, ignore_errors=True)
        _command([sys.executable, "-m", "venv", str(_HOME)], _INSTALL_S)
        pip = [str(_HOME / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        _command([*pip, "install", "--quiet", *PACKAGES], _INSTALL_S)
        blank = _HOME / "blank"
        for part in ("fernet", "credential"):
            (blank / part).mkdir(parents=True, mode=0o700)
            for number in ("0", "1"):  # the next key and the one in use
                (blank / part / number).write_bytes(base64.urlsafe_b64encode(os.urandom(32)))
        _write_conf(blank)
        _manage(blank, "db_sync")
        stamp.write_text(wanted)


def _write_conf(folder: Path, life_s: int = TOKEN_LIFE_S) -> None:
    (folder / "keystone.conf").write_text(_CONF.format(folder=folder, life_s=life_s))


def _manage(folder: Path, *arguments: str) -> None:
    manage = str(_HOME / "bin" / "keystone-manage")
    _command([manage, "--config-file", str(folder / "keystone.conf"), *arguments], _START_S)


def _command(arguments: list[str], limit_s: float) -> None:
    try:
        ended = subprocess.run(arguments, capture_output=True, timeout=limit_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KeystoneMissingError(f"{Path(arguments[0]).name}: {type(error).__name__}") from error
    if ended.returncode:
        lines = ended.stderr.decode(errors="replace").strip().splitlines()
        raise KeystoneMissingError(f"{Path(arguments[0]).name}: {lines[-1] if lines else 'failed'}")


def _until_answered(url: str, process: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + _START_S
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            requests.get(url, timeout=60)
        except requests.ConnectionError:
            time.sleep(0.05)
        else:
            return
    raise KeystoneMissingError(f"{url} does not answer")


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None:
        process.kill()  # nothing in it is worth a clean end, and connections are refused at once
        process.wait(100)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
