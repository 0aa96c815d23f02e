"""The YAML file: its faults, its places, and secrets that must not be in it."""

from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConfigError
from gateway.settings import (
    load,
)
from tests.unit.settings.given import ANONYMOUS, GOOD, LOGIN, URL, Write, identity, problems_of


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", ": empty;"),
        ("# nothing\n", ": empty;"),
        ("- a\n", ": not a mapping;"),
        ("hunter2", ": not a mapping;"),
        ("listen: {", ": line 1, column 10: "),
        ("a: *hunter2", ": line 1, column 4: found undefined alias …;"),
        ("a: !hunter2 b", ": line 1, column 4: could not determine a constructor for the tag …;"),
        ("a: &hunter2 1\nb: &hunter2 2\n", ": line 2, column 4: "),
        ("<<: hunter2", ": line 1, column 5: "),
        ("a: %hunter2", ": line 1, column 4: "),
        ("a: 'hunter2", ": line 1, column 12: "),
        ("a: !h!unter2 b", ": line 1, column 4: found undefined tag handle …;"),
        ("a: 2024-99-99", ": holds a number or date that cannot exist"),
        ("a: \x00", ": character 3 is not allowed"),
        ("a: 1\n---\nb: 1\n", ": line 2, column 1: "),
    ],
)
def test_faults_of_yaml_are_named_with_their_place(
    write: Write, content: str, complaint: str
) -> None:
    """File, line and column; nothing that may be part of a secret."""
    (problem,) = problems_of(content, write=write)

    assert complaint in problem
    assert "gateway.yaml: " in problem
    assert "hunter2" not in problem


def test_every_fault_of_keys_in_yaml_is_named(write: Write) -> None:
    """Repeated keys, keys that are not text, and values without end; and then the rest."""
    found = problems_of(
        "listen: 127.0.0.1:1\nlisten: 127.0.0.1:1\nno: 1\ndrain: &d\n  timeout: *d\n"
        "allowed_hosts: &h [*h]\n<<: &m {quitquitquit: true, <<: *m}\nservices:\n  a: {url: x}\n",
        write=write,
    )

    texts = [problem.partition("gateway.yaml: ")[2] or problem for problem in found]
    assert texts[0] == "line 2, column 1: listen is given twice, first in line 1; keep one of them"
    assert texts[1] == "line 3, column 1: a key that is not text; put it in quotes"
    assert texts[2] == "line 5, column 3: a value that contains itself; remove the alias"
    assert texts[3].endswith("a value that contains itself; remove the alias")
    assert texts[4].endswith("a value that contains itself; remove the alias")
    assert any(text.startswith("services.a.url: 'x' is not a URL") for text in texts)


def test_missing_files_and_folders_are_problems(tmp_path: Path) -> None:
    """The file that was asked for must be there and be a file in UTF-8."""
    (tmp_path / "latin").write_bytes(b"listen: \xff")
    for name, complaint in (
        ("none", "no such file"),
        (".", "a folder"),
        ("latin", "byte 8 is not"),
    ):
        with pytest.raises(ConfigError, match=complaint) as caught:
            load(file=tmp_path / name, environ={"GATEWAY_LISTN": "1"})

        assert len(caught.value.problems) == 2  # and the variable


def test_keys_without_value_count_as_left_out(write: Write) -> None:
    """What is left of a section whose lines are commented out is no mistake."""
    text = f"drain:\nlisten:\nservices:\n  iris:\n    url: {URL}\n    tls:\n"

    loaded = load(file=write(text), environ={"GATEWAY_IDENTITIES__DEFAULT__METHOD": "none"})

    assert loaded.settings.drain.timeout == 30
    assert loaded.origins["listen"] == "default"


def test_relative_names_of_files_start_at_the_configuration(write: Write, tmp_path: Path) -> None:
    """A file and its neighbours can be moved together."""
    loaded = load(file=write(identity(method="file", token_file="secret")), environ={})

    assert loaded.settings.identities["default"].token_file == tmp_path / "secret"


def test_a_section_without_any_key_misses_what_is_required(write: Write) -> None:
    """`iris:` alone is a service without URL, not another kind of mistake."""
    (problem,) = problems_of({"services": {"iris": None}, "identities": ANONYMOUS}, write=write)

    assert problem == "services.iris.url: required, but not given"


@pytest.mark.parametrize("value", ["hunter2", 12345678])
def test_a_refused_secret_is_one_problem(write: Write, value: Any) -> None:
    """Nobody is asked for what is given in the wrong place."""
    login = {key: value for key, value in LOGIN.items() if key != "password_file"}

    (problem,) = problems_of(identity(**login, password=value), write=write)

    assert problem.startswith("identities.default.password: refused from the file")


@pytest.mark.parametrize("key", ["password", "secret"])
@pytest.mark.parametrize("value", ["hunter2", "12345678", ["hunter2"]])
def test_secrets_are_refused_from_file_and_flags_and_never_repeated(
    write: Write, key: str, value: Any
) -> None:
    """Each is named with the remedy, whatever its form."""
    bad = identity(**{key: value})

    for found in (problems_of(bad, write=write), problems_of(bad)):
        (refusal,) = (
            problem for problem in found if problem.startswith(f"identities.default.{key}: refused")
        )
        assert f"GATEWAY_IDENTITIES__DEFAULT__{key.upper()}" in refusal
        assert not any("hunter2" in problem or "12345678" in problem for problem in found)


@pytest.mark.parametrize(
    "bad",
    [
        {"services": {"iris": {"url": "https://u:hunter2@host/"}}},
        {"services": {"iris": {"url": "https://host/?token=hunter2"}}},
        {"services": {"iris": {"url": URL, "password": "hunter2"}}},
        {"identities": {"default": "hunter2"}},
        {"identities": "hunter2"},
        {"identities": {"default": {"pasword": "hunter2"}}},
        {"identities": {"default": {"auth_url": "https://u:hunter2@host"}}},
        {"identities": {"default": {"tls": "hunter2"}}},
        {"password": "hunter2"},
    ],
)
def test_what_may_hide_a_secret_is_not_repeated(write: Write, bad: dict[str, Any]) -> None:
    """URLs with user information or a query, misplaced secrets, texts instead of sections."""
    assert not any("hunter2" in problem for problem in problems_of(bad, write=write))


def test_a_bad_secret_in_the_environment_is_not_repeated() -> None:
    """Not even when it is refused."""
    (problem,) = problems_of(
        GOOD
        | {
            "identities": {
                "default": {"method": "application_credential", "auth_url": URL, "id": "i"}
            }
        },
        environ={"GATEWAY_IDENTITIES__DEFAULT__SECRET__X": "hunter2"},
    )

    assert problem.startswith("identities.default.secret: not a text, or empty (not shown)")
    assert "hunter2" not in problem
