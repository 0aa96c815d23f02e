"""What the C library keeps of freed memory, measured on the real one."""

import platform
import socket
import subprocess
import sys

import pytest

from gateway.lifecycle.allocation import is_left_to_the_user

_FAULTS = """
import resource, sys
from gateway.cli import main
try:
    main()  # it ends where it cannot listen
except SystemExit:
    pass
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for _ in range(50):
    bodies = [b"x" * (100 * 1024) for _ in range(20)]
    del bodies
print(faults() - before)
"""


def _faults(**environ: str) -> int:
    """Return the page faults of 2000 large objects in a process that has run `serve`."""
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS, "serve"],
        capture_output=True,
        text=True,
        check=True,
        env=environ,
    )
    return int(done.stdout.split()[-1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_serve_keeps_freed_memory() -> None:
    """Pages of large objects are not given back and made anew, unless the user says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environ = {
            "GATEWAY_SERVICE_URL": "http://127.0.0.1:9/v1/infers/iris",
            "GATEWAY_IDENTITIES__DEFAULT__METHOD": "none",
            "GATEWAY_LISTEN": f"127.0.0.1:{taken.getsockname()[1]}",
        }
        served = _faults(**environ)
        left = _faults(**environ, MALLOC_ARENA_MAX="8")

    assert served * 4 < left


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
def test_allocator_that_the_user_has_set_stays(environ: dict[str, str], *, left: bool) -> None:
    """By any of glibc's two ways."""
    assert is_left_to_the_user(environ) is left
