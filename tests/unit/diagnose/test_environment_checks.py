"""Variables that change other programs' connections: named when set, values never shown."""

import pytest

from gateway.diagnose.environment_checks import surroundings
from gateway.diagnose.findings import Level, Step


def test_nothing_set_is_well() -> None:
    """Empty variables count as unset, others are none of our business."""
    [found] = surroundings({"HTTPS_PROXY": "", "PATH": "/bin", "NO_PROXY": "x"})
    assert (found.level, found.step) == (Level.OK, Step.ENVIRONMENT)


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"https_proxy": "canary"}, "https_proxy is set and ignored: a token is not shown to"),
        (
            {"ALL_PROXY": "canary", "HTTPS_PROXY": "canary"},
            "HTTPS_PROXY, ALL_PROXY are set and ignored: a token is not shown to proxies",
        ),
        ({"SSLKEYLOGFILE": "canary"}, "SSLKEYLOGFILE is set and ignored: the keys of TLS"),
        (
            {"REQUESTS_CA_BUNDLE": "canary"},
            "REQUESTS_CA_BUNDLE is set and ignored: name the authorities to trust in tls.ca_file",
        ),
    ],
)
def test_what_is_set_and_ignored_is_a_warning(environ: dict[str, str], text: str) -> None:
    """By name and with the reason; the value of a proxy variable holds a password."""
    [found] = surroundings(environ)
    assert (found.level, found.key) == (Level.WARN, "")
    assert found.text.startswith(text)
    assert "canary" not in found.text
