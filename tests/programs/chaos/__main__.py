"""`make chaos`: hundreds of thousands of exchanges with a service that behaves at random.

Every response must be the one to its request, whole or visibly cut; no POST may be sent twice.
Exit code 0; 1 after a broken promise, which is printed with the seed that leads to it.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from tests.programs.chaos.campaign import campaign

_SHOWN = 20


def main() -> int:
    """Run one campaign."""
    parser = argparse.ArgumentParser(prog="python -m tests.programs.chaos", description=__doc__)
    parser.add_argument("--exchanges", type=int, default=200_000, help="%(default)s")
    parser.add_argument("--seed", type=int, default=None, help="default: by the clock, printed")
    options = parser.parse_args()
    seed = time.monotonic_ns() % 1_000_000 if options.seed is None else options.seed
    print(f"== {options.exchanges} exchanges, seed {seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        books = uvloop.run(campaign(options.exchanges, seed, Path(folder)))
    took_s = time.monotonic() - began
    endings = ", ".join(f"{ending}: {count}" for ending, count in sorted(books.ended.items()))
    print(f"{books.exchanges} exchanges in {took_s:.0f} s ({endings})")
    for line in books.wrong[:_SHOWN]:
        print(f"WRONG: {line}")
    print(f"{len(books.wrong)} promises broken")
    return 1 if books.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
