"""What the end of a request says about its service."""

import pytest

from gateway.errors import ErrorCode, Layer
from gateway.proxy.outcome import Outcome, outcome_of
from gateway.proxy.rejection import layer_of


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (429, "APIG.0308", Outcome.THROTTLED),
        (429, "ModelArts.4206", Outcome.THROTTLED),
        (429, "MR.0105", Outcome.ANSWERED),
        (500, "ModelArts.4302", Outcome.PROTECTED),
        (500, "MR.0105", Outcome.ANSWERED),
        (502, "APIG.0202", Outcome.DOWN),
        (503, "ModelArts.4503", Outcome.DOWN),
        (504, "APIG.0201", Outcome.DOWN),
        (503, "MR.0105", Outcome.ANSWERED),
        (503, "", Outcome.ANSWERED),
        (401, "APIG.0301", Outcome.ANSWERED),
        (404, "APIG.0101", Outcome.ANSWERED),
    ],
)
def test_error_responses(status: int, code: str, outcome: Outcome) -> None:
    """
    Only what the vendor says before the model is about the service; the model's errors are not.
    """
    assert outcome_of(status, layer_of(code), "any", code) is outcome


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (ErrorCode.CONNECTION_REFUSED, Outcome.DOWN),
        (ErrorCode.HTTP_RESPONSE_INCOMPLETE, Outcome.DOWN),
        (ErrorCode.CONNECTION_TIMEOUT, Outcome.TIMEOUT),
        (ErrorCode.HTTP_RESPONSE_TIMEOUT, Outcome.TIMEOUT),
        (ErrorCode.CLIENT_DISCONNECTED, Outcome.UNKNOWN),
        (ErrorCode.TOKEN_UNAVAILABLE, Outcome.UNKNOWN),
        (ErrorCode.OVERLOADED, Outcome.UNKNOWN),
        (ErrorCode.INTERNAL, Outcome.UNKNOWN),
    ],
)
def test_errors_of_ours(code: ErrorCode, outcome: Outcome) -> None:
    """
    The network's are the service's; the caller's, IAM's and our own are not.
    """
    assert outcome_of(code.status, code.layer, code.label, "") is outcome


def test_responses_without_an_error() -> None:
    """
    A request that ended without a status says nothing.
    """
    assert outcome_of(200, Layer.GATEWAY, "", "") is Outcome.GOOD
    assert outcome_of(101, Layer.GATEWAY, "", "") is Outcome.GOOD
    assert outcome_of(0, Layer.GATEWAY, "", "") is Outcome.UNKNOWN
