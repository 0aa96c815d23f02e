"""Whether a request can be sent again, and how much may be kept for that."""

from enum import StrEnum
from typing import Final

from gateway.errors import ErrorCode, GatewayError, UpstreamError

MAX_KEPT_BYTES: Final = 6 * 2**20
"""Bodies that may wait in memory to be sent again, of all requests together; beyond it they are
sent once only, and a rejected token is 503. Stalled uploads cannot exceed this."""

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110 9.2.2


class Retry(StrEnum):
    """Why a request is sent again, each reason at most once; label `reason`."""

    TOKEN_REJECTED = "token_rejected"  # noqa: S105  # a reason, not a token
    STALE_CONNECTION = "stale_connection"
    THROTTLED = "throttled"
    """Only where the operator has named it, as the next one."""
    UNAVAILABLE = "unavailable"


TOKEN_REJECTED: Final = Retry.TOKEN_REJECTED
STALE_CONNECTION: Final = Retry.STALE_CONNECTION


def may_resend(
    error: GatewayError,
    method: str,
    *,
    reused: bool,
    heard: bool,
) -> bool:
    """Return whether the service cannot have seen the request, or may see it twice.

    Only a kept connection can die between two requests; a new one that fails has failed.

    Args:
        error: how the attempt has failed.
        method: of the request.
        reused: the connection has served a request before.
        heard: a byte of the response, or of an interim one, has arrived.
    """
    if not reused or not isinstance(error, UpstreamError):
        return False
    return error.replayable or (
        error.code is ErrorCode.CONNECTION_TERMINATED and not heard and method in _IDEMPOTENT
    )


class ReplayBudget:
    """How many bytes all requests together keep, and may keep."""

    __slots__ = ("kept_bytes", "max_bytes")

    def __init__(self, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self.max_bytes = max_bytes
        self.kept_bytes = 0
