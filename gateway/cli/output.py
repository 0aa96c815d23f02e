"""What the commands that examine something print."""

from contextlib import suppress

import click


def tell(text: str, *, err: bool = False, color: bool | None = None) -> None:
    """Print `text`, to standard error if `err`; ignore it if that cannot be written.

    The exit code is a command's verdict, for probes and scripts: a full disk must not change it.
    """
    with suppress(OSError):
        click.echo(text, err=err, color=color)
