"""`make cost`: what one exchange costs, counted; `--record` keeps the figures of this Python."""

import argparse
import shutil
import sys
from collections.abc import Callable

from gateway import build
from tests.cost import figures
from tests.cost.interpreted import interpreted
from tests.cost.record import Figures, compare, keep


def _print_phases() -> None:
    phases = interpreted("json")
    total = sum(phase.bytecodes for phase in phases.values())
    print(f"{'json, by phase':<34}{'calls':>10}{'bytecodes':>12}{'share':>8}")
    for name, phase in phases.items():
        share = phase.bytecodes / total
        print(f"  {name:<32}{phase.calls:>10.1f}{phase.bytecodes:>12.1f}{share:>8.0%}")
    print()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cost", description=__doc__)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--interpreted-only", action="store_true", help="calls and bytecodes only")
    options = parser.parse_args()

    sections: dict[str, Callable[[], Figures]] = {}
    if not build.COMPILED:  # else there are no bytecodes to count
        _print_phases()
        sections[figures.INTERPRETED] = figures.interpreted_figures
    if not options.interpreted_only:
        if shutil.which("strace"):
            sections[figures.SYSTEM_CALLS] = figures.system_call_figures
        if shutil.which("valgrind"):
            sections[figures.INSTRUCTIONS] = figures.instruction_figures
    print(f"{'per exchange':<34}{'found':>14}{'recorded':>16}")
    problems = []
    for section, measure in sections.items():
        found = measure()
        key = figures.KEYS[section]
        if options.record:
            keep(section, key, found)
        findings = compare(section, key, found)
        print(*(finding.line() for finding in findings), sep="\n", flush=True)
        problems += [problem for finding in findings if (problem := finding.problem())]
    print(*problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
