"""IAM's half of the cloud over HTTP: `/v3/auth/tokens`, with its answers, errors and faults."""

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web

from gateway.twin import wire
from gateway.twin.account import Account, identifier
from gateway.twin.federation import IDP, PROTOCOL, SUBJECT
from gateway.twin.iam_faults import ErrorShape, IamFault, IamFaultSpec, error_body
from gateway.twin.login import (
    Login,
    LoginRefusedError,
    decide_login,
    decide_scope,
    is_by_token,
    named_account,
)
from gateway.twin.reply import Reply, json_body
from gateway.twin.state import CloudState
from gateway.twin.tokens import Grant, Scope, Verdict

_SERVER = "api-gateway"
_SUBJECT = "X-Subject-Token"
_FEDERATION = "/v3/OS-FEDERATION/identity_providers/{idp}/protocols/{protocol}/auth"
_LARGE_TOKEN = 32768
_BIG_BODY = 2 << 20
_GOOD = IamFaultSpec(IamFault.SLOW)
_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in</body></html>"


class Iam:
    """Handlers of `/v3/auth/tokens`."""

    def __init__(self, state: CloudState) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        """Where the handlers answer; POST with or without `?nocatalog=true`."""
        path = "/v3/auth/tokens"
        return [
            web.post(path, self._create),
            web.get(path, self._show),  # HEAD too
            web.delete(path, self._revoke),
            web.post("/v3.0/OS-AUTH/id-token/tokens", self._take_id_token),
            web.post(_FEDERATION, self._federate),
        ]

    async def _create(self, request: web.Request) -> web.StreamResponse:
        stats = self._state.stats
        stats.login_attempts += 1
        spec = self._state.plan.take_iam() or _GOOD
        raw = await request.read()
        if spec.delay_s:
            await asyncio.sleep(spec.delay_s)
        if spec.fault is IamFault.HANG:
            await wire.hang()
        if spec.fault is IamFault.RESET:
            stats.login_status[0] += 1
            return wire.reset(request)
        reply = _planned_error(spec) or self._log_in(raw, spec, "nocatalog" in request.query)
        stats.login_status[reply.status] += 1
        return self._send(reply)

    async def _take_id_token(self, request: web.Request) -> web.Response:
        """Huawei Cloud's one step from an ID token to a project's token."""
        self._state.stats.login_attempts += 1
        try:
            auth = (await request.json()).get("auth", {})
            if request.headers.get("X-Idp-Id") != IDP:
                raise LoginRefusedError(404, "Could not find identity provider.")
            account = self._mapped(str(auth.get("id_token", {}).get("id", "")))
            scope = decide_scope(_named_here(auth.get("scope"), account), account)
        except (ValueError, AttributeError):
            return self._counted(_error(400, "IAM.0007", "The request body is not well formed."))
        except LoginRefusedError as error:
            return self._counted(_error(error.status, "IAM.0101", str(error), ErrorShape.VENDOR))
        login = Login(account, ("mapped",), scope)
        return self._counted(self._granted(login, _GOOD, nocatalog=True))

    async def _federate(self, request: web.Request) -> web.Response:
        """Keystone's first step: an ID token for a token without a project."""
        self._state.stats.login_attempts += 1
        names = request.match_info
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        try:
            if (names["idp"], names["protocol"]) != (IDP, PROTOCOL):
                raise LoginRefusedError(404, "Could not find federated protocol.")
            self._state.issuer.subject_of(token if scheme == "Bearer" else "", self._wall())
        except (ValueError, KeyError):
            return self._counted(Reply(401, _PAGE, "Apache", content_type="text/html"))
        except LoginRefusedError as error:
            if error.status == 404:
                return self._counted(_error(404, "IAM.0004", str(error)))
            # The web server's module rejects it before Keystone sees it.
            return self._counted(Reply(401, _PAGE, "Apache", content_type="text/html"))
        try:
            account = self._mapped(token)
        except LoginRefusedError as error:
            return self._counted(_error(error.status, "IAM.0101", str(error)))
        login = Login(account, ("openid",), Scope.NONE)
        return self._counted(self._granted(login, _GOOD, nocatalog=True))

    def _mapped(self, token: str) -> Account:
        """Return the account that an ID token's subject is mapped to."""
        if self._state.issuer.subject_of(token, self._wall()) != SUBJECT:
            raise LoginRefusedError(401, "The request you have made requires authentication.")
        return self._state.accounts[0]

    def _wall(self) -> float:
        return self._state.clock.wall().timestamp()

    def _counted(self, reply: Reply) -> web.Response:
        self._state.stats.login_status[reply.status] += 1
        return self._send(reply)

    def _rescope(self, body: Any) -> Reply:
        """Return a token for a project, made from another token; both expire together."""
        auth = body["auth"]
        verdict, grant = self._state.tokens.judge(str(auth["identity"]["token"].get("id")))
        if verdict is not Verdict.GOOD or grant is None:
            return _error(401, "IAM.0101", "The request you have made requires authentication.")
        try:
            scope = decide_scope(auth.get("scope"), grant.account)
        except LoginRefusedError as error:
            return _error(error.status, "IAM.0101", str(error))
        methods = tuple(dict.fromkeys(("token", *grant.methods)))
        return self._granted(Login(grant.account, methods, scope), _GOOD, True, until=grant)

    def _log_in(self, raw: bytes, spec: IamFaultSpec, nocatalog: bool) -> Reply:
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            return _error(400, "IAM.0007", "The request body is not JSON.")
        if is_by_token(body):
            return self._rescope(body)
        now = self._state.clock.monotonic()
        account = named_account(body, self._state.accounts)
        lockout = self._state.lockouts[account.user_id] if account else None
        if lockout and lockout.is_locked(now):
            return _locked()
        try:
            login = decide_login(body, self._state.accounts)
        except LoginRefusedError as error:
            if lockout and error.guesser:
                lockout.note_failure(now)
            code = "IAM.0101" if error.status == 401 else "IAM.0007"
            return _error(error.status, code, str(error))
        if lockout:
            lockout.note_success()
        return self._granted(login, spec, nocatalog)

    def _granted(
        self, login: Login, spec: IamFaultSpec, nocatalog: bool, *, until: Grant | None = None
    ) -> Reply:
        size = (spec.size or _LARGE_TOKEN) if spec.fault is IamFault.LARGE_TOKEN else None
        grant = self._state.tokens.issue(
            login.account, login.methods, login.scope, size, until=until
        )
        self._state.stats.logins += 1
        token = describe(grant)
        if not nocatalog:
            token["catalog"] = _catalog(login.account)
        body: dict[str, Any] = {"token": token}
        status, subject = 201, grant.token
        match spec.fault:
            case IamFault.OK_200:
                status = 200
            case IamFault.NO_TOKEN:
                return Reply(status, json_body(body), _SERVER)
            case IamFault.EMPTY_TOKEN:
                subject = ""
            case IamFault.BAD_TOKEN:
                subject = "MIIS\N{SNOWMAN}" + grant.token[4:]
            case IamFault.EXPIRED:
                token["expires_at"] = _stamp(grant.issued_at - timedelta(hours=1))
            case IamFault.FAR_EXPIRY:
                token["expires_at"] = "9999-12-31T23:59:59.000000Z"
            case IamFault.NO_EXPIRY:
                del token["expires_at"]
            case IamFault.BIG_BODY:
                body["padding"] = "x" * (spec.size or _BIG_BODY)
            case _:
                pass
        return Reply(status, json_body(body), _SERVER, headers=((_SUBJECT, subject),))

    async def _show(self, request: web.Request) -> web.StreamResponse:
        grant = self._subject(request)
        if isinstance(grant, Reply):
            return self._send(grant)
        token = describe(grant)
        if "nocatalog" not in request.query:
            token["catalog"] = _catalog(grant.account)
        body = json_body({"token": token})
        return self._send(Reply(200, body, _SERVER, headers=((_SUBJECT, grant.token),)))

    async def _revoke(self, request: web.Request) -> web.StreamResponse:
        grant = self._subject(request)
        if isinstance(grant, Reply):
            return self._send(grant)
        grant.is_revoked = True
        return self._send(Reply(204, b"", _SERVER))

    def _subject(self, request: web.Request) -> Grant | Reply:
        """The token that a request is about, or the refusal of that request."""
        verdict, _ = self._state.tokens.judge(request.headers.get("X-Auth-Token", ""))
        if verdict is not Verdict.GOOD:
            return _error(401, "IAM.0101", "The request you have made requires authentication.")
        verdict, grant = self._state.tokens.judge(request.headers.get(_SUBJECT, ""))
        if verdict is not Verdict.GOOD or grant is None:
            return _error(404, "IAM.0004", "Could not find token.")
        return grant

    def _send(self, reply: Reply) -> web.Response:
        request_id = wire.new_request_id()
        response = wire.whole(reply, request_id)
        response.headers["X-IAM-Trace-Id"] = "token_twin_null_" + request_id
        return response


