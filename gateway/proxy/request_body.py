"""The body of a request on its way to the service."""

from typing import Final

from gateway.errors import CredentialError, DownstreamError, ErrorCode
from gateway.http.pieces import size_of
from gateway.http.request import Request
from gateway.proxy.replay import ReplayBuffer

_WINDOW_S: Final = 10
"""Over which the rate of a body is averaged."""


class RequestBody:
    """Takes a request's body as it arrives: counted, bounded, and kept while it may be sent again.

    Invariant: once something of it was too much to be kept, it cannot be sent again.
    """

    __slots__ = (
        "_max_bytes",
        "_replay",
        "_request",
        "_window_bytes",
        "_window_ends",
        "received_bytes",
    )

    def __init__(self, request: Request, max_bytes: int, replay: ReplayBuffer | None) -> None:
        """Prepare.

        Args:
            request: whose body it is.
            max_bytes: of the body, without framing.
            replay: where it is kept; None: it is known to be too long.
        """
        self._request = request
        self._max_bytes = max_bytes
        self._replay = replay
        self.received_bytes = 0
        self._window_ends = 0.0
        self._window_bytes = 0  # of what had been received when it began

    @property
    def can_be_sent_again(self) -> bool:
        """Whether all that has been taken of it is kept."""
        return self._replay is not None

    def falls_behind(self, now: float, rate: int, *, is_awaited: bool) -> bool:
        """Return whether less has arrived than it should; asked every second at least.

        Args:
            now: in seconds.
            rate: bytes per second, averaged over 10 s, that should arrive; 0: any.
            is_awaited: it is the client that we wait for, not the service.
        """
        if now < self._window_ends and is_awaited:
            return False
        wanted = rate * _WINDOW_S if self._window_ends and is_awaited else 0
        received = self.received_bytes + size_of(self._request.body)
        is_behind = received - self._window_bytes < wanted
        self._window_ends = now + _WINDOW_S
        self._window_bytes = received
        return is_behind

    def take(self) -> list[bytes]:
        """Return what has arrived since the last call.

        Raises:
            DownstreamError: the body is longer than `max_bytes`.
        """
        pieces = self._request.body
        if not pieces:
            return pieces
        self._request.body = []
        size = size_of(pieces)
        self.received_bytes += size
        if self.received_bytes > self._max_bytes:
            raise DownstreamError(ErrorCode.BODY_TOO_LARGE)
        if self._replay is not None and not self._replay.keep(pieces, size):
            self.drop()
        return pieces

    def take_again(self) -> list[bytes]:
        """Return all that has arrived, from the beginning.

        Raises:
            CredentialError: it is not kept any more.
            DownstreamError: as `take`.
        """
        self.take()
        if self._replay is None:  # grew beyond the buffer while we waited
            raise CredentialError(ErrorCode.TOKEN_RENEWED)
        return self._replay.pieces()

    def take_raw(self) -> list[bytes]:
        """Return what has arrived of the protocol that was switched to; it has no bound."""
        pieces = self._request.take_body()
        self.received_bytes += size_of(pieces)
        return pieces

    def drop(self) -> None:
        """Keep nothing of it any longer."""
        if self._replay is not None:
            self._replay.drop()
            self._replay = None
