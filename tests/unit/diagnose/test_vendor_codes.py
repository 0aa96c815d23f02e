"""What an answer means when neither ModelArts nor its API gateway gave it, or a token is refused.

Every code of the vendor is in tests/cloud/test_doctor.py.
"""

from typing import Any

import pytest

from gateway.diagnose.findings import Level, Step
from gateway.diagnose.vendor_codes import Visited, failure_text, is_known_to_vendor, meaning_of
from gateway.errors import ErrorCode, UpstreamError
from gateway.settings import Service


def answer(status: int, **facts: Any) -> Visited:
    """An answer of a server that says nothing of itself."""
    plain: dict[str, Any] = {
        "method": "GET",
        "code": "",
        "server": b"nginx",
        "keystone": False,
        "request_id": "",
        "date": None,
        "took_s": 0.0123,
    }
    return Visited(status=status, **(plain | facts))


@pytest.mark.parametrize(
    ("status", "level", "step", "text"),
    [
        (200, Level.OK, Step.PROBE, "answers GET with 200 (status 200, 12 ms)"),
        (301, Level.WARN, Step.URL, "redirected, which the gateway leaves to its callers"),
        (
            400,
            Level.OK,
            Step.PROBE,
            "a server has been reached; its own response to a bare GET is expected",
        ),
        (401, Level.WARN, Step.PROBE, "refused by a server that is not ModelArts: check the url"),
        (403, Level.WARN, Step.PROBE, "refused by a server that is not ModelArts"),
        (404, Level.WARN, Step.URL, "not found, says a server that is not ModelArts"),
        (
            405,
            Level.OK,
            Step.PROBE,
            "a server has been reached; its own response to a bare GET is expected",
        ),
        (500, Level.FAIL, Step.PROBE, "the server, or a proxy before it, fails"),
        (501, Level.OK, Step.PROBE, "a server has been reached"),
        (503, Level.FAIL, Step.PROBE, "the server, or a proxy before it, fails"),
    ],
)
def test_strangers_are_judged_by_status(status: int, level: Level, step: Step, text: str) -> None:
    """What a URL that leads elsewhere looks like is a warning, since a service may say it too."""
    found = meaning_of(answer(status), login_method="password")
    assert (found.level, found.step) == (level, step)
    assert found.text.startswith(text)
    assert not is_known_to_vendor(answer(status))


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("password", "the token that IAM has just issued is rejected"),
        ("application_credential", "the token that IAM has just issued is rejected"),
        (
            "file",
            "the token in token_file is rejected: the program that writes the file must renew it",
        ),
        (
            "none",
            "the service requires a token, and the identity (method none) sends none: configure",
        ),
    ],
)
@pytest.mark.parametrize(
    "rejection", [{"code": "APIG.0301", "server": b"api-gateway"}, {"keystone": True}]
)
def test_refused_token_has_the_remedy_of_its_origin(
    method: str, text: str, rejection: dict[str, Any]
) -> None:
    """Said by the API gateway or by keystonemiddleware."""
    found = meaning_of(answer(401, **rejection), login_method=method)
    assert (found.level, found.step) == (Level.FAIL, Step.PROBE)
    assert found.text.startswith(text)


@pytest.mark.parametrize("code", [c for c in ErrorCode if c.value.proxy_error])
def test_every_failure_has_words(code: ErrorCode) -> None:
    """One line, with something to do."""
    service = Service(url="https://models.example/x")
    text = failure_text(UpstreamError(code, "no answer within 1 s"), service)
    assert "\n" not in text
    assert len(text) > 20


@pytest.mark.parametrize(("scheme", "hint"), [("http", False), ("https", True)])
def test_client_certificate_is_thought_of_with_tls_only(scheme: str, hint: bool) -> None:
    """A server that wants one closes after the handshake, in TLS 1.3."""
    service = Service(url=f"{scheme}://models.example/x")
    text = failure_text(UpstreamError(ErrorCode.CONNECTION_TERMINATED), service)
    assert ("client certificate" in text) is hint
