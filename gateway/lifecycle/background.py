"""Tasks that run as long as the gateway, and that nobody waits for."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_log = logging.getLogger("gateway.lifecycle")


def in_background(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Return a task that does `work`; log at once if it ends by a defect.

    Otherwise nobody would see its exception as long as the task is kept.
    """
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_report_defect)
    return task


def _report_defect(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        text = "%s has ended because of a defect in the gateway; restart it, and please report it"
        _log.error(text, task.get_name(), exc_info=error)
