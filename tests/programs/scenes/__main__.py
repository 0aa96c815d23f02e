"""Run the scenes in cgroups of 256 and 128 MiB, and print what came of them."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import uvloop

from tests.programs.scenes.attacks import ATTACKS, MIB, everything
from tests.programs.scenes.group import unavailable
from tests.programs.scenes.others import NAMES
from tests.programs.scenes.scene import stage


async def main(limits: list[int], only: str, also: list[str]) -> int:
    """Return how many things were not as they must be with the gateway."""
    faults = 0
    attacks = [one for one in (*ATTACKS, everything) if only in {"", one.__name__}]
    for limit in limits:
        with tempfile.TemporaryDirectory() as folder:
            async with stage(limit * MIB, Path(folder)) as scene:
                for attack in attacks:
                    outcome = await scene.attack(attack)
                    sys.stdout.write(outcome.row() + "\n")
                    for fault in outcome.faults():
                        sys.stdout.write(f"    FAULT: {fault}\n")
                        faults += 1
                    sys.stdout.flush()
        for other in also:
            for attack in attacks:  # a new process each, since the last one may have been killed
                with tempfile.TemporaryDirectory() as folder:
                    async with stage(limit * MIB, Path(folder), other) as scene:
                        sys.stdout.write((await scene.attack(attack)).row() + "\n")
                        sys.stdout.flush()
    return faults


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limits", type=int, nargs="+", default=[256, 128], help="in MiB")
    parser.add_argument("--only", default="", help="one attack")
    parser.add_argument(
        "--others", nargs="*", default=[], choices=NAMES, help="proxies to be attacked as well"
    )
    options = parser.parse_args()
    if reason := unavailable():
        required = os.environ.get("REQUIRE_ALL") == "1"
        sys.stderr.write(f"no scenes: {reason}\n")
        sys.exit(int(required))
    sys.exit(bool(uvloop.run(main(options.limits, options.only, options.others))))
