"""One test for all rows of a table: cheaper than a test each, and every row that fails is named."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager


@contextmanager
def every_row() -> Iterator[Callable[[object], AbstractContextManager[None]]]:
    """Yield what a row is tried under, by name; raise the failures of all rows once all are tried.

    Raises:
        ExceptionGroup: of what failed; its text and a note of each failure name the rows.
    """
    failures: list[Exception] = []
    names: list[str] = []

    @contextmanager
    def row(name: object) -> Iterator[None]:
        try:
            yield
        except Exception as failure:  # noqa: BLE001  # raised below, after the other rows
            failure.add_note(f"row: {name}")
            failures.append(failure)
            names.append(str(name))

    yield row
    if failures:
        raise ExceptionGroup(f"rows that failed: {', '.join(names)}", failures)
