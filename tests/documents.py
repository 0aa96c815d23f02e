"""Documents that are made from the code: `python -m tests.documents` writes them anew.

With `--check` nothing is written; the exit code is 1 when a document differs from the code.
"""

import argparse
import ast
import difflib
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from deploy.grafana.dashboard import dashboard_json
from gateway.settings import Settings, addresses, values
from gateway.settings.environment import OPENSTACK
from gateway.settings.fleet import parse_prefix, parse_redis_url
from gateway.settings.identity import LOGIN_KEYS, SECRETS, Identity
from gateway.settings.sections import Section, listed_section, section_in
from gateway.settings.sinks import parse_sink_path
from gateway.settings.types import (
    parse_optional_file,
    parse_proxy_url,
    parse_readable_file,
    parse_secret,
    parse_service_url,
    parse_state_folder,
    split_list,
)
from tests.chart_schema import chart_schema
from tests.programs.bench import planes
from tests.reference import access_log, architecture, errors, metrics

ROOT = Path(__file__).parent.parent

_README = """\
# Settings

<!-- Made by `python -m tests.documents` from gateway/settings/; edit there. -->

`gateway.yaml` shows every key with its default, `gateway.minimal.yaml` what most need. Editors
with a YAML language server complete and check both by `gateway.schema.json`. Try a file with
`modelarts-gateway check --config FILE`: it names all problems at once.

Beside this page: [errors](errors/README.md), [metrics](metrics.md), the
[access log](access-log.md), and [which credential](which-credential.md) for which service.

## Where a value comes from

Flag > environment > file > default, key by key.

- **File**: YAML, named by `--config` or `GATEWAY_CONFIG`. Unknown and repeated keys are refused; a
  key without a value counts as left out. Names of files are relative to its folder.
- **Environment**: `GATEWAY_` and the key's path with `__` between its parts, in any case:
  `GATEWAY_ADMIN_LISTEN`, `GATEWAY_SERVICES__IRIS__URL`. Lists are JSON or separated by commas. An
  empty variable counts as unset, an unknown one is refused; those that Kubernetes sets for a
  Service named `gateway` are passed over. Names of files are relative to the working directory.
- **`GATEWAY_SERVICE_URL`** alone defines one service named `default`.
- **`GATEWAY_LOG_LEVEL`**: `DEBUG`, `INFO` (the default), `WARNING` or `ERROR`, of the log on
  standard error; `POST /log-level?level=…` on the admin listener changes it while the gateway
  runs. No level shows a token, a secret, a body or a target.
- **`GATEWAY_LOG_FORMAT`**: `text`, `json`, or `auto` (the default): text on a terminal, else JSON.
- **OpenStack's variables**, as an RC file exports them, fill identity `default` if its method is
  `password`. They are stronger than the file and weaker than `GATEWAY_IDENTITIES__DEFAULT__…`:

{openstack}

- **Secrets** come from a `*_file` or from the environment, never from the file itself or a flag.
  When a stronger layer gives `password`, a weaker layer's `password_file` is dropped, and the
  other way round; so with every other secret and its file, and with `project` and `project_id`.

**Durations** are seconds (`2.5`) or a number with a unit: `250ms 40s 5m 1.5h 1d`. **Sizes** are
bytes or a number with a unit: `12MiB 1KiB 1GiB 10MB 500kB`. **Names** have 1 to 63 of
`a-z 0-9 _ -`, a letter or digit at both ends.

## Keys
{sections}
## Which keys an identity takes

{methods}

`password` takes exactly one of `password` and `password_file`, and of `project` and `project_id`;
`oidc` exactly one of `project` and `project_id`, and with `protocol` a `project_domain`;
`application_credential` exactly one of `secret` and `secret_file`, and either `id` or `name` with
`username` and `user_domain`; `api_key` exactly one of `key` and `key_file`; `header` exactly one of
`value` and `value_file`; `ak_sk` either `from` or an access key and its secret, each by
itself or in a file.
"""


