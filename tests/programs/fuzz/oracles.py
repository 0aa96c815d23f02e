"""What must hold of every exchange, on the exact bytes of both sides. Pure: returns problems."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from tests.programs.fuzz.gateway import TOKEN
from tests.programs.fuzz.strict import (
    Fields,
    MalformedError,
    PartialError,
    Request,
    Response,
    read_response,
)

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-connection te transfer-encoding upgrade trailer http2-settings "
    b"proxy-authenticate proxy-authorization proxy-authentication-info expect".split()
)
_IDENTITY = frozenset(
    b"authorization x-auth-token x-subject-token x-service-token x-security-token x-apig-appcode "
    b"apikey x-domain-id x-project-id cookie forwarded x-real-ip x-client-ip true-client-ip "
    b"x-http-method x-http-method-override x-method-override "
    b"x-identity-status x-service-identity-status x-roles x-service-roles x-role x-service-catalog "
    b"x-is-admin-project x-domain-name x-project-name x-project-domain-id x-project-domain-name "
    b"x-user-domain-id x-user-domain-name x-tenant-id x-tenant-name x-tenant".split()
)
_OURS = frozenset(b"host content-length transfer-encoding".split())
_JUDGED = frozenset(b"origin sec-fetch-site x-original-url x-rewrite-url".split())
_PREFIXES = (b"proxy-", b"x-sdk-", b"x-forwarded")
_NEVER_DOWNSTREAM = (_HOP_BY_HOP - {b"expect", b"connection", b"transfer-encoding"}) | {
    b"set-cookie", b"set-cookie2", b"x-auth-token", b"x-subject-token",
}  # fmt: skip
_REFUSALS = frozenset({400, 403, 404, 405, 413, 414, 417, 421, 431, 501, 505})
_FAILURES = frozenset({502, 504})


@dataclass(frozen=True)
class Place:
    """Where a case was run."""

    letter: str
    """Service `aaaa` at path `/v1/infers/aaa`."""
    upstream_port: int

    def here(self, data: bytes) -> bytes:
        """Return bytes written for service `iris`, for this place."""
        letter = self.letter.encode()
        data = data.replace(b"/iris", b"/" + letter * 4)
        data = data.replace(b"/v1/infers/abc", b"/v1/infers/" + letter * 3)
        return data.replace(b"127.0.0.1:00000", b"127.0.0.1:%05d" % self.upstream_port)

    @property
    def own_path(self) -> bytes:
        return b"/v1/infers/" + self.letter.encode() * 3

    def locations_of(self, value: bytes) -> set[bytes]:
        """Return what a Location may be to a caller that has asked for the service by name."""
        origin = rb"(?:[Hh][Tt][Tt][Pp]:)?//127\.0\.0\.1:%d" % self.upstream_port
        target = re.sub(rb"\A" + origin, b"", value)
        below = target.removeprefix(self.own_path)
        if not target.startswith(self.own_path):
            return {value}
        mapped = b"/" + self.letter.encode() * 4 + below
        plain = re.fullmatch(rb"(?:/[a-z]+)*", below)
        return {mapped} if plain else {mapped, value}

    def target_of(self, target: bytes) -> bytes | None:
        """Return the target to be asked of the service for a caller's; None if it is not ours."""
        target = re.sub(rb"\A[Hh][Tt][Tt][Pp]://[^/?]*", b"", target)  # absolute form
        path, mark, query = target.partition(b"?")
        for prefix in (b"/" + self.letter.encode() * 4, self.own_path):
            if path == prefix or path.startswith(prefix + b"/"):
                return self.own_path + path.removeprefix(prefix) + mark + query
        return None


@dataclass(frozen=True)
class Heard:
    """All that a caller has heard on one connection."""

    data: bytes
    ended: bool
    was_reset: bool


# What the upstream saw.


def judge_forwarded(place: Place, seen: Request, sent: Request) -> Iterable[str]:
    """Hold a request that the upstream saw whole against the one that the caller sent."""
    yield from judge_head(place, seen.target, seen.fields)
    if (seen.method, seen.body, seen.chunked) != (sent.method, sent.body, sent.chunked):
        yield "the upstream saw another method, body or framing"
    if seen.target != place.target_of(sent.target):
        yield f"the upstream saw target {seen.target!r} for {sent.target!r}"
    named = options_of(sent.values(b"connection"))
    passed = _without_ours(seen.fields)
    left = iter(sent.fields)
    for field in passed:
        if field not in left:  # consumes `left`: order counts
            yield f"field {field!r} is not the caller's, or out of order"
        if field[0].lower() in named:
            yield f"field {field!r} was named by Connection"
    for field in sent.fields:
        if field not in passed and not _may_be_dropped(field[0].lower(), named):
            yield f"field {field!r} was lost"


def judge_head(place: Place, target: bytes, fields: Fields) -> Iterable[str]:
    """Hold the head of a request, whole or broken off, against what no request may be."""
    yield from _judge_path(place, target.partition(b"?")[0])
    names = [name.lower() for name, _ in fields]
    values = {name: [value for other, value in fields if other.lower() == name] for name in names}
    if values.get(b"host") != [b"127.0.0.1:%d" % place.upstream_port]:
        yield f"Host is {values.get(b'host')!r}"
    if values.get(b"x-auth-token") != [TOKEN]:
        yield f"X-Auth-Token is {values.get(b'x-auth-token')!r}"
    if len(values.get(b"content-length", []) + values.get(b"transfer-encoding", [])) > 1:
        yield "more than one framing"
    for name in names:
        twin = re.sub(rb"[!#$%&'*+._`|~^]", b"-", name)
        if name not in {b"x-auth-token", b"transfer-encoding"} and _must_be_dropped(twin):
            yield f"field {name!r} went upstream"


def _must_be_dropped(twin: bytes) -> bool:
    return twin in _HOP_BY_HOP | _IDENTITY | _JUDGED or twin.startswith(_PREFIXES)


def _judge_path(place: Place, path: bytes) -> Iterable[str]:
    for _ in range(4):
        stack: list[bytes] = []
        for segment in re.split(rb"[/\\]", path):
            plain = segment.partition(b";")[0]
            if plain == b"..":
                del stack[-1:]
            elif plain not in {b"", b"."}:
                stack.append(segment)
        resolved = b"/" + b"/".join(stack)
        if not (resolved + b"/").startswith(place.own_path + b"/"):
            yield f"path {path!r} leaves the service"
        if re.search(rb"[\x00-\x1f\x7f#]", path):
            yield f"path {path!r} has what another server may end it at"
        path = unquote_to_bytes(path)


def options_of(values: Sequence[bytes]) -> set[bytes]:
    """Return the names that Connection values list."""
    return {option.strip(b" \t").lower() for value in values for option in value.split(b",")}


_REQUEST_ID = re.compile(rb"\b[0-9a-f]{12}-\d+\b")


def _without_ours(fields: Fields) -> Fields:
    """Return the fields that the caller must have sent."""
    passed = [
        field for field in fields if field[0].lower() not in _OURS and field[0] != b"X-Auth-Token"
    ]
    passed.remove((b"Via", b"1.1 modelarts-gateway"))
    return passed


def _may_be_dropped(name: bytes, named: set[bytes]) -> bool:
    twin = re.sub(rb"[!#$%&'*+._`|~^]", b"-", name)  # every separator that a server may fold
    return name in named or twin in _OURS or _must_be_dropped(twin)


# What the caller got.


def judge_refusal(place: Place, response: Response, *, with_body: bool) -> Iterable[str]:
    """Hold an error of ours against its shape."""
    head = b"\r\n".join(b": ".join(field) for field in response.fields)
    whole = _REQUEST_ID.sub(b"", head + response.body)  # a request id may hold a port's digits
    for secret in (TOKEN, b"%d" % place.upstream_port, b"127.0.0.1", b"stolen", b"/v1/infers"):
        if secret in whole:
            yield f"an error of ours says {secret!r}"
    if len(response.values(b"proxy-status")) != 1 or len(response.values(b"x-request-id")) != 1:
        yield "an error without Proxy-Status or X-Request-Id"
    if with_body:
        try:
            document = json.loads(response.body)
        except ValueError:
            yield f"an error whose body is {response.body[:200]!r}"
        else:
            if set(document) != {"error_code", "error_msg", "request_id"}:
                yield f"an error of another shape: {document}"


def judge_any(response: Response) -> Iterable[str]:
    """Hold a final response, whosever it is, against what none may have."""
    for name, value in response.fields:
        if name.lower() in _NEVER_DOWNSTREAM:
            yield f"the caller got {name!r}"
        if TOKEN in value or name.lower().startswith(b"access-control-allow"):
            yield f"the caller got {name!r}: {value!r}"
    if not set(response.values(b"connection")) <= {b"close", b"keep-alive"}:
        yield f"the caller got Connection {response.values(b'connection')!r}"
    if TOKEN in response.body:
        yield "the caller got the token"


def is_ours(response: Response) -> bool:
    """Say whether it is an error of ours."""
    return any(
        value.startswith(b"modelarts-gateway;") for value in response.values(b"proxy-status")
    )


