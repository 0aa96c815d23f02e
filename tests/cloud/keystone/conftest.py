"""One real Keystone for all tests below; without one they are skipped, or fail if they must run."""

import os
from collections.abc import Iterator

import pytest

from tests.support.keystone import Keystone, KeystoneMissingError, running_keystone


@pytest.fixture(scope="session")
def keystone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystone]:
    """Keystone with tokens that live for seconds; installed on first use."""
    started = False
    try:
        with running_keystone(tmp_path_factory.mktemp("keystone")) as running:
            started = True
            yield running
    except KeystoneMissingError as error:
        if started or os.environ.get("REQUIRE_ALL") == "1":
            raise
        pytest.skip(f"no Keystone here: {error}")
