"""The recorded figures, and how far a new one may be from them."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "recorded.json"
TOLERANCE = 0.05
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
"""Bytecodes and calls depend on nothing else."""
BUILD = " ".join(sys.version.split())
"""Instructions depend on the compiler and its options as well; this tells builds apart."""

Figures = dict[str, float]


@dataclass(frozen=True)
class Finding:
    """One figure beside what was recorded for it; `recorded` is None where nothing was."""

    name: str
    found: float
    recorded: float | None

    @property
    def change(self) -> float:
        """By what share of the recorded figure the new one is larger."""
        return self.found / self.recorded - 1 if self.recorded else 0.0

    def problem(self) -> str:
        """Return what is wrong, or nothing. Too good is wrong, too: it could be lost unnoticed."""
        if abs(self.change) <= TOLERANCE:
            return ""
        worse = self.change > 0
        remedy = "find the reason" if worse else "well done"
        return (
            f"{self.name}: {self.found:,.0f} per exchange, recorded {self.recorded:,.0f} "
            f"({self.change:+.1%}): {remedy}, or record it: make cost COST_ARGS=--record"
        )

    def line(self) -> str:
        """Return a row of the table."""
        recorded = "not recorded" if self.recorded is None else f"{self.recorded:,.1f}"
        change = "" if self.recorded is None else f"{self.change:+.1%}"
        return f"{self.name:<34}{self.found:>14,.1f}{recorded:>16}{change:>9}"


def compare(section: str, key: str, figures: Figures) -> list[Finding]:
    """Put figures beside what was recorded in `section` for `key` (a Python, a build, or all)."""
    recorded: dict[str, dict[str, Figures]] = json.loads(FILE.read_text(encoding="ascii"))
    known = recorded.get(section, {}).get(key, {})
    return [Finding(name, found, known.get(name)) for name, found in figures.items()]


def keep(section: str, key: str, figures: Figures) -> None:
    """Record figures, in the place of what was recorded for `key`."""
    recorded = json.loads(FILE.read_text(encoding="ascii")) if FILE.exists() else {}
    recorded.setdefault(section, {})[key] = {
        name: round(found, 2) for name, found in figures.items()
    }
    FILE.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n", encoding="ascii")
