"""What IAM's answer to a login means, and which responses are not valid. Pure: no I/O.

Sources: Keystone v3 "Password authentication with scoped authorization"; IAM "Obtaining a User
Token"; CVE-2026-44394 for why a life is taken from the answer and never assumed.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from gateway.identity.refresh import LONGEST_LIFE_S, RefreshResult
from gateway.identity.source import LoginError, TokenFacts, fingerprint, token_line

_CODE = re.compile(r"(?:[A-Z][A-Za-z]{1,15}\.)?[0-9]{1,8}")
_TRACE = re.compile(r"(?:req-)?[0-9A-Fa-f-]{8,40}")
# Codes and traces are logged: nothing that could be an echoed secret gets through these.

_REFUSED = (
    "IAM refuses the login and does not say why: "
    "check username, user_domain, the secret, the project and the user's role in it"
)
_PROJECT_REFUSED = (
    "IAM refuses the project: check project or project_id, project_domain and the user's role"
)
_BY_WORD = (
    # a word of IAM's message, the most telling one first: what it means
    ("project", _PROJECT_REFUSED),
    ("domain", "IAM refuses the domain: check user_domain and project_domain"),
    ("password", "IAM refuses the password: check the secret, then username and user_domain"),
)
_LOCKED = "IAM has locked the user after too many wrong logins: correct the secret, then wait"
_FORBIDDEN = "IAM forbids the login: check the user's state, its access mode and its project role"
_MALFORMED = "IAM cannot parse the login: check user_domain, project and project_domain"
_THROTTLED = "IAM throttles logins: wait, and find out who else logs in with this account"
_MOVED = (
    "IAM responds with a redirect, which is not followed, to protect the secret: check auth_url"
)
_NO_SUCH = "there is no IAM at this address: check auth_url, with or without /v3"
_FAILED = "IAM failed (5xx): wait, and check IAM's state and any proxy on the way"
_UNEXPECTED = "IAM responded with an unexpected status: check auth_url, and any proxy on the way"


@dataclass(frozen=True, slots=True)
class Answer:
    """The parts of IAM's HTTP response that matter, not yet validated."""

    status: int
    tokens: tuple[str, ...] = field(repr=False)
    """Values of all `X-Subject-Token` fields."""
    date: str | None = field(repr=False)
    retry_after: str | None = field(repr=False)
    trace: str | None = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AskedProject:
    """The project that a token was asked for; None where nothing was asked."""

    name: str | None = None
    id: str | None = None
    domain: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """A valid response: a token for the requested project, and how long it lives."""

    line: bytes = field(repr=False)
    life_s: float
    """Seconds from the moment of asking."""
    facts: TokenFacts


