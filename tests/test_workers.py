"""The order of the tests, and what becomes of a run in which a worker dies."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.workers import LONG_FORMS

_ROOT = Path(__file__).parents[1]
_CONFTEST = """
from tests.support.workers import Scheduling

def pytest_xdist_make_scheduler(config, log):
    config.option.loadscopereorder = False
    return Scheduling(config, log)
"""
_TESTS = """
import os
import pytest

@pytest.mark.parametrize("number", range(60))
def test_dies_once(number, pytestconfig):
    died = pytestconfig.rootpath / "died"
    if number == {} and not died.exists():
        died.touch()
        os._exit(1)
"""


@pytest.mark.parametrize(("workers", "dies_in"), [(2, 20), (1, 20), (1, 58), (1, 59)])
def test_a_run_ends_although_a_worker_died(tmp_path: Path, workers: int, dies_in: int) -> None:
    """Others are left that go on, or none is: that is so at the end of each run."""
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "test_dying.py").write_text(_TESTS.format(dies_in))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    ended = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
            "-n", str(workers), tmp_path,
        ],
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(_ROOT), "PATH": "",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "xdist.plugin",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stdout
    assert "1 failed, 60 passed" in ended.stdout


def test_every_long_form_is_run_by_test_long() -> None:
    """Else what `make test` leaves out would be run by nobody."""
    tests = _ROOT / "tests"
    wanting = [
        str(path.relative_to(tests))
        for path in tests.rglob("*.py")
        if re.search(r"tools import .*\bLONG\b", path.read_text())
    ]

    assert wanting
    assert [path for path in wanting if not path.startswith((*LONG_FORMS, "conftest.py"))] == []
    assert all((tests / place).exists() for place in LONG_FORMS)
    makefile = (_ROOT / "Makefile").read_text().replace("\\\n", "")
    recipes = dict(re.findall(r"^([a-z-]+):.*\n((?:\t.*\n)+)", makefile, re.MULTILINE))
    assert '-m "not long"' in recipes["test"]
    assert "LONG=1" in recipes["test-long"]
    assert "-m long" in recipes["test-long"]
    assert "make test-long" in (_ROOT / ".ci" / "run").read_text()


_LEFT_OPEN = """
import asyncio
import uvloop

async def leave():
    await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    raise AssertionError("as it should")

def test_fails():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(leave())
"""


def test_a_test_that_fails_with_a_server_open_ends(tmp_path: Path) -> None:
    """uvloop waits for ever for what it could not close, because the warning about it was an error.

    pytest-timeout does not help: it looks away once a test has failed.
    """
    options = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    filters = "".join(f"\n  {line}" for line in options["filterwarnings"])
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nfilterwarnings ={filters}\n")
    (tmp_path / "test_open.py").write_text(_LEFT_OPEN)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "as it should" in ended.stdout
    assert "1 failed" in ended.stdout


_HANGS = """
import asyncio

async def wait_for_nobody():
    await asyncio.get_running_loop().create_future()

async def test_hangs():
    await wait_for_nobody()
"""


def _ended(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with an environment that only lets it import our tests."""
    return subprocess.run(
        command,
        cwd=folder,
        env={"PYTHONPATH": str(_ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_where_a_test_hangs_is_told_by_a_worker(tmp_path: Path) -> None:
    """What pytest-timeout says there is lost."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_runtest_protocol\n")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\ntimeout = 2\ntimeout_method = thread\n"
    )
    (tmp_path / "test_hanging.py").write_text(_HANGS)
    command = [sys.executable, "-m", "pytest", "-n", "1", "-q", "--max-worker-restart=0"]
    ended = _ended(command, tmp_path)

    assert "test_hanging.py::test_hangs hangs:" in ended.stderr
    assert "in wait_for_nobody" in ended.stderr
    assert "crashed while running 'test_hanging.py::test_hangs'" in ended.stdout


_LIMITED = """
import resource

def test_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard
"""


def test_tests_may_open_as_many_files_as_serve(tmp_path: Path) -> None:
    """Whatever the shell allows."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_configure\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_limited.py").write_text(_LIMITED)
    limited = ["/bin/sh", "-c", 'ulimit -S -n 256; exec "$@"', "sh"]
    ended = _ended([*limited, sys.executable, "-m", "pytest", "-q"], tmp_path)
    assert "1 passed" in ended.stdout