def read_answers(
    heard: Heard, methods: Sequence[bytes], *, interim_allowed: bool
) -> tuple[list[Response], list[str]]:
    """Return the final responses of a connection, and what is wrong with its bytes.

    Args:
        heard: what the caller has heard.
        methods: of the requests, in order; for what is answered besides, any will do.
        interim_allowed: it may have been told to continue.
    """
    found: list[Response] = []
    at = 0
    while at < len(heard.data):
        to_head = len(found) < len(methods) and methods[len(found)] == b"HEAD"
        try:
            response, at = read_response(
                heard.data, at, to_head=to_head, ended=heard.ended, was_reset=heard.was_reset
            )
        except MalformedError as problem:
            return found, [f"the caller got {problem}"]
        except PartialError:
            return found, ["the caller got part of a head"] if heard.ended else []
        if response.status == 100 and interim_allowed and not response.fields:
            continue
        if response.status < 200:
            return found, [f"the caller got an interim response {response.status}"]
        found.append(response)
        if response.values(b"connection") == [b"close"] and at < len(heard.data):
            return found, ["the caller got bytes behind a last response"]
    return found, []


def judge_replies(
    place: Place,
    sent: Sequence[Request],
    seen: Sequence[Request],
    replies: Sequence[Response],
    rest: bytes,
) -> Iterable[str]:
    """Hold answers against requests: one each, in order, and each the answer to its own.

    Args:
        place: where.
        sent: whole requests, as a strict reader takes what the caller sent.
        seen: whole requests of the upstream, each answered with its number.
        replies: final responses the caller got.
        rest: what is no whole request, behind those.
    """
    refused_head = rest.startswith(b"HEAD")
    # A head that only the strict reader refuses is answered, and so is what stands behind it.
    if len(replies) > len(sent) + 1 + (b"\r\n\r\n" in rest):
        yield f"{len(replies)} responses to {len(sent)} requests"
    number = 0
    for index, reply in enumerate(replies):
        request = sent[index] if index < len(sent) else None
        yield from judge_any(reply)
        to_head = request.method == b"HEAD" if request else refused_head and not reply.body
        if not reply.whole and not to_head:
            yield f"response {index} is cut"
        elif is_ours(reply):
            yield from judge_refusal(place, reply, with_body=not to_head)
            if reply.status not in _REFUSALS:
                yield f"response {index} is {reply.status}: {reply.body!r}"
        elif request is None:
            yield f"response {index} answers what is no request"
        elif reply.values(b"x-number") != [b"%d" % number] or number >= len(seen):
            yield f"response {index} is not the answer to its request"
        else:
            yield from judge_forwarded(place, seen[number], request)
            number += 1
    # What the upstream has answered after the caller had broken off must have been sent all the
    # same.
    unanswered = sent[len(replies) :]
    if len(seen) - number > len(unanswered):
        yield f"the upstream saw a request that nobody sent: {seen[-1]}"
    for extra, request in zip(seen[number:], unanswered, strict=False):
        yield from judge_forwarded(place, extra, request)


# What the caller got of a service that means no good.


def judge_relayed(
    place: Place, reply: Response, judged: Response | None, *, to_head: bool
) -> Iterable[str]:
    """Hold the one final response the caller got against what the service said.

    Args:
        place: where.
        reply: what the caller got.
        judged: what a strict reader makes of what the service said; None if it is no response.
        to_head: it answers HEAD.
    """
    yield from judge_any(reply)
    if is_ours(reply):
        yield from judge_refusal(place, reply, with_body=not to_head)
        if reply.status not in _FAILURES:
            yield f"answered with {reply.status}: {reply.body!r}"
        if not reply.whole:
            yield "an error of ours is cut"
        return
    if judged is not None:
        yield from _judge_change(place, reply, judged)
    elif reply.whole:
        yield "what is no response passes for one"


def _judge_change(place: Place, reply: Response, judged: Response) -> Iterable[str]:
    """Hold what the caller got against what the service said."""
    if reply.status != judged.status:
        yield f"status {judged.status} became {reply.status}"
    if reply.whole and not judged.whole:
        yield "an incomplete response looks complete"
    if reply.body != judged.body if reply.whole else not judged.body.startswith(reply.body):
        yield "the body has changed"
    named = options_of(judged.values(b"connection"))
    ours = {b"connection", b"transfer-encoding"}
    ours |= set() if judged.values(b"date") else {b"date"}  # RFC 9110 section 6.6.1
    left = iter(judged.fields)
    for field in reply.fields:
        name = field[0].lower()
        if name in ours:
            continue
        if name == b"location":
            if not any(
                other == field[0] and field[1] in place.locations_of(value) for other, value in left
            ):
                yield f"{field!r} leads elsewhere, or is out of order"
        elif field not in left:
            yield f"field {field!r} is not the service's, or out of order"
        if name in named and name != b"content-length":
            yield f"field {field!r} was named by Connection"
