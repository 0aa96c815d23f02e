"""One shift for all tests of a run: it takes most of a minute, so only `make test-long` has it."""

from collections.abc import Iterator

import pytest

from tests.programs.watch.shift import Shift, worked
from tests.support.tools import LONG


@pytest.fixture(scope="package")
def shift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shift]:
    """A shift that is over; its Prometheus can still be asked."""
    if not LONG:
        pytest.skip("takes a minute: LONG=1")
    with worked(tmp_path_factory.mktemp("watch")) as done:
        yield done
