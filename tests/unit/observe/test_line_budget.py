"""How many lines get through, by the time that is passed in."""

from gateway.observe.line_budget import LineBudget


def taken(budget: LineBudget, tries: int, now: float) -> int:
    return sum(budget.take(now) for _ in range(tries))


def test_a_burst_and_then_a_rate() -> None:
    """The burst at once, then what the time brings, and never more than the burst in stock."""
    budget = LineBudget(burst=5, per_s=2.0)

    assert taken(budget, 100, now=1000.0) == 5
    assert taken(budget, 100, now=1000.4) == 0
    assert taken(budget, 100, now=1000.5) == 1
    assert taken(budget, 100, now=1002.0) == 3
    assert taken(budget, 100, now=5000.0) == 5


def test_what_is_held_back_is_counted_until_it_is_told() -> None:
    """Each line once."""
    budget = LineBudget(burst=5, per_s=2.0)
    taken(budget, 12, now=0.0)

    assert budget.told() == 7
    assert budget.told() == 0
    taken(budget, 3, now=1.0)
    assert budget.told() == 1
