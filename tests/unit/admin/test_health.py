"""Readiness, judged from a state that the test sets."""

import pytest

from gateway.admin.health import readiness
from gateway.identity.report import IdentityStatus, Reason
from tests.support.health import BAD, GOOD, State


@pytest.mark.parametrize(
    ("statuses", "draining", "ready"),
    [
        ((GOOD,), False, True),
        ((BAD, GOOD), False, True),
        ((BAD, BAD), False, False),
        ((GOOD,), True, False),
    ],
)
def test_one_service_is_enough(
    statuses: tuple[IdentityStatus, ...], draining: bool, ready: bool
) -> None:
    """Ready while one service can be served and nobody has asked the gateway to leave."""
    state = State(*statuses)
    state.draining = draining

    assert readiness(state).ready is ready


def test_each_service_has_its_reason() -> None:
    """With the identity that it waits for."""
    assert readiness(State(BAD, GOOD)).services == {
        "service-0": f"identity-0: {Reason.REFUSED}",
        "service-1": "ok",
    }
