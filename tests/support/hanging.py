"""What is printed about a test that hangs."""

import asyncio
import faulthandler
import gc
import inspect
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def told_where_it_waits(item: pytest.Item, after_s: float) -> Iterator[None]:
    """Print where each thread and each task waits if the block takes longer than `after_s`.

    pytest-timeout prints it too, but what it prints is lost in a worker of pytest-xdist, and it
    knows nothing of tasks.
    """
    timer = threading.Timer(after_s, _tell, [item])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _tell(item: pytest.Item) -> None:
    capture = item.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        print(f"\n{item.nodeid} hangs:", file=sys.stderr)
        faulthandler.dump_traceback(sys.stderr)
        for task in [known for known in gc.get_objects() if isinstance(known, asyncio.Task)]:
            if not task.done():
                print(task.get_name(), *_frames(task.get_coro()), sep="\n  ", file=sys.stderr)
        sys.stderr.flush()


def _frames(awaited: object) -> Iterator[str]:
    """Return where each coroutine waits for the next one. (`print_stack` knows only the first.)"""
    while inspect.iscoroutine(awaited) and awaited.cr_frame is not None:
        frame = awaited.cr_frame
        yield f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
        awaited = awaited.cr_await
    yield repr(awaited)
