"""Checks signatures made with an access key (SDK-HMAC-SHA256), as an API gateway does. Pure.

Written from the vendor's description, not from the gateway's own signer: each tests the other.
"""

import hashlib
import hmac
import re
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from urllib.parse import quote, unquote

SCHEME = "SDK-HMAC-SHA256 "
LARGEST_SKEW_S = 900.0
_PARTS = re.compile(
    r"SDK-HMAC-SHA256 Access=([^, ]+), SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})"
)
_NEEDED = {"host", "x-sdk-date"}


class Judgement(Enum):
    """The result of checking a signature; the value is the API gateway's message."""

    GOOD = ""
    MALFORMED = "Incorrect IAM authentication information: authorization format is incorrect."
    UNKNOWN_KEY = "Incorrect IAM authentication information: AK not found."
    WRONG_TIME = "Incorrect IAM authentication information: signature expires."
    WRONG = "Incorrect IAM authentication information: verify aksk signature fail."
    WRONG_TOKEN = "Incorrect IAM authentication information: x-security-token is incorrect."  # noqa: S105
    LOCKED = (
        "Incorrect IAM authentication information: AK access failed to reach the limit, forbidden."
    )


class Attempts:
    """Locks an access key for 5 minutes after 5 wrong signatures. The caller passes `now`."""

    MAX_FAILURES = 5
    LOCKED_S = 300.0

    def __init__(self) -> None:
        self._failures: deque[float] = deque()
        self._locked_until = float("-inf")

    def is_locked(self, now: float) -> bool:
        """Return whether even a right signature is refused at `now`."""
        return now < self._locked_until

    def note(self, now: float, *, good: bool) -> None:
        """Count a signature; the fifth wrong one in a row locks."""
        if good:
            self._failures.clear()
            return
        self._failures.append(now)
        if len(self._failures) >= self.MAX_FAILURES:
            self._failures.clear()
            self._locked_until = now + self.LOCKED_S


def access_key_in(authorization: str) -> str:
    """Return the access key that a request names, or an empty text."""
    found = _PARTS.fullmatch(authorization)
    return found[1] if found else ""


def judge(
    method: str,
    target: str,
    fields: Sequence[tuple[str, str]],
    *,
    secret_key: str | None,
    security_token: str,
    now: datetime,
) -> Judgement:
    """Check the signature of a request whose body is not signed; return the result.

    Args:
        method: of the request.
        target: path and query as received.
        fields: names, in lower case, and values.
        secret_key: of the access key that it names; None: there is none such.
        security_token: that belongs to the key; empty for a permanent one.
        now: the time here.
    """
    values: Mapping[str, str] = dict(fields)
    found = _PARTS.fullmatch(values.get("authorization", ""))
    stamp = values.get("x-sdk-date", "")
    if not found or not _NEEDED <= set(names := found[2].split(";")) <= values.keys():
        return Judgement.MALFORMED
    if secret_key is None:
        return Judgement.UNKNOWN_KEY
    if values.get("x-security-token", "") != security_token:
        return Judgement.WRONG_TOKEN
    try:
        signed_at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return Judgement.MALFORMED
    if abs((now - signed_at).total_seconds()) > LARGEST_SKEW_S:
        return Judgement.WRONG_TIME
    if values.get("x-sdk-content-sha256") != "UNSIGNED-PAYLOAD":
        return Judgement.WRONG
    path, _, query = target.partition("?")
    request = "\n".join(
        [
            method,
            _path(path),
            _query(query),
            *(f"{name}:{values[name].strip()}" for name in names),
            "",
            found[2],
            "UNSIGNED-PAYLOAD",
        ]
    )
    text = f"SDK-HMAC-SHA256\n{stamp}\n{hashlib.sha256(request.encode()).hexdigest()}"
    right = hmac.new(secret_key.encode(), text.encode(), hashlib.sha256).hexdigest()
    return Judgement.GOOD if hmac.compare_digest(right, found[3]) else Judgement.WRONG


def _path(path: str) -> str:
    steps = [_encoded(step) for step in _decoded(path).split("/")]
    return "/".join(steps).rstrip("/") + "/"


def _query(query: str) -> str:
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    decoded = sorted((_decoded(name), _decoded(value)) for name, _, value in pairs if name)
    return "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in decoded)


def _decoded(text: str) -> str:
    return unquote(text, errors="surrogateescape")


def _encoded(text: str) -> str:
    return quote(text, safe="~", errors="surrogateescape")
