"""Completion in shells, as `--help` tells to switch it on."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import main

COMMAND = Path(sys.executable).with_name("modelarts-gateway")

# What bash does when somebody presses the tab key, after the line from `--help`.
_PRESS_TAB = """
{line}
COMP_WORDS=({words}) COMP_CWORD={at}
_modelarts_gateway_completion modelarts-gateway
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("modelarts-gateway hea", "healthcheck"),
        pytest.param("modelarts-gateway check --onl", "--online", marks=pytest.mark.long),
    ],
)
def test_bash_completes_commands_and_options(words: str, offered: str) -> None:
    """
    After the line that `--help` shows, bash offers what can follow.
    """
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    told = CliRunner().invoke(main, ["--help"]).stdout
    line = re.search(r"^\s*(eval .*)$", told, re.MULTILINE)
    assert line
    script = _PRESS_TAB.format(line=line[1], words=words, at=len(words.split()) - 1)
    environment = {**os.environ, "PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"}

    said = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True
    )

    assert said.stdout.split() == [offered], said.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script_too(shell: str) -> None:
    """
    zsh and fish get a script that asks the command for what can follow.
    """
    said = subprocess.run(
        [COMMAND],
        env={**os.environ, "_MODELARTS_GATEWAY_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert f"_MODELARTS_GATEWAY_COMPLETE={shell}_complete" in said.stdout
