"""How many requests a second a service that throttles is sent, by what it refuses."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.proxy.pace import Pace

QUOTA_PER_S = 40.0
STEP_S = 0.002
TOLD_AFTER_STEPS = 2
"""A service that refuses at once does so after a few milliseconds."""

Quota = Callable[[float], bool]
"""Called with the instant of a request; tells whether it is accepted."""


def bucket(burst: float) -> Quota:
    """A service that takes 40 a second, and so many at once."""
    even_at = 0.0

    def accepts(now: float) -> bool:
        nonlocal even_at
        if even_at - now > burst / QUOTA_PER_S:
            return False
        even_at = max(even_at, now) + 1.0 / QUOTA_PER_S
        return True

    return accepts


def counted(each_s: float) -> Quota:
    """A service that counts anew with each second, or ten."""
    period, taken = -1, 0

    def accepts(now: float) -> bool:
        nonlocal period, taken
        if int(now / each_s) != period:
            period, taken = int(now / each_s), 0
        taken += 1
        return taken <= QUOTA_PER_S * each_s

    return accepts


def sent(
    quota: Quota, offered_per_s: float, seconds: float, asked_s: float = 0.0
) -> tuple[Pace, list[tuple[float, bool]]]:
    """Return what a service got, and whether it accepted it; `asked_s`: it asks for a pause."""
    pace, got, refused_at = Pace(), list[tuple[float, bool]](), list[int]()
    waiting = 0.0
    for step in range(int(seconds / STEP_S)):
        now = step * STEP_S
        waiting = min(waiting + offered_per_s * STEP_S, offered_per_s)  # they give up after 1 s
        while refused_at and refused_at[0] + TOLD_AFTER_STEPS <= step:
            refused_at.pop(0)
            pace.note_throttled(now, asked_s)
        while waiting >= 1.0 and pace.opens_at(now) <= now:
            waiting -= 1.0
            pace.note_sent(now)
            got.append((now, quota(now)))
            if not got[-1][1]:
                refused_at.append(step)
    return pace, got


def per_s(got: list[tuple[float, bool]], since: float, until: float) -> tuple[float, float]:
    """Return how many a second were sent, and how many accepted."""
    those = [accepted for at, accepted in got if since <= at < until]
    return len(those) / (until - since), sum(those) / (until - since)


@pytest.mark.parametrize("offered_per_s", [60.0, 80.0, 400.0])
@pytest.mark.parametrize(
    "quota", [bucket(4.0), bucket(40.0), counted(1.0)], ids=["even", "bursts", "each second"]
)
def test_service_that_throttles_is_sent_what_it_takes(quota: Quota, offered_per_s: float) -> None:
    """
    After 5 s it is sent at most a tenth more than it accepts, and loses a twentieth at most.
    """
    offset = 100.0 * offered_per_s  # each run is later for the same quota
    _, got = sent(lambda now: quota(now + offset), offered_per_s, 20.0)
    asked, accepted = per_s(got, 5.0, 20.0)

    assert asked <= 1.1 * QUOTA_PER_S
    assert accepted >= 0.95 * QUOTA_PER_S


def test_pause_that_the_service_asks_for_is_kept() -> None:
    """
    `Retry-After: 1` with each refusal: nothing for a second; most of what it takes all the same.
    """
    _, got = sent(bucket(4.0), 80.0, 40.0, asked_s=1.0)
    refused = [at for at, accepted in got if not accepted]
    told_after_s = (TOLD_AFTER_STEPS + 1) * STEP_S

    assert refused
    for at in refused:
        assert not [other for other, _ in got if at + told_after_s <= other < at + 1.0]
    asked, accepted = per_s(got, 10.0, 40.0)
    assert asked <= 1.05 * QUOTA_PER_S
    assert accepted >= 0.8 * QUOTA_PER_S


def test_service_that_accepts_nothing_is_asked_once_a_second() -> None:
    """
    The quota of the minute is used up: there are responses to learn from, and hardly more.
    """
    _, got = sent(lambda _: False, 80.0, 20.0)

    assert per_s(got, 3.0, 20.0)[0] == pytest.approx(1.0, abs=0.2)


def test_pace_is_forgotten_when_nothing_is_refused() -> None:
    """
    A service that takes more after 10 s is sent everything soon after.
    """
    pace, got = sent(lambda now: now > 10.0 or int(now * 1000) % 4 == 0, 400.0, 40.0)

    assert per_s(got, 5.0, 10.0)[0] < 390.0
    assert per_s(got, 35.0, 40.0)[0] == pytest.approx(400.0, rel=0.02)
    assert pace.per_s(40.0) is None


def test_there_is_no_pace_before_the_service_throttles() -> None:
    """
    Whatever is sent; one refusal gives it one.
    """
    pace = Pace()
    for _ in range(1000):
        pace.note_sent(1.0)
        assert pace.opens_at(1.0) <= 1.0
    assert pace.per_s(1.0) is None
    pace.note_throttled(2.0, 0.0)

    assert pace.per_s(2.0) == 999.0  # in a second
    pace.note_sent(2.0)
    pace.note_sent(2.0)
    assert pace.opens_at(2.0) <= 2.0, "what a late timer has missed is made up for"


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.floats(0.0, 3.0), st.booleans(), st.sampled_from([0.0, 1.0, 7.0, 1e9])),
        max_size=100,
    )
)
def test_pace_never_stops_a_service(events: list[tuple[float, bool, float]]) -> None:
    """
    Whatever happens, the next request goes after the longest pause, 30 s, and a second.
    """
    pace, now = Pace(), 0.0
    for passed_s, is_refused, asked_s in events:
        now += passed_s
        if is_refused:
            pace.note_throttled(now, asked_s)
        elif pace.opens_at(now) <= now:
            pace.note_sent(now)
        rate = pace.per_s(now)
        assert rate is None or rate >= 1.0
        assert pace.opens_at(now) <= now + 31.0
