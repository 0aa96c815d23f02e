"""When a service is left alone, and for how long."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.breaker import (
    CLOSED,
    HALF_OPEN,
    OPEN,
    PASSES,
    PROBES,
    REFUSED,
    Breaker,
    BreakerState,
)

MIDDLE = 0.5
"""A draw that leaves a pause as it is."""


def state_of(breaker: Breaker) -> BreakerState:
    """The state at this moment."""
    return breaker.state


def opened(failures: int = 3, pause_s: float = 10.0) -> Breaker:
    """A breaker that has opened at 0."""
    breaker = Breaker(failures, pause_s)
    for _ in range(failures):
        breaker.note_failure(0.0, MIDDLE, is_probe=False)
    assert state_of(breaker) is OPEN
    return breaker


def test_failures_in_a_row_open_it() -> None:
    """
    Both sides of the number; a success in between begins anew.
    """
    breaker = Breaker(3, 10.0)
    for is_failure in (True, True, False, True, True):
        if is_failure:
            breaker.note_failure(0.0, MIDDLE, is_probe=False)
        else:
            breaker.note_success(is_probe=False)
    assert state_of(breaker) is CLOSED
    assert breaker.admit(0.0) is PASSES
    breaker.note_failure(0.0, MIDDLE, is_probe=False)
    assert state_of(breaker) is OPEN
    assert breaker.admit(0.0) is REFUSED


def test_one_request_is_tried_after_the_pause() -> None:
    """
    Both sides of its end; while the probe is under way, others are refused.
    """
    breaker = opened()
    assert breaker.remaining_s(4.0) == 6.0
    assert breaker.admit(9.999) is REFUSED
    assert breaker.admit(10.0) is PROBES
    assert state_of(breaker) is HALF_OPEN
    assert breaker.admit(10.0) is REFUSED
    breaker.note_success(is_probe=True)
    assert state_of(breaker) is CLOSED
    assert breaker.admit(10.0) is PASSES


def test_pause_doubles_up_to_a_minute() -> None:
    """
    10, 20, 40, 60, 60; a success makes the next one 10 again.
    """
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(5):
        pauses.append(breaker.remaining_s(now))
        now += pauses[-1]
        assert breaker.admit(now) is PROBES
        breaker.note_failure(now, MIDDLE, is_probe=True)
    assert pauses == [10.0, 20.0, 40.0, 60.0, 60.0]
    now += 60.0
    breaker.admit(now)
    breaker.note_success(is_probe=True)
    for _ in range(3):
        breaker.note_failure(now, MIDDLE, is_probe=False)
    assert breaker.remaining_s(now) == 10.0


def test_pause_that_is_configured_to_be_long_stays() -> None:
    """
    A minute bounds the doubling, not what the operator has set.
    """
    breaker = opened(pause_s=120.0)
    breaker.admit(120.0)
    breaker.note_failure(120.0, MIDDLE, is_probe=True)
    assert breaker.remaining_s(120.0) == 120.0


def test_requests_from_before_decide_nothing() -> None:
    """
    What was under way when it opened neither closes it nor makes the pause longer.
    """
    breaker = opened()
    breaker.note_success(is_probe=False)
    breaker.note_failure(5.0, MIDDLE, is_probe=False)
    assert state_of(breaker) is OPEN
    assert breaker.remaining_s(5.0) == 5.0


def test_probe_whose_caller_left_makes_way_for_another() -> None:
    """
    Its end says nothing about the service, so the next request is the probe.
    """
    breaker = opened()
    breaker.admit(10.0)
    breaker.note_nothing(12.0, is_probe=True)
    assert breaker.admit(12.0) is PROBES


@given(
    st.integers(1, 5),
    st.lists(
        st.tuples(
            st.floats(0, 20),
            st.sampled_from(["ask", "ask", "good", "bad", "nothing"]),
            st.floats(0, 1),
        ),
        max_size=200,
    ),
)
def test_whatever_happens_no_request_passes_an_open_breaker(
    failures: int, events: list[tuple[float, str, float]]
) -> None:
    """
    One probe at a time; it opens only after failures; a pause is 8 to 72 s.
    """
    breaker, now = Breaker(failures, 10.0), 0.0
    under_way: list[bool] = []  # whether each is the probe
    failed = 0
    for pause_s, event, draw in events:
        now += pause_s
        before = breaker.state
        if event == "ask":
            verdict = breaker.admit(now)
            assert (verdict is PASSES) == (before is CLOSED)
            if verdict is not REFUSED:
                under_way.append(verdict is PROBES)
        elif under_way:
            is_probe = under_way.pop()
            if event == "good":
                breaker.note_success(is_probe=is_probe)
                failed = 0 if before is CLOSED or is_probe else failed
            elif event == "bad":
                failed += 1
                breaker.note_failure(now, draw, is_probe=is_probe)
            else:
                breaker.note_nothing(now, is_probe=is_probe)
            if before is CLOSED and breaker.state is OPEN:
                assert failed >= failures
                assert 8.0 <= breaker.remaining_s(now) <= 12.001
        assert under_way.count(True) <= 1
        assert breaker.remaining_s(now) <= 72.001
