"""One short soak for all tests of a run."""

import asyncio
from pathlib import Path

import pytest

from tests.soak.campaign import Soak, soak

SECONDS = 40


@pytest.fixture(scope="package")
def done(tmp_path_factory: pytest.TempPathFactory) -> Soak:
    """A soak that is over."""
    folder: Path = tmp_path_factory.mktemp("soak")
    return asyncio.run(soak(folder, SECONDS))
