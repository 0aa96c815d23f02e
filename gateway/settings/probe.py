"""Finds the admin listener of a running gateway, for probes, which run every few seconds.

Forgiving: a configuration that was broken after the start must not end a healthy gateway.
"""

from collections.abc import Mapping
from pathlib import Path

from gateway.errors import ConfigError
from gateway.settings.addresses import DEFAULT_ADMIN_LISTEN, ListenAddress, parse_listen_tcp


def find_admin_listen(
    *, file: Path | None, environ: Mapping[str, str], flag: str | None = None
) -> ListenAddress:
    """Return the address by flag, environment, file or default; nothing else is checked.

    A file that cannot be read counts as one that does not name the address.

    Raises:
        ConfigError: the address is named and is none.
    """
    value: object = flag or next(
        (value for name, value in environ.items() if name.upper() == "GATEWAY_ADMIN_LISTEN"), None
    )
    if not value and file:
        from gateway.settings.document import read_document  # YAML is half of a probe's time

        value = read_document(file).data.get("admin_listen")
    try:
        return parse_listen_tcp(value) if value else DEFAULT_ADMIN_LISTEN
    except ValueError as error:
        raise ConfigError([f"admin_listen: {error}"]) from None
