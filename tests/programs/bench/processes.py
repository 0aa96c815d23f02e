"""Children of the benchmark: started, read through /proc, and ended by their own handle."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MIB = 1 << 20


@contextmanager
def child(
    command: Sequence[str],
    *,
    output: IO[bytes] | int,
    environment: Mapping[str, str] | None = None,
    patience_s: float = 5.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` for the length of the block; SIGTERM after it, SIGKILL after `patience_s`.

    In a process group of its own, so that Ctrl-C reaches the benchmark only, which then ends its
    children in order; where `setpriv` exists the kernel ends them should we be killed outright.
    """
    guard = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    process = subprocess.Popen(
        [*guard, *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output == subprocess.PIPE else subprocess.STDOUT,
        env=environment,
        process_group=0,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def free_port() -> int:
    """Return a port of loopback that nobody listened on a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def cpu_ns(pid: int) -> int:
    """Return the CPU time of all live threads of `pid`, in nanoseconds, user and system together.

    From schedstat: `stat` counts in ticks of 10 ms. A thread that ends takes its share with it;
    no contestant ends threads under load.
    """
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            total += int((thread / "schedstat").read_text().split()[0])
    return total


@dataclass(frozen=True)
class Memory:
    """Resident memory in bytes, now and at its highest since the last `reset_peak`."""

    now: int
    peak: int


def memory(pid: int) -> Memory:
    found = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in {"VmRSS", "VmHWM"}:
            found[key] = int(value.split()[0]) * 1024
    return Memory(found["VmRSS"], found["VmHWM"])


def reset_peak(pid: int) -> None:
    """Let `memory(pid).peak` start from here (proc(5), clear_refs, value 5)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def wait_for_port(process: subprocess.Popen[bytes], port: int, patience_s: float = 20.0) -> None:
    """Return when somebody accepts on `port`.

    Raises:
        RuntimeError: the process ended, or `patience_s` went by.
    """
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"ended with {describe_exit(process.returncode)}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nobody listened on port {port} within {patience_s:.0f} s")


def describe_exit(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def stolen() -> tuple[int, int]:
    """Return ticks that the hypervisor gave to others, and all ticks, since boot (proc(5))."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[7], sum(ticks)