def _named_here(scope: Any, account: Account) -> Any:
    """Return a scope with the account's domain: Huawei Cloud takes a project's bare name."""
    project = scope.get("project") if isinstance(scope, dict) else None
    if isinstance(project, dict) and "name" in project:
        return {"project": {"domain": {"name": account.domain}, **project}}
    return scope


def _planned_error(spec: IamFaultSpec) -> Reply | None:
    """The answer of a fault that needs no login; None for the others."""
    match spec.fault:
        case IamFault.UNAUTHORIZED:
            return _error(401, "IAM.0101", "The username or password is wrong.", spec.shape)
        case IamFault.LOCKED:
            return _locked()
        case IamFault.FORBIDDEN:
            message = "You are not authorized to perform the requested action."
            return _error(403, "IAM.0003", message, spec.shape)
        case IamFault.THROTTLED:
            reply = _error(429, "IAM.0012", "Too many requests.", ErrorShape.VENDOR)
            if spec.retry_after is None:
                return reply
            seconds = str(spec.retry_after)
            return Reply(429, reply.body, _SERVER, headers=(("Retry-After", seconds),))
        case IamFault.STATUS:
            return _error(spec.status or 500, "IAM.0006", "An internal error.", spec.shape)
        case IamFault.HTML:
            return Reply(spec.status or 200, _PAGE, "nginx", content_type="text/html")
        case _:
            return None


