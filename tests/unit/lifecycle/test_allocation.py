"""What the C library keeps of freed memory, measured on the real one."""

import platform
import subprocess
import sys

import pytest

from gateway.lifecycle.allocation import is_left_to_the_user

_FAULTS = """
import resource
from gateway.lifecycle.allocation import keep_freed_memory
set_it = {set_it}
if set_it:
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for _ in range(50):
    bodies = [b"x" * (100 * 1024) for _ in range(20)]
    del bodies
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept() -> None:
    """Pages of large objects are not given back and made anew each time."""

    def faults(*, set_it: bool) -> int:
        done = subprocess.run(
            [sys.executable, "-c", _FAULTS.format(set_it=set_it)],
            capture_output=True,
            text=True,
            check=True,
            env={},
        )
        return int(done.stdout)

    assert faults(set_it=True) * 4 < faults(set_it=False)


@pytest.mark.parametrize(
    ("environ", "left"),
    [
        ({}, False),
        ({"MALLOC_ARENA_MAX": "2"}, True),
        ({"MALLOC_TRIM_THRESHOLD_": "1"}, True),
        ({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1"}, True),
        ({"GLIBC_TUNABLES": "glibc.rtld.nns=4"}, False),
    ],
    ids=str,
)
def test_whoever_sets_the_allocator_keeps_it(environ: dict[str, str], *, left: bool) -> None:
    """By any of glibc's two ways."""
    assert is_left_to_the_user(environ) is left
