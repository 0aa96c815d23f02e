"""A short `make fuzz`, always with the same cases; and that its judges would notice."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.exchange.hostile_rows import BODY_TRICKS, CONNECTION, FRAMING, Row
from tests.programs.fuzz.campaign import Campaign, workers_at_one_gateway
from tests.programs.fuzz.cases import Case, from_text, make_answer_case, make_request_case, to_text
from tests.programs.fuzz.gateway import TOKEN
from tests.programs.fuzz.oracles import Heard, Place, judge_forwarded, judge_relayed, read_answers
from tests.programs.fuzz.strict import Request, Response, read_requests
from tests.support.rows import every_row
from tests.support.tools import LONG

_CASES = 500 if LONG else 100
_SEED = 4
_HERE = Place("a", 9)


@pytest.mark.timeout(300)  # 1000 cases: 10 s of CPU
async def test_changed_messages_from_both_sides_do_no_harm(tmp_path: Path) -> None:
    """A real process under changed requests and answers: every oracle, memory, logs, leftovers."""
    makers: list[Callable[[int], Case]] = [
        partial(make_request_case, _SEED),
        partial(make_answer_case, _SEED),
    ]
    async with workers_at_one_gateway(8, tmp_path) as workers:
        result = await Campaign(workers).run(makers, _CASES)

    assert [(failure.case, failure.problems) for failure in result.failures] == []
    assert result.problems == []
    assert result.cases == 2 * _CASES


def test_cases_are_made_by_seed_and_number_and_can_be_kept() -> None:
    """So that a failure can be had again."""
    for maker in (make_request_case, make_answer_case):
        cases = [maker(1, number) for number in range(50)]
        assert cases == [maker(1, number) for number in range(50)]
        assert cases != [maker(2, number) for number in range(50)]
        assert [from_text(to_text(case)) for case in cases] == cases


@pytest.mark.parametrize("rows", [FRAMING, BODY_TRICKS, CONNECTION])
def test_the_strict_reader_reads_what_the_rows_say(rows: list[Row]) -> None:
    """It finds exactly the requests that are answered other than by a refusal of their framing."""
    with every_row() as trying:
        for row in rows:
            with trying(row.name):
                sent, rest, malformed = read_requests(row.sent)
                assert len(sent) >= row.forwarded
                last = row.statuses[-1] if row.statuses else 0
                if last in {400, 501, 505} and row.forwarded == len(sent):
                    assert malformed or rest, "refused, though it is well-formed"


def _asked(**changes: object) -> Request:
    fields = [(b"Host", b"localhost"), (b"X-Own", b"1")]
    plain = Request(b"POST", b"/aaaa/p?q", fields, b"{}", old=False, chunked=False)
    return replace(plain, **changes)  # type: ignore[arg-type]


_OURS = [
    (b"Host", b"127.0.0.1:9"),
    (b"X-Own", b"1"),
    (b"Via", b"1.1 modelarts-gateway"),
    (b"Content-Length", b"2"),
    (b"X-Auth-Token", TOKEN),
]


def _seen(**changes: object) -> Request:
    return replace(_asked(target=b"/v1/infers/aaa/p?q", fields=_OURS), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"body": b"{"}, "another method, body or framing"),
        ({"chunked": True}, "another method, body or framing"),
        ({"method": b"PUT"}, "another method, body or framing"),
        ({"target": b"/v1/infers/aaa/p"}, "saw target"),
        ({"target": b"/v1/infers/aaa/%252e%252e/p"}, "leaves the service"),
        ({"target": b"/v1/infers/aaa/..;/p"}, "leaves the service"),
        ({"fields": _OURS[1:]}, "Host is"),
        ({"fields": [*_OURS, (b"host", b"x")]}, "Host is"),
        ({"fields": [*_OURS, (b"x-auth-token", b"x")]}, "X-Auth-Token is"),
        ({"fields": [*_OURS, (b"X_Auth_Token", b"x")]}, "went upstream"),
        ({"fields": [*_OURS, (b"Cookie", b"x")]}, "went upstream"),
        ({"fields": [*_OURS, (b"Keep-Alive", b"x")]}, "went upstream"),
        ({"fields": [*_OURS, (b"Transfer-Encoding", b"chunked")]}, "more than one framing"),
        ({"fields": [*_OURS, (b"Accept", b"*/*")]}, "not the caller's"),
        ({"fields": [field for field in _OURS if field[0] != b"X-Own"]}, "was lost"),
    ],
)
def test_a_request_that_should_not_have_been_forwarded_is_noticed(
    changes: dict[str, object], problem: str
) -> None:
    """Each oracle of what the upstream may see, one violation each."""
    found = list(judge_forwarded(_HERE, _seen(**changes), _asked()))

    assert any(problem in line for line in found) if problem else found == []


def test_a_field_that_connection_names_is_noticed() -> None:
    """In whatever letter case."""
    sent = _asked(fields=[*_asked().fields, (b"connection", b"close ,x-OWN")])

    assert any("named by Connection" in line for line in judge_forwarded(_HERE, _seen(), sent))


_ANSWER = Response(200, [(b"X-Own", b"1")], b"ok", whole=True, framed=True)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"body": b"o"}, "body has changed"),
        ({"body": b"x", "whole": False}, "body has changed"),
        ({"status": 201}, "became 201"),
        ({"fields": [(b"Set-Cookie", b"a=b")]}, "got b'Set-Cookie'"),
        ({"fields": [(b"X-Own", TOKEN)]}, "got b'X-Own'"),
        ({"fields": [(b"Connection", b"upgrade")]}, "got Connection"),
        ({"fields": [(b"Proxy-Status", b"modelarts-gateway; x")]}, "X-Request-Id"),
    ],
)
def test_an_answer_that_should_not_have_been_relayed_is_noticed(
    changes: dict[str, object], problem: str
) -> None:
    """Each oracle of what the caller may get, one violation each."""
    reply = replace(_ANSWER, **changes)  # type: ignore[arg-type]
    found = list(judge_relayed(_HERE, reply, _ANSWER, to_head=False))

    assert any(problem in line for line in found) if problem else found == []


def test_half_an_answer_that_looks_whole_is_noticed() -> None:
    """Both where the service's answer was cut, and where it was none at all."""
    for judged in (replace(_ANSWER, whole=False), None):
        assert list(judge_relayed(_HERE, _ANSWER, judged, to_head=False))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay", "part of a head"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n0\r\n\r\n", "status line"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\nx", "last response"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "part of a head"),
        (b"HTTP/1.1 101 Up\r\n\r\n", "interim response 101"),
        (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "bare CR or LF"),
    ],
)
def test_bytes_that_are_no_series_of_answers_are_noticed(data: bytes, problem: str) -> None:
    """More than one answer, interim ones, and what ends in the middle."""
    heard = Heard(data, ended=True, was_reset=False)
    _, problems = read_answers(heard, [b"POST"], interim_allowed=False)

    assert re.search(problem, problems[0]) if problem else problems == []
