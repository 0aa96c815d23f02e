"""The order of the tests, and what becomes of a run in which a worker dies."""

import subprocess
import sys
from pathlib import Path

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
    if number == 20 and not died.exists():
        died.touch()
        os._exit(1)
"""


def test_a_run_ends_although_a_worker_died(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "test_dying.py").write_text(_TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "2", "-q", "-p", "no:cacheprovider", tmp_path],
        cwd=tmp_path,
        env={"PYTHONPATH": str(_ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1, ended.stdout
    assert "1 failed, 60 passed" in ended.stdout
