"""How much memory there is for what waits: by the cgroup's limit, or the machine's."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

_MIB = 2**20
_LEAST, _MOST = 16 * _MIB, 256 * _MIB
CONNECTION_BYTES = 6 * 1024
"""An idle connection."""
MIXED_CONNECTION_BYTES = 8 * 1024
"""One of many, some of which have a request under way and take 10 KiB."""
TLS_CONNECTION_BYTES = 176 * 1024
"""The same over TLS: 45 KiB, and what uvloop and OpenSSL keep of its largest read (measured with
400 clients that had sent 200 KB each)."""

_GIVE_BACK_S = 0.1
"""At least so long between two times: each takes milliseconds."""
_GIVE_BACK_SHARE = 20
"""And so many times as long as it took: with thousands of clients that is a tenth of a second."""

Read = Callable[[str], str]
"""Returns the text of a file, or nothing if it cannot be read."""


def read_text(path: str) -> str:
    """Return the text of a file, or nothing if it cannot be read."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def available_bytes(read: Read = read_text) -> int:
    """Return the least limit of our control groups, version 1 or 2, and of the machine."""
    groups = [int(text) for text in _cgroup_limits(read) if text.isdigit()]
    machine = [
        int(line.split()[1]) * 1024
        for line in read("/proc/meminfo").splitlines()
        if line.startswith("MemTotal:")
    ]
    return min([*groups, *machine], default=_MOST * 8)


def _cgroup_limits(read: Read) -> Iterator[str]:
    for line in read("/proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            root, file = "/sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            root, file = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container its own group is often mounted as the root.
        group = PurePosixPath(path)
        for parent in (group, *group.parents):
            yield read(f"{root}{str(parent).rstrip('/')}/{file}").strip()


def resident_bytes(read: Read = read_text) -> int:
    """Return what this process has in memory."""
    fields = read("/proc/self/statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else 64 * _MIB


class ResidentBound:
    """Measures by how much the process exceeds a bound on its resident memory.

    Free memory is first given back to the system.
    """

    def __init__(
        self,
        available: int,
        *,
        resident: Callable[[], int],
        give_back: Callable[[], object],
        clock: Callable[[], float],
    ) -> None:
        """Bound it by four fifths of what is available, less some room for what comes next.

        Args:
            available: in bytes.
            resident: returns what the process has in memory.
            give_back: has the C library return what is free to the system.
            clock: seconds.
        """
        self.bound = available * 4 // 5 - max(8 * _MIB, available // 8)
        """In bytes."""
        self._resident = resident
        self._give_back = give_back
        self._clock = clock
        self._give_back_at = float("-inf")  # not before

    def excess(self) -> int:
        """Return how many bytes there are too many; 0 or less: none."""
        excess = self._resident() - self.bound
        now = self._clock()
        if excess > 0 and now >= self._give_back_at:
            self._give_back()
            ended = self._clock()
            self._give_back_at = ended + max(_GIVE_BACK_S, (ended - now) * _GIVE_BACK_SHARE)
            excess = self._resident() - self.bound
        return excess


def budget_bytes(
    available: int, resident: int, connections: int, each: int = CONNECTION_BYTES
) -> int:
    """Return how much may wait. Pure.

    Half of what is left of four fifths of the limit: what waits takes up to twice its size, as the
    allocator keeps what it had once.
    """
    left = available * 4 // 5 - resident - connections * each
    return max(_LEAST, min(_MOST, left // 2))


def most_connections(
    available: int, resident: int, wanted: int, each: int = MIXED_CONNECTION_BYTES
) -> int:
    """Return how many clients the limit leaves room for beside the least budget. Pure."""
    room = (available * 4 // 5 - resident - 2 * _LEAST) // each
    return min(wanted, max(8, room))
