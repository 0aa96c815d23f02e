"""The files in config/: examples, schema and reference."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any

import pytest
import yaml

from gateway.settings import (
    Settings,
    load,
)
from gateway.settings.environment import leaf_keys
from gateway.settings.identity import SECRETS
from tests import documents
from tests.unit.settings.given import ANONYMOUS, GOOD, URL, Write, identity, service, use

CONFIG = Path(__file__).parents[3] / "config"


@pytest.mark.parametrize("file", sorted(CONFIG.glob("*.yaml")), ids=lambda file: file.name)
def test_each_configuration_we_ship_loads(write: Write, tmp_path: Path, file: Path) -> None:
    """With the secrets it names in place, and without a warning."""
    text = file.read_text().replace("/run/secrets", str(tmp_path))
    for name in re.findall(rf"{re.escape(str(tmp_path))}/([\w-]+)", text):
        (tmp_path / name).touch()

    assert load(file=write(text), environ={}).warnings == ()
    assert text.startswith("# yaml-language-server: $schema=./gateway.schema.json\n")


BY_OTHER_MEANS = ("project_id", "name", "access_key_file", "security_token_file")
"""Keys that say the same as others, which are shown."""


def test_the_annotated_configuration_shows_every_key_with_its_default(
    write: Write, tmp_path: Path
) -> None:
    """Nothing that can be set in a file is missing, and what it shows as default is the default."""
    text = (CONFIG / "gateway.yaml").read_text().replace("/run/secrets", str(tmp_path))
    for name in re.findall(rf"{re.escape(str(tmp_path))}/([\w-]+)", text):
        (tmp_path / name).touch()
    origins = load(file=write(text), environ={}).origins
    data = yaml.safe_load(text)

    shown: set[str] = set()

    def walk(value: Any, path: tuple[str, ...]) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                named = path in {("services",), ("identities",)}
                walk(inner, (*path, "<name>" if named else key))
        else:
            shown.add(".".join(path))

    walk(data, ())
    expected = {".".join(path) for path in leaf_keys(Settings)}
    by_other_means = {f"identities.<name>.{key}" for key in (*SECRETS, *BY_OTHER_MEANS)}
    by_other_means |= {key for key in expected if key.startswith("listen_tls.")}  # in a comment
    assert expected - shown == by_other_means
    assert origins["services.iris.timeouts.connect"].startswith("file ")
    data["identities"]["default"].pop("project_domain")
    bare = {"services": {"iris": {"url": data["services"]["iris"]["url"]}}}
    full = load(file=write(data), environ={}).settings.model_dump()
    default = use(bare | {"identities": ANONYMOUS}).settings.model_dump()
    examples = {"identities": 0, "fleet": 0}
    assert full | examples == default | examples


def accepts(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """Check `value` by JSON Schema; a keyword that ours does not use is a KeyError."""

    def within(rule: dict[str, Any], matches: Callable[[str, str], Any]) -> bool:
        return all(
            accepts(inner, each, root)
            for name, inner in rule.items()
            for key, each in value.items()
            if matches(name, key)
        )

    def has_type(rule: str) -> bool:
        if isinstance(value, bool):
            return rule == "boolean"
        kinds: dict[str, tuple[type, ...]] = {
            "object": (dict,),
            "string": (str,),
            "array": (list,),
            "null": (NoneType,),
            "integer": (int,),
            "number": (int, float),
            "boolean": (),
        }
        return isinstance(value, kinds[rule])

    def is_known(key: str) -> bool:
        patterns = schema.get("patternProperties", {})
        return key in schema.get("properties", {}) or any(re.search(p, key) for p in patterns)

    checks: dict[str, Callable[[Any], Any]] = {
        "$ref": lambda rule: accepts(root["$defs"][rule.rpartition("/")[2]], value, root),
        "anyOf": lambda rule: any(accepts(each, value, root) for each in rule),
        "type": has_type,
        "enum": lambda rule: value in rule,
        "pattern": lambda rule: re.search(rule, value),
        "minLength": lambda rule: len(value) >= rule,
        "minimum": lambda rule: value >= rule,
        "maximum": lambda rule: value <= rule,
        "exclusiveMinimum": lambda rule: value > rule,
        "items": lambda rule: all(accepts(rule, each, root) for each in value),
        "required": lambda rule: set(rule) <= value.keys(),
        "properties": lambda rule: within(rule, str.__eq__),
        "patternProperties": lambda rule: within(rule, re.search),
        "additionalProperties": lambda rule: rule or all(is_known(key) for key in value),
    }
    told = {"$schema", "$defs", "title", "description", "default", "examples"}
    words = sorted(schema.keys() - told, key=lambda word: word != "type")  # others rely on it
    return all(checks[word](schema[word]) for word in words)


@pytest.mark.parametrize("file", sorted(CONFIG.glob("*.yaml")), ids=lambda file: file.name)
def test_the_schema_accepts_what_we_ship(file: Path) -> None:
    """An editor finds no fault in the examples."""
    schema = json.loads((CONFIG / "gateway.schema.json").read_text())

    as_yaml_1_2 = json.loads(json.dumps(yaml.safe_load(file.read_text()), default=str))
    assert accepts(schema, as_yaml_1_2, schema)  # to which a date is a text


@pytest.mark.parametrize(
    "bad",
    [
        {},
        service(tiemouts={}),
        service(max_body="12mb"),
        service(max_body=-1),
        service(timeouts={"connect": 0}),
        service(methods=["post"]),
        service(url="ftp://h"),
        identity(password="hunter2"),
        identity(method="x"),
        GOOD | {"listen": 8080},
        {"services": {"Iris": {"url": URL}}},
    ],
)
def test_the_schema_refuses_what_we_refuse(bad: dict[str, Any]) -> None:
    """An editor marks the mistakes that a start would."""
    schema = json.loads((CONFIG / "gateway.schema.json").read_text())

    assert accepts(schema, GOOD, schema)
    assert not accepts(schema, bad, schema)


def test_documents_are_what_the_code_says() -> None:
    """Made documents are made anew when the code changes: python -m tests.documents."""
    assert list(documents.differences()) == []


def test_a_changed_document_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` fails with a difference, writing mends it, and then it passes."""
    monkeypatch.setattr(documents, "ROOT", tmp_path)
    (tmp_path / "config").mkdir()

    assert documents.main(["--check"]) == 1
    assert "+++ config/README.md (as the code says)" in capsys.readouterr().out
    assert documents.main([]) == 0
    assert documents.main(["--check"]) == 0


def test_the_reference_explains_every_key() -> None:
    """No key without type and meaning, and every section says how its variables begin."""
    text = documents.settings_reference()

    for *above, key in leaf_keys(Settings):
        title = "`" + ".".join(above) + "`" if above else "Top level"
        table = text.partition(f"\n### {title}\n")[2].partition("\n###")[0]
        assert f"`GATEWAY_{''.join(f'{part.upper()}__' for part in above)}…`" in table
        assert re.search(rf"\| `{key}` \| [^|]+ \| [^|]* \| [^|]{{20,}} \|", table), key
