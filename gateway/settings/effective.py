"""What is in force and where each value came from, for people to read. Pure; shows no secret."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BeforeValidator, SecretStr
from pydantic.fields import FieldInfo

from gateway.settings import values
from gateway.settings.loading import Loaded
from gateway.settings.sections import Section, section_in

MASK = "********"
"""Stands for every secret, whatever its length."""


@dataclass(frozen=True, slots=True)
class EffectiveValue:
    """One setting that has a value."""

    key: str
    """Path in the configuration: `services.iris.timeouts.connect`."""
    value_shown: str
    """The value as in a file: `40s`, `12MiB`, `[POST]`; `MASK` for a secret."""
    origin: str
    """`flag`, `env NAME`, `file PATH:LINE` or `default`."""


def effective(loaded: Loaded) -> list[EffectiveValue]:
    """Return every setting that has a value, in the order of config/README.md.

    Keys that are not set and have no default, such as `tls.ca_file`, are left out.
    """
    return [
        EffectiveValue(key, shown, loaded.origins[key])
        for key, shown in _values_of(loaded.settings, "")
    ]


def _values_of(section: Section, above: str) -> Iterator[tuple[str, str]]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        inner, is_named = section_in(field)
        if is_named:
            for own_name, one in value.items():
                yield from _values_of(one, f"{above}{name}.{own_name}.")
        elif inner and value is not None:
            yield from _values_of(value, f"{above}{name}.")
        elif value is not None:
            yield f"{above}{name}", _shown(value, field)


def _shown(value: Any, field: FieldInfo) -> str:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    write = next((_WRITERS[parser] for parser in _parsers(field) if parser in _WRITERS), str)
    return write(value)


def _parsers(field: FieldInfo) -> Iterator[Callable[..., Any]]:
    return (mark.func for mark in field.metadata if isinstance(mark, BeforeValidator))


def _duration(seconds: float) -> str:
    return f"{seconds:f}".rstrip("0").removesuffix(".") + "s"


def _size(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count and count % size == 0:
            return f"{count // size}{unit}"
    return str(count)


def _share(share: float) -> str:
    return f"{share * 100:g}%"


_WRITERS: dict[Callable[..., Any], Callable[[Any], str]] = {
    values.parse_instant: datetime.isoformat,
    values.parse_duration: _duration,
    values.parse_positive_duration: _duration,
    values.parse_size: _size,
    values.parse_share: _share,
}
