"""A sink: a file that other data planes read a token from. What it holds, and how it is replaced.

A reader of the file sees the content before or after a change, never a part of one.
"""

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isinf
from pathlib import Path
from typing import Literal

from gateway.identity.credential import Credential

SinkFormat = Literal["plain", "envoy_sds", "haproxy_map"]

_EXPIRES = re.compile(rb"# expires (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)Z\n")
_LONGEST_LOOK = 4096
_SECRET_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105


@dataclass(frozen=True, slots=True)
class SinkFile:
    """One file and what it is for. Its methods block on the disk: call them in a thread."""

    path: Path
    format: SinkFormat
    name: str
    """Of the secret or the map's line; unused in `plain`."""
    mode: int
    remove_on_exit: bool
    """Whether the token is taken out of it when the gateway ends."""

    def read(self) -> bytes | None:
        """Return the beginning of what the file holds; None if there is none.

        Raises:
            OSError: it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                return file.read(_LONGEST_LOOK)
        except FileNotFoundError:
            return None

    def replace(self, content: bytes) -> None:
        """Put `content` in the file's place, durably and with the right mode from the start.

        Raises:
            OSError: the folder cannot be written to, or the disk is full; the old file stays.
        """
        other = self.path.with_name(f".{self.path.name}.modelarts-gateway")
        other.unlink(missing_ok=True)  # a process that was killed may have left it
        try:
            fd = os.open(other, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with open(fd, "wb") as file:  # noqa: PTH123  # a descriptor has no path
                os.fchmod(fd, self.mode)
                file.write(content)
                file.flush()
                os.fsync(fd)
            other.replace(self.path)
        except OSError:
            with suppress(OSError):
                other.unlink(missing_ok=True)
            raise
        _sync_folder(self.path.parent)


def content_of(sink: SinkFile, credential: Credential | None) -> bytes:
    """Return what `sink` holds while `credential` is in use; None: there is none."""
    value = "" if credential is None else _value_of(credential)
    match sink.format:
        case "plain":
            return value.encode("ascii")
        case "envoy_sds":
            return _expiry_line(credential) + _envoy_secret(sink.name, value).encode()
        case "haproxy_map":
            line = f"{sink.name} {value}\n" if value else ""
            return _expiry_line(credential) + line.encode()


def expiry_in(content: bytes) -> float | None:
    """Return when the token in a sink's `content` expires, in seconds since the epoch.

    None: it does not say so. `plain` never does.
    """
    found = _EXPIRES.match(content)
    if found is None:
        return None
    try:
        return datetime.fromisoformat(found[1].decode()).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _envoy_secret(name: str, value: str) -> str:
    """Return a secret as Envoy reads it from a file; JSON texts are YAML texts.

    An empty value takes the token away from Envoy. It would keep the old one if the file were
    gone or held no resource.
    """
    return (
        f'resources:\n- "@type": {_SECRET_TYPE}\n  name: {json.dumps(name)}\n'
        f"  generic_secret: {{secret: {{inline_string: {json.dumps(value)}}}}}\n"
    )


def _expiry_line(credential: Credential | None) -> bytes:
    if credential is None or isinf(credential.wall_expires_at):
        return b""
    instant = datetime.fromtimestamp(credential.wall_expires_at, UTC)
    return f"# expires {instant:%Y-%m-%dT%H:%M:%S}Z\n".encode()


def _value_of(credential: Credential) -> str:
    """Return the value of the credential's first header line; empty if it has none."""
    line = credential.field_lines.partition(b"\r\n")[0]
    return line.partition(b":")[2].strip(b" \t").decode("ascii")


def _sync_folder(folder: Path) -> None:
    """Make a rename durable, where the file system can."""
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
