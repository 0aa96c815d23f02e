"""How many requests may be in flight at a time, decided by what the service says."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.limit import FIRST_ADAPTIVE, MOST_ADAPTIVE, Limit


def test_fixed_limit_stays() -> None:
    """
    Neither losses nor good responses change what the operator has set.
    """
    limit = Limit(4)
    limit.note_loss(1.0)
    for _ in range(100):
        limit.note_good(4)

    assert limit.current == 4


def test_loss_decreases_by_a_tenth_at_most_once_a_second() -> None:
    """
    The losses of one overload count once; the next second may decrease again.
    """
    limit = Limit(None)
    limit.note_loss(5.0)
    limit.note_loss(5.0)
    limit.note_loss(5.99)
    assert limit.current == 9
    limit.note_loss(6.0)
    assert limit.current == 8  # 8.1


def test_good_responses_increase_by_one_per_limit_many() -> None:
    """
    The tenth good response makes 11 of 10, if more than half was in use all the time.
    """
    limit = Limit(None)
    for _ in range(9):
        limit.note_good(6)
    assert limit.current == FIRST_ADAPTIVE
    limit.note_good(6)
    assert limit.current == FIRST_ADAPTIVE + 1


def test_unused_limit_does_not_increase() -> None:
    """
    While half of the limit or less is in use, good responses say nothing about more.
    """
    limit = Limit(None)
    for _ in range(100):
        limit.note_good(5)

    assert limit.current == FIRST_ADAPTIVE


@given(
    st.lists(st.tuples(st.floats(0, 0.5), st.booleans(), st.integers(1, 1000)), max_size=400),
)
def test_adaptive_limit_stays_within_its_bounds(events: list[tuple[float, bool, int]]) -> None:
    """
    Whatever happens, it is 1 to 1000, and goes down by a tenth a second at most.
    """
    limit, now = Limit(None), 0.0
    lowest, decreases = limit.current, 0
    for pause_s, is_loss, in_flight in events:
        now += pause_s
        before = limit.current
        if is_loss:
            limit.note_loss(now)
            decreases += limit.current < before
        else:
            limit.note_good(in_flight)
            assert limit.current in {before, before + 1}
        lowest = min(lowest, limit.current)
        assert 1 <= limit.current <= MOST_ADAPTIVE

    assert decreases <= now + 1


def test_loss_never_stops_all_requests() -> None:
    """
    At 1 it stays, so that there are responses to learn from.
    """
    limit = Limit(None)
    for second in range(100):
        limit.note_loss(float(second))
    assert limit.current == 1
    limit.note_good(1)
    assert limit.current == 2


def test_limit_does_not_grow_without_bound() -> None:
    """
    1000 is the most.
    """
    limit = Limit(None)
    for _ in range(600_000):
        limit.note_good(1000)

    assert limit.current == MOST_ADAPTIVE
