"""Decides whether a login is accepted: its user, its proof, its scope. No I/O, no clock.

As strict as Keystone: names need a domain, scopes must exist, application credentials bring
their own. Source: Keystone Identity API v3, "Password authentication with scoped authorization".
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gateway.twin.account import Account
from gateway.twin.tokens import Scope

WRONG_PASSWORD = "The username or password is wrong."  # noqa: S105  # a message, not a password


class LoginRefusedError(Exception):
    """The login is refused with `status`; the text is IAM's message."""

    def __init__(self, status: int, message: str, *, guesser: Account | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.guesser = guesser
        """The account whose secret was wrong: counts for its lock-out."""


@dataclass(frozen=True, slots=True)
class Login:
    """An accepted login."""

    account: Account
    methods: tuple[str, ...]
    scope: Scope


def named_account(body: Any, accounts: Iterable[Account]) -> Account | None:
    """Return the account that a login names, whatever its proof; None if it is unknown."""
    identity = _maybe(_maybe(body, "auth"), "identity")
    user = _maybe(_maybe(identity, "password"), "user")
    credential = _maybe(identity, "application_credential")
    for account in accounts:
        if _is_user(user, account) or _is_credential(credential, account):
            return account
    return None


def is_by_token(body: Any) -> bool:
    """Return whether a login asks for another scope of an existing token."""
    identity = _maybe(_maybe(body, "auth"), "identity")
    has_token = isinstance(_maybe(identity, "token"), dict)
    return _maybe(identity, "methods") == ["token"] and has_token


def decide_login(body: Any, accounts: Iterable[Account]) -> Login:
    """Decide on the JSON body of `POST /v3/auth/tokens`.

    Raises:
        LoginRefusedError: 400 for what is not well formed, 401 for what is wrong.
    """
    auth = _need(body, "auth")
    identity = _need(auth, "identity")
    methods = identity.get("methods")
    if not isinstance(methods, list) or not methods:
        raise LoginRefusedError(400, "Expecting to find methods in identity.")
    account = named_account(body, accounts)
    if methods == ["password"]:
        _check_password(identity, account)
    elif methods == ["application_credential"]:
        _check_credential(identity, account)
        if "scope" in auth:
            raise LoginRefusedError(401, "Application credentials cannot request a scope.")
    else:
        raise LoginRefusedError(401, "Attempted to authenticate with an unsupported method.")
    if account is None:  # for the type checker: the checks above have refused it
        raise LoginRefusedError(401, WRONG_PASSWORD)
    if methods == ["application_credential"]:
        return Login(account, ("application_credential",), Scope.PROJECT)
    return Login(account, ("password",), decide_scope(auth.get("scope"), account))


def _check_password(identity: dict[str, Any], account: Account | None) -> None:
    user = _need(_need(identity, "password"), "user")
    if "id" not in user:
        if "name" not in user:
            raise LoginRefusedError(400, "Expecting to find id or name in user.")
        _need_domain(user, "user")
    password = user.get("password")
    if not isinstance(password, str):
        raise LoginRefusedError(400, "Expecting to find password in user.")
    if account is None or not _equal(password, account.password):
        raise LoginRefusedError(401, WRONG_PASSWORD, guesser=account)


def _check_credential(identity: dict[str, Any], account: Account | None) -> None:
    credential = _need(identity, "application_credential")
    secret = credential.get("secret")
    if not isinstance(secret, str) or not isinstance(credential.get("id", ""), str):
        raise LoginRefusedError(400, "Expecting to find id and secret in application_credential.")
    if "id" not in credential:
        if not isinstance(credential.get("name"), str):
            raise LoginRefusedError(400, "Expecting to find id or name in application_credential.")
        user = _need(credential, "user")
        if "id" not in user:
            _need_domain(user, "user")
    if account is None or not _equal(secret, account.credential_secret):
        raise LoginRefusedError(401, WRONG_PASSWORD, guesser=account)


def decide_scope(scope: Any, account: Account) -> Scope:
    """Return the scope of the token; raises as `decide_login` does."""
    if scope is None or scope == "unscoped" or _maybe(scope, "unscoped") is not None:
        return Scope.NONE
    if not isinstance(scope, dict) or len(scope) != 1:
        raise LoginRefusedError(400, "Expecting to find exactly one scope.")
    if "domain" in scope:
        if not _is_domain(scope["domain"], account):
            raise LoginRefusedError(401, "Could not find domain.")
        return Scope.DOMAIN
    project = _need(scope, "project")
    if "id" in project:
        if project["id"] != account.project_id:
            raise LoginRefusedError(401, "Could not find project.")
        return Scope.PROJECT
    if "name" not in project:
        raise LoginRefusedError(400, "Expecting to find id or name in project.")
    _need_domain(project, "project")
    if project["name"] != account.project or not _is_domain(project["domain"], account):
        raise LoginRefusedError(401, "Could not find project.")
    return Scope.PROJECT


def _need_domain(owner: dict[str, Any], what: str) -> None:
    domain = owner.get("domain")
    if not isinstance(domain, dict) or not ("id" in domain or "name" in domain):
        raise LoginRefusedError(400, f"Expecting to find domain in {what}.")


def _is_user(user: Any, account: Account) -> bool:
    if not isinstance(user, dict):
        return False
    if "id" in user:
        return bool(user["id"] == account.user_id)
    return user.get("name") == account.user and _is_domain(user.get("domain"), account)


def _is_credential(credential: Any, account: Account) -> bool:
    if not isinstance(credential, dict):
        return False
    if "id" in credential:
        return bool(credential["id"] == account.credential_id)
    is_named = credential.get("name") == account.credential_name
    return is_named and _is_user(credential.get("user"), account)


def _is_domain(domain: Any, account: Account) -> bool:
    if not isinstance(domain, dict):
        return False
    if "id" in domain:
        return bool(domain["id"] == account.domain_id)
    return bool(domain.get("name") == account.domain)


def _maybe(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _need(value: Any, key: str) -> dict[str, Any]:
    found = _maybe(value, key)
    if not isinstance(found, dict):
        raise LoginRefusedError(400, f"Expecting to find {key} in the request body.")
    return found


def _equal(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), right.encode())
