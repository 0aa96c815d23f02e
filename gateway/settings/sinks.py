"""What can be set about sinks: files that other data planes read a token from."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, WithJsonSchema

from gateway.settings.sections import Fault, Section
from gateway.settings.types import Mode, Text
from gateway.settings.values import parse_text, shown

SinkFormat = Literal["plain", "envoy_sds", "haproxy_map"]


def parse_sink_path(value: Any) -> Path:
    """Return the absolute path of a file that we may write."""
    path = Path(parse_text(str(value) if isinstance(value, Path) else value))
    if not path.is_absolute():
        raise ValueError(f"{shown(str(path))} is not absolute; use /run/tokens/default.token")
    if path.is_dir():
        raise ValueError(f"{shown(str(path))}: a folder; name a file in it")
    return path


class Sink(Section):
    """A file that always holds the token in use, for a proxy that does not ask us."""

    path: Annotated[
        Path, BeforeValidator(parse_sink_path), WithJsonSchema({"type": "string", "pattern": "^/"})
    ]
    """The file, absolute. It is replaced, never changed in place; its folder must be writable."""
    format: SinkFormat = "plain"
    """What the file holds: the token alone, a secret for Envoy's SDS, or a line for a map of
    HAProxy. Without a usable token: nothing, an empty `inline_string`, or no line."""
    name: Text | None = None
    """Name of the secret in `envoy_sds`, key of the line in `haproxy_map`; the identity's when
    left out."""
    mode: Mode = "0600"
    """Mode of the file, in quotes. Every user who can read the file has the token."""
    remove_on_exit: bool = False
    """Whether the token is taken out when the gateway ends: the file stays, without a token.
    Off: the last token stays, so that a restart interrupts no other program."""

    def __str__(self) -> str:
        """Return the path, and the format unless it is plain."""
        return str(self.path) if self.format == "plain" else f"{self.path} ({self.format})"

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield what does not fit the format."""
        kind, path, name = given.get("format", "plain"), given.get("path"), given.get("name")
        if kind == "envoy_sds" and not str(path).endswith((".yaml", ".yml")):
            yield (
                ("path",),
                f"{shown(str(path))} does not end in .yaml, by which Envoy chooses its parser",
            )
        if kind == "plain" and name is not None:
            yield ("name",), "makes no sense with format plain; use envoy_sds or haproxy_map"
        if kind == "haproxy_map" and isinstance(name, str) and (" " in name or name[:1] == "#"):
            yield ("name",), f"{shown(name)} cannot be a map's key; use one without space and #"
