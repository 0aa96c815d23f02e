"""What the end of a request says about its service: is it overloaded, down, or well? Pure."""

from enum import Enum, auto
from typing import Final

from gateway.errors import GatewayError, Layer
from gateway.proxy.rejection import layer_of


class Outcome(Enum):
    """What the end of a request says about the service."""

    GOOD = auto()
    """It answered without an error."""
    ANSWERED = auto()
    """It answered with an error of the caller's or of the model's own: it is up."""
    THROTTLED = auto()
    """It is up, and has refused the request because there are too many: a vendor's 429."""
    PROTECTED = auto()
    """500 ModelArts.4302: its backend refuses connections, or its own breaker is open."""
    DOWN = auto()
    """It cannot be reached, or whatever stands before it says that it is not there."""
    TIMEOUT = auto()
    """It did not answer in time."""
    UNKNOWN = auto()
    """Nothing: the request was not sent, or its caller left."""


GOOD: Final = Outcome.GOOD
ANSWERED: Final = Outcome.ANSWERED
THROTTLED: Final = Outcome.THROTTLED
PROTECTED: Final = Outcome.PROTECTED
DOWN: Final = Outcome.DOWN
TIMEOUT: Final = Outcome.TIMEOUT
UNKNOWN: Final = Outcome.UNKNOWN

_THROTTLING_429: Final = frozenset({"APIG.0308", "ModelArts.4206"})
_PROTECTION_500: Final = "ModelArts.4302"
UNAVAILABLE_STATUSES: Final = frozenset({502, 503, 504})
_TIMEOUTS: Final = frozenset({"connection_timeout", "http_response_timeout"})
_SERVICE: Final = frozenset({Layer.APIG, Layer.MODELARTS, Layer.MODEL})


def is_throttled(status: int, vendor_code: str) -> bool:
    """Return whether a response says that there are too many requests.

    A model's own 429 does not count: its reason is unknown.
    """
    return status == 429 and vendor_code in _THROTTLING_429


def protects_itself(status: int, vendor_code: str) -> bool:
    """Return whether the vendor has kept a request from a backend that does not take it."""
    return status == 500 and vendor_code == _PROTECTION_500


def outcome_of_error(error: GatewayError) -> Outcome:
    """Return what an error of ours says about the service."""
    return outcome_of(error.code.status, error.code.layer, error.code.label, "")


def outcome_of_response(status: int, vendor_code: str) -> Outcome:
    """Return what an error response says about the service."""
    return outcome_of(status, layer_of(vendor_code), "refused", vendor_code)


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
    if is_throttled(status, vendor_code):
        return THROTTLED
    if protects_itself(status, vendor_code):
        return PROTECTED
    # Of the model itself it is not known whether its 503 means the service or one request.
    return DOWN if status in UNAVAILABLE_STATUSES and layer is not Layer.MODEL else ANSWERED
