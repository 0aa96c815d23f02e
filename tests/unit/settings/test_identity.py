"""Kinds of credentials, and rules between keys."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import (
    load,
    values,
)
from tests.unit.settings.given import LOGIN, URL, Write, identity, problems_of, service

METHODS: dict[str, dict[str, str]] = {
    "password": LOGIN,
    "application_credential": {"auth_url": "https://i", "id": "i", "secret_file": "secret"},
    "oidc": {"auth_url": "https://i", "idp": "cce", "id_token_file": "secret", "project": "p"},
    "api_key": {"key_file": "secret"},
    "header": {"header": "X-Apig-AppCode", "value_file": "secret"},
    "ak_sk": {"access_key": "AK", "secret_key_file": "secret"},
    "file": {"token_file": "secret"},
    "none": {},
}


@pytest.mark.parametrize("method", METHODS)
def test_each_method_takes_exactly_its_keys(write: Write, method: str) -> None:
    """What it needs is enough, each missing key is named, and so is each that makes no sense."""
    keys = METHODS[method]
    warnings = load(file=write(identity(method=method, **keys)), environ={}).warnings
    assert [warning for warning in warnings if "services.iris.identity" not in warning] == []

    for key in keys:
        left = {k: v for k, v in keys.items() if k != key}
        (problem,) = problems_of(identity(method=method, **left), write=write)
        assert problem.startswith(f"identities.default.{key}: required with method {method}")

    others = {k: v for other in METHODS.values() for k, v in other.items() if k not in keys}
    for key, value in others.items():
        (problem,) = problems_of(identity(method=method, **keys, **{key: value}), write=write)
        assert problem.startswith(f"identities.default.{key}: makes no sense with method {method}")


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"project_id": "i"}, "project"),
        ({"project": None, "project_id": "i", "project_domain": "d"}, "project_domain"),
    ],
)
def test_project_by_name_or_by_id(write: Write, more: dict[str, Any], key: str) -> None:
    """One of them; the id needs no domain."""
    (problem,) = problems_of(identity(**LOGIN | more), write=write)
    assert problem.startswith(f"identities.default.{key}: project_id is given too")

    by_id = identity(**{**LOGIN, "project": None, "project_id": "i"})
    assert load(file=write(by_id), environ={}).warnings == ()


@pytest.mark.parametrize(
    ("method", "plain"),
    [
        ("password", "password"),
        ("application_credential", "secret"),
        ("api_key", "key"),
        ("header", "value"),
    ],
)
def test_a_secret_is_given_once(tmp_path: Path, method: str, plain: str) -> None:
    """Twice within one layer is a mistake, as nobody can say which one counts."""
    (tmp_path / "secret").touch()
    keys = METHODS[method] | {"method": method, f"{plain}_file": str(tmp_path / "secret")}
    keys |= {plain: "hunter2"}
    environ = {f"GATEWAY_IDENTITIES__DEFAULT__{k.upper()}": v for k, v in keys.items()}

    (problem,) = problems_of({"services": {"a": {"url": URL}}}, environ=environ)

    assert problem.startswith(f"identities.default.{plain}_file: {plain} is given too")


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({}, "id: required with method application_credential, or name, username and user_domain"),
        (
            {"name": "n", "username": "u"},
            "user_domain: required with method application_credential",
        ),
        (
            {"id": "i", "name": "n"},
            "name: makes no sense with method application_credential and id, which says it all",
        ),
    ],
)
def test_an_application_credential_is_known_by_id_or_by_name(
    write: Write, keys: dict[str, str], problem: str
) -> None:
    """A name alone does not say whose it is."""
    common = {"method": "application_credential", "auth_url": "https://i", "secret_file": "secret"}
    [found] = problems_of(identity(**common, **keys), write=write)
    assert found.startswith(f"identities.default.{problem}")

    whole = {"name": "n", "username": "u", "user_domain": "d"}
    assert load(file=write(identity(**common, **whole)), environ={}).warnings == ()


@pytest.mark.parametrize(
    "name",
    [
        *("", "X Key", "X-Key:", "X_Key", "X-K\u00e9y", "X-Key\r\nEvil", 5),
        *("Host", "content-length", "Transfer-Encoding", "Connection", "TE", "Upgrade", "Cookie"),
        *("Via", "Proxy-Authorization", "X-Forwarded-For", "Content-Type", "Expect", "traceparent"),
    ],
)
def test_header_fields_that_a_key_cannot_go_into(name: Any) -> None:
    """They would change the message's framing, its hop or its trace."""
    with pytest.raises(ValueError, match=r"X-Apig-AppCode"):
        values.parse_field_name(name)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2027-01-31", "2027-01-31T00:00:00+00:00"),
        (date(2027, 1, 31), "2027-01-31T00:00:00+00:00"),
        ("2027-01-31T12:00:00+08:00", "2027-01-31T04:00:00+00:00"),
        ("2027-01-31 12:00", "2027-01-31T12:00:00+00:00"),
        (datetime(2027, 1, 31, 12, tzinfo=UTC), "2027-01-31T12:00:00+00:00"),
    ],
)
def test_dates_are_moments(value: Any, moment: str) -> None:
    """A date is its first moment, so that a warning comes too early rather than too late."""
    assert values.parse_instant(value).isoformat() == moment


@pytest.mark.parametrize("value", ["", "soon", "31.01.2027", "2027-02-30", 2027, None, True, []])
def test_what_is_no_date(value: Any) -> None:
    """The sentence shows one."""
    with pytest.raises(ValueError, match=r"is not a date; use 2027-01-31"):
        values.parse_instant(value)


@pytest.mark.parametrize("prefix", [" Bearer", "Bearer\r\n", "B\u00e9arer ", 5])
def test_what_cannot_stand_before_a_key(prefix: Any) -> None:
    """One line of ASCII."""
    with pytest.raises(ValueError, match=r"one line of ASCII"):
        values.parse_field_prefix(prefix)
    assert values.parse_field_prefix("Bearer ") == "Bearer "
    assert values.parse_field_prefix("") == ""


def test_files_must_exist_and_be_readable(write: Write, tmp_path: Path) -> None:
    """Secrets and certificates that are not mounted are found at the start."""
    (problem,) = problems_of(identity(**LOGIN | {"password_file": "none"}), write=write)
    assert f"'{tmp_path}/none': no such file; mount it or correct the path" in problem

    (problem,) = problems_of(service(tls={"ca_file": str(tmp_path)}), write=write)
    assert problem.startswith("services.iris.tls.ca_file: ")
    assert "a folder; name the file in it" in problem

    (tmp_path / "loop").symlink_to("loop")
    (problem,) = problems_of(service(tls={"client_cert_file": str(tmp_path / "loop")}))
    assert "cannot be read; correct the path" in problem


def test_a_client_key_needs_its_certificate(write: Write) -> None:
    """A certificate may hold its key; a key alone is useless."""
    (problem,) = problems_of(service(tls={"client_key_file": "secret"}), write=write)
    assert problem.startswith("services.iris.tls.client_cert_file: required with client_key_file")

    assert load(file=write(service(tls={"client_cert_file": "secret"})), environ={}).warnings == ()


def test_a_service_without_any_identity_to_use_is_named() -> None:
    """No suggestion where there is nothing to suggest."""
    (problem,) = problems_of({"services": {"iris": {"url": URL, "identity": "x"}}})

    assert problem == (
        "services.iris.identity: 'x' is not configured; use one of identities: (there is none)"
    )
