"""The gateway, and in its process a look at how long the event loop's turns are.

Times are those that the loop's thread was on a processor for, so that others who want one do not
count. At SIGUSR1 it writes what it saw since the last time to the file that `TURNS` names.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from gateway import cli
from gateway.lifecycle import run

_BEAT_S = 0.002


class Turns:
    """Looks at the processor's time once in each turn."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._loop = asyncio.get_running_loop()
        self._lengths: list[float] = []
        self._at = time.thread_time()
        self._loop.add_signal_handler(signal.SIGUSR1, self._write)
        self._beat()

    def _beat(self) -> None:
        now = time.thread_time()
        self._lengths.append(now - self._at)
        self._at = now
        self._loop.call_later(_BEAT_S, self._beat)

    def _write(self) -> None:
        lengths, self._lengths = sorted(self._lengths) or [0.0], []
        busy = sum(lengths)
        # Of the turns that a newcomer meets: weighed by their length.
        seen, half = 0.0, lengths[-1]
        for length in lengths:
            seen += length
            if seen >= busy / 2:
                half = length
                break
        text = json.dumps(
            {"longest_ms": round(lengths[-1] * 1000, 1), "met_ms": round(half * 1000, 1)}
        )
        other = self._file.with_suffix(".new")
        other.write_text(text)
        other.replace(self._file)


def watched(main: Coroutine[Any, Any, None]) -> None:
    """Run `main`, as the gateway's own function does, and look."""

    async def both() -> None:
        Turns(Path(os.environ["TURNS"]))
        await main

    original(both())


if __name__ == "__main__":
    original, run.run_loop = run.run_loop, watched
    sys.argv[0] = "modelarts-gateway"
    cli.main()
