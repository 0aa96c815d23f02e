"""Runs commands in this process on a configuration of the test's, beside clouds in threads."""

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner

from gateway.cli import main
from tests.support.twin import twin_in_thread

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


@contextmanager
def https_server(*names: str, days: float = 365, days_ago: float = 1) -> Iterator[tuple[str, str]]:
    """A TLS server whose certificate is for `names`; its address and its authority's file."""
    authority = trustme.CA()
    now = datetime.now(UTC)
    certificate = authority.issue_cert(
        *names,
        not_before=now - timedelta(days=days_ago),
        not_after=now + timedelta(days=days, minutes=1),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    with ExitStack() as stack:
        ca_file = stack.enter_context(authority.cert_pem.tempfile())
        twin = stack.enter_context(twin_in_thread(ssl_context=context))
        yield twin.url.removeprefix("https://"), ca_file
