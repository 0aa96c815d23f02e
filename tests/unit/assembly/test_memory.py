"""How much memory there is for what waits, by files that the test makes up."""

import pytest

from gateway.assembly.memory import (
    TLS_CONNECTION_BYTES,
    ResidentBound,
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
    ("available", "budget"), [(128 * MIB, 17), (256 * MIB, 60), (512 * MIB, 162), (8192 * MIB, 256)]
)
def test_half_of_what_is_left_may_wait(available: int, budget: int) -> None:
    """Of four fifths of the limit, from 16 to 256 MiB."""
    clients = most_connections(available, 60 * MIB, 4096)
    assert budget_bytes(available, 60 * MIB, clients) // MIB == budget


def test_few_connections_where_the_limit_is_small() -> None:
    """But always some."""
    assert most_connections(128 * MIB, 60 * MIB, 4096) == (128 * MIB * 4 // 5 - 92 * MIB) // 8192
    assert most_connections(64 * MIB, 60 * MIB, 4096) == 8
    assert most_connections(512 * MIB, 60 * MIB, 4096) == 4096


def test_fewer_connections_over_tls() -> None:
    """All that they take and the least budget stay below four fifths of the limit."""
    for available in (128 * MIB, 256 * MIB, 512 * MIB):
        clients = most_connections(available, 60 * MIB, 4096, TLS_CONNECTION_BYTES)
        assert 8 < clients < 4096
        budget = budget_bytes(available, 60 * MIB, clients, TLS_CONNECTION_BYTES)
        taken = 60 * MIB + clients * TLS_CONNECTION_BYTES + 2 * budget
        assert taken <= available * 4 // 5 < taken + TLS_CONNECTION_BYTES


class Process:
    """A process whose memory a test decides, and the time."""

    def __init__(self, resident: int) -> None:
        self.resident = resident
        self.freed = 0
        """What giving back frees, each time."""
        self.given_back = 0
        """How often that was done."""
        self.now = 100.0
        self.takes_s = 0.0
        """How long that takes."""

    def give_back(self) -> None:
        self.given_back += 1
        self.resident -= self.freed
        self.now += self.takes_s

    def bounded(self, available: int) -> ResidentBound:
        return ResidentBound(
            available,
            resident=lambda: self.resident,
            give_back=self.give_back,
            clock=lambda: self.now,
        )


@pytest.mark.parametrize(
    ("available", "bound"), [(256 * MIB, 256 * 4 // 5 * MIB - 32 * MIB), (32 * MIB, 17 * MIB)]
)
def test_four_fifths_less_some_room_is_the_bound(available: int, bound: int) -> None:
    """An eighth of the limit is room, or 8 MiB."""
    assert Process(0).bounded(available).bound // MIB == bound // MIB


def test_nothing_is_given_back_below_the_bound() -> None:
    """What is missing is a negative excess."""
    process = Process(100 * MIB)
    bound = process.bounded(256 * MIB)
    assert bound.excess() == 100 * MIB - bound.bound
    assert process.given_back == 0


def test_what_is_free_is_given_back_first() -> None:
    """Only what is left after that is an excess."""
    process = Process(200 * MIB)
    process.freed = 20 * MIB
    bound = process.bounded(256 * MIB)
    assert bound.excess() == 180 * MIB - bound.bound
    assert process.given_back == 1


def test_giving_back_is_not_repeated_at_once() -> None:
    """It pauses for a tenth of a second, or twenty times as long as it took."""
    process = Process(200 * MIB)
    bound = process.bounded(256 * MIB)
    assert bound.excess() == 200 * MIB - bound.bound
    process.now += 0.09
    assert bound.excess() == 200 * MIB - bound.bound
    assert process.given_back == 1
    process.now += 0.02
    process.takes_s = 0.1
    bound.excess()
    assert process.given_back == 2
    process.now += 1.9
    bound.excess()
    assert process.given_back == 2
    process.now += 0.2
    bound.excess()
    assert process.given_back == 3
