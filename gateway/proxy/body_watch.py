"""What is noticed of a response's body as it goes by: the pace of a stream, and its last bytes.

Nothing is parsed, held back or changed. Most responses are not watched at all.
"""

from typing import Final

from gateway.http.response_head import ResponseHead
from gateway.observe.streams import BodyCounts
from gateway.proxy.usage import Tail

_READABLE: Final = frozenset({b"", b"identity"})
_WITH_USAGE: Final = (b"application/json", b"text/event-stream")


class UnusualBody:
    """What is known of a body that did not simply begin with its head and end."""

    __slots__ = ("first_chunk_at", "is_late", "watch")

    def __init__(self, first_chunk_at: float, watch: "BodyWatch | None", *, is_late: bool) -> None:
        self.is_late = is_late
        """Whether the head came without its first byte."""
        self.first_chunk_at = first_chunk_at
        """When that byte came after the head; 0 if it did not."""
        self.watch = watch
        """What was noticed in it."""


class BodyWatch:
    """Watches one body.

    Invariant: a pause counts only while the gateway was ready to read.
    """

    __slots__ = ("_chunks", "_counts", "is_stream", "longest_pause_s", "tail")

    def __init__(self, counts: BodyCounts, tail: Tail | None, *, is_stream: bool) -> None:
        """Prepare.

        Args:
            counts: of the service.
            tail: keeps the end of the body; None if nobody asked for it.
            is_stream: the body is an event stream, whose pace is measured.
        """
        self.is_stream = is_stream
        self.longest_pause_s = 0.0
        """Between two arrivals, or between the last one and the end."""
        self.tail = tail
        self._counts = counts
        self._chunks = 0

    def arrived(self, body: list[bytes], chunks: int, pause_s: float) -> None:
        """Note what has arrived.

        Args:
            body: pieces of the body; may be empty.
            chunks: how many chunks of a chunked body have begun since its start, else 0.
            pause_s: since the arrival before this one; 0 for the first.
        """
        if self.is_stream:
            count = chunks - self._chunks if chunks else len(body)
            self._chunks = chunks
            self._counts.chunks += count
            self.longest_pause_s = max(self.longest_pause_s, pause_s)
        if self.tail is not None:
            self.tail.add(body)

    def cut(self, pause_s: float) -> None:
        """Note that no more will come; `pause_s` is the time since the last arrival."""
        self.longest_pause_s = max(self.longest_pause_s, pause_s)


def watch_for(head: ResponseHead, counts: BodyCounts, method: str) -> BodyWatch | None:
    """Return what watches the body of a response, or None if there is nothing to notice.

    Args:
        head: of the response.
        counts: of the service; with `usage` the end of the body is kept.
        method: of the request; only the response to a POST can say what was used.
    """
    tail = None
    if counts.usage is not None and method == "POST" and 200 <= head.status < 300:
        kind = head.value_of(b"content-type").partition(b";")[0].strip().lower()
        if kind in _WITH_USAGE:
            coding = head.value_of(b"content-encoding").strip().lower()
            tail = Tail(is_readable=coding in _READABLE)
    if tail is None and not head.is_event_stream:
        return None
    return BodyWatch(counts, tail, is_stream=head.is_event_stream)
