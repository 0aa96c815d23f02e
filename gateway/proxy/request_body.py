"""The body of a request on its way to the service."""

from typing import Final

from gateway.errors import CredentialError, DownstreamError, ErrorCode
from gateway.http.pieces import gathered, size_of
from gateway.http.request import Request
from gateway.proxy.replay import ReplayBudget
from gateway.proxy.service import Service

_WINDOW_S: Final = 10
"""Over which the rate of a body is averaged."""


class RequestBody:
    """Takes a request's body as it arrives: counted, bounded, and kept while it may be sent again.

    Invariants: once something of it was too much to be kept, it cannot be sent again; what is kept
    is counted in the budget until `drop`.
    """

    __slots__ = (
        "_budget",
        "_kept",
        "_request",
        "_service",
        "_window_bytes",
        "_window_ends",
        "received_bytes",
    )

    def __init__(self, request: Request, service: Service, budget: ReplayBudget) -> None:
        """Prepare; it is kept unless it is known to be too long for that.

        Args:
            request: whose body it is.
            service: how long it may be, and up to which length it is kept.
            budget: what all requests together may keep.
        """
        length = request.head.content_length
        self._request = request
        self._service = service
        self._budget = budget
        self._kept: list[bytes] | None = (
            [] if length is None or length <= service.replay_bytes else None
        )
        self.received_bytes = 0
        self._window_ends = 0.0
        self._window_bytes = 0  # of what had been received when it began

    @property
    def can_be_sent_again(self) -> bool:
        """Whether all that has been taken of it is kept."""
        return self._kept is not None

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
            DownstreamError: the body is longer than its service takes.
        """
        pieces = self._request.body
        if not pieces:
            return pieces
        self._request.body = []
        size, service, kept = size_of(pieces), self._service, self._kept
        received = self.received_bytes = self.received_bytes + size
        if received > service.max_body_bytes:
            raise DownstreamError(ErrorCode.BODY_TOO_LARGE)
        if kept is not None:
            budget = self._budget
            if received > service.replay_bytes or budget.kept_bytes + size > budget.max_bytes:
                self.drop()
            else:
                budget.kept_bytes += size
                kept.extend(pieces)
                self._kept = gathered(kept)
        return pieces

    def take_again(self) -> list[bytes]:
        """Return all that has arrived, from the beginning.

        Raises:
            CredentialError: it is not kept any more.
            DownstreamError: as `take`.
        """
        self.take()
        if self._kept is None:  # grew beyond the bounds while we waited
            raise CredentialError(ErrorCode.TOKEN_RENEWED)
        return list(self._kept)

    def take_raw(self) -> list[bytes]:
        """Return what has arrived of the protocol that was switched to; it has no bound."""
        pieces = self._request.take_body()
        self.received_bytes += size_of(pieces)
        return pieces

    def drop(self) -> None:
        """Keep nothing of it any longer."""
        if self._kept is not None:
            self._budget.kept_bytes -= size_of(self._kept)
            self._kept = None
