"""How much memory there is for what waits, by files that the test makes up."""

import pytest

from gateway.assembly.memory import (
    available_bytes,
    budget_bytes,
    most_connections,
    resident_bytes,
)

MIB = 2**20
MACHINE = {"/proc/meminfo": "MemFree: 1 kB\nMemTotal:       8388608 kB\n"}
V1 = "/sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("files", "available"),
    [
        ({}, 8192 * MIB),
        ({"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/b/memory.max": "268435456\n"},
         256 * MIB),
        # The group above is stricter.
        ({"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/b/memory.max": "max\n",
          "/sys/fs/cgroup/a/memory.max": "134217728\n"}, 128 * MIB),
        # In a container, its own group is the root.
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "134217728"}, 128 * MIB),
        ({"/proc/self/cgroup": "4:cpu,cpuacct:/x\n3:memory:/docker/1\n",
          f"{V1}/memory.limit_in_bytes": "268435456\n"}, 256 * MIB),
        ({"/proc/self/cgroup": "3:memory:/x\n", f"{V1}/x/memory.limit_in_bytes": "67108864",
          f"{V1}/memory.limit_in_bytes": "9223372036854771712"}, 64 * MIB),
    ],
)  # fmt: skip
def test_the_strictest_limit_counts(files: dict[str, str], available: int) -> None:
    """Of both versions of control groups, every group above ours, and the machine."""
    assert available_bytes(lambda path: {**MACHINE, **files}.get(path, "")) == available


def test_without_any_file_there_is_enough() -> None:
    """Elsewhere than on Linux."""
    assert available_bytes(lambda _path: "") == 2048 * MIB
    assert resident_bytes(lambda _path: "") == 64 * MIB


@pytest.mark.parametrize(
    ("available", "budget"), [(128 * MIB, 16), (256 * MIB, 60), (512 * MIB, 162), (8192 * MIB, 256)]
)
def test_half_of_what_is_left_may_wait(available: int, budget: int) -> None:
    """Of four fifths of the limit, from 16 to 256 MiB."""
    clients = most_connections(available, 60 * MIB, 4096)
    assert budget_bytes(available, 60 * MIB, clients) // MIB == budget


def test_few_connections_where_the_limit_is_small() -> None:
    """But always some."""
    assert most_connections(128 * MIB, 60 * MIB, 4096) == (128 * MIB * 4 // 5 - 92 * MIB) // 6144
    assert most_connections(64 * MIB, 60 * MIB, 4096) == 8
    assert most_connections(512 * MIB, 60 * MIB, 4096) == 4096
