"""Method `oidc`: a token for an ID token that the cluster gives to the pod. No password anywhere.

Huawei Cloud IAM takes the ID token in one step, Keystone in two: federation, then a project. The
project's token ends when the federated one does, so each renewal begins with the ID token.

Sources: IAM "Obtaining a Token with an OpenID Connect ID Token"; keystoneauth1's
`v3.OidcAccessToken`; Keystone's OS-FEDERATION API.
"""

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
from gateway.identity.answer import (
    Answer,
    AskedProject,
    failure_of,
    grant_of,
    instant_of_date,
    is_for_project,
    is_json_error,
    subject_token_of,
    vendor_code_of,
    with_marks,
)
from gateway.identity.credential import Credential
from gateway.identity.http_client import IAM_REMEDY, HttpClient
from gateway.identity.id_token import Claims, claims_of
from gateway.identity.refresh import RefreshResult, expires_at, stale_at
from gateway.identity.source import Login, LoginError

_JSON = {"Content-Type": "application/json;charset=utf8"}
_CONNECT_S, _TOTAL_S = 2.0, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcLogin:
    """What there is to log in with."""

    auth_url: str
    """`…/v3`, without a final slash."""
    idp: str
    """Id of the identity provider."""
    protocol: str | None = None
    """None: IAM's one step; else Keystone's two."""
    project: str | None = None
    project_id: str | None = None
    """Goes before `project`."""
    project_domain: str | None = None
    read_token: Callable[[], SecretStr]
    """Called in a thread for each login. May raise `LoginError`."""

    @property
    def asked(self) -> AskedProject:
        """The project that the token must turn out to be for."""
        if self.project_id is not None:
            return AskedProject(id=self.project_id)
        return AskedProject(name=self.project, domain=self.project_domain)

    @property
    def first_url(self) -> URL:
        """Where the ID token goes."""
        if self.protocol is None:
            return URL(f"{self.auth_url.removesuffix('/v3')}/v3.0/OS-AUTH/id-token/tokens")
        path = f"OS-FEDERATION/identity_providers/{self.idp}/protocols/{self.protocol}/auth"
        return URL(f"{self.auth_url}/{path}")

    @property
    def tokens_url(self) -> URL:
        """Where a token for a project is asked for."""
        return URL(f"{self.auth_url}/auth/tokens").with_query("nocatalog=true")

    def scope(self) -> dict[str, Any]:
        """Return the project as IAM wants it."""
        if self.project_id is not None:
            return {"project": {"id": self.project_id}}
        named: dict[str, Any] = {"name": self.project}
        if self.project_domain is not None:
            named["domain"] = {"name": self.project_domain}
        return {"project": named}


class OidcSource:
    """Exchanges the ID token that is in the file at that moment for a project's token."""

    def __init__(
        self,
        login: OidcLogin,
        *,
        clock: Clock,
        wall_clock: Clock,
        random: Callable[[], float],
        tls: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        proxy: EgressProxy | None = None,
        total_timeout_s: float = _TOTAL_S,
    ) -> None:
        """Prepare; the arguments are those of `KeystoneSource`."""
        self._login = login
        self._clock = clock
        self._wall_clock = wall_clock
        self._random = random
        self._client = HttpClient(
            "IAM",
            remedy=IAM_REMEDY,
            tls=tls,
            server_hostname=server_hostname,
            proxy=proxy,
            connect_timeout_s=_CONNECT_S,
            total_timeout_s=total_timeout_s,
        )

    @property
    def account(self) -> Hashable:
        """See `CredentialSource`. IAM locks nobody for a wrong ID token, but asking is no cure."""
        login = self._login
        return ("oidc", login.auth_url, login.idp, login.protocol)

    async def cache_key(self) -> Hashable:
        """See `CredentialSource`: the account counts, not the ID token, which changes hourly."""
        return self._key_of(claims_of(await asyncio.to_thread(self._login.read_token)))

    async def shared_name(self, name: Callable[..., str]) -> tuple[str, str]:
        """See `SharedSource` in gateway/identity/fleet/source.py; all ID tokens of an account."""
        key = await self.cache_key()
        return name(repr(key)), name(repr(self.account))

    async def fetch(self) -> Login:
        """Log in; see `CredentialSource`."""
        token = await asyncio.to_thread(self._login.read_token)
        claims = claims_of(token)
        asked_at, asked_wall = self._clock(), self._wall_clock()
        answer = await self._present(token)
        wall_now = self._wall_clock()
        date = instant_of_date(answer.date)
        skew_s = None if date is None else (asked_wall + wall_now) / 2 - date
        try:
            if answer.status != 201:
                raise _refusal_of(answer, self._login, claims, wall_now=wall_now)
            if self._login.protocol is not None or not is_for_project(answer):
                answer = await self._ask_for_project(subject_token_of(answer))
                if answer.status != 201:
                    raise _project_refusal_of(answer, claims, wall_now=wall_now)
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
        return Login(credential, self._key_of(claims), grant.facts, skew_s)

    def _key_of(self, claims: Claims) -> Hashable:
        who = (claims.issuer, claims.subject, claims.audience)
        return (self.account, self._login.asked, who)

    async def _present(self, token: SecretStr) -> Answer:
        login, value = self._login, token.get_secret_value().strip()
        if login.protocol is not None:
            bearer = {"Authorization": f"Bearer {value}"}
            return await self._client.ask("POST", login.first_url, None, bearer)
        auth = {"auth": {"id_token": {"id": value}, "scope": login.scope()}}
        headers = _JSON | {"X-Idp-Id": login.idp}
        return await self._client.ask("POST", login.first_url, json.dumps(auth).encode(), headers)

    async def _ask_for_project(self, token: SecretStr) -> Answer:
        identity = {"methods": ["token"], "token": {"id": token.get_secret_value()}}
        auth = {"auth": {"identity": identity, "scope": self._login.scope()}}
        body = json.dumps(auth).encode()
        return await self._client.ask("POST", self._login.tokens_url, body, _JSON)


