"""Requests to the token endpoint, and its responses. Pure: no I/O, no clock."""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Final

from gateway.errors import DownstreamError, ErrorCode
from gateway.http.request_head import RequestHead
from gateway.identity.credential import Credential

FRESH_S: Final = 5
"""Seconds for which a data plane may cache a response."""

_PREFIX: Final = b"/auth/"
_REPORT: Final = b"rejected"
_FINGERPRINT: Final = re.compile(rb"(?:fingerprint=)?([0-9a-f]{8})[0-9a-f]{0,56}")
_JSON_FINGERPRINT: Final = re.compile(
    rb'\{\s*"fingerprint"\s*:\s*"([0-9a-f]{8})[0-9a-f]{0,56}"\s*\}'
)


@dataclass(frozen=True, slots=True)
class Question:
    """What a request to the endpoint asks for."""

    service: str
    is_report: bool
    """True for a report that a service has rejected a token; False for a request for one."""
    query: bytes
    as_json: bool
    """True if the token is to be written into the body as well."""


def question_in(head: RequestHead) -> Question:
    """Return what a request asks for.

    Only the service's name matters: data planes append their caller's path and query, and send its
    method and header fields.

    Raises:
        DownstreamError: a web page asks, or the path is not below `/auth/`.
    """
    if head.origin is not None or head.fetch_site is not None:
        raise DownstreamError(ErrorCode.BROWSER_REFUSED)
    path, _, query = head.line.target.partition(b"?")
    if not path.startswith(_PREFIX):
        raise DownstreamError(ErrorCode.UNKNOWN_SERVICE)
    name, _, tail = path.removeprefix(_PREFIX).partition(b"/")
    return Question(
        name.decode("latin-1"),
        is_report=head.line.method == "POST" and tail == _REPORT,
        query=query,
        as_json=any(_wants_json(line) for line in head.lines),
    )


def fingerprint_in(query: bytes, body: bytes) -> str:
    """Return the first 8 hex digits of the rejected token's SHA-256, as a report names it.

    It stands in the query or in the body, as `fingerprint=…`, alone, or in JSON; all 64 digits are
    taken as well.

    Raises:
        DownstreamError: there is none.
    """
    for text in (query, body.strip()):
        found = _FINGERPRINT.fullmatch(text) or _JSON_FINGERPRINT.fullmatch(text)
        if found:
            return found[1].decode()
    raise DownstreamError(ErrorCode.BAD_REQUEST, "a report without a fingerprint")


def granted(
    credential: Credential, fingerprint: str, *, now: float, as_json: bool, close: bool
) -> bytes:
    """Return the response that contains a credential.

    Args:
        credential: usable at `now`.
        fingerprint: of its token, empty if there is none.
        now: on the clock of the credential.
        as_json: write a body, too.
        close: the connection ends with this response.
    """
    fresh_s = max(0, int(min(FRESH_S, credential.expires_at - now)))
    body = _json_of(credential) if as_json else b""
    lines = [
        b"HTTP/1.1 200 OK",
        b"X-Accel-Expires: %d" % fresh_s,  # first: nginx does not cache a private response
        b"Cache-Control: private, max-age=%d" % fresh_s,
        b"Content-Length: %d" % len(body),
    ]
    if fingerprint:
        lines.append(b"X-Token-Fingerprint: %b" % fingerprint.encode())
    if as_json:
        lines.append(b"Content-Type: application/json")
    if close:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n" + credential.field_lines + b"\r\n" + body


def noted(*, renewing: bool, close: bool) -> bytes:
    """Return the response to a report: whether another token is available or being obtained."""
    body = json.dumps({"renewing": renewing}).encode()
    ending = b"Connection: close\r\n" if close else b""
    return (
        b"HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n%b\r\n%b" % (len(body), ending, body)
    )


def _json_of(credential: Credential) -> bytes:
    line = credential.field_lines.partition(b"\r\n")[0]
    expires = None
    if credential.wall_expires_at < inf:
        instant = datetime.fromtimestamp(credential.wall_expires_at, UTC)
        expires = f"{instant:%Y-%m-%dT%H:%M:%SZ}"
    token = line.partition(b":")[2].strip().decode("ascii")
    return json.dumps({"token": token, "expires_at": expires}).encode()


def _wants_json(line: bytes) -> bool:
    name, _, value = line.partition(b":")
    return name.lower() == b"accept" and b"application/json" in value.lower()
