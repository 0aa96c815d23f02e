"""What the doctor says about a limit that is far from what the service shows."""

from typing import Any

import pytest

from gateway.diagnose.limit_advice import limit_advice


def told(
    *, throttled: int = 0, timeouts: int = 0, rejected: dict[str, int] | None = None
) -> dict[str, Any]:
    """The part of `/status` that matters."""
    errors = [
        {"layer": "apig", "error": "throttled", "count": throttled},
        {"layer": "model", "error": "throttled", "count": 1000},
        {"layer": "network", "error": "http_response_timeout", "count": timeouts},
    ]
    limits = {"in_flight": 1, "limit": 16, "queued": 0, "breaker": "off"}
    service = {"limits": limits, "errors": errors, "rejected": rejected or {}}
    return {"services": {"llm": service, "quiet": {"limits": limits}}}


def test_limit_above_what_the_service_takes() -> None:
    """
    It throttles more than we keep from it; a model's own 429 does not count.
    """
    assert limit_advice(told(throttled=20, rejected={"queue_full": 20})) == {
        "llm": "the service throttled 20 requests, more than the gateway kept from it (20): "
        "max_in_flight, 16 now, is more than it takes; lower it, or set auto"
    }
    assert limit_advice(told(throttled=19)) == {}
    assert limit_advice(told(throttled=20, rejected={"queue_full": 21})) == {}


def test_limit_below_what_the_service_takes() -> None:
    """
    We refuse, and the service has never shown that it is full.
    """
    advice = limit_advice(told(rejected={"queue_full": 12, "queue_timeout": 8, "draining": 99}))
    assert advice == {
        "llm": "20 requests were refused because of max_in_flight, 16 now, and the service has not "
        "throttled or missed a deadline once: it may take more; raise the limit step by step, or "
        "set auto"
    }
    assert limit_advice(told(rejected={"queue_full": 19})) == {}
    assert limit_advice(told(rejected={"queue_full": 99}, timeouts=1)) == {}
    assert limit_advice(told(rejected={"queue_full": 99}, throttled=1)) == {}


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"services": []},
        {"services": {"llm": 1}},
        {"services": {"llm": {"limits": {"limit": "16"}}}},
        {"services": {"llm": {"limits": {"limit": 16}, "errors": 1, "rejected": 2}}},
        {"services": {"llm": {"limits": {"limit": 16}, "errors": [1, {"count": "x"}]}}},
    ],
)
def test_whatever_else_is_told_says_nothing(status: dict[str, Any]) -> None:
    """
    Another program may listen there, or another version of ours.
    """
    assert limit_advice(status) == {}
