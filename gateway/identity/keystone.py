"""Logging in at Keystone v3 or Huawei Cloud IAM: one POST, one answer, nothing kept."""

import asyncio
import json
import logging
import ssl
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr
from yarl import URL

from gateway.clock import Clock
from gateway.http.connect import EgressProxy
from gateway.identity.answer import AskedProject, failure_of, grant_of, instant_of_date
from gateway.identity.credential import Credential
from gateway.identity.http_client import IAM_REMEDY, HttpClient
from gateway.identity.passwords import PasswordMemory
from gateway.identity.refresh import RefreshResult, RefusalLedger, expires_at, stale_at
from gateway.identity.refusal_file import Recalled, RefusalFile
from gateway.identity.secret import digest
from gateway.identity.source import Login, LoginError

_LOG = logging.getLogger("gateway.identity")
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
    read_next_secret: Callable[[], SecretStr] | None = None
    """The same for a password to try when the first is refused; may return an empty one."""

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
    read_next_secret: None = None
    """Another secret is another credential, with an id of its own."""

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

    What it may do on the way is `HttpClient`'s to say. Invariant: IAM is asked twice only with two
    different passwords, the first of which it has refused, and where the ledger allows it.
    """

    def __init__(
        self,
        login: PasswordLogin | ApplicationCredentialLogin,
        *,
        clock: Clock,
        wall_clock: Clock,
        random: Callable[[], float],
        ledger: RefusalLedger | None = None,
        passwords: PasswordMemory | None = None,
        refusals: RefusalFile | None = None,
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        proxy: EgressProxy | None = None,
        connect_timeout_s: float = _CONNECT_S,
        total_timeout_s: float = _TOTAL_S,
    ) -> None:
        """Prepare logins; `tls` None verifies against the system's authorities.

        `clock` counts lives; `wall_clock` (seconds since the epoch) is for people and gauges;
        `random` returns [0, 1); `server_hostname` is the name to verify instead of the URL's.
        `ledger` and `passwords` are the account's, shared with other identities that log in to it;
        `refusals` remembers refused logins for processes to come; None: nobody does.
        """
        self._login = login
        self._ledger = RefusalLedger() if ledger is None else ledger
        self._passwords = PasswordMemory() if passwords is None else passwords
        self._refusals = refusals
        if login.read_next_secret is not None:
            self._ledger.one_at_a_time = True
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
        return self._key_of(self._passwords.in_order(await self._read_secrets())[0])

    async def shared_name(self, name: Callable[..., str]) -> tuple[str, str]:
        """See `SharedSource` in gateway/identity/fleet/source.py."""
        secrets = [one.get_secret_value() for one in await self._read_secrets()]
        account = repr(self._login.account)
        return name(account, repr(self._login.asked), *filter(None, secrets)), name(account)

    async def fetch(self) -> Login:
        """Log in; see `CredentialSource`."""
        secrets = await self._read_secrets()
        ordered = self._passwords.in_order(secrets)
        recalled = await self._recall(ordered)
        first, *others = _without_pause(ordered, recalled)
        try:
            login = await self._log_in(first)
        except LoginError as error:
            refusal = error
        else:
            if first is not ordered[0]:
                self._passwords.worked(secrets, first)
            return login
        if refusal.result is RefreshResult.REFUSED:
            await self._note_refusal(first)
        if refusal.result is not RefreshResult.REFUSED or refusal.is_scope or not others:
            raise refusal
        is_last = recalled.refusals + 1 >= RefusalLedger.LIMIT
        if is_last or not self._ledger.try_again(self._clock()):
            raise refusal
        try:
            login = await self._log_in(others[0])
        except LoginError as error:
            refusal = error
        else:
            self._note_switch(secrets, others[0])
            return login
        if refusal.result is RefreshResult.REFUSED:
            await self._note_refusal(others[0])
        raise refusal

    def _note_switch(self, secrets: Sequence[SecretStr], worked: SecretStr) -> None:
        self._passwords.worked(secrets, worked)
        _LOG.warning(
            "IAM refuses one of the passwords of %s and accepts the other, which is used from now "
            "on; write it into password_file, too",
            self._login.username,
        )

    async def _recall(self, secrets: Sequence[SecretStr]) -> Recalled:
        if self._refusals is None:
            return Recalled((0.0,) * len(secrets), 0)
        logins = [self._text_of(secret) for secret in secrets]
        return await asyncio.to_thread(self._refusals.recall, repr(self.account), logins)

    async def _note_refusal(self, secret: SecretStr) -> None:
        if self._refusals is not None:
            login = self._text_of(secret)
            await asyncio.to_thread(self._refusals.note, repr(self.account), login)

    def _text_of(self, secret: SecretStr) -> str:
        """Return all that IAM decides about."""
        return repr((self.account, self._login.asked, secret.get_secret_value()))

    async def _read_secrets(self) -> Sequence[SecretStr]:
        """Return what the files hold now, in their order."""
        # Not under the time limit: a thread that hangs on a disk cannot be ended, and one is
        # better than one per attempt until name resolution has no thread left.
        return await asyncio.to_thread(_secrets_of, self._login)

    async def _log_in(self, secret: SecretStr) -> Login:
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


def _secrets_of(login: PasswordLogin | ApplicationCredentialLogin) -> list[SecretStr]:
    read_next = login.read_next_secret
    return [login.read_secret(), *([] if read_next is None else [read_next()])]


def _without_pause(secrets: Sequence[SecretStr], recalled: Recalled) -> list[SecretStr]:
    """Return the secrets that may be tried now, at least one.

    Raises:
        LoginError: there is none.
    """
    pauses_s = recalled.pauses_s
    free = [one for one, pause_s in zip(secrets, pauses_s, strict=True) if pause_s <= 0]
    if free:
        return free
    raise LoginError(
        RefreshResult.REFUSED,
        "IAM has refused this login before the gateway was started, which state_dir remembers: "
        "correct user, project or secret; or wait, or remove the file in state_dir and restart, if "
        "it was corrected at IAM",
        retry_after_s=min(pauses_s),
        is_remembered=True,
    )
