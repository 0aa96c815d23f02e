"""Effective values: each with its origin, as somebody would write it, and no secret."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Loaded, load
from gateway.settings.effective import MASK, EffectiveValue, effective

URL = "https://models.example/v1/infers/a"


def loaded_from(
    folder: Path, text: str, environ: dict[str, str] | None = None, **flags: Any
) -> Loaded:
    """Load `text` as a file, with variables and flags."""
    file = folder / "gateway.yaml"
    file.write_text(text)
    return load(file=file, environ=environ or {}, flags=flags)


def test_every_origin_is_named_so_that_it_can_be_found(tmp_path: Path) -> None:
    """Flag, variable by name, file with line, default."""
    text = "drain:\n  announce: 1s\nservices:\n  iris:\n    url: " + URL
    environ = {
        "GATEWAY_IDENTITIES__DEFAULT": '{"method": "none"}',
        "GATEWAY_SERVICES__IRIS__MAX_BODY": "1500000",
    }

    found = effective(loaded_from(tmp_path, text, environ, listen="127.0.0.1:1"))

    file = tmp_path / "gateway.yaml"
    for told in (
        EffectiveValue("listen", "127.0.0.1:1", "flag"),
        EffectiveValue("admin_listen", "127.0.0.1:9090", "default"),
        EffectiveValue("allowed_hosts", "[]", "default"),
        EffectiveValue("drain.announce", "1s", f"file {file}:2"),
        EffectiveValue("drain.timeout", "30s", "default"),
        EffectiveValue("quitquitquit", "false", "default"),
        EffectiveValue("identities.default.method", "none", "env GATEWAY_IDENTITIES__DEFAULT"),
        EffectiveValue("services.iris.url", URL, f"file {file}:5"),
        EffectiveValue("services.iris.methods", "[POST]", "default"),
        EffectiveValue("services.iris.max_body", "1500000", "env GATEWAY_SERVICES__IRIS__MAX_BODY"),
        EffectiveValue("services.iris.replay_buffer", "1MiB", "default"),
        EffectiveValue("services.iris.timeouts.first_byte", "40s", "default"),
        EffectiveValue("services.iris.tls.verify", "true", "default"),
    ):
        assert told in found


def test_every_key_with_a_value_is_listed_once_and_no_other(tmp_path: Path) -> None:
    """What nobody set and has no default, such as an authority's file, is left out."""
    loaded = loaded_from(tmp_path, minimal())

    keys = [value.key for value in effective(loaded)]

    assert len(keys) == len(set(keys))
    missing = loaded.origins.keys() - keys
    assert "services.iris.tls.ca_file" in missing
    assert {loaded.origins[key] for key in missing} == {"default"}
    assert all(_value_at(loaded, key) is None for key in missing)
    assert not any(_value_at(loaded, key) is None for key in keys)


def _value_at(loaded: Loaded, key: str) -> Any:
    value: Any = loaded.settings.model_dump()
    for part in key.split("."):
        value = value[part]
    return value


@pytest.mark.parametrize(
    ("keys", "secret"),
    [
        ({"username": "u", "user_domain": "d", "project": "p"}, "PASSWORD"),
        ({"method": "application_credential", "id": "i"}, "SECRET"),
    ],
)
def test_secrets_are_masked_whatever_their_length(
    tmp_path: Path, keys: dict[str, str], secret: str
) -> None:
    """What is shown of a secret is that there is one, and which variable holds it."""
    identity = keys | {"auth_url": "https://iam.example/v3"}
    text = json.dumps({"services": {"iris": {"url": URL}}, "identities": {"default": identity}})
    variable = f"GATEWAY_IDENTITIES__DEFAULT__{secret}"

    found = effective(loaded_from(tmp_path, text, {variable: "hunter2-canary"}))

    assert "canary" not in repr(found)
    key = f"identities.default.{secret.lower()}"
    assert [value for value in found if value.key == key] == [
        EffectiveValue(key, MASK, f"env {variable}")
    ]


@pytest.mark.parametrize(
    ("written", "shown"),
    [("40s", "40s"), ("1.5h", "5400s"), ("250ms", "0.25s"), (1e9, "1000000000s"), ("0s", "0s")],
)
def test_durations_are_shown_as_they_can_be_written(
    tmp_path: Path, written: str | float, shown: str
) -> None:
    """Seconds with their unit, never in powers of ten."""
    loaded = loaded_from(tmp_path, minimal(drain={"announce": written}))
    assert value_of(loaded, "drain.announce") == shown


@pytest.mark.parametrize(
    ("written", "shown"),
    [("12MiB", "12MiB"), (2**30, "1GiB"), ("1536KiB", "1536KiB"), (1000, "1000"), (0, "0")],
)
def test_sizes_are_shown_in_the_largest_unit_that_fits(
    tmp_path: Path, written: str | int, shown: str
) -> None:
    """Whole units only, so that what is shown is what is in force."""
    text = minimal(services={"iris": {"url": URL, "replay_buffer": written}})
    assert value_of(loaded_from(tmp_path, text), "services.iris.replay_buffer") == shown


def minimal(**keys: Any) -> str:
    """Write a configuration that needs no login."""
    good = {"services": {"iris": {"url": URL}}, "identities": {"default": {"method": "none"}}}
    return json.dumps(good | keys)


def value_of(loaded: Loaded, key: str) -> str:
    """Return what is shown of one key."""
    [found] = [value.value_shown for value in effective(loaded) if value.key == key]
    return found
