"""Calls and bytecodes per exchange, by phase: the same on every machine with the same Python.

A program of its own, so that no other tracer is in the way; `interpreted()` runs it.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from types import FrameType
from typing import Any

from tests.cost.exchanges import WARM_UP, prepared

_COUNT = 128
PHASES = ("receive", "admit", "credential", "forward", "relay", "observe")
_ENTRIES = {
    "ClientConnection.data_received": "receive",
    "ClientConnection.exchange_ended": "receive",
    "admit": "admit",
    "CredentialCache.usable": "credential",
    "Pool.take": "forward",
    "Exchange._launch": "forward",
    "Exchange.body_arrived": "forward",
    "Connection.data_received": "relay",
    "Exchange._end": "observe",
    "Observer.settle": "observe",
}
"""Functions that begin a phase, which lasts until they return or another begins within them."""


@dataclass
class Work:
    """Per exchange: calls of functions of Python and C, and bytecodes executed."""

    calls: float = 0.0
    bytecodes: float = 0.0


class _Tracer:
    """Counts events by phase, following calls and returns."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {"calls": Counter(), "bytecodes": Counter()}
        self._phases = [""]

    def profile(self, frame: FrameType, event: str, _arg: Any) -> None:
        """Count calls (`sys.setprofile`)."""
        self._follow(frame, event)
        if event in {"call", "c_call"}:
            self.counts["calls"][self._phases[-1]] += 1

    def trace(self, frame: FrameType, event: str, _arg: Any) -> Any:
        """Count bytecodes (`sys.settrace`)."""
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        self._follow(frame, event)
        if event == "opcode":
            self.counts["bytecodes"][self._phases[-1]] += 1
        return self.trace

    def _follow(self, frame: FrameType, event: str) -> None:
        if event == "call":
            name = frame.f_code.co_qualname
            self._phases.append(_ENTRIES.get(name, self._phases[-1]))
        elif event == "return" and len(self._phases) > 1:
            self._phases.pop()


async def _count(
    shape: str, services: int, identities: int, pause_s: float
) -> dict[str, dict[str, float]]:
    tracer = _Tracer()
    with prepared(services, identities, pause_s) as run:
        run(shape, WARM_UP)
        gc.collect()
        gc.disable()
        sys.setprofile(tracer.profile)
        run(shape, _COUNT)
        sys.setprofile(None)
        sys._getframe().f_trace_opcodes = True  # Python 3.12 looks at it when tracing begins
        sys.settrace(tracer.trace)
        run(shape, _COUNT)
        sys.settrace(None)
    return {
        phase: {kind: counts[phase] / _COUNT for kind, counts in tracer.counts.items()}
        for phase in PHASES
    }


@cache
def interpreted(
    shape: str, services: int = 2, identities: int = 1, pause_s: float = 0.0
) -> dict[str, Work]:
    """Return the work of one exchange of `shape`, by phase; `prepared` takes the rest."""
    numbers = map(str, (services, identities, pause_s))
    said = subprocess.run(
        [sys.executable, "-m", "tests.cost.interpreted", shape, *numbers],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        check=True,
    ).stdout
    return {phase: Work(**found) for phase, found in json.loads(said).items()}


if __name__ == "__main__":
    _shape, _services, _identities, _pause_s = sys.argv[1:]
    _found = asyncio.run(_count(_shape, int(_services), int(_identities), float(_pause_s)))
    print(json.dumps(_found))