def instant_of_date(value: str | None) -> float | None:
    """Return the instant of an HTTP date (RFC 9110 section 5.6.7, fixed form only), or None."""
    if value is None:
        return None
    try:
        moment = datetime.strptime(value, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    except ValueError:
        return None
    return moment.timestamp()


def failure_of(answer: Answer, *, wall_now: float) -> LoginError:
    """Return the error for a response other than 201. `wall_now` is used if it has no date."""
    code = _vendor_code(answer.body)
    result, sentence = _meaning(answer.status, code, _said(answer.body))
    return LoginError(
        result,
        with_marks(sentence, answer),
        retry_after_s=_retry_after_s(answer, wall_now),
        is_scope=sentence is _PROJECT_REFUSED,
        code=code or "",
    )


def with_marks(sentence: str, answer: Answer) -> str:
    """Return `sentence` and what identifies the answer: status, code and trace."""
    known = [f"status {answer.status}"]
    if (code := vendor_code_of(answer)) is not None:
        known.append(f"code {code}")
    if answer.trace is not None and _TRACE.fullmatch(answer.trace):
        known.append(f"trace {answer.trace}")
    return f"{sentence} ({', '.join(known)})"


def vendor_code_of(answer: Answer) -> str | None:
    """Return the code of an error that is safe to show, or None."""
    return _vendor_code(answer.body)


def is_json_error(answer: Answer) -> bool:
    """Return whether an error has a body of IAM's own, and not a web server's before it."""
    return bool(_said(answer.body)) or _vendor_code(answer.body) is not None


def is_for_project(answer: Answer) -> bool:
    """Return whether a 201 brings a token for some project.

    Raises:
        LoginError: its body cannot be read; `BAD_REPLY`.
    """
    return bool(_mapping(_mapping(_json(answer.body).get("token")).get("project")))


def subject_token_of(answer: Answer) -> SecretStr:
    """Return the token in a 201, which may be for no project.

    Raises:
        LoginError: it must not be believed; `BAD_REPLY`.
    """
    if len(answer.tokens) != 1:
        raise _invalid(f"it has {len(answer.tokens)} X-Subject-Token fields")
    secret = SecretStr(answer.tokens[0])
    try:
        token_line(secret)
    except ValueError as error:
        raise _invalid(str(error)) from None
    return secret


def grant_of(answer: Answer, asked: AskedProject, *, wall_now: float) -> Grant:
    """Return what a 201 grants. `wall_now` (s) is used only if the answer tells no time at all.

    Raises:
        LoginError: it must not be believed; `BAD_REPLY` throughout.
    """
    secret = subject_token_of(answer)
    line = token_line(secret)
    token = _mapping(_json(answer.body).get("token"))
    expires = moment_of(token.get("expires_at"))
    issued = moment_of(token.get("issued_at"))
    if expires is None:
        raise _invalid("it has no expires_at that can be read")
    told = [issued.timestamp()] if issued is not None else []
    if (date := instant_of_date(answer.date)) is not None:
        # It leaves out up to a second; issued_at does not, unless it is of another answer.
        told.append(date if told and date <= told[0] + 1 else date + 1)
    # The later of the two: an IAM that hands out a token it made an hour ago has one hour less.
    life_s = expires.timestamp() - max(told, default=wall_now)
    if life_s <= 0:
        raise _invalid("its token has expired already")
    if life_s > LONGEST_LIFE_S:
        raise _invalid("its token is said to live for more than 31 days")
    project = _mapping(token.get("project"))
    _check_project(project, asked)
    user = _mapping(token.get("user"))
    roles = token.get("roles")
    facts = TokenFacts(
        length=len(answer.tokens[0]),
        fingerprint=fingerprint(secret),
        user=_shown(user.get("name")),
        domain=_shown(_mapping(user.get("domain")).get("name")),
        project=_shown(project.get("name")),
        project_id=_shown(project.get("id")),
        roles=tuple(
            shown
            for role in (roles[:50] if isinstance(roles, list) else ())
            if (shown := _shown(_mapping(role).get("name"))) is not None
        ),
        issued_at=issued,
        expires_at=expires,
    )
    return Grant(line, life_s, facts)


def _meaning(status: int, code: str | None, said: str) -> tuple[RefreshResult, str]:
    match status:
        case 400 | 401 | 403:
            return RefreshResult.REFUSED, _refusal(status, code, said)
        case 429:
            return RefreshResult.THROTTLED, _THROTTLED
        case 404:
            return RefreshResult.BAD_REPLY, _NO_SUCH
        case _ if 300 <= status < 400:
            return RefreshResult.BAD_REPLY, _MOVED
        case _ if status >= 500:
            return RefreshResult.BAD_REPLY, _FAILED
        case _:
            return RefreshResult.BAD_REPLY, _UNEXPECTED


def _refusal(status: int, code: str | None, said: str) -> str:
    """Choose the sentence with the remedy for a 400, 401 or 403."""
    if code == "IAM.0061":
        return _LOCKED
    if status == 400:
        return _MALFORMED
    if status == 403:
        return _FORBIDDEN
    for word, sentence in _BY_WORD:
        if word in said:
            return sentence
    return _REFUSED


def _check_project(project: Mapping[str, Any], asked: AskedProject) -> None:
    if not isinstance(project.get("id"), str):
        why = "its token is for no project: set project or project_id"
        raise _invalid(why, is_scope=True)
    domain = _mapping(project.get("domain"))
    for wanted, got in (
        (asked.id, project.get("id")),
        (asked.name, project.get("name")),
        (asked.domain, domain.get("name", asked.domain)),
    ):
        # Keystone looks names up without regard to case on some databases.
        if wanted is not None and not (
            isinstance(got, str) and got.casefold() == wanted.casefold()
        ):
            why = "its token is for another project than was asked for"
            raise _invalid(why, is_scope=True)


def _vendor_code(body: bytes) -> str | None:
    for value in _members(body, "error_code", "errorCode", "code"):
        code = str(value) if isinstance(value, int) else value
        if isinstance(code, str) and _CODE.fullmatch(code):
            return code
    return None


def _said(body: bytes) -> str:
    """Return IAM's message in lower case. For decisions only: it may quote what it was sent."""
    for value in _members(body, "error_msg", "errorMsg", "message"):
        if isinstance(value, str):
            return value.lower()
    return ""


def _members(body: bytes, *names: str) -> Iterator[object]:
    """Yield what an error says: `error_…`, `error…`, Keystone's `error.…`; each may be nested."""
    try:
        outer = _json(body)
    except LoginError:
        return
    for level in (outer, *(inner for inner in outer.values() if isinstance(inner, dict))):
        yield from (level[name] for name in names if name in level)


def _retry_after_s(answer: Answer, wall_now: float) -> float | None:
    value = answer.retry_after
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    until = instant_of_date(value)
    now = instant_of_date(answer.date)
    return None if until is None else until - (wall_now if now is None else now)


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        return _mapping(json.loads(body))
    except (ValueError, RecursionError):
        problem = _invalid("its body is not JSON")
    raise problem  # outside the handler: a JSONDecodeError carries the body


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def moment_of(value: object) -> datetime | None:
    """Return an instant as JSON writes it (ISO 8601 with an offset), in UTC, or None."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return None if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _shown(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    return "".join(char if char.isprintable() else "?" for char in value[:100])


def _invalid(why: str, *, is_scope: bool = False) -> LoginError:
    remedy = "" if is_scope else "; check auth_url, and any proxy on the way"
    text = f"IAM's response is invalid: {why}{remedy}"
    return LoginError(RefreshResult.BAD_REPLY, text, is_scope=is_scope)
