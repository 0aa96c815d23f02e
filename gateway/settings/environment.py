"""Settings from environment variables: ours, OpenStack's own, and those that are none of ours."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.settings.document import KeyPath
from gateway.settings.models import Settings
from gateway.settings.sections import Section, section_in
from gateway.settings.values import did_you_mean, printable, shown

PREFIX = "GATEWAY_"
CONFIG_VARIABLE = "GATEWAY_CONFIG"
LOG_LEVEL_VARIABLE = "GATEWAY_LOG_LEVEL"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LOG_FORMAT_VARIABLE = "GATEWAY_LOG_FORMAT"
LOG_FORMATS = ("auto", "text", "json")
_OF_THE_LOG: Mapping[str, tuple[str, ...]] = {
    LOG_LEVEL_VARIABLE: LOG_LEVELS,
    LOG_FORMAT_VARIABLE: LOG_FORMATS,
}
NOT_SETTINGS = frozenset({"GATEWAY_URL"})
"""What `run` sets for its command, which may be a gateway itself."""
SHORTHANDS: Mapping[str, KeyPath] = {"GATEWAY_SERVICE_URL": ("services", "default", "url")}
OPENSTACK: Mapping[str, str] = {
    "OS_AUTH_URL": "auth_url",
    "OS_USERNAME": "username",
    "OS_PASSWORD": "password",
    "OS_USER_DOMAIN_NAME": "user_domain",
    "OS_PROJECT_NAME": "project",
    "OS_PROJECT_ID": "project_id",
    "OS_PROJECT_DOMAIN_NAME": "project_domain",
}

# Variables that Kubernetes gives every pod for a Service named `gateway` or `gateway-…`:
# kubernetes.io/docs/concepts/services-networking/service, "Environment variables".
_SERVICE_LINK = re.compile(
    r"GATEWAY_(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_SERVICE_LINK_PORT = re.compile(r"GATEWAY_(?:[A-Z0-9_]+_)?PORT")
_LINK_VALUE = re.compile(r"(?:tcp|udp|sctp)://.*")


def read_variables(
    environ: Mapping[str, str],
) -> tuple[dict[str, Any], dict[KeyPath, str], list[str]]:
    """Return settings, the variable that set each key, and problems. Empty variables are unset."""
    given: dict[KeyPath, str] = {}
    names: dict[KeyPath, str] = {}
    problems = []
    for variable, value in environ.items():
        name = variable.upper()
        if not name.startswith(PREFIX) or name == CONFIG_VARIABLE or not value:
            continue
        if name in NOT_SETTINGS:
            continue
        if (allowed := _OF_THE_LOG.get(name)) is not None:
            if value.upper() not in {each.upper() for each in allowed}:
                listed = ", ".join(allowed)
                problems.append(f"{printable(variable)}: {shown(value)} is not one of {listed}")
            continue
        path = SHORTHANDS.get(name) or tuple(name.removeprefix(PREFIX).lower().split("__"))
        if path[0] not in Settings.model_fields:
            if not _is_service_link(name, value):
                near = _near(name) or "; see config/README.md for all"
                problems.append(f"{printable(variable)}: unknown variable{near}")
        elif path not in names or name not in SHORTHANDS:  # the shorthand gives way
            names[path] = variable
            given[path] = value
    if not given:
        return {}, names, problems
    from gateway.settings.nesting import nested

    return nested(given), names, problems


def find_log_level(environ: Mapping[str, str]) -> str:
    """Return the level that `environ` asks for, one of `LOG_LEVELS`; INFO unless it names one."""
    for name, value in environ.items():
        if name.upper() == LOG_LEVEL_VARIABLE and value.upper() in LOG_LEVELS:
            return value.upper()
    return "INFO"


def find_log_format(environ: Mapping[str, str]) -> str:
    """Return the format that `environ` asks for, one of `LOG_FORMATS`; auto unless it names one."""
    for name, value in environ.items():
        if name.upper() == LOG_FORMAT_VARIABLE and value.lower() in LOG_FORMATS:
            return value.lower()
    return "auto"


def read_openstack(environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """Return keys of an identity as OpenStack's RC files set them, and each one's variable."""
    names: dict[KeyPath, str] = {
        (key,): name for name, key in OPENSTACK.items() if environ.get(name)
    }
    if ("project_id",) in names:  # RC files give both; the id says it all
        names.pop(("project",), None)
        names.pop(("project_domain",), None)
    return {path[0]: environ[name] for path, name in names.items()}, names


def variable_names() -> Iterator[str]:
    """Yield every variable there can be, with `<NAME>` for names that users choose."""
    yield CONFIG_VARIABLE
    yield LOG_LEVEL_VARIABLE
    yield LOG_FORMAT_VARIABLE
    yield from SHORTHANDS
    for path in leaf_keys(Settings):
        yield PREFIX + "__".join(path).upper()


def leaf_keys(section: type[Section], above: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield every key below `section` that holds a value, `<name>` for names that users choose."""
    for key, field in section.model_fields.items():
        inner, is_named = section_in(field)
        path = (*above, key, "<name>") if is_named else (*above, key)
        if inner:
            yield from leaf_keys(inner, path)
        else:
            yield path


def _near(name: str) -> str:
    """Return the variable that was meant, most often one with `_` where `__` belongs."""
    for path in leaf_keys(Settings):
        parts = ["([A-Z0-9_-]+?)" if part == "<name>" else part.upper() for part in path]
        if found := re.fullmatch(PREFIX + "_+".join(parts), name):
            chosen = iter(found.groups())
            full = (next(chosen) if part.startswith("(") else part for part in parts)
            return f", did you mean {PREFIX}{'__'.join(full)}?"
    return did_you_mean(name, tuple(variable_names()))


def _is_service_link(name: str, value: str) -> bool:
    if _SERVICE_LINK.fullmatch(name):
        return True
    return bool(_SERVICE_LINK_PORT.fullmatch(name) and _LINK_VALUE.fullmatch(value))
