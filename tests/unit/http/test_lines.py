"""The memory of field lines: bounded, never of secrets, and of no consequence for what is read."""

from random import Random

import pytest

from gateway.errors import DownstreamError, UpstreamError
from gateway.http import request_head, response_head
from gateway.http.lines import (
    MAX_REMEMBERED,
    MAX_REMEMBERED_BYTES,
    FieldReader,
    is_clean,
    is_token,
)
from gateway.http.request_head import RequestHead, RequestLine
from gateway.http.response_head import ResponseHead, read_status_line
from tests.unit.http.outcomes import known_of, known_of_request

_COMMON = (
    b"Accept: */*", b"accept-encoding:gzip", b"User-Agent: x", b"Content-Type: \ta ", b"Host: h",
    b"Connection: close", b"Date: now", b"Server: x", b"VARY: *", b"Transfer-Encoding: chunked",
)  # fmt: skip
_NEVER = (
    b"Authorization: Basic secret", b"Cookie: a=secret", b"Set-Cookie: a=secret",
    b"X-Auth-Token: secret", b"x-subject-token: secret", b"X_Auth_Token: secret",
    b"Proxy-Authorization: secret", b"X-Sdk-Date: secret", b"X-Request-Id: secret",
    b"traceparent: secret", b"tracestate: secret", b"X-Forwarded-For: secret", b"Origin: secret",
    b"Referer: secret", b"X-Unknown: secret", b"ETag: secret", b"Location: /secret",
    b"WWW-Authenticate: secret", b"Idempotency-Key: secret", b"X-Api-Key: secret",
    b"Accept-Secret: secret", b"X-Accept: secret",
)  # fmt: skip


def request_fields() -> FieldReader[RequestHead]:
    """Return a reader of requests' fields that remembers nothing yet."""
    return FieldReader(
        request_head._JUDGES, judge_of=request_head._judge_of, malformed=request_head._bad
    )


def response_fields() -> FieldReader[ResponseHead]:
    """Return a reader of responses' fields that remembers nothing yet."""
    return FieldReader(
        response_head._JUDGES, judge_of=response_head._forward, malformed=response_head.malformed
    )


def _request() -> RequestHead:
    return RequestHead(RequestLine("POST", b"/", b"1", b"1"))


def _response() -> ResponseHead:
    return ResponseHead(read_status_line(b"HTTP/1.1 200 OK"))


@pytest.mark.parametrize("line", _COMMON)
def test_common_lines_are_remembered(line: bytes) -> None:
    """And mean the same when they are looked up as when they were read."""
    requests, responses = request_fields(), response_fields()
    heads, others = [_request(), _request()], [_response(), _response()]
    for head, other in zip(heads, others, strict=True):
        requests.read([line], head)
        responses.read([line], other)
        assert set(requests._known) == set(responses._known) == {line}

    assert known_of_request(heads[0]) == known_of_request(heads[1])
    assert known_of(others[0]) == known_of(others[1])


@pytest.mark.parametrize("line", _NEVER)
def test_credentials_ids_traces_and_unknown_fields_are_not_remembered(line: bytes) -> None:
    """In no letter case: of the name is known what acts on it, of the value nothing."""
    for spelled in (line, line.lower(), line.upper()):
        requests, responses = request_fields(), response_fields()
        requests.read([spelled], _request())
        responses.read([spelled], _response())

        for fields in (requests, responses):
            assert fields._known == {}
            assert set(fields._names) == {spelled.partition(b":")[0]}


def test_refused_lines_are_not_remembered_as_good() -> None:
    """They are refused a second time, too."""
    requests, responses = request_fields(), response_fields()
    for line in (b"Content-Length: +1", b"Transfer-Encoding: chunked\t", b"Accept : x", b" Accept"):
        for _ in range(2):
            with pytest.raises(DownstreamError):
                requests.read([line], _request())
            with pytest.raises(UpstreamError):
                responses.read([line], _response())


