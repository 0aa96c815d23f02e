"""A window into a gateway: Python imports this at its start when this folder is on `PYTHONPATH`.

At SIGUSR1 the process writes how many tasks and objects are alive to the file that `SOAK_WINDOW`
names. What runs besides is `python -m gateway serve`, as it is.
"""

import asyncio
import gc
import json
import os
import signal
from pathlib import Path
from types import FrameType


def _tell(_number: int, _frame: FrameType | None) -> None:
    gc.collect()
    told = {"tasks": len(asyncio.all_tasks()), "objects": len(gc.get_objects())}
    file = Path(os.environ["SOAK_WINDOW"])
    draft = file.with_suffix(".draft")
    draft.write_text(json.dumps(told), encoding="ascii")
    draft.replace(file)


if "SOAK_WINDOW" in os.environ:
    signal.signal(signal.SIGUSR1, _tell)
