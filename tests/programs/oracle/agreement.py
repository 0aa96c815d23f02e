"""Holds our readers against llhttp, the parser of Node.js: what we accept it accepts, and it means
the same: method, target, fields in order, body, keep-alive, and where each message ends.

Only this one direction is asserted. A reader that refuses more is never the one that is smuggled
through. llhttp is taken as strict as it comes.

Where we are stricter (each with a row in `tests/unit/http/test_llhttp.py`):

- Request line: methods other than the seven of `METHODS`; more than one space between its parts; no
  version (llhttp takes HTTP/0.9, also behind a bare LF); `RTSP/1.0` and other protocols; HTTP/0.9
  and HTTP/2.0 (which our reader reads, and admission refuses with 505).
- Targets: what `split_target` refuses is refused by admission, which closes the connection.
- Host: none on HTTP/1.1, or more than one.
- Status line: codes below 100 and above 599; control octets in the reason; anything before it,
  empty lines included.
- Fields: more than the limits in number and size; heads too large.
- Content-Length: more than 15 digits, zeros in front included.
- Transfer-Encoding: anything but one `chunked`; llhttp takes lists and repeated fields whose last
  coding is `chunked`, and in responses any other coding, whose body it reads until the connection
  ends. On HTTP/1.0 from a client: at all.
- A length or a coding in a response that has no body: 1xx and 204.
- Interim responses: more than 16; one that ends the connection (`close`, HTTP/1.0), even if nothing
  follows it; 101 that was not asked for.
- Chunks: sizes of more than 15 digits; extensions without a name, with an empty part, or whose
  value is partly quoted; in responses a trailer that names a coding; extensions and trailers that
  are too large.
- Keep-alive: never with a service that speaks HTTP/1.0, nor behind a request with `Connection:
  upgrade` and WebSocket in `Upgrade`.

Where we accept more, in two places; messages are told to llhttp in the form that it takes:

- White space around the parts of chunk extensions (RFC 9112 section 7.1.1).
- HTTP/1.x above 1.1, processed as 1.1 (RFC 9110 section 2.5), in requests.

Trailers are dropped, whatever they say; llhttp heeds a `Connection` among them.

Where we ignore what llhttp heeds: an offer to switch to another protocol than WebSocket. llhttp is
not told of it.

What cannot be compared, because of httptools: the body of a request that asks for another protocol,
and what follows the response to a HEAD that announces a body. Their heads are compared.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from gateway.errors import DownstreamError, UpstreamError
from gateway.http import request_head, response_head
from gateway.http.framing import CHUNKED
from gateway.http.reader_state import (
    BODY_UNTIL_CLOSE,
    DONE,
    REFUSED,
    TUNNEL,
    ReaderState,
)
from gateway.http.request import Request
from gateway.http.request_head import REQUEST_FIELDS, RequestHead, RequestLine
from gateway.http.request_reader import RequestReader
from gateway.http.response_head import RESPONSE_FIELDS, ResponseHead, read_status_line
from gateway.http.response_reader import ResponseReader
from tests.programs.oracle.llhttp import Heard, Message, read_by_llhttp
from tests.unit.http.outcomes import known_of, known_of_request


@dataclass(frozen=True)
class Verdict:
    """What comes of holding one stream against llhttp."""

    accepted: int
    """How many messages we have accepted to their end."""
    problems: list[str]


# Requests.


@dataclass(frozen=True)
class _OurRequest:
    request: Request
    body: bytes
    end: int
    """Where it ends in the stream; if it has not ended, where the stream does."""
    state: ReaderState


def _read_requests(pieces: Sequence[bytes]) -> tuple[list[_OurRequest], RequestReader]:
    """Return the requests that we read from one connection, and its reader.

    Behind the last one the connection is closed, so nothing is read.
    """
    reader = RequestReader()
    found: list[_OurRequest] = []
    fed = 0
    for piece in pieces:
        reader.feed(piece)
        fed += len(piece)
        while reader.state is DONE and reader.request is not None:
            request = reader.request
            end = fed - len(reader._unread)
            found.append(_OurRequest(request, b"".join(request.body), end, DONE))
            if not request.head.keep_alive:
                return found, reader
            reader.begin_next()
    if reader.request is not None:
        body = b"".join(reader.request.body)
        found.append(_OurRequest(reader.request, body, fed, reader.state))
    return found, reader


def judge_requests(pieces: Sequence[bytes]) -> Verdict:
    """Return what is wrong with how we read the requests of one connection."""
    stream = b"".join(pieces)
    ours, reader = _read_requests([stream] if stream else [])
    problems = _differ_when_cut(ours, reader, pieces)
    ours = [one for one in ours if one.request.head.line.supported]
    ended = [one for one in ours if one.state is DONE]
    told: list[bytes] = []
    begin = 0
    for one in ours:
        message = _request_for_llhttp(stream[begin : one.end], one.request.head)
        told += [message[:-1], message[-1:]] if one.state is DONE else [message]
        begin = one.end
    heard = read_by_llhttp(told, requests=True)
    if len(heard.messages) < len(ours):
        return Verdict(len(ended), [*problems, f"a request is refused: {heard.error}"])
    for number, (one, theirs) in enumerate(zip(ours, heard.messages, strict=False)):
        if not theirs.head_ended:
            problems.append(f"the head of request {number} is refused: {heard.error}")
            break
        problems += _compare_requests(one, theirs)
    by = heard.ended_by
    wanted = [count for number in range(len(ended)) for count in (number, number + 1)]
    if by[: len(wanted)] != wanted:
        problems.append(f"requests end elsewhere: {by} ({heard.error})")
    if heard.upgraded_at is not None and not (ours and ours[-1].request.head.is_upgrade):
        problems.append("it switches protocols, and we do not")
    if ours and ours[-1].state is TUNNEL and ours[-1].request.head.upgrade:
        at = sum(map(len, told[:-1])) + _head_end(told[-1]) + 4
        if heard.upgraded_at != at:
            problems.append(f"it switches protocols at {heard.upgraded_at}, not at {at}")
        elif not ours[-1].request.head.chunked and ours[-1].body != b"".join(told)[at:]:
            problems.append("what follows the switch of protocols has changed")
    return Verdict(len(ended), problems)


def _differ_when_cut(
    whole: list[_OurRequest], reader: RequestReader, pieces: Sequence[bytes]
) -> list[str]:
    if len(pieces) < 2:
        return []
    cut, other = _read_requests(pieces)
    refusals = [one.refusal and one.refusal.code for one in (reader, other)]
    same = refusals[0] is refusals[1] and len(whole) == len(cut)
    for one, two in zip(whole, cut, strict=False):
        same = same and known_of_request(one.request.head) == known_of_request(two.request.head)
        same = same and (one.end, one.state) == (two.end, two.state)
        same = same and (reader.refusal is not None or one.body == two.body)
    return [] if same else ["it is not the same when it is cut"]


def _compare_requests(one: _OurRequest, theirs: Message) -> list[str]:
    head = one.request.head
    method, target, version = theirs.start
    problems: list[str] = []
    try:
        rebuilt = RequestHead(RequestLine(method.decode(), target, version[:1], version[2:]))
        if head.line.fault is not None:
            rebuilt.line = head.line
        REQUEST_FIELDS.read([b"%b: %b" % pair for pair in theirs.fields], rebuilt)
        request_head.finish(rebuilt)
    except DownstreamError as refusal:
        return [f"its fields would be refused: {refusal}"]
    if known_of_request(head) != known_of_request(rebuilt):
        problems.append(f"heads: {known_of_request(head)}, {known_of_request(rebuilt)}")
    if head.keep_alive and not theirs.keep_alive:
        problems.append("it would close the connection")
    if head.is_upgrade:
        return problems  # its wrapper skips the body
    if one.state is DONE or one.request.ended:
        if one.body != theirs.body:
            problems.append(f"bodies: {one.body!r}, {theirs.body!r}")
    elif not theirs.body.startswith(one.body):
        problems.append(f"bodies under way: {one.body!r}, {theirs.body!r}")
    return problems


# Responses.


@dataclass(frozen=True)
class _Asked:
    """What a response answers."""

    head_request: bool
    switch_to: bytes


@dataclass(frozen=True)
class _OurResponse:
    asked: _Asked
    head: ResponseHead | None
    body: bytes
    state: ReaderState
    has_excess: bool

    @property
    def known(self) -> tuple[object, ...]:
        """Everything that must not depend on how the stream is cut."""
        head = None if self.head is None else known_of(self.head)
        return head, self.state, self.has_excess, b"" if self.state is REFUSED else self.body


def _read_response(pieces: Sequence[bytes], asked: _Asked) -> _OurResponse:
    reader = ResponseReader(head_request=asked.head_request, switch_to=asked.switch_to)
    body: list[bytes] = []
    with suppress(UpstreamError):
        for piece in pieces:
            body += reader.feed(piece)
    return _OurResponse(asked, reader.head, b"".join(body), reader.state, reader.has_excess)


def _end_of(stream: bytes, ours: _OurResponse) -> int:
    """Return where a response ends: the length of the shortest beginning that holds it whole."""
    if not ours.has_excess:
        return len(stream)

    def is_whole(size: int) -> bool:
        return _read_response([stream[:size]], ours.asked).state is DONE

    return bisect_left(range(len(stream)), x=True, key=is_whole)


def judge_response(
    pieces: Sequence[bytes], *, head_request: bool = False, switch_to: bytes = b""
) -> Verdict:
    """Return what is wrong with how we read one response, interim ones before it included.

    Args:
        pieces: of what the service sends.
        head_request: it answers HEAD.
        switch_to: the protocol that it may switch to.
    """
    stream = b"".join(pieces)
    asked = _Asked(head_request, switch_to)
    ours = _read_response([stream] if stream else [], asked)
    problems: list[str] = []
    if len(pieces) > 1 and ours.known != _read_response(pieces, asked).known:
        problems.append("it is not the same when it is cut")
    if ours.head is None:
        return Verdict(0, problems)
    if ours.state is TUNNEL:
        heard = read_by_llhttp([stream], requests=False)
        finals = heard.messages[-1:]
    else:
        told = stream[: _end_of(stream, ours)]
        if ours.head.framing is CHUNKED:
            told = _chunks_for_llhttp(told)
        pieces = [told[:-1], told[-1:]] if ours.state is DONE else [told]
        heard = read_by_llhttp(pieces, requests=False)
        finals = [one for one in heard.messages if one.start and one.start[0][:1] != b"1"]
        if ours.state is REFUSED:
            finals = finals[:1]  # llhttp may go on to what is behind its end
    if len(finals) != 1:
        problems.append(f"{len(finals)} final responses, not 1: {heard.error}")
        return Verdict(0, problems)
    problems += _compare_responses(ours.head, finals[0], head_request=head_request)
    if problem := _compare_ends(ours, heard, finals[0], len(stream)):
        problems.append(f"{problem} ({heard.error})")
    return Verdict(int(ours.state in {DONE, TUNNEL, BODY_UNTIL_CLOSE}), problems)


def _compare_ends(ours: _OurResponse, heard: Heard, final: Message, size: int) -> str:
    """Return how two readings differ in their bodies and in where they end; empty: not at all."""
    if ours.state is TUNNEL:
        at = size - len(ours.body)
        is_there = heard.upgraded_at == at
        return "" if is_there else f"it switches protocols at {heard.upgraded_at}, not at {at}"
    if ours.asked.head_request:
        return "a response to HEAD is refused" if heard.error else ""
    if ours.state is REFUSED:
        return ""  # in its body, part of which has been passed on
    if ours.body != final.body:
        return f"bodies: {ours.body!r}, {final.body!r}"
    if ours.state is DONE:
        heads = len(heard.messages)
        by = heard.ended_by
        return "" if by == [heads - 1, heads] else f"it ends elsewhere: {by}"
    if ours.state is BODY_UNTIL_CLOSE and (heard.error or final.ended):
        return "it does not last until the connection ends"
    return ""


def _compare_responses(head: ResponseHead, theirs: Message, *, head_request: bool) -> list[str]:
    status, version = theirs.start
    problems: list[str] = []
    try:
        line = b"HTTP/%b %b %b" % (version, status, head.line.reason)
        rebuilt = ResponseHead(read_status_line(line))
        RESPONSE_FIELDS.read([b"%b: %b" % pair for pair in theirs.fields], rebuilt)
        response_head.finish(rebuilt, head_request=head_request)
    except UpstreamError as refusal:
        return [f"its fields would be refused: {refusal}"]
    if known_of(head) != known_of(rebuilt):
        problems.append(f"heads: {known_of(head)}, {known_of(rebuilt)}")
    if head.keep_alive and not theirs.keep_alive and not head_request:
        problems.append("it would close the connection")
    return problems


# The two places where we accept more, and what is not ours to agree about.

_FIRST_LINE = re.compile(rb"([\r\n]*)([^\r\n ]*) ([^\r\n ]*) HTTP/1\.([0-9])(?=\r\n)")
_OFFER = re.compile(rb"\r\nupgrade:[^\r\n]*", re.IGNORECASE)
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]+)([^\r\n]*)\r\n")
_CONNECTION = re.compile(rb"(?im)^(proxy-)?connection(?=:)")
_PART = re.compile(rb'"(?:[^"\\]|\\.)*"|[ \t]*([;=])[ \t]*')


def _request_for_llhttp(message: bytes, head: RequestHead) -> bytes:
    """Return one request in the form that llhttp takes, of those that mean the same to us.

    HTTP/1.x above 1.1 becomes 1.1. A target that admission refuses becomes `/`: where such a
    request ends still matters. Offers of protocols are left out.
    """
    line = head.line
    first = _FIRST_LINE.match(message)
    if first is not None and (line.fault is not None or first[4] not in b"01"):
        target = b"/" if line.fault is not None else first[3]
        minor = first[4] if first[4] in b"01" else b"1"
        start = b"%b%b %b HTTP/1.%b" % (first[1], first[2], target, minor)
        message = start + message[first.end() :]
    if head.upgrade is None:
        end = _head_end(message)
        message = _OFFER.sub(b"", message[:end]) + message[end:]
    return _chunks_for_llhttp(message) if head.chunked else message


def _head_end(message: bytes, begin: int = 0) -> int:
    """Return where the empty line behind a head begins; empty lines before the head are passed."""
    while message.startswith(b"\r\n", begin):
        begin += 2
    return message.find(b"\r\n\r\n", begin)


def _chunks_for_llhttp(message: bytes) -> bytes:
    """Return a chunked message in the form that llhttp takes, of those that mean the same to us.

    White space around the parts of chunk extensions goes. In trailers `Connection` becomes a name
    that means nothing.
    """
    at = 0
    while message.startswith(b"HTTP/1.1 1", at):
        at = message.find(b"\r\n\r\n", at) + 4  # behind an interim response
    at = _head_end(message, at) + 4
    told = [message[:at]]
    while line := _SIZE_LINE.match(message, at):
        extensions = _PART.sub(lambda part: part[1] or part[0], line[2])
        told.append(line[1] + extensions + b"\r\n")
        size = int(line[1], 16)
        at = line.end()
        if not size:
            told.append(_CONNECTION.sub(rb"\1c-nnection", message[at:]))
            return b"".join(told)
        if size > len(message):
            break
        told.append(message[at : at + size + 2])
        at += size + 2
    return b"".join([*told, message[at:]])