_TYPES: dict[Callable[..., Any], str] = {
    values.parse_duration: "duration, from 0",
    values.parse_positive_duration: "duration, above 0",
    values.parse_size: "size",
    values.parse_share: "share",
    values.parse_count: "number, from 0",
    values.parse_connections: "number, from 1",
    values.parse_memory: "size, or `auto`",
    values.parse_max_in_flight: "number, or `auto`",
    addresses.parse_listen: "address",
    addresses.parse_listen_tcp: "address, TCP",
    addresses.parse_token_listen: "address, loopback only",
    values.parse_mode: "octal digits",
    values.parse_name: "name",
    addresses.parse_host_name: "host name",
    values.parse_text: "text",
    addresses.parse_auth_url: "URL",
    values.parse_segment: "id",
    values.parse_field_name: "header field's name",
    values.parse_field_prefix: "text",
    values.parse_instant: "date, or date and time",
    parse_service_url: "URL",
    parse_proxy_url: "`http://host:port`",
    parse_optional_file: "file",
    parse_state_folder: "directory",
    parse_readable_file: "file",
    parse_redis_url: "URL of a Redis",
    parse_prefix: "text",
    parse_sink_path: "file to be written",
    parse_secret: "secret, environment only",
    split_list: "list",
}


def settings_schema() -> str:
    """Return config/gateway.schema.json: what editors check the YAML file with."""
    made = Settings.model_json_schema()
    kinds: dict[str, type[Section]] = {kind.__name__: kind for kind in _sections(Settings)}
    for name, kind in kinds.items():
        known = made["$defs"].get(name, made)
        del known["title"]
        for key, field in kind.model_fields.items():
            inner, is_named = section_in(field)
            inner = inner or listed_section(field)
            told = known["properties"][key] | {"description": _meaning(kind, key)}
            told = known["properties"][key] = dict(sorted(told.items()))
            told.pop("title", None)
            told.pop("default", None)
            if is_named:  # pydantic says which names are good, not that others are none
                told.pop("propertyNames", None)
                told["additionalProperties"] = False
            if inner is None and not field.is_required() and field.default_factory is None:
                told["default"] = _default(field)
    for key in SECRETS:
        del made["$defs"]["Identity"]["properties"][key]
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of modelarts-gateway",
    }
    return json.dumps(head | made, indent=2, ensure_ascii=False) + "\n"


def settings_reference() -> str:
    """Return config/README.md."""
    return _README.format(
        openstack="\n".join(
            f"  - `{name}`: `identities.default.{key}`" for name, key in OPENSTACK.items()
        ),
        sections="".join(_tables(Settings, ())),
        methods="\n".join(_method_table()),
    )


def _tables(
    section: type[Section], path: tuple[str, ...], *, listed: bool = False
) -> Iterator[str]:
    """Yield the table of a section and then those of the sections in it."""
    title = f"`{'.'.join(path)}`" if path else "Top level"
    prefix = "".join(f"{part.upper()}__" for part in path)
    variable = f"`GATEWAY_{prefix[:-2]}`, a list in JSON" if listed else f"`GATEWAY_{prefix}…`"
    yield f"\n### {title}\n\nIn the environment {variable}.\n\n"
    yield "| key | type | default | meaning |\n|---|---|---|---|\n"
    for key, field in section.model_fields.items():
        yield f"| `{key}` | {_type(field)} | {_shown_default(field)} | {_meaning(section, key)} |\n"
    for key, field in section.model_fields.items():
        inner, is_named = section_in(field)
        if inner:
            yield from _tables(inner, (*path, key, "<name>") if is_named else (*path, key))
        if item := listed_section(field):
            yield from _tables(item, (*path, key), listed=True)


def _method_table() -> Iterator[str]:
    yield "| method | required | possible |"
    yield "|---|---|---|"
    for method, (needed, further) in LOGIN_KEYS.items():
        columns = (
            " ".join(f"`{key}`" for key in Identity.model_fields if key in group) or "none"
            for group in (needed, further)
        )
        yield f"| `{method}` | {' | '.join(columns)} |"


def _sections(section: type[Section]) -> Iterator[type[Section]]:
    """Yield `section` and all below it, some of them several times."""
    yield section
    for field in section.model_fields.values():
        inner = section_in(field)[0] or listed_section(field)
        if inner:
            yield from _sections(inner)


def _meaning(section: type[Section], key: str) -> str:
    """Return what the field says of itself, or else the text below it in the source.

    Pydantic can look for that, too, but would in every start of the gateway: a sixth of its CPU.
    """
    text = section.model_fields[key].description or _texts_below_fields(section).get(key, "")
    return " ".join(text.split())


