"""Settings of several levels out of keys, by pydantic-settings.

A module of its own: to import the library takes 0.1 s and 1 MiB, and often no variable is set.
"""

from collections.abc import Mapping
from typing import Any

from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from gateway.settings.document import KeyPath
from gateway.settings.models import Settings

_BETWEEN = "__"


class _Variables(Settings, BaseSettings):
    """The settings' keys for pydantic-settings, which finds them in variables' names.

    Only that is taken from it. Its merging of sources knows neither which layer a value came from
    nor that a password replaces a password file; it stops at the first source that fails; and it
    passes over a misspelt variable in silence.
    """

    model_config = SettingsConfigDict(env_nested_delimiter=_BETWEEN, enable_decoding=False)


def nested(values: Mapping[KeyPath, str]) -> dict[str, Any]:
    """Return the settings in which each key, in lower case, has its value."""
    source = EnvSettingsSource(_Variables)
    source.env_vars = {_BETWEEN.join(path): value for path, value in values.items()}
    return source()
