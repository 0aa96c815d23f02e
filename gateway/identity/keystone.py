"""Logging in at Keystone v3 or Huawei Cloud IAM: one POST, one answer, nothing kept."""

import asyncio
import json
import ssl
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr
from yarl import URL

from gateway.clock import Clock
from gateway.http.connect import EgressProxy
from gateway.identity.answer import AskedProject, failure_of, grant_of, instant_of_date
from gateway.identity.credential import Credential
from gateway.identity.http_client import IAM_REMEDY, HttpClient
from gateway.identity.refresh import expires_at, stale_at
from gateway.identity.secret import digest
from gateway.identity.source import Login, LoginError

_HEADERS = {"Content-Type": "application/json;charset=utf8"}
_CONNECT_S = 2.0
_TOTAL_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordLogin:
    """Method `password`."""

    tokens_url: str
    """`…/v3/auth/tokens`, without a query."""
    username: str
    user_domain: str
    project: str | None = None
    project_id: str | None = None
    """Goes before `project`; one of the two must be set, or IAM decides by itself."""
    project_domain: str | None = None
    """Defaults to `user_domain`: real Keystone answers 400 to a name without a domain."""
    read_secret: Callable[[], SecretStr]
    """Called in a thread for each login. May raise `LoginError`."""

    @property
    def account(self) -> Hashable:
        """Whom IAM locks after wrong logins."""
        return ("password", self.tokens_url, self.user_domain, self.username)

    @property
    def asked(self) -> AskedProject:
        """The project that the token must turn out to be for."""
        if self.project_id is not None or self.project is None:
            return AskedProject(id=self.project_id)
        return AskedProject(name=self.project, domain=self.project_domain or self.user_domain)

    def auth(self, secret: SecretStr) -> dict[str, Any]:
        """Return the request's `auth` object, secret included: serialise it and let it go."""
        user = {
            "name": self.username,
            "password": secret.get_secret_value(),
            "domain": {"name": self.user_domain},
        }
        auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": user}}}
        asked = self.asked
        if asked.id is not None:
            auth["scope"] = {"project": {"id": asked.id}}
        elif asked.name is not None:
            auth["scope"] = {"project": {"name": asked.name, "domain": {"name": asked.domain}}}
        return auth


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationCredentialLogin:
    """Method `application_credential`: Keystone only; the credential decides the project."""

    tokens_url: str
    credential_id: str | None = None
    """None: it is known by its name, which needs its user's."""
    name: str | None = None
    username: str | None = None
    user_domain: str | None = None
    read_secret: Callable[[], SecretStr]
    """Called in a thread for each login. May raise `LoginError`."""

    @property
    def account(self) -> Hashable:
        """Whom IAM locks after wrong logins."""
        known_by = (self.credential_id, self.name, self.username, self.user_domain)
        return ("application_credential", self.tokens_url, *known_by)

    @property
    def asked(self) -> AskedProject:
        """Any project."""
        return AskedProject()

    def auth(self, secret: SecretStr) -> dict[str, Any]:
        """Return the request's `auth` object, secret included: serialise it and let it go."""
        credential: dict[str, Any] = {"secret": secret.get_secret_value()}
        if self.credential_id is not None:
            credential["id"] = self.credential_id
        else:
            credential["name"] = self.name
            credential["user"] = {"name": self.username, "domain": {"name": self.user_domain}}
        methods = ["application_credential"]
        return {"identity": {"methods": methods, "application_credential": credential}}


class KeystoneSource:
    """Methods `password` and `application_credential`; a new connection for each login.

    What it may do on the way is `HttpClient`'s to say.
    """

    def __init__(
        self,
        login: PasswordLogin | ApplicationCredentialLogin,
        *,
        clock: Clock,
        wall_clock: Clock,
        random: Callable[[], float],
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        proxy: EgressProxy | None = None,
        connect_timeout_s: float = _CONNECT_S,
        total_timeout_s: float = _TOTAL_S,
    ) -> None:
        """Prepare logins; `tls` None verifies against the system's authorities.

        `clock` counts lives; `wall_clock` (seconds since the epoch) is for people and gauges;
        `random` returns [0, 1); `server_hostname` is the name to verify instead of the URL's.
        """
        self._login = login
        self._url = URL(login.tokens_url).with_query("nocatalog=true")
        self._clock = clock
        self._wall_clock = wall_clock
        self._random = random
        self._client = HttpClient(
            "IAM",
            remedy=IAM_REMEDY,
            tls=tls,
            server_hostname=server_hostname,
            proxy=proxy,
            connect_timeout_s=connect_timeout_s,
            total_timeout_s=total_timeout_s,
        )

    @property
    def account(self) -> Hashable:
        """See `CredentialSource`."""
        return self._login.account

    async def cache_key(self) -> Hashable:
        """See `CredentialSource`."""
        return self._key_of(await asyncio.to_thread(self._login.read_secret))

    async def shared_name(self, name: Callable[..., str]) -> tuple[str, str]:
        """See `SharedSource` in gateway/identity/fleet/source.py."""
        secret = await asyncio.to_thread(self._login.read_secret)
        account = repr(self._login.account)
        return name(account, repr(self._login.asked), secret.get_secret_value()), name(account)

    async def fetch(self) -> Login:
        """Log in; see `CredentialSource`."""
        # Not under the time limit: a thread that hangs on a disk cannot be ended, and one is
        # better than one per attempt until name resolution has no thread left.
        secret = await asyncio.to_thread(self._login.read_secret)
        body = json.dumps({"auth": self._login.auth(secret)}).encode()
        asked_at, asked_wall = self._clock(), self._wall_clock()
        answer = await self._client.ask("POST", self._url, body, _HEADERS)
        wall_now = self._wall_clock()
        date = instant_of_date(answer.date)
        skew_s = None if date is None else (asked_wall + wall_now) / 2 - date
        try:
            if answer.status != 201:
                raise failure_of(answer, wall_now=wall_now)
            grant = grant_of(answer, self._login.asked, wall_now=wall_now)
        except LoginError as error:
            error.skew_s = skew_s
            raise
        end = expires_at(asked_at, grant.life_s)
        credential = Credential(
            grant.line,
            stale_at=stale_at(asked_at, grant.life_s, self._random()),
            expires_at=end,
            wall_expires_at=wall_now + (end - self._clock()),
        )
        return Login(credential, self._key_of(secret), grant.facts, skew_s)

    def _key_of(self, secret: SecretStr) -> Hashable:
        return (self._login.account, self._login.asked, digest(secret))
