"""The hot path costs what it is recorded to cost, counted and not timed: `make cost`.

Five per cent more fail, so that no change loses what was gained; five per cent less fail as well
until they are recorded, because what is not recorded can be lost.
"""

import os
import shutil
from collections.abc import Callable

import pytest

from tests.cost import figures
from tests.cost.exchanges import SHAPES
from tests.cost.interpreted import interpreted
from tests.cost.record import Figures, Finding, compare
from tests.support.tools import LONG


def judge(section: str, measure: Callable[[], Figures]) -> None:
    """Fail for every figure that has moved; skip where nothing was recorded to compare with."""
    key = figures.KEYS[section]
    findings = compare(section, key, measure())
    if all(finding.recorded is None for finding in findings):
        pytest.skip(f"no {section} recorded for {key}: make cost COST_ARGS=--record")
    assert [problem for finding in findings if (problem := finding.problem())] == []


def require(tool: str) -> None:
    """Skip, or fail in CI, where `tool` is missing."""
    if shutil.which(tool) is None:
        if os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail(f"REQUIRE_ALL=1, but {tool} is missing", pytrace=False)
        pytest.skip(f"{tool} is missing")


@pytest.mark.timeout(300)
def test_calls_and_bytecodes_are_what_was_recorded() -> None:
    """The same on every machine, so any difference is a change of the code. LONG: every shape."""
    shapes = SHAPES if LONG else ("real", "stream")
    judge(figures.INTERPRETED, lambda: figures.interpreted_figures(shapes))


@pytest.mark.timeout(300)
def test_cost_does_not_grow_with_services_and_identities() -> None:
    """A hundred services and twenty identities cost a request what two and one do."""
    few, many = interpreted("real"), interpreted("real", services=100, identities=20)

    for phase, work in many.items():
        assert work.bytecodes <= 1.01 * few[phase].bytecodes, phase
        assert work.calls <= 1.01 * few[phase].calls, phase


@pytest.mark.timeout(300)
def test_time_that_passes_costs_nothing() -> None:
    """Else a busy machine would find other figures than a quiet one."""
    assert interpreted("real", pause_s=0.003) == interpreted("real")


@pytest.mark.timeout(300)
def test_system_calls_are_what_was_recorded() -> None:
    """Two reads, two writes, two waits: a third write or a timer per request would show here."""
    require("strace")

    judge(figures.SYSTEM_CALLS, figures.system_call_figures)


@pytest.mark.skipif(not LONG, reason="takes a minute of CPU or more: LONG=1")
@pytest.mark.timeout(600)
def test_instructions_are_what_was_recorded() -> None:
    """Work inside C shows here only; compared on the very build of Python that was recorded."""
    require("valgrind")

    judge(figures.INSTRUCTIONS, figures.instruction_figures)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (104.9, ""),
        (95.1, ""),
        (105.1, "find the reason"),
        (94.9, "well done"),
    ],
)
def test_five_per_cent_either_way(found: float, verdict: str) -> None:
    """Up to the bound nothing is said, beyond it the figure is a problem in both directions."""
    problem = Finding("json: calls", found, 100).problem()

    assert verdict in problem
    assert bool(problem) == bool(verdict)
