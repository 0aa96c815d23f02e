"""What every test runs under: the loop that production uses, and a guard against blocking it."""

import asyncio
import gc
from collections.abc import Callable, Generator, Iterator, Mapping

import hypothesis
import pytest
import uvloop
from blockbuster import BlockBuster, blockbuster_ctx
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from gateway import build
from gateway.lifecycle.run import raise_file_limit
from tests.support.hanging import told_where_it_waits
from tests.support.tools import LONG
from tests.support.virtual_loop import VirtualLoop
from tests.support.workers import Scheduling, mark_long_forms, sort

# The same examples in every run, so that nobody's change fails by another's luck; on a busy machine
# nothing is too slow. For the search itself: pytest --hypothesis-profile=search
hypothesis.settings.register_profile(
    "steady",
    derandomize=True,
    deadline=None,
    max_examples=100 if LONG else 40,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("search", max_examples=5000, deadline=None)
hypothesis.settings.load_profile("steady")

LoopFactories = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]
_UVLOOP: LoopFactories = {"uvloop": uvloop.new_event_loop}
_ASYNCIO: LoopFactories = {"asyncio": asyncio.new_event_loop}
_VIRTUAL: LoopFactories = {"virtual": VirtualLoop}

# Rooms of the data path. Start-up may read files; identity/ reads them where nobody waits.
_MUST_NOT_BLOCK = [
    f"gateway.{room}" for room in ("http", "upstream", "proxy", "downstream", "admin", "lifecycle")
]


def pytest_configure() -> None:
    """Allow as many open files as `serve` does; many systems begin with 1024."""
    raise_file_limit()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Keep tests together that share something expensive. `--dist` still chooses others' ways."""
    if config.getoption("dist") != "load":  # what `-n` alone means
        return None
    config.option.loadscopereorder = False  # the order is that of `sort`
    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without garbage collection, which then leaves alone what has been collected."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with what takes longest, so that no worker is left alone with it."""
    if LONG:
        mark_long_forms(items)
    sort(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Tell where a test waits before pytest-timeout ends the process."""
    with told_where_it_waits(item, 0.9 * float(item.config.getini("timeout"))):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates in captured text: a worker of pytest-xdist cannot send them."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> LoopFactories:
    """Run tests on uvloop, as `serve` does, or on the loops that their marker names."""
    marker = item.get_closest_marker("asyncio")
    if marker is not None and "loop_factories" in marker.kwargs:
        return {**_UVLOOP, **_ASYNCIO}
    if "identity" in item.path.parts or item.path.name == "test_clock.py":
        return _ASYNCIO  # these look at the timers that asyncio's loop keeps
    if "scenarios" in item.path.parts:
        return _VIRTUAL  # time stands still until the test moves it
    return _UVLOOP


@pytest.fixture(autouse=True, scope="session")
def blockbuster() -> Iterator[BlockBuster | None]:
    """Fail a test in which the data path blocks the event loop.

    It looks for the file that a call comes from, and compiled code has no frames.
    """
    if build.COMPILED:
        yield None
        return
    with blockbuster_ctx(_MUST_NOT_BLOCK) as guard:
        for function in guard.functions.values():
            # A scrape reads /proc, which never waits for a disk.
            function.can_block_in("prometheus_client/process_collector.py", {"collect"})
            # Neither does a look at how much memory the process has.
            function.can_block_in("gateway/assembly/memory.py", {"resident_bytes"})
            # It asks first whether the pipe takes a chunk without waiting.
            function.can_block_in("gateway/observe/access_log.py", {"flush"})
        yield guard
