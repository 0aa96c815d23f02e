"""When a request may be sent to a service again that has refused it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ErrorCode
from gateway.proxy.replay import Retry
from gateway.proxy.retry import (
    RetryBudget,
    pause_before,
    reason_for_error,
    reason_for_response,
    retry_after_in,
)

WINDOW_S = 10.0


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (429, "APIG.0308", Retry.THROTTLED),
        (429, "ModelArts.4206", Retry.THROTTLED),
        (429, "MR.0105", None),
        (429, "", None),
        (502, "", Retry.UNAVAILABLE),
        (503, "ModelArts.4503", Retry.UNAVAILABLE),
        (504, "APIG.0201", Retry.UNAVAILABLE),
        (500, "ModelArts.4302", Retry.UNAVAILABLE),
        (500, "MR.0105", None),
        (501, "", None),
        (400, "APIG.0308", None),
        (401, "APIG.0301", None),
    ],
)
def test_responses_that_another_attempt_may_be_spared(
    status: int, code: str, reason: Retry | None
) -> None:
    """
    The vendor's words for too many requests, and the statuses of a service that is not there.
    """
    assert reason_for_response(status, code) is reason


@pytest.mark.parametrize(
    ("code", "is_retried"),
    [
        (ErrorCode.CONNECTION_REFUSED, True),
        (ErrorCode.CONNECTION_TERMINATED, True),
        (ErrorCode.DNS_ERROR, True),
        (ErrorCode.TLS_CERTIFICATE_ERROR, False),
        (ErrorCode.HTTP_PROTOCOL_ERROR, False),
        (ErrorCode.OVERLOADED, False),
        (ErrorCode.CLIENT_DISCONNECTED, False),
    ],
)
def test_errors_that_another_attempt_may_not_meet(code: ErrorCode, is_retried: bool) -> None:
    """
    A wrong certificate stays wrong, and what we refuse ourselves is not the service's.
    """
    assert (reason_for_error(code) is Retry.UNAVAILABLE) is is_retried


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        ([b"Date: x", b"retry-after: 7"], 7.0),
        ([b"Retry-After:0"], 0.0),
        ([b"Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"], None),
        ([b"Retry-After: -1"], None),
        ([b"X-Retry-After: 3"], None),
        ([], None),
    ],
)
def test_time_that_the_service_asks_for(lines: list[bytes], seconds: float | None) -> None:
    """
    Seconds count; a date, which needs a common clock, does not.
    """
    assert retry_after_in(lines) == seconds


def test_pause_is_never_shorter_than_asked() -> None:
    """
    The configured one is spread by a fifth either way, the service's own only upwards.
    """
    assert [pause_before(None, 2.0, draw) for draw in (0.0, 0.5, 1.0)] == pytest.approx(
        [1.6, 2.0, 2.4]
    )
    assert [pause_before(5.0, 2.0, draw) for draw in (0.0, 1.0)] == pytest.approx([5.0, 6.0])


def test_three_are_always_allowed() -> None:
    """
    Rare requests may be repeated as well; the fourth needs the share.
    """
    budget = RetryBudget(0.2)
    assert [budget.take(1.0) for _ in range(4)] == [True, True, True, False]


def test_share_of_the_latest_requests() -> None:
    """
    A fifth of 10 is 2, and 3 more; what is older than 10 s does not count.
    """
    budget = RetryBudget(0.2)
    for _ in range(10):
        budget.note_request(0.0)
    assert [budget.take(1.0) for _ in range(6)] == [True] * 5 + [False]
    assert [budget.take(11.5) for _ in range(4)] == [True, True, True, False]


@given(
    st.floats(0, 1),
    st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=300),
)
def test_retries_never_exceed_the_budget(share: float, events: list[tuple[float, bool]]) -> None:
    """
    At each retry those of the last 10 s are at most the share of the requests in it, plus 3.
    """
    budget, now = RetryBudget(share), 0.0
    requests: list[float] = []
    retries: list[float] = []
    for pause_s, is_retry in events:
        now += pause_s
        if not is_retry:
            budget.note_request(now)
            requests.append(now)
        elif budget.take(now):
            retries.append(now)
            recent = [at for at in retries if at > now - WINDOW_S]
            asked = [at for at in requests if at >= now - WINDOW_S]
            assert len(recent) <= share * len(asked) + 3
