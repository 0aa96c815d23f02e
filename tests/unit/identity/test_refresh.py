"""The policy of logins: pure, so both sides of every limit are cheap."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.refresh import (
    RefreshResult,
    RefusalLedger,
    expires_at,
    family,
    pause_after,
    stale_at,
)
from gateway.identity.rejection_guard import RejectionGuard

LAST = 1 - 2**-53
SPREADS = st.floats(0, LAST)
TRANSIENT = [RefreshResult.NETWORK, RefreshResult.TIMEOUT, RefreshResult.BAD_REPLY]


def pause(
    result: RefreshResult, n: int = 1, spread: float = 0.0, retry_after_s: float | None = None
) -> float:
    return pause_after(result, failures_in_a_row=n, retry_after_s=retry_after_s, spread=spread)


def test_refused_login_pauses_a_quarter_of_an_hour_growing_to_four_hours() -> None:
    """15 min, 30 min, 1 h, 2 h, then 4 h for ever, and jitter only lengthens it."""
    assert [pause(RefreshResult.REFUSED, n) / 60 for n in range(1, 8)] == [
        *(15, 30, 60, 120, 240, 240, 240),
    ]
    assert pause(RefreshResult.REFUSED, 1, LAST) == pytest.approx(16.5 * 60)
    assert pause(RefreshResult.REFUSED, 10**9, LAST) == 4 * 3600


@pytest.mark.parametrize(
    ("asked_s", "granted_s"),
    [(-5, 1), (0, 1), (1, 1), (7, 7), (3599, 3599), (3600, 3600), (10**9, 3600)],
)
def test_retry_after_is_honoured_within_reason(asked_s: float, granted_s: float) -> None:
    """IAM's own wish counts, between one second and one hour."""
    assert pause(RefreshResult.THROTTLED, 9, retry_after_s=asked_s) == granted_s


def test_throttled_without_a_wish_pauses_half_a_minute_growing_to_ten() -> None:
    """The vendor documents no Retry-After with its 429."""
    assert [pause(RefreshResult.THROTTLED, n) for n in range(1, 8)] == [
        *(30, 60, 120, 240, 480, 600, 600),
    ]


@pytest.mark.parametrize("result", TRANSIENT)
def test_transient_failures_back_off_with_full_jitter_to_half_a_minute(
    result: RefreshResult,
) -> None:
    """Never below 0.5 s, the ceiling doubles from 1 s to 30 s, and they grow as one family."""
    assert family(result) is RefreshResult.NETWORK
    assert [pause(result, n) for n in (1, 5, 99)] == [0.5, 0.5, 0.5]
    ceilings = [pause(result, n, LAST) for n in range(1, 8)]
    assert ceilings == pytest.approx([1, 2, 4, 8, 16, 30, 30])
    assert pause(result, 1, retry_after_s=3000.0) == 0.5


@given(
    result=st.sampled_from(RefreshResult),
    n=st.integers(0, 10**12),
    retry_after_s=st.none() | st.floats(allow_nan=False),
    spread=SPREADS,
)
def test_every_pause_is_bounded(
    result: RefreshResult, n: int, retry_after_s: float | None, spread: float
) -> None:
    """No input makes a busy loop or a gateway that never tries again."""
    assert 0.5 <= pause(result, n, spread, retry_after_s) <= 4 * 3600


@given(asked_at=st.floats(0, 1e9), life_s=st.floats(1e-3, 31 * 86400), spread=SPREADS)
def test_token_is_stale_in_good_time_and_expires_before_its_end(
    asked_at: float, life_s: float, spread: float
) -> None:
    """Replaced at 50-80 % of its life, unused for the last 5 s, 5 %, or 1 s or a fifth of it."""
    stale, end = stale_at(asked_at, life_s, spread), expires_at(asked_at, life_s)
    slack = 1e-6
    assert asked_at + 0.5 * life_s - slack <= stale <= asked_at + 0.8 * life_s + slack
    assert stale <= end + slack
    margin_s = 5 if life_s >= 100 else 0.05 * life_s if life_s >= 20 else min(1, 0.2 * life_s)
    assert end == pytest.approx(asked_at + life_s - margin_s)


def test_ledger_allows_two_refusals_in_a_quarter_of_an_hour() -> None:
    """The third waits until the first is 15 minutes old, to the instant."""
    ledger = RefusalLedger()
    for now in (0.0, 60.0):
        assert ledger.opens_at(now) <= now
        assert not ledger.exhausted(now)
        ledger.begin()
        ledger.end(now, refused=True)
    assert ledger.opens_at(60.0) == 900.0
    assert ledger.exhausted(899.9)
    assert not ledger.exhausted(900.0)
    assert ledger.opens_at(900.0) == 900.0


def test_ledger_takes_logins_under_way_for_refused() -> None:
    """Three identities of one account that start together must not make three wrong logins."""
    ledger = RefusalLedger()
    ledger.begin()
    assert ledger.opens_at(0.0) == 0.0
    ledger.begin()
    assert 0 < ledger.opens_at(0.0) < 1
    assert not ledger.exhausted(0.0)
    ledger.end(0.5, refused=False)
    assert ledger.opens_at(0.5) == 0.5


@given(st.lists(st.tuples(st.floats(0, 600), st.booleans()), max_size=60))
def test_ledger_never_sees_three_refusals_in_a_window(steps: list[tuple[float, bool]]) -> None:
    """Whatever the order of events, a caller that obeys `opens_at` stays within the bound."""
    ledger, now, refusals = RefusalLedger(), 0.0, []
    for wait_s, refused in steps:
        now += wait_s
        if ledger.opens_at(now) <= now:
            ledger.begin()
            ledger.end(now, refused=refused)
            if refused:
                refusals.append(now)
    for first, third in zip(refusals, refusals[2:], strict=False):
        assert third >= first + 900


def test_guard_pauses_longer_after_each_login_that_cured_nothing() -> None:
    """30 s, 1, 2, 4, 8 min, then 10 min between logins that rejections cause in vain."""
    guard, now, pauses = RejectionGuard(), 0.0, []
    for _ in range(7):
        guard.login_caused(now)
        opens = next(s for s in range(1, 10_000) if guard.open(now + s))
        pauses.append(opens)
        now += opens
    assert pauses == [30, 60, 120, 240, 480, 600, 600]


def test_guard_lets_cured_rejections_through_four_times_then_slows_down() -> None:
    """Tokens may really be revoked in quick succession; an upstream of two minds is slowed."""
    guard, now, pauses = RejectionGuard(), 0.0, []
    for _ in range(6):
        guard.login_caused(now)
        guard.cured()
        opens = next(s for s in range(10_000) if guard.open(now + s))
        pauses.append(opens)
        now += opens
    assert pauses == [0, 0, 0, 1, 2, 4]


def test_guard_forgets_after_ten_quiet_minutes() -> None:
    """The next trouble is a new one: 30 s again, not 60 s."""
    for quiet_s, second_pause_s in ((630.0, 30), (629.0, 60)):
        guard = RejectionGuard()
        guard.login_caused(0.0)
        guard.login_caused(quiet_s)
        assert not guard.open(quiet_s + second_pause_s - 1)
        assert guard.open(quiet_s + second_pause_s)


def test_guard_counts_barren_logins_from_the_last_cure() -> None:
    """A success in between makes the next failure the first: 30 s, not 60 s."""
    guard = RejectionGuard()
    guard.login_caused(0.0)
    guard.cured()
    guard.login_caused(1.0)
    assert not guard.open(30.9)
    assert guard.open(31.0)
