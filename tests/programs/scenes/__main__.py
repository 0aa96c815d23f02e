"""Run the scenes in cgroups of 256 and 128 MiB, and print what came of them."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.programs.scenes.attacks import ATTACKS, MIB, everything
from tests.programs.scenes.group import unavailable
from tests.programs.scenes.scene import stage


async def main(limits: list[int], only: str) -> int:
    """Return how many things were not as they must be."""
    faults = 0
    for limit in limits:
        with tempfile.TemporaryDirectory() as folder:
            async with stage(limit * MIB, Path(folder)) as scene:
                for attack in (*ATTACKS, everything):
                    if only and attack.__name__ != only:
                        continue
                    outcome = await scene.attack(attack)
                    sys.stdout.write(outcome.row() + "\n")
                    for fault in outcome.faults():
                        sys.stdout.write(f"    FAULT: {fault}\n")
                        faults += 1
                    sys.stdout.flush()
    return faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limits", type=int, nargs="+", default=[256, 128], help="in MiB")
    parser.add_argument("--only", default="", help="one attack")
    options = parser.parse_args()
    if reason := unavailable():
        required = os.environ.get("REQUIRE_ALL") == "1"
        sys.stderr.write(f"no scenes: {reason}\n")
        sys.exit(int(required))
    sys.exit(bool(uvloop.run(main(options.limits, options.only))))
