"""The option `--config`, and the report of configuration problems."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from gateway.cli.output import tell
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.settings import Loaded

EXIT_CONFIG = 2
EXIT_REMOTE = 3

_F = TypeVar("_F", bound=Callable[..., Any])


def config_option(function: _F) -> _F:
    """Add `--config FILE`, which `GATEWAY_CONFIG` may give as well."""
    return click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path),
        envvar="GATEWAY_CONFIG",
        show_envvar=True,
        help="YAML file; without one, everything comes from the environment.",
    )(function)


def load_or_exit(
    file: Path | None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> "Loaded":
    """Load the configuration, or report every problem and exit with 2."""
    from gateway.settings import load  # half a second of CPU that probes can do without

    try:
        return load(file=file, environ=environ, flags=flags or {})
    except ConfigError as error:
        exit_with(error.problems)


def exit_with(problems: Sequence[str]) -> NoReturn:
    """Report problems of the configuration and exit with 2."""
    tell(f"{len(problems)} problem{'s'[: len(problems) > 1]}:", err=True)
    for problem in problems:
        tell(f"  {problem}", err=True)
    sys.exit(EXIT_CONFIG)