@cache
def _texts_below_fields(section: type[Section]) -> Mapping[str, str]:
    texts = dict[str, str]()
    for kind in reversed(section.__mro__[: section.__mro__.index(Section)]):
        for field, below in pairwise(_classes(kind.__module__)[kind.__name__].body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                texts[ast.unparse(field.target)] = ast.literal_eval(below.value)
    return texts


@cache
def _classes(module: str) -> Mapping[str, ast.ClassDef]:
    """Return a module's classes by name. `inspect` finds none that `create_model` made (3.13)."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def _parser(field: FieldInfo) -> Callable[..., Any] | None:
    """Return the function that reads the field's value, for `X | None` that of `X`."""
    alternatives = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    marks = [*field.metadata, *(mark for kind in alternatives for mark in get_args(kind)[1:])]
    return next((mark.func for mark in marks if isinstance(mark, BeforeValidator)), None)


def _type(field: FieldInfo) -> str:
    inner, is_named = section_in(field)
    if inner:
        return "sections by name" if is_named else "section"
    if listed_section(field):
        return "list of sections"
    parser = _parser(field)
    if parser:
        return _TYPES[parser]
    if field.annotation is bool:
        return "true or false"
    alternatives = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    choices = [choice for kind in alternatives for choice in get_args(kind) or (kind,)]
    return " ".join(f"`{choice}`" for choice in choices)


def _default(field: FieldInfo) -> Any:
    """Return the default as somebody would write it in the file."""
    value = field.default
    kind = _type(field)
    if kind.startswith("duration"):
        return f"{value:g}s"
    if kind == "share":
        return f"{value * 100:g}%"
    if kind == "size":
        return f"{value // 2**20}MiB"
    if isinstance(value, tuple):
        return list(value)
    return value if value is None or isinstance(value, bool) else str(value)


def _shown_default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if (
        section_in(field)[0]
        or listed_section(field)
        or field.default_factory
        or field.default is None
    ):
        return ""
    value = _default(field)
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


_SOURCES = ROOT
_CHART_FILES = "deploy/helm/modelarts-gateway/files"


def _text_of(name: str) -> str:
    return (_SOURCES / name).read_text(encoding="utf-8")


DOCUMENTS: dict[str, Callable[[], str]] = {
    "config/gateway.schema.json": settings_schema,
    "config/README.md": settings_reference,
    "deploy/grafana/modelarts-gateway.json": dashboard_json,
    "deploy/helm/modelarts-gateway/values.schema.json": lambda: chart_schema(
        json.loads(settings_schema())
    ),
    "README.md": planes.readme,
    "deploy/data-planes/README.md": planes.page,
    "config/metrics.md": metrics.document,
    "deploy/architecture.svg": architecture.picture,
    "config/access-log.md": access_log.document,
    **{name: partial(str, text) for name, text in errors.documents().items()},
    # A chart can read its own files only.
    f"{_CHART_FILES}/modelarts-gateway.json": dashboard_json,
    f"{_CHART_FILES}/alerts.rules.yml": lambda: _text_of("deploy/prometheus/alerts.rules.yml"),
    f"{_CHART_FILES}/recording.rules.yml": lambda: _text_of(
        "deploy/prometheus/recording.rules.yml"
    ),
}


def differences() -> Iterator[str]:
    """Yield a unified diff for every document that is not what the code says."""
    for name, make in DOCUMENTS.items():
        file = ROOT / name
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        lines = difflib.unified_diff(
            before.splitlines(keepends=True),
            make().splitlines(keepends=True),
            fromfile=name,
            tofile=f"{name} (as the code says)",
        )
        if diff := "".join(lines):
            yield diff


def main(arguments: list[str] | None = None) -> int:
    """Write or check the documents; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.documents", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, show differences")
    if not parser.parse_args(arguments).check:
        for name, make in DOCUMENTS.items():
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_text(make(), encoding="utf-8")
        return 0
    found = list(differences())
    for diff in found:
        sys.stdout.write(diff)
    if found:
        sys.stderr.write("Documents differ from the code; run: python -m tests.documents\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
