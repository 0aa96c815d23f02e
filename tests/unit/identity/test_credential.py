"""When a credential may be used."""

import pytest

from gateway.identity.credential import Credential, Freshness, freshness

CREDENTIAL = Credential(b"X-Auth-Token: canary\r\n", stale_at=10.0, expires_at=20.0)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (9.9, Freshness.FRESH),
        (10.0, Freshness.STALE),
        (19.9, Freshness.STALE),
        (20.0, Freshness.EXPIRED),
    ],
)
def test_freshness_changes_at_its_instants(now: float, expected: Freshness) -> None:
    """Both limits belong to the later state."""
    assert freshness(CREDENTIAL, now) is expected


def test_no_credential_counts_as_expired() -> None:
    """Nothing cannot be sent."""
    assert freshness(None, 0.0) is Freshness.EXPIRED


def test_repr_does_not_show_the_line() -> None:
    """A token must not reach a log by way of a repr."""
    assert "canary" not in repr(CREDENTIAL)
