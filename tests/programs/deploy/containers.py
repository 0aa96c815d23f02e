"""Runs buildah and podman for real, in a mount and network namespace of their own.

In there is nothing but a loopback, so that ports are always free and nothing reaches out. What is
stored and run is deleted at the end.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.programs.deploy.parts import PartMissingError, require

_NEEDED = ("podman", "buildah", "crun", "catatonit", "slirp4netns", "unshare", "nsenter", "ip")
_LIMIT_S = 1400
"""Of one command. Building the image compiles, on a busy machine for minutes."""
# Limits that somebody without CAP_SYS_RESOURCE may set; podman mixes the two up when they differ.
_CONF = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
"""
# crun refuses to work with both versions of control groups at once, as some machines mount them.
_ENTER = """\
set -e
ip link set lo up
if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
ulimit -n 4096 -u 4096
echo ready
exec sleep 1800
"""


class Containers:
    """The store, and the namespaces in which everything runs."""

    def __init__(self, folder: Path, holder: int) -> None:
        self._folder = folder
        self._into = ["nsenter", f"--net=/proc/{holder}/ns/net", f"--mount=/proc/{holder}/ns/mnt"]
        (folder / "containers.conf").write_text(_CONF)

    def podman(self, *arguments: str, check: bool = True) -> str:
        """Run podman; return what it, or the container, wrote to standard output."""
        return self._ended(self._command("podman", arguments), check=check)

    def log(self, container: str) -> str:
        """Return what a container has written, to standard output and then to standard error."""
        ended = self._run(self._command("podman", ("logs", container)))
        return ended.stdout + ended.stderr

    def build(self, dockerfile: Path, tag: str, context: Path, *further: str) -> str:
        """Build an image, without asking any registry; steps that an image shares are run once."""
        build = ("build", "--layers", "--pull-never", "--format=docker", f"--tag={tag}")
        command = self._command("buildah", (*build, f"--file={dockerfile}", *further, str(context)))
        return self._ended(command)

    def start(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        """Run podman in the background, with everything it writes in `log`."""
        with log.open("wb") as file:
            return subprocess.Popen(
                self._command("podman", arguments),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                cwd="/",
            )

    def python(self, script: str, *arguments: str) -> str:
        """Run a script of ours inside the namespaces, with this Python."""
        return self._ended([*self._into, sys.executable, "-c", script, *arguments])

    def remove_all(self) -> None:
        """Delete every pod, container and volume."""
        self.podman("pod", "rm", "--force", "--all", "--time=0", check=False)
        self.podman("rm", "--force", "--all", "--time=0", check=False)
        self.podman("volume", "rm", "--force", "--all", check=False)
        self.podman("secret", "rm", "--all", check=False)

    def _command(self, program: str, arguments: tuple[str, ...]) -> list[str]:
        places = [f"--root={self._folder}/store", f"--runroot={self._folder}/run"]
        if program == "podman":
            places.append(f"--tmpdir={self._folder}/tmp")
        limits = ["prlimit", "--nofile=4096:4096", "--nproc=4096:4096"]
        return [*self._into, *limits, program, *places, "--storage-driver=overlay", *arguments]

    def _environment(self) -> Mapping[str, str]:
        own = {
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_CONF": str(self._folder / "containers.conf"),
        }
        return {**os.environ, **own}

    def _ended(self, command: list[str], *, check: bool = True) -> str:
        ended = self._run(command)
        assert not check or ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
        return ended.stdout

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
            env=self._environment(),
            cwd="/",
        )


@contextmanager
def running_containers(folder: Path) -> Iterator[Containers]:
    """Open the namespaces; at the end delete everything and close them.

    Args:
        folder: where images and containers are kept; empty.

    Raises:
        PartMissingError: a program is not there, or namespaces are not allowed.
    """
    require(*_NEEDED)
    holder = subprocess.Popen(
        ["unshare", "--mount", "--net", "bash", "-c", _ENTER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stderr is not None
    try:
        if holder.stdout.readline() != "ready\n":
            raise PartMissingError(f"no namespaces: {holder.stderr.readline().strip()}")
        containers = Containers(folder, holder.pid)
        try:
            yield containers
        finally:
            containers.remove_all()
            containers.podman("rmi", "--force", "--all", check=False)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
