"""Who may call a real-time service: a token, an API key or an AppCode. No I/O.

Old services (`/v1/infers`) take a token or an AppCode, new ones (`/v2/infers`) a token or a key.
"""

import hmac
from collections.abc import Iterable

from aiohttp import web

from gateway.twin.account import Account
from gateway.twin.reply import Reply, cloud_error, known_error
from gateway.twin.tokens import Scope, TokenStore, Verdict

APP_CODE = "X-Apig-AppCode"
_BEARER = "bearer "


def refusal_of(
    request: web.Request,
    *,
    is_new: bool,
    tokens: TokenStore,
    accounts: Iterable[Account],
    request_id: str,
) -> Reply | None:
    """Return what the API gateway has against a request's credential; None: it may pass.

    Args:
        request: its head is looked at.
        is_new: the service is one of the new version, at `/v2/infers`.
        tokens: all that have been issued.
        accounts: whose keys are good.
        request_id: for the error.
    """
    fields = request.headers
    authorization = fields.get("Authorization", "")
    if authorization.lower().startswith(_BEARER):
        if not is_new:
            # The real one reads this field instead of the token's, and cannot.
            return known_error("APIG.0301", request_id)
        key = authorization[len(_BEARER) :]
        return _key_refusal(key, [a.api_key for a in accounts], "API key", request_id)
    if APP_CODE in fields and not is_new:
        return _key_refusal(fields[APP_CODE], [a.app_code for a in accounts], "AppCode", request_id)
    return _token_refusal(fields.getall("X-Auth-Token", ()), tokens, request_id)


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
