"""What the tests of settings share: a configuration that is good, and ways to load one."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConfigError
from gateway.settings import (
    Loaded,
    load,
)

URL = "https://models.example/v1/infers/a"
ANONYMOUS = {"default": {"method": "none"}}
GOOD: dict[str, Any] = {"services": {"iris": {"url": URL}}, "identities": ANONYMOUS}
NO_FLAGS: dict[str, Any] = {}
Write = Callable[[Any], Path]


def use(data: Mapping[str, Any], environ: Mapping[str, str] = {}) -> Loaded:
    """Load `data` as flags, which may be anything but secrets."""
    return load(file=None, environ=environ, flags=data)


def problems_of(
    content: Any = None,
    *,
    write: Write | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Load what cannot be loaded: a file if `write` is given, else flags."""
    file = write(content) if write else None
    with pytest.raises(ConfigError) as caught:
        load(file=file, environ=environ or {}, flags=NO_FLAGS if write else content or {})
    return caught.value.problems


def problems_or_none(data: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return what is wrong, nothing if nothing is."""
    try:
        use(data, environ)
    except ConfigError as error:
        return error.problems
    return ()


def service(**keys: Any) -> dict[str, Any]:
    return {"services": {"iris": {"url": URL, **keys}}, "identities": ANONYMOUS}


def identity(**keys: Any) -> dict[str, Any]:
    return {"services": {"iris": {"url": URL}}, "identities": {"default": keys}}


LOGIN = {
    "auth_url": "https://iam.example",
    "username": "u",
    "user_domain": "d",
    "password_file": "secret",
    "project": "p",
}
