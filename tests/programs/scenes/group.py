"""A memory cgroup for one process, as a container has it (version 1: what CI's machines have)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup/memory")


class Group:
    """A control group with a limit."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self.limit = limit
        """In bytes."""

    @property
    def prefix(self) -> tuple[str, ...]:
        """A command that enters the group and becomes another one."""
        return "sh", "-c", f'echo $$ > {self._folder}/cgroup.procs && exec "$@"', "enter"

    @property
    def peak(self) -> int:
        """The most that was charged so far, in bytes."""
        return int((self._folder / "memory.max_usage_in_bytes").read_text())

    @property
    def kills(self) -> int:
        """How often the kernel has killed a process of the group."""
        lines = (self._folder / "memory.oom_control").read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])


def unavailable() -> str:
    """Return why there can be no group here; nothing: there can."""
    if not (_ROOT / "memory.limit_in_bytes").exists():
        return "there is no memory cgroup of version 1 (/sys/fs/cgroup/memory)"
    if not os.access(_ROOT, os.W_OK) or os.geteuid() != 0:
        return "only root can make a memory cgroup"
    return ""


@contextmanager
def memory_group(limit: int) -> Iterator[Group]:
    """Make a group with this limit in bytes; its processes must have ended before the end."""
    folder = _ROOT / f"gateway-scene-{os.getpid()}-{limit}"
    folder.mkdir()
    try:
        (folder / "memory.limit_in_bytes").write_text(str(limit))
        yield Group(folder, limit)
    finally:
        folder.rmdir()
