"""`make soak`: ten minutes of traffic and faults; nothing may leak or get lost.

Prints a page, and draws it to `results/latest.svg`. Exit code 0; 1 when something is wrong, with
`REQUIRE_ALL=1` also when there is no Prometheus to judge the alerts with.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.programs.soak.campaign import missing_tools, soak
from tests.programs.soak.page import drawing, summary

_RESULTS = Path(__file__).parent / "results"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.programs.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="at least 45 (%(default)s)")
    parser.add_argument("--rate", type=float, default=1.0, help="of calls (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of what is sent (%(default)s)")
    parser.add_argument("--output", type=Path, default=_RESULTS, help="folder of the drawing")
    return parser.parse_args()


async def _run(options: argparse.Namespace) -> int:
    missing = missing_tools()
    if missing:
        print(f"Alerts are not judged: install {' '.join(missing)} (Debian)")
    with tempfile.TemporaryDirectory(prefix="gateway-soak-") as folder:
        task = asyncio.create_task(
            soak(Path(folder), options.seconds, rate=options.rate, seed=options.seed)
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        done = await task
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "latest.svg").write_text(drawing(done))
    print(summary(done))
    print(f"Drawn to {options.output / 'latest.svg'}")
    required = os.environ.get("REQUIRE_ALL") == "1"
    return int(bool(done.problems() or done.alert_problems() or (required and missing)))


def _main() -> int:
    options = _parse()
    try:
        return asyncio.run(_run(options))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130


if __name__ == "__main__":
    sys.exit(_main())
