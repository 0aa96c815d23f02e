"""Gives each scenario its stage, and checks at the end that nothing of it is left."""

from collections.abc import AsyncIterator

import pytest

from tests.support.memory import OpenStage, Stage


@pytest.fixture
async def open_stage() -> AsyncIterator[OpenStage]:
    """Open a stage with options; see `Stage`."""
    stages: list[Stage] = []

    def open_one(**options: object) -> Stage:
        stages.append(Stage(**options))  # type: ignore[arg-type]  # checked when it runs
        return stages[-1]

    try:
        yield open_one
        for stage in stages:
            await stage.check_over()
    finally:
        for stage in stages:
            stage.close()


@pytest.fixture
async def stage(open_stage: OpenStage) -> Stage:
    """Open a stage as most scenarios need it."""
    return open_stage()
