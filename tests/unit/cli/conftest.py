"""Runs commands in this process on a configuration of the test's, beside clouds in threads."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli import main

Configuration = Mapping[str, Any]


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Of standard output."""
        return self.out.splitlines()


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command with `--config`: words, then the configuration."""

    def run_command(*words: str, config: Configuration) -> Ran:
        file = tmp_path / "gateway.yaml"
        file.write_text(json.dumps(config))  # JSON is YAML
        ended = CliRunner().invoke(main, [*words, "--config", str(file)], env={}, prog_name="x")
        assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exc_info
        return Ran(ended.exit_code, ended.stdout, ended.stderr)

    return run_command
