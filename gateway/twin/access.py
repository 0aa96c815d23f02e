"""Who may call a real-time service: a token, an API key, an AppCode or a signature. No I/O.

Old services (`/v1/infers`) take a token, an AppCode or a signature, new ones (`/v2/infers`) a token
or a key.
"""

import hmac
from collections.abc import Iterable

from aiohttp import web

from gateway.twin.reply import Reply, cloud_error, known_error
from gateway.twin.signature import SCHEME, Attempts, Judgement, access_key_in, judge
from gateway.twin.state import CloudState
from gateway.twin.tokens import Scope, TokenStore, Verdict

APP_CODE = "X-Apig-AppCode"
_BEARER = "bearer "


def refusal_of(
    request: web.Request, state: CloudState, *, is_new: bool, request_id: str
) -> Reply | None:
    """Return the API gateway's error for a request's credential; None: it is accepted.

    Args:
        request: its path and header fields are read, its body is not.
        state: who is known, and what has been issued.
        is_new: the service is one of the new version, at `/v2/infers`.
        request_id: for the error.
    """
    fields = request.headers
    authorization = fields.get("Authorization", "")
    if authorization.lower().startswith(_BEARER):
        if not is_new:
            # The real one tries this field instead of the token, and fails.
            return known_error("APIG.0301", request_id)
        key = authorization[len(_BEARER) :]
        return _key_refusal(key, [a.api_key for a in state.accounts], "API key", request_id)
    if authorization.startswith(SCHEME) and not is_new:
        return _signature_refusal(request, state, authorization, request_id)
    if APP_CODE in fields and not is_new:
        codes = [account.app_code for account in state.accounts]
        return _key_refusal(fields[APP_CODE], codes, "AppCode", request_id)
    return _token_refusal(fields.getall("X-Auth-Token", ()), state.tokens, request_id)


def _signature_refusal(
    request: web.Request, state: CloudState, authorization: str, request_id: str
) -> Reply | None:
    access_key = access_key_in(authorization)
    now, wall_now = state.clock.monotonic(), state.clock.wall()
    attempts = state.signatures.setdefault(access_key, Attempts())
    issued = state.platform.keys.get(access_key)
    if attempts.is_locked(now):
        judgement = Judgement.LOCKED
    elif issued is not None and wall_now >= issued.expires_at:
        judgement = Judgement.UNKNOWN_KEY
    else:
        secrets = {account.access_key: account.secret_key for account in state.accounts}
        judgement = judge(
            request.method,
            request.raw_path,
            [
                (name.decode("latin-1").lower(), value.decode("latin-1"))
                for name, value in request.raw_headers
            ],
            secret_key=secrets.get(access_key) if issued is None else issued.secret_key,
            security_token="" if issued is None else issued.security_token,
            now=wall_now,
        )
        attempts.note(now, good=judgement is not Judgement.WRONG)
    if judgement is Judgement.GOOD:
        return None
    return cloud_error(401, "APIG.0301", judgement.value, request_id)


def _key_refusal(given: str, good: Iterable[str], what: str, request_id: str) -> Reply | None:
    if any(hmac.compare_digest(given.encode(), one.encode()) for one in good):
        return None
    message = f"Incorrect app authentication information: {what} not found or expired."
    return cloud_error(401, "APIG.0303", message, request_id)


def _token_refusal(given: Iterable[str], tokens: TokenStore, request_id: str) -> Reply | None:
    found = list(given)
    if len(found) != 1:
        what = "not found" if not found else "found more than once"
        message = f"Incorrect IAM authentication information: x-auth-token {what}."
        return cloud_error(401, "APIG.0301", message, request_id)
    verdict, grant = tokens.judge(found[0])
    if verdict is Verdict.REVOKED:
        return known_error("APIG.0307", request_id)
    if verdict is Verdict.EXPIRED and grant is not None:
        message = "Incorrect IAM authentication information: token expires."
        return cloud_error(401, "APIG.0301", message, request_id)
    if grant is None:
        return known_error("APIG.0301", request_id)
    if grant.scope is not Scope.PROJECT:
        return known_error("ModelArts.0207", request_id)
    return None
