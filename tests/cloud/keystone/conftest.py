"""One real Keystone for all tests below; without one they are skipped, or fail if they must run."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.keystone import (
    TOKEN_LIFE_S,
    Keystone,
    KeystoneMissingError,
    running_keystone,
)


@pytest.fixture(scope="session")
def keystone(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Keystone]:
    """Keystone with tokens that live for seconds; installed on first use."""
    yield from keystone_or_skip(pytestconfig, tmp_path_factory, life_s=TOKEN_LIFE_S)


def keystone_or_skip(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, *, life_s: int
) -> Iterator[Keystone]:
    """Run a Keystone whose tokens live for `life_s`; skip where it cannot be had."""
    capture: Any = pytestconfig.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{line}", flush=True)

    started = False
    try:
        folder = tmp_path_factory.mktemp("keystone")
        with running_keystone(folder, say, life_s=life_s) as running:
            started = True
            yield running
    except KeystoneMissingError as error:
        if started or os.environ.get("REQUIRE_ALL") == "1":
            raise
        pytest.skip(f"no Keystone here: {error}")
