"""Programs that tests need and a machine may lack."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import pytest

LONG = os.environ.get("LONG") == "1"
"""Whether tests take their long form: `make test-long`, which `.ci/run` calls."""


def lacking(what: str) -> NoReturn:
    """Skip, in one line; under `REQUIRE_ALL=1`, which CI sets, fail instead."""
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(f"REQUIRE_ALL=1, but {what}", pytrace=False)
    pytest.skip(what)


def tool(name: str, package: str) -> str:
    """Return the path of a program, or end the test as `lacking` does.

    `package`: Debian's, which has it.
    """
    found = shutil.which(name)
    if found is None:
        lacking(f"{name} is not installed (Debian: {package})")
    return found


def npm_program(folder: Path, name: str, *packages: str) -> Path:
    """Return a program out of npm packages, installed into `folder` once; else as `lacking`."""
    program = folder / "node_modules" / ".bin" / name
    if program.exists():
        return program
    _npm_install(folder, name, packages)
    return program


def npm_package(folder: Path, package: str) -> Path:
    """Return the folder of `name@version`, installed into `folder` once; else as `lacking`."""
    name = package.rpartition("@")[0]
    installed = folder / "node_modules" / name
    if not installed.exists():
        _npm_install(folder, name, (package,))
    return installed


def python_with(folder: Path, package: str) -> Path:
    """Return a Python that has a PyPI package, in an environment of its own in `folder`.

    Made and filled once; else as `lacking`.
    """
    python, marker = folder / "bin" / "python", folder / "installed"
    if marker.exists():
        return python
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", package],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=380, check=False)
        if done.returncode != 0:
            lacking(f"{package} cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
    marker.touch()
    return python


def _npm_install(folder: Path, name: str, packages: Iterable[str]) -> None:
    npm = shutil.which("npm")
    if npm is None:
        lacking(f"npm is not installed, so {name} cannot be had")
    quiet = ["--no-audit", "--no-fund", "--loglevel=error"]
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [npm, "install", "--prefix", str(folder), *packages, *quiet],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    if done.returncode != 0:
        lacking(f"npm cannot install {name}: {done.stderr.strip().splitlines()[-1:]}")
