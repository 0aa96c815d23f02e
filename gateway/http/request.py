"""A request as it arrives: its head, and its body piece by piece."""

from gateway.http.request_head import RequestHead, RequestLine


class Request:
    """A request's head, and its body as it arrives: a reader fills `body`, its owner takes it."""

    __slots__ = ("body", "ended", "head")

    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self.body: list[bytes] = []
        """Pieces that have arrived and were not taken yet, without framing. Behind a switch of
        protocols, bytes of the other protocol."""
        self.ended = False
        """Whether the body is complete."""

    def take_body(self) -> list[bytes]:
        """Return the pieces that have arrived since the last call; they are the caller's."""
        body = self.body
        if body:
            self.body = []
        return body


def unreadable_request(method: str) -> Request:
    """Return what stands for a request that could not be read, but must be answered.

    Args:
        method: as far as it is known; else empty.
    """
    return Request(RequestHead(RequestLine(method, b"/", b"1", b"1")))
