"""One GET to the admin listener of a running gateway; for probes, so it must start fast."""

import os
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import click

from gateway.errors import ConfigError
from gateway.settings import ListenAddress, find_admin_listen

_TIMEOUT_S = 2.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # to connect to, not to bind


def admin_address(file: Path | None, flag: str | None) -> tuple[str, int]:
    """Return host and port to connect to, or exit with 2.

    Raises:
        SystemExit: the address is not valid.
    """
    try:
        address = find_admin_listen(file=file, environ=os.environ, flag=flag)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        raise SystemExit(2) from error
    return reachable_host(address), address.port


def reachable_host(address: ListenAddress) -> str:
    """Return the host to connect to; loopback for 0.0.0.0 and ::, which are for binding."""
    return _ANY.get(address.host, address.host)


def ask(host: str, port: int, path: str) -> tuple[bool, str]:
    """GET `path`; return whether the response was 200, and its text or the error."""
    connection = HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status == 200, response.read(1000).decode("ascii", "replace").strip()
    except (OSError, HTTPException) as error:
        return False, f"no response from {host}:{port} ({type(error).__name__})"
    finally:
        connection.close()
