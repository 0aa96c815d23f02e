"""What llhttp, the parser of Node.js, makes of some bytes."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from httptools import (
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
    HttpResponseParser,
)


@dataclass
class Message:
    """One message, as far as it has come."""

    start: tuple[bytes, ...] = ()
    """Of a request its method, target and version; of a response its status and version."""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    """In order, values without white space around them."""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    head_ended: bool = False
    keep_alive: bool = False
    ended: bool = False


class _Listener:
    """Takes what a parser calls out, and keeps it as messages."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.parser: HttpRequestParser | HttpResponseParser | None = None
        self._target = b""

    def on_message_begin(self) -> None:
        self.messages.append(Message())
        self._target = b""

    def on_url(self, target: bytes) -> None:
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        message = self.messages[-1]
        fields = message.trailers if message.head_ended else message.fields
        fields.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        message, parser = self.messages[-1], self.parser
        assert parser is not None
        version = parser.get_http_version().encode()
        if isinstance(parser, HttpRequestParser):
            message.start = (parser.get_method(), self._target, version)
        else:
            message.start = (b"%d" % parser.get_status_code(), version)
        message.head_ended = True
        message.keep_alive = parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self.messages[-1].body += body

    def on_message_complete(self) -> None:
        self.messages[-1].ended = True


@dataclass(frozen=True)
class Heard:
    """What has come of the pieces of one stream."""

    messages: list[Message]
    ended_by: list[int]
    """How many messages had ended after each piece."""
    upgraded_at: int | None
    """How many bytes had been read when the protocol was switched."""
    error: str
    """Why it has stopped reading; empty: it has not."""


def read_by_llhttp(pieces: Iterable[bytes], *, requests: bool) -> Heard:
    """Feed `pieces` to llhttp, as strict as it comes, up to the one that it refuses."""
    listener = _Listener()
    parser = HttpRequestParser(listener) if requests else HttpResponseParser(listener)
    listener.parser = parser
    ended_by: list[int] = []
    fed = 0
    error = ""
    upgraded_at = None
    for piece in pieces:
        try:
            parser.feed_data(piece)
        except HttpParserUpgrade as upgrade:
            upgraded_at = fed + upgrade.args[0]
        except HttpParserError as refusal:
            error = str(refusal) or type(refusal).__name__
        fed += len(piece)
        ended_by.append(sum(message.ended for message in listener.messages))
        if error or upgraded_at is not None:
            break
    listener.parser = None  # each holds the other
    return Heard(listener.messages, ended_by, upgraded_at, error)