def _error(status: int, code: str, message: str, shape: ErrorShape = ErrorShape.KEYSTONE) -> Reply:
    return Reply(status, error_body(shape, status, code, message), _SERVER)


def _locked() -> Reply:
    return _error(401, "IAM.0061", "The account is locked for 15 minutes.", ErrorShape.VENDOR)


def describe(grant: Grant) -> dict[str, Any]:
    """The object `token` of the answer, without its catalog."""
    account = grant.account
    domain = {"id": account.domain_id, "name": account.domain}
    token: dict[str, Any] = {
        "methods": list(grant.methods),
        "issued_at": _stamp(grant.issued_at),
        "expires_at": _stamp(grant.expires_at),
        "user": {
            "id": account.user_id,
            "name": account.user,
            "domain": domain,
            "password_expires_at": "",
        },
    }
    if grant.scope is Scope.PROJECT:
        token["project"] = {"id": account.project_id, "name": account.project, "domain": domain}
    elif grant.scope is Scope.DOMAIN:
        token["domain"] = domain
    if grant.scope is not Scope.NONE:
        token["roles"] = [{"id": identifier("role", "te_admin"), "name": "te_admin"}]
    return token


def _catalog(account: Account) -> list[dict[str, Any]]:
    region = account.project
    return [
        {
            "type": kind,
            "name": kind,
            "id": identifier("service", kind),
            "endpoints": [
                {
                    "id": identifier("endpoint", kind),
                    "interface": "public",
                    "region": region,
                    "region_id": region,
                    "url": f"https://{kind}.{region}.example/{path}",
                }
            ],
        }
        for kind, path in (("iam", "v3"), ("modelarts", f"v1/{account.project_id}"))
    ]


def _stamp(instant: datetime) -> str:
    """The vendor's form: microseconds, and Z for UTC."""
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
