"""What is measured and recorded: each figure per exchange, under a name that says its shape."""

from collections.abc import Iterable

from gateway.build import COMPILED
from tests.cost.exchanges import SHAPES
from tests.cost.instructions import instructions
from tests.cost.interpreted import interpreted
from tests.cost.record import BUILD, PYTHON, Figures
from tests.cost.system_calls import system_calls

INTERPRETED, INSTRUCTIONS, SYSTEM_CALLS = "interpreted", "instructions", "system_calls"
_COLUMN = ", compiled by mypyc" if COMPILED else ""
KEYS = {INTERPRETED: PYTHON + _COLUMN, INSTRUCTIONS: BUILD + _COLUMN, SYSTEM_CALLS: "linux"}
"""What the figures of a section depend on; recorded for each value apart."""
COUNTED = ("real", "json", "stream")
"""Shapes whose instructions are counted: those that are nothing but overhead."""


def interpreted_figures(shapes: Iterable[str] = SHAPES) -> Figures:
    """Count calls and bytecodes of each shape."""
    figures: Figures = {}
    for shape in shapes:
        phases = interpreted(shape).values()
        figures[f"{shape}: calls"] = sum(phase.calls for phase in phases)
        figures[f"{shape}: bytecodes"] = sum(phase.bytecodes for phase in phases)
    return figures


def instruction_figures() -> Figures:
    """Count machine instructions of what production sends, and of heads that repeat."""
    return {f"{shape}: instructions": instructions(shape) for shape in COUNTED}


def system_call_figures() -> Figures:
    """Count system calls of JSON on one connection; more connections share `epoll_pwait`."""
    return {"json: system calls": sum(system_calls().values())}
