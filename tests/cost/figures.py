"""What is measured and recorded: each figure per exchange, under a name that says its shape."""

from tests.cost.exchanges import SHAPES
from tests.cost.instructions import instructions
from tests.cost.interpreted import interpreted
from tests.cost.record import BUILD, PYTHON, Figures
from tests.cost.system_calls import system_calls

INTERPRETED, INSTRUCTIONS, SYSTEM_CALLS = "interpreted", "instructions", "system_calls"
KEYS = {INTERPRETED: PYTHON, INSTRUCTIONS: BUILD, SYSTEM_CALLS: "linux"}
"""What the figures of a section depend on; recorded for each value apart."""


def interpreted_figures() -> Figures:
    """Count calls and bytecodes of every shape."""
    figures: Figures = {}
    for shape in SHAPES:
        phases = interpreted(shape).values()
        figures[f"{shape}: calls"] = sum(phase.calls for phase in phases)
        figures[f"{shape}: bytecodes"] = sum(phase.bytecodes for phase in phases)
    return figures


def instruction_figures() -> Figures:
    """Count machine instructions of JSON, the shape that has nothing but overhead."""
    return {"json: instructions": instructions("json")}


def system_call_figures() -> Figures:
    """Count system calls of JSON on one connection; more connections share `epoll_pwait`."""
    return {"json: system calls": sum(system_calls().values())}
