"""What the end of a request says about its service: is it overloaded, down, or well? Pure."""

from enum import Enum, auto
from typing import Final

from gateway.errors import Layer


class Outcome(Enum):
    """What the end of a request says about the service."""

    GOOD = auto()
    """It answered without an error."""
    ANSWERED = auto()
    """It answered with an error of the caller's or of the model's own: it is up."""
    THROTTLED = auto()
    """It has refused the request because there are too many: 429, or 500 ModelArts.4302."""
    DOWN = auto()
    """It cannot be reached, or whatever stands before it says that it is not there."""
    TIMEOUT = auto()
    """It did not answer in time."""
    UNKNOWN = auto()
    """Nothing: the request was not sent, or its caller left."""


GOOD: Final = Outcome.GOOD
ANSWERED: Final = Outcome.ANSWERED
THROTTLED: Final = Outcome.THROTTLED
DOWN: Final = Outcome.DOWN
TIMEOUT: Final = Outcome.TIMEOUT
UNKNOWN: Final = Outcome.UNKNOWN

_THROTTLING_429: Final = frozenset({"APIG.0308", "ModelArts.4206"})
SELF_PROTECTION_500: Final = "ModelArts.4302"
"""The backend refused the connection, or its own breaker is open: too many requests either way."""
UNAVAILABLE: Final = frozenset({502, 503, 504})
_TIMEOUTS: Final = frozenset({"connection_timeout", "http_response_timeout"})
_SERVICE: Final = frozenset({Layer.APIG, Layer.MODELARTS, Layer.MODEL})


def is_throttling(status: int, vendor_code: str) -> bool:
    """Return whether a response says that there are too many requests, and not just too few rights.

    A model's own 429 does not count: its reason is unknown.
    """
    if status == 429:
        return vendor_code in _THROTTLING_429
    return status == 500 and vendor_code == SELF_PROTECTION_500


def outcome_of(status: int, layer: Layer, error: str, vendor_code: str) -> Outcome:
    """Return what an ended request says about its service.

    Args:
        status: that the caller got.
        layer: whose fault the error is.
        error: label of the error; empty: there is none.
        vendor_code: in the service's error response; empty: there is none.
    """
    if not error:
        return GOOD if status else UNKNOWN
    if layer is Layer.NETWORK:
        return TIMEOUT if error in _TIMEOUTS else DOWN
    if layer not in _SERVICE:
        return UNKNOWN
    if is_throttling(status, vendor_code):
        return THROTTLED
    # Of the model itself it is not known whether its 503 means the service or one request.
    return DOWN if status in UNAVAILABLE and layer is not Layer.MODEL else ANSWERED
