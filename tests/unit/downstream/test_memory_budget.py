"""Who ends first when memory is short."""

from gateway.downstream.memory_budget import first_to_end


def test_client_that_holds_most_ends_first() -> None:
    """So many end as give back what is too much, and no more."""
    sizes, heard_at = [100, 100_000, 9_000, 0], [0.0] * 4

    assert first_to_end(sizes, heard_at, 1) == [1]
    assert first_to_end(sizes, heard_at, 100_001) == [1, 2]
    assert first_to_end(sizes, heard_at, 10**9) == [1, 2, 0]
    assert first_to_end(sizes, heard_at, 0) == []


def test_of_those_that_hold_alike_the_silent_one_ends() -> None:
    """Within a factor of two, what counts is how long nothing has come."""
    assert first_to_end([1000, 900, 1023], [5.0, 1.0, 3.0], 1500) == [1, 2]
