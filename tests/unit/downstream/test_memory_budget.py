"""Who ends first when memory is short."""

from gateway.downstream.memory_budget import Holding, first_to_end


def held(size: int, heard_at: float = 0.0) -> Holding:
    return Holding(heads=size, bodies=0, answers=0, heard_at=heard_at)


def test_whoever_holds_most_ends_first() -> None:
    """So many end as give back what is too much, and no more."""
    holdings = [held(100), held(100_000), held(9_000), held(0)]

    assert first_to_end(holdings, 1) == [1]
    assert first_to_end(holdings, 100_001) == [1, 2]
    assert first_to_end(holdings, 10**9) == [1, 2, 0]
    assert first_to_end(holdings, 0) == []


def test_of_those_that_hold_alike_the_silent_one_ends() -> None:
    """Within a factor of two, what counts is how long nothing has come."""
    assert first_to_end([held(1000, 5.0), held(900, 1.0), held(1023, 3.0)], 1500) == [1, 2]
