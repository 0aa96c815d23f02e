"""One shift for all tests of a run: it takes most of a minute."""

from collections.abc import Iterator

import pytest

from tests.programs.watch.shift import Shift, worked


@pytest.fixture(scope="package")
def shift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shift]:
    """A shift that is over; its Prometheus can still be asked."""
    with worked(tmp_path_factory.mktemp("watch")) as done:
        yield done
