"""`make cost`: what one exchange costs, counted; `--record` keeps the figures of this Python."""

import argparse
import shutil
import sys
from collections.abc import Callable

from tests.cost import figures
from tests.cost.interpreted import interpreted
from tests.cost.record import Figures, compare, keep


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cost", description=__doc__)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--interpreted-only", action="store_true", help="calls and bytecodes only")
    options = parser.parse_args()

    phases = interpreted("json")
    total = sum(phase.bytecodes for phase in phases.values())
    print(f"{'json, by phase':<34}{'calls':>10}{'bytecodes':>12}{'share':>8}")
    for name, phase in phases.items():
        share = phase.bytecodes / total
        print(f"  {name:<32}{phase.calls:>10.1f}{phase.bytecodes:>12.1f}{share:>8.0%}")

    sections: dict[str, Callable[[], Figures]] = {figures.INTERPRETED: figures.interpreted_figures}
    if not options.interpreted_only:
        if shutil.which("strace"):
            sections[figures.SYSTEM_CALLS] = figures.system_call_figures
        if shutil.which("valgrind"):
            sections[figures.INSTRUCTIONS] = figures.instruction_figures
    print(f"\n{'per exchange':<34}{'found':>14}{'recorded':>16}")
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