def test_memory_of_lines_is_bounded_in_number() -> None:
    """Whatever callers send: other values, or other spellings of a name."""
    fields = request_fields()
    for number in range(3 * MAX_REMEMBERED):
        fields.read([b"Accept: %d" % number, b"X-%d: y" % number], _request())
        assert len(fields._known) <= MAX_REMEMBERED
        assert len(fields._names) <= MAX_REMEMBERED

    assert fields._known
    assert fields._names


def test_spellings_are_bounded_in_number() -> None:
    """All spellings of the names on the allow-list are forgotten with the names."""
    fields = request_fields()
    random = Random(1)
    for _ in range(3 * MAX_REMEMBERED):
        spelled = "".join(random.choice((letter, letter.upper())) for letter in "accept-language")
        fields.read([spelled.encode() + b": x"], _request())
        assert len(fields._remembered) <= MAX_REMEMBERED


@pytest.mark.parametrize("over", [0, 1])
def test_long_lines_and_names_are_read_each_time(over: int) -> None:
    """A line that is remembered has at most 512 bytes; so has a name."""
    fields = request_fields()
    line = b"Accept: ".ljust(MAX_REMEMBERED_BYTES + over, b"x")
    name = b"X-".ljust(MAX_REMEMBERED_BYTES + over, b"x")
    head = _request()
    fields.read([line, name + b": y"], head)

    assert head.lines == [line, name + b": y"]
    assert (line in fields._known, name in fields._names) == (not over, not over)


def test_meaning_does_not_depend_on_memory() -> None:
    """Heads of random lines, read by a reader that has read thousands, and by a new one."""
    random = Random(2)
    requests, responses = request_fields(), response_fields()
    for _ in range(2000):
        lines = random.choices(_COMMON + _NEVER, k=random.randrange(8))
        lines = [line.swapcase() if random.random() < 0.2 else line for line in lines]
        lines.append(b"Accept: %d" % random.randrange(2000))
        outcomes: list[object] = []
        for one, other in ((requests, responses), (request_fields(), response_fields())):
            head, response = _request(), _response()
            try:
                one.read(lines, head)
                outcomes.append(known_of_request(head))
            except DownstreamError as refusal:
                outcomes.append(refusal.code)
            try:
                other.read(lines, response)
                outcomes.append(known_of(response))
            except UpstreamError as refusal:
                outcomes.append(refusal.code)
        assert outcomes[:2] == outcomes[2:]


@pytest.mark.parametrize(
    ("line", "forwarded"),
    [
        (b"X: a", b"X: a"),
        (b"X:a", b"X: a"),
        (b"X: \t a b\t ", b"X: a b"),
        (b"X:", b"X: "),
        (b"X: ", b"X: "),
        (b"X: \xff:", b"X: \xff:"),
    ],
)
def test_lines_are_forwarded_in_one_form(line: bytes, forwarded: bytes) -> None:
    """Name, colon, space, and the value without white space around it."""
    head = _response()
    response_fields().read([line, line], head)

    assert head.lines == [forwarded, forwarded]


@pytest.mark.parametrize(
    ("line", "clean"),
    [
        (b"", True),
        (b"a\tb\x80\xff", True),
        *((b"a%cb" % octet, False) for octet in (0, 1, 8, 10, 11, 12, 13, 14, 31, 127)),
    ],
)
def test_control_octets_are_found(line: bytes, clean: bool) -> None:
    """Every one but HTAB."""
    assert is_clean(line) == clean


def test_every_octet_of_a_name_is_judged() -> None:
    """RFC 9110 section 5.6.2: visible ASCII without delimiters."""
    good = {octet for octet in range(128) if chr(octet).isalnum() or octet in b"!#$%&'*+-.^_`|~"}

    assert {octet for octet in range(256) if is_token(b"a%cb" % octet)} == good
    assert not is_token(b"")
