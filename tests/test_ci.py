"""`.ci/run` itself: its output shows where time went, and which stage failed."""

import os
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / ".ci" / "run"


@pytest.mark.parametrize(
    ("make", "code", "line"),
    [
        ("exec sleep 60", 124, "setup: hung, ended after 1 s"),
        ("exit 3", 3, "setup: failed (3)"),
        ('case "$*" in *" setup") ;; *) exit 4 ;; esac', 4, "check and build: failed (4)"),
    ],
)
def test_run_ends_at_a_stage_that_hangs_or_fails_and_names_it(
    tmp_path: Path, make: str, code: int, line: str
) -> None:
    """
    Its exit code is the stage's; the last lines are the seconds of each stage that has begun.
    """
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_bytes(RUN.read_bytes())
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, script in (("make", make), ("apt-get", "exit 0")):
        program = programs / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"

    ended = subprocess.run(
        ["bash", str(tmp_path / ".ci" / "run")],
        env={**os.environ, "PATH": path, "STAGE_LIMIT_S": "1" if code == 124 else "60"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert ended.returncode == code, ended.stdout + ended.stderr
    lines = [said.strip() for said in ended.stdout.partition("== Stages:")[2].splitlines()]
    assert lines[-1].endswith("s  in all")
    assert lines[-2].endswith(line)
