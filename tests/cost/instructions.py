"""Machine instructions per exchange, by callgrind. `instructions()` runs this module under it."""

import asyncio
import ctypes
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from gateway.lifecycle.run import collect_rarely
from tests.cost.exchanges import WARM_UP, prepared

COUNT = 640
# What is counted stands between calls of `srand48` and `seed48`, which nothing else calls.
# callgrind is told what these call in turn: it does not recognise a call that libffi makes.
_BEGIN, _END = "srand48_r", "seed48_r"


async def _main(shape: str) -> None:
    library = ctypes.CDLL(None)
    with prepared() as run:
        run(shape, WARM_UP)
        collect_rarely()
        library.srand48(1)
        run(shape, COUNT)
        library.seed48(bytes(6))


def instructions(shape: str) -> float:
    """Return instructions per exchange of `shape`; takes about 25 s.

    Raises:
        RuntimeError: valgrind did not run, or did not find the marks.
    """
    with tempfile.TemporaryDirectory(prefix="gateway-cost-") as folder:
        command = [
            *("valgrind", "--tool=callgrind", "--quiet"),
            *(f"--zero-before={_BEGIN}", f"--dump-before={_END}"),
            f"--callgrind-out-file={folder}/out",
            *(sys.executable, "-m", "tests.cost.instructions", shape),
        ]
        environment = os.environ | {"PYTHONHASHSEED": "0"}
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=300, env=environment, check=False
        )
        counted = Path(folder, "out.1")
        text = counted.read_text(encoding="ascii") if counted.exists() else ""
    found = re.search(r"^summary: (\d+)$", text, re.MULTILINE)
    if ran.returncode or found is None:
        raise RuntimeError(f"callgrind: {ran.stderr[-500:] or 'the marks were not found'}")
    return int(found[1]) / COUNT


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