def _refusal_of(answer: Answer, login: OidcLogin, claims: Claims, *, wall_now: float) -> LoginError:
    """Return the error for an ID token that was not taken, with the remedy."""
    status = answer.status
    if 300 <= status < 400 and login.protocol is not None:
        text = (
            "IAM redirects to a login page: the web server before Keystone protects this path for "
            "browsers; let it take bearer tokens there (mod_auth_openidc: AuthType auth-openidc "
            "with OIDCOAuth…, or mod_oauth2)"
        )
        return LoginError(RefreshResult.BAD_REPLY, with_marks(text, answer))
    if status == 404:
        what = "protocol" if login.protocol is not None else "X-Idp-Id"
        text = f"IAM knows no such identity provider or {what}: check idp, protocol and auth_url"
        return LoginError(RefreshResult.BAD_REPLY, with_marks(text, answer))
    if status not in {400, 401, 403}:
        return failure_of(answer, wall_now=wall_now)
    result = RefreshResult.REFUSED
    if claims.expires_at is not None and claims.expires_at <= wall_now:
        ago_s = wall_now - claims.expires_at
        text = (
            f"the ID token has expired {ago_s:.0f} s ago: what writes id_token_file must rotate "
            "it, as the kubelet does with a projected token"
        )
        result = RefreshResult.BAD_REPLY  # a rotated one may be there at any moment
    elif login.protocol is None:
        text = (
            "IAM refuses the ID token: check that identity provider idp has its issuer and its "
            "keys, that its audience is the provider's client id, and that an identity conversion "
            "rule knows its subject"
        )
    elif is_json_error(answer):
        text = (
            "Keystone refuses the account: no mapping rule of the identity provider knows it; add "
            "one for its subject, and give its group a role in the project"
        )
    else:
        text = (
            "the web server before Keystone refuses the ID token: check that its audience is the "
            "client id there, its issuer the one that it trusts, and its keys the current ones"
        )
    return LoginError(
        result,
        with_marks(f"{text} ({claims})", answer),
        code=vendor_code_of(answer) or "",
        public=with_marks(text, answer),
    )


def _project_refusal_of(answer: Answer, claims: Claims, *, wall_now: float) -> LoginError:
    """Return the error for a project that was not given to an account that IAM knows."""
    if answer.status not in {400, 401, 403, 404}:
        return failure_of(answer, wall_now=wall_now)
    text = (
        "IAM refuses the project: check project or project_id and project_domain, and give the "
        "group that the account is mapped to a role in it"
    )
    return LoginError(
        RefreshResult.REFUSED,
        with_marks(f"{text} ({claims})", answer),
        is_scope=True,
        code=vendor_code_of(answer) or "",
        public=with_marks(text, answer),
    )
