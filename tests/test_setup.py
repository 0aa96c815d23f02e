"""`make` on machines that lack something: a sentence that helps, and a next run that works."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# What `python3 -m venv .venv` makes, without the time that pip takes. `pip install` succeeds if
# the file `index` exists beside the Makefile.
_PYTHON = """\
#!/bin/sh
case "$*" in
--version) echo Python 3.11.0 ;;
"-m venv .venv") mkdir -p .venv/bin && {venv} ;;
"-m pip install "*) echo "$@" >>asked; test -e index ;;
*"import pip"*) echo True ;;
*) exit 0 ;;
esac
"""
_WHOLE = 'cp "$0" .venv/bin/python'
# As on Debian without python3-venv: a Python lies there, and ensurepip is missing.
_HALF = "printf '#!/bin/sh\\nexit 1\\n' >.venv/bin/python && chmod +x .venv/bin/python && exit 1"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with what `make` needs, to set up in."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "index").touch()
    return tmp_path


def make(project: Path, *, venv: str = _WHOLE) -> subprocess.CompletedProcess[str]:
    """Run `make setup` with a Python that makes environments in the given way."""
    programs = project / "programs"
    programs.mkdir(exist_ok=True)
    python = programs / "python3"
    python.write_text(_PYTHON.format(venv=venv))
    python.chmod(0o755)
    environment = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        ["make", "setup"], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def test_setup_installs_once(project: Path) -> None:
    """
    The first run creates the environment and installs; the second has nothing to do.
    """
    first, second = make(project), make(project)

    assert first.returncode == second.returncode == 0
    assert "first time only" in first.stdout
    assert "==" not in second.stdout
    assert len((project / "asked").read_text().splitlines()) == 1


def test_missing_venv_package_is_named_and_leaves_nothing_behind(project: Path) -> None:
    """
    Without Debian's python3-venv, setup says which package to install; after that it works.
    """
    failed = make(project, venv=_HALF)

    assert failed.returncode != 0
    assert "apt-get install python3-venv" in failed.stdout
    assert not (project / ".venv").exists()
    assert make(project).returncode == 0


def test_half_made_environment_is_made_anew(project: Path) -> None:
    """
    A Python that does not run, and stamps of an earlier setup beside it, do not count.
    """
    assert make(project).returncode == 0
    (project / ".venv" / "bin" / "python").unlink()
    (project / ".venv" / "bin" / "python").symlink_to("python-that-was-removed")

    again = make(project)

    assert again.returncode == 0
    assert ".venv is not usable" in again.stdout
    assert (project / ".venv" / ".dev-installed").exists()
    assert len((project / "asked").read_text().splitlines()) == 2


def test_failed_install_is_explained_and_repeated(project: Path) -> None:
    """
    When pip fails, setup says what to look at, and the next run installs.
    """
    (project / "index").unlink()
    failed = make(project)
    (project / "index").touch()

    assert failed.returncode != 0
    assert "Is a package index reachable?" in failed.stdout
    assert make(project).returncode == 0


def test_system_python_is_never_installed_into(project: Path) -> None:
    """
    A Python that the system manages refuses to install; only the environment's own pip is asked.
    """
    assert make(project).returncode == 0
    python = project / "programs" / "python3"
    system = python.read_text().replace(
        '"-m pip install "*)', '"-m pip install "*) test "$0" = .venv/bin/python ||  exit 9;'
    )
    python.write_text(system)
    shutil.rmtree(project / ".venv")
    environment = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}

    done = subprocess.run(
        ["make", "setup"], cwd=project, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout
