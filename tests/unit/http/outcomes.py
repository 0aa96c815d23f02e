"""What a reader makes of some bytes, and heads made of fields."""

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.errors import ErrorCode, UpstreamError
from gateway.http import request_head, response_head
from gateway.http.reader_state import ReaderState
from gateway.http.request_head import REQUEST_FIELDS, RequestHead, RequestLine
from gateway.http.response_head import RESPONSE_FIELDS, ResponseHead, read_status_line
from gateway.http.response_reader import ResponseReader

Fields = Iterable[tuple[bytes, bytes]]


def request_head_of(fields: Fields, *, minor: bytes = b"1") -> RequestHead:
    """Return the head of a request that has `fields`.

    Raises:
        DownstreamError: they are refused.
    """
    head = RequestHead(RequestLine("POST", b"/", b"1", minor))
    REQUEST_FIELDS.read([b"%b: %b" % field for field in fields], head)
    request_head.finish(head)
    return head


def known_of_request(head: RequestHead) -> tuple[object, ...]:
    """Return everything a request's head says."""
    line = head.line
    fault = head.fault or line.fault
    return (
        line.method, line.target, line.supported, line.http_1_0, head.lines, head.host,
        head.content_length, head.chunked, head.expects_continue, head.origin, head.fetch_site,
        head.upgrade, head.traceparent, head.request_id, head.options, head.named, head.keep_alive,
        fault and fault.code,
    )  # fmt: skip


def response_head_of(
    fields: Fields, *, status: bytes = b"HTTP/1.1 200 OK", head_request: bool = False
) -> ResponseHead:
    """Return the head of a response that has `fields`.

    Raises:
        UpstreamError: they are refused.
    """
    head = ResponseHead(read_status_line(status))
    RESPONSE_FIELDS.read([b"%b: %b" % field for field in fields], head)
    response_head.finish(head, head_request=head_request)
    return head


@dataclass(frozen=True)
class Outcome:
    """What has come of a response."""

    head: tuple[object, ...] | None
    """Everything it says."""
    body: bytes
    """Empty after a refusal: how much was passed on before depends on the cuts."""
    state: ReaderState
    whole: bool
    """Whether it is complete once the service's side of the stream has ended."""
    excess: bool
    code: ErrorCode | None


def known_of(head: ResponseHead) -> tuple[object, ...]:
    """Return everything a head says."""
    return (
        head.line.text, head.line.http_1_0, head.status, head.lines, head.content_length,
        head.chunked, head.redirects, head.server, head.challenges_for_keystone, head.request_id,
        head.options, head.upgrade, head.framing, head.keep_alive,
    )  # fmt: skip


def read_response(
    *pieces: bytes, head_request: bool = False, switch_to: bytes = b"", ends: bool = True
) -> Outcome:
    """Feed `pieces` to a reader, and end the stream if it `ends`."""
    reader = ResponseReader(head_request=head_request, switch_to=switch_to)
    body = b""
    code = None
    for piece in pieces:
        try:
            found = reader.feed(piece)
        except UpstreamError as error:
            assert code is None, "refused twice"
            code = error.code
        else:
            assert all(found), "an empty piece, which as a chunk would end the body"
            assert not found or code is None, "something was read after a refusal"
            body += b"".join(found)
    state = reader.state
    whole = reader.end_of_stream() if ends else False
    head = None if reader.head is None else known_of(reader.head)
    return Outcome(head, b"" if code else body, state, whole, reader.has_excess, code)


def octets_of(data: bytes) -> list[bytes]:
    """Return `data` octet by octet."""
    return [data[at : at + 1] for at in range(len(data))]
