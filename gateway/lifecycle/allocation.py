"""Settings of the C library's allocator: when it gives memory back to the system."""

import ctypes
import os
import platform
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

# <malloc.h>, glibc
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

_TRIM_BYTES: Final = 32 * 2**20
_MMAP_BYTES: Final = 8 * 2**20


def is_left_to_the_user(environ: Mapping[str, str]) -> bool:
    """Return whether the environment sets the allocator itself (mallopt(3))."""
    return "glibc.malloc" in environ.get("GLIBC_TUNABLES", "") or any(
        name.startswith("MALLOC_") for name in environ
    )


def keep_freed_memory(environ: Mapping[str, str] = os.environ) -> bool:
    """Let the process keep up to 32 MiB that it has freed, for the next large body.

    Each read of a large body makes an object of up to 256 KiB. Without this, glibc gives its pages
    back and the kernel makes them anew, 90 faults for a body of 1 MiB (`gateway/README.md`).

    Returns:
        Whether that was set; False without glibc, or when the user has set the allocator.
    """
    if platform.libc_ver()[0] != "glibc" or is_left_to_the_user(environ):
        return False
    libc = ctypes.CDLL(None)
    return bool(
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
        and libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
    )


def freed_memory_returner() -> Callable[[], object]:
    """Return a function that makes the C library give unused memory back; it takes milliseconds."""
    if platform.libc_ver()[0] != "glibc":
        return int  # nothing is done
    return partial(ctypes.CDLL(None).malloc_trim, 0)
