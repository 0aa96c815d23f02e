"""Makes messages of both kinds by seed and number, and holds each against llhttp."""

from dataclasses import dataclass
from random import Random
from typing import Literal

from tests.programs.fuzz.cases import answer_case, request_case
from tests.programs.oracle.agreement import Verdict, judge_requests, judge_response

_WORDS = (
    b"HTTP/1.2", b"HTTP/1.9", b" ;a", b"; a", b";a =b", b';a= "b;c"', b';a=\t"\\""', b"\r\n x",
    b"\r\n\tx", b"Connection: upgrade\r\n", b"Connection: close, upgrade\r\n", b"Upgrade:\r\n",
    b"Proxy-Connection: close\r\n", b"Proxy-Connection: keep-alive\r\n", b", close", b"close ,",
    b"Connection: keep-alive\r\n", b"Connection: keep-alive, close\r\n", b"Trailer: a\r\n",
    b"Content-Length: 2 \t\r\n", b"Content-Length:\t2\r\n", b"Transfer-Encoding:chunked \r\n",
    b"Transfer-Encoding: Chunked\r\n", b"X-Trailer: y\r\n", b"0" * 14, b"A:\r\n", b"A: \t\r\n",
    b"A:b\xff\r\n", b"A:b c\t \r\n", b"!#$%&'*+-.^_`|~: a\r\n", b"00;a\r\n", b"000",
)  # fmt: skip
_RESPONSE_WORDS = (
    *_WORDS, b"HTTP/1.1 101 Up\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 199 Odd\r\n\r\n", b"HTTP/1.1 103 Go\r\nConnection: close\r\n\r\n",
    b"HTTP/1.0 100 Go\r\n\r\n", b"HTTP/1.1 204 No\r\n", b"HTTP/1.1 304 Not\r\n",
    b"HTTP/1.1 200\r\n",
    b"HTTP/1.0 200 OK\r\n", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n",
)  # fmt: skip


Kind = Literal["requests", "responses"]
KINDS: tuple[Kind, ...] = ("requests", "responses")


@dataclass(frozen=True)
class Result:
    """What has come of some cases."""

    tried: int
    """Streams: what one connection has brought, which may be several messages."""
    accepted: int
    """Messages that we accept to their end, and so must llhttp."""
    failures: list[str]


def judge_cases(kind: Kind, seed: int, numbers: range) -> Result:
    """Return what comes of the cases `numbers` of a run with `seed`, held against llhttp."""
    judge = _judge_request if kind == "requests" else _judge_response
    accepted = 0
    failures: list[str] = []
    for number in numbers:
        stream, verdict = judge(Random(f"{kind} {seed} {number}"))
        accepted += verdict.accepted
        failures += [f"{kind} {number}: {problem}: {stream!r}" for problem in verdict.problems]
    return Result(len(numbers), accepted, failures)


def _judge_request(random: Random) -> tuple[bytes, Verdict]:
    pieces = request_case(random, _WORDS).pieces
    return b"".join(pieces), judge_requests(pieces)


def _judge_response(random: Random) -> tuple[bytes, Verdict]:
    case = answer_case(random, _RESPONSE_WORDS)
    verdict = judge_response(
        case.pieces,
        head_request=case.request.startswith(b"HEAD "),
        switch_to=random.choice((b"", b"websocket")),
    )
    return b"".join(case.pieces), verdict
