"""Puts the layers together: flag > environment > file > default, and names every fault at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from gateway.errors import ConfigError
from gateway.settings.advice import warnings_of
from gateway.settings.document import Document, KeyPath, read_document
from gateway.settings.environment import read_openstack, read_variables
from gateway.settings.identity import SECRETS
from gateway.settings.models import Settings
from gateway.settings.sections import sentence_of
from gateway.settings.values import printable

# When a stronger layer gives the first, weaker layers' others are dropped: two answers to one
# question are a mistake within a layer and an override between layers.
_ALTERNATIVES = (
    *SECRETS.items(),
    *((file, plain) for plain, file in SECRETS.items()),
    ("access_key", "access_key_file"),
    ("access_key_file", "access_key"),
    ("project", "project_id"),
    ("project_id", "project", "project_domain"),
)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings that can be used, and how they came about."""

    settings: Settings
    warnings: tuple[str, ...]
    """What works and deserves a second look, `key: sentence` each."""
    origins: Mapping[str, str]
    """For every key that can hold a value, such as `services.iris.url`: `flag`, `env NAME`,
    `file PATH:LINE` or `default`."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """One source of settings. `origin` names it; `places` names parts of it more exactly."""

    origin: str
    data: dict[str, Any]
    places: Mapping[KeyPath, str] = field(default_factory=dict)


def load(
    *,
    file: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, Any] = MappingProxyType({}),
) -> Loaded:
    """Read and check all layers.

    Args:
        file: YAML file, or None to do without.
        environ: the process's environment; `GATEWAY_CONFIG` in it is the caller's to follow.
        flags: nested like the file; a value of None was not given.

    Raises:
        ConfigError: with every problem found, one line each.
    """
    document = read_document(file) if file else Document()
    variables, names, problems = read_variables(environ)
    problems = [*document.problems, *problems]
    given = _Layer("flag", _without_none(flags))
    env = _Layer("env", variables, {path: f"env {name}" for path, name in names.items()})
    paper = _Layer(
        "file", document.data, {path: f"{file}:{line}" for path, line in document.lines.items()}
    )
    problems += _refuse_secrets(given, "a flag, which every process on the machine can see")
    problems += _refuse_secrets(paper, "the file, which ends up in a repository")
    openstack, warnings = _openstack(environ, (given, env, paper))
    layers = [*_without_alternatives((given, env, openstack, paper)), _service_manager(environ)]
    if document.problems and not document.data:
        raise ConfigError(problems)  # what it does not say would only add noise
    settings = None
    try:
        settings = Settings.model_validate(_merged(layers))
    except ValidationError as error:
        problems += [_line(details, layers) for details in error.errors(include_url=False)]
    if settings is None or problems:
        raise ConfigError(problems)
    origins = MappingProxyType(dict(_origins(settings.model_dump(), (), layers)))
    return Loaded(settings, (*warnings, *warnings_of(settings)), origins)


def _without_none(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in data.items()
        if value is not None
    }


def _refuse_secrets(layer: _Layer, where: str) -> Iterator[str]:
    for name, identity in _section(layer.data, "identities").items():
        for key in SECRETS:
            if isinstance(identity, dict) and identity.get(key) is not None:
                yield (
                    f"identities.{name}.{key}: refused from {where}; use {key}_file or "
                    f"GATEWAY_IDENTITIES__{str(name).upper()}__{key.upper()}, and change the {key}"
                )
                identity[key] = SecretStr("refused")  # given, so nobody asks for it again


def _service_manager(environ: Mapping[str, str]) -> _Layer:
    """Return what systemd lends, as the weakest layer: of several directories the first."""
    folder = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if not folder:
        return _Layer("env", {})
    return _Layer("env", {"state_dir": folder}, {("state_dir",): "env STATE_DIRECTORY"})


def _openstack(
    environ: Mapping[str, str], others: tuple[_Layer, ...]
) -> tuple[_Layer, tuple[str, ...]]:
    """Return OpenStack's variables as identity `default`, or empty with a warning why not."""
    nothing = _Layer("env", {})
    keys, names = read_openstack(environ)
    if not keys:
        return nothing, ()
    told = ", ".join(names.values())
    merged = _merged(others)
    default = _section(merged, "identities").get("default")
    method = _section({"default": default}, "default").get("method") or "password"
    if method != "password":
        return nothing, (f"identities.default: has method {method}; {told} ignored",)
    services = _section(merged, "services").values()
    if "default" not in _section(merged, "identities") and not any(
        not isinstance(service, dict) or service.get("identity") in {None, "default"}
        for service in services
    ):
        return nothing, (f"identities.default: no service uses it; {told} ignored",)
    places = {("identities", "default", *path): f"env {name}" for path, name in names.items()}
    return _Layer("env", {"identities": {"default": keys}}, places), ()


def _without_alternatives(layers: tuple[_Layer, ...]) -> Iterator[_Layer]:
    """Yield `layers`, strongest first, without what a stronger one has replaced."""
    stronger: dict[str, Any] = {}
    for layer in layers:
        identities = _section(layer.data, "identities")
        kept = {
            name: _keep(identity, _section(_section(stronger, "identities"), name))
            for name, identity in identities.items()
        }
        data = layer.data | {"identities": kept} if kept else layer.data
        stronger = _overlaid(data, stronger)
        yield _Layer(layer.origin, data, layer.places)


def _keep(identity: Any, stronger: Mapping[str, Any]) -> Any:
    if not isinstance(identity, dict):
        return identity
    replaced = {key for first, *others in _ALTERNATIVES if first in stronger for key in others}
    return {key: value for key, value in identity.items() if key not in replaced}


def _section(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _merged(layers: tuple[_Layer, ...] | list[_Layer]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _overlaid(layer.data, merged)
    return merged


def _overlaid(weak: dict[str, Any], strong: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _overlaid(weak[key], strong[key])
        for key in weak.keys() & strong.keys()
        if isinstance(weak[key], dict) and isinstance(strong[key], dict)
    }
    return {**weak, **strong, **both}


def _line(details: ErrorDetails, layers: list[_Layer]) -> str:
    """Return the problem as one line: key, sentence, and which file or variable to correct."""
    path = tuple(part for part in details["loc"] if part != "[key]")
    key = "".join(
        f"[{part}]" if isinstance(part, int) else f".{printable(part)}" for part in path
    ).removeprefix(".")
    place = _place(tuple(part for part in path if isinstance(part, str)), layers)
    return f"{key}: {sentence_of(details)}{f' [{place}]' if place else ''}"


def _place(path: KeyPath, layers: list[_Layer]) -> str:
    """Return the file and line, or the variable, that holds the key at or below `path`."""
    for layer in layers:
        for known, place in layer.places.items():
            if known[: len(path)] == path:
                return place
    return ""


def _origins(data: Any, path: KeyPath, layers: list[_Layer]) -> Iterator[tuple[str, str]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _origins(value, (*path, key), layers)
        return
    for layer in layers:
        if _holds(layer.data, path):
            yield ".".join(path), _exact(layer, path)
            return
    yield ".".join(path), "default"


def _holds(data: Any, path: KeyPath) -> bool:
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data is not None


def _exact(layer: _Layer, path: KeyPath) -> str:
    """Return the origin of a key that `layer` holds: which variable, or which line."""
    # A variable may hold a whole section as JSON: then the name is that of a shorter path.
    paths = (path[:length] for length in range(len(path), 0, -1))
    place = next((layer.places[path] for path in paths if path in layer.places), "")
    return f"file {place}" if layer.origin == "file" else place or layer.origin
