"""Which tests a worker of pytest-xdist gets, and in which order."""

from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

_TESTS = Path(__file__).parents[1]

# Under `tests/`. One worker runs all tests of such a group, one after the other: they share what
# is expensive to start or to import (Prometheus, a browser, a demo, `openai`). The first one looks
# at every object of its process, where no other test has left any.
_GROUPS = (
    "exchange/test_leaks.py::test_nothing_leaks_in_process",
    "programs/watch/", "cloud/keystone/", "data_planes/", "browser/",
    "cloud/test_manual_clients.py", "cost/", "cloud/test_llm_clients.py", "test_architecture.py",
)  # fmt: skip
# These tests are independent of each other, but long. Started last, they would run alone.
_SLOW = (
    "unit/identity/test_simulated_year.py",
    "exchange/test_fuzz.py",
    "exchange/test_leaks.py",
    "cloud/",
    "life/",
    "exchange/",
)


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # has no types
    """Give each worker one test after the other, or one group. The first tests come first."""

    def _split_scope(self, nodeid: str) -> str:
        """Return the same text for all tests of a group."""
        path = nodeid.removeprefix(f"{_TESTS.name}/")
        return next((group for group in _GROUPS if path.startswith(group)), nodeid)

    def mark_test_complete(
        self,
        node: WorkerController,
        item_index: int,
        duration: float = 0,  # noqa: ARG002  # the name is xdist's
    ) -> None:
        """Forget a unit of work that is done.

        xdist keeps it, and when the worker crashes later hands it to another one. That one then
        has nothing to run, reports nothing, gets no more work, and the run never ends.
        """
        nodeid = self.registered_collections[node][item_index]
        scope = self._split_scope(nodeid)
        units = self.assigned_work[node]
        units[scope][nodeid] = True
        if all(units[scope].values()):
            del units[scope]
        self._reschedule(node)

    def _reschedule(self, node: WorkerController) -> None:
        """Give a worker more to do, if it has little left.

        It begins with a test only when it has another one, or is told that none will follow. To one
        that replaces another xdist gives one test, and none after it if all others have ended.
        """
        super()._reschedule(node)
        while (
            self.workqueue
            and not node.shutting_down
            and self._pending_of(self.assigned_work[node]) < 2
        ):
            self._assign_work_unit(node)


LONG_FORMS = (
    # A whole Keystone, other proxies over a token's life: `make test` does not even collect them.
    "cloud/keystone/", "data_planes/",
    # They skip a test, or take a short form of one, unless LONG=1.
    "programs/watch/", "cost/", "cloud/test_llm_clients.py", "exchange/test_fuzz.py",
    "exchange/test_leaks.py", "exchange/test_memory.py", "unit/identity/test_simulated_year.py",
    "unit/proxy/test_queue.py",
)  # fmt: skip
"""Under `tests/`: what has a long form without a row of its own."""


def mark_long_forms(items: list[pytest.Item]) -> None:
    """Mark as `long` what takes its long form now: those above, and whatever hypothesis tries."""
    for item in items:
        path = item.nodeid.removeprefix(f"{_TESTS.name}/")
        tried = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if tried or path.startswith(LONG_FORMS):
            item.add_marker("long")


def sort(items: list[pytest.Item]) -> None:
    """Put the groups first, then the long tests. The order is otherwise kept."""
    places = (*_GROUPS, *_SLOW)

    def rank(item: pytest.Item) -> int:
        path = item.nodeid.removeprefix(f"{_TESTS.name}/")
        return next((n for n, place in enumerate(places) if path.startswith(place)), len(places))

    items.sort(key=rank)
