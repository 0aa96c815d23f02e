"""That a table tried in one test hides no row."""

import pytest

from tests.support.rows import every_row


def test_every_row_that_fails_is_named_and_the_others_are_tried() -> None:
    tried = []

    def try_them() -> None:
        with every_row() as row:
            for number in range(5):
                with row(number):
                    tried.append(number)
                    assert number % 2 == 0

    with pytest.raises(ExceptionGroup, match="rows that failed: 1, 3") as failed:
        try_them()

    assert tried == [0, 1, 2, 3, 4]
    assert [failure.__notes__ for failure in failed.value.exceptions] == [["row: 1"], ["row: 3"]]


def test_rows_that_hold_raise_nothing() -> None:
    with every_row() as row:
        for number in range(5):
            with row(number):
                assert number < 5
