"""Settings: layers, rules, limits, sentences; and that config/ is what the code says."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from types import NoneType
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from gateway.errors import ConfigError
from gateway.settings import (
    Identity,
    ListenAddress,
    Loaded,
    Service,
    Settings,
    addresses,
    find_admin_listen,
    load,
    types,
    values,
)
from gateway.settings.environment import find_log_level, leaf_keys, variable_names
from gateway.settings.identity import LOGIN_KEYS, SECRETS
from tests import documents

CONFIG = Path(__file__).parent.parent.parent / "config"
URL = "https://models.example/v1/infers/a"
ANONYMOUS = {"default": {"method": "none"}}
GOOD: dict[str, Any] = {"services": {"iris": {"url": URL}}, "identities": ANONYMOUS}
OPENSTACK = {
    "OS_AUTH_URL": "https://iam.example/v3",
    "OS_USERNAME": "infer",
    "OS_PASSWORD": "hunter2",
    "OS_USER_DOMAIN_NAME": "account",
    "OS_PROJECT_NAME": "region",
}
NO_FLAGS: dict[str, Any] = {}

Write = Callable[[Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a configuration, given as text or as data, and return its file."""

    def write_file(content: Any) -> Path:
        file = tmp_path / "gateway.yaml"
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return file

    (tmp_path / "secret").write_text("s")
    return write_file


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


# ---- layers


def test_defaults_are_those_of_the_contract() -> None:
    """What nobody sets has the documented default."""
    settings = use(GOOD).settings

    assert str(settings.listen) == "127.0.0.1:8080"
    assert str(settings.admin_listen) == "127.0.0.1:9090"
    assert settings.allowed_hosts == ()
    assert (settings.drain.announce, settings.drain.timeout) == (0, 30)
    assert settings.quitquitquit is False
    iris = settings.services["iris"]
    assert (iris.identity, iris.methods) == ("default", ("POST",))
    assert (iris.max_body, iris.replay_buffer) == (12 * 2**20, 2**20)
    assert (iris.timeouts.connect, iris.timeouts.first_byte, iris.timeouts.idle) == (5, 40, 60)
    assert iris.tls.verify is True


def test_each_layer_wins_over_the_next(write: Write) -> None:
    """Flag > environment > file > default, key by key, and every key knows where it is from."""
    file = write(
        GOOD | {"drain": {"announce": "1s", "timeout": "2s"}, "admin_listen": "127.0.0.1:3"}
    )
    environ = {"GATEWAY_DRAIN__TIMEOUT": "4s", "GATEWAY_ADMIN_LISTEN": "127.0.0.1:5"}

    loaded = load(file=file, environ=environ, flags={"admin_listen": "127.0.0.1:6"})

    settings = loaded.settings
    assert settings.admin_listen.port == 6
    assert (settings.drain.announce, settings.drain.timeout) == (1, 4)
    assert loaded.origins["admin_listen"] == "flag"
    assert loaded.origins["drain.timeout"] == "env GATEWAY_DRAIN__TIMEOUT"
    line = 1 + file.read_text().splitlines().index("  announce: 1s")
    assert loaded.origins["drain.announce"] == f"file {file}:{line}"
    assert loaded.origins["listen"] == "default"


def test_origins_name_every_key() -> None:
    """Each key that holds a value has an origin, so that all can be shown."""
    expected = {".".join(path) for path in leaf_keys(Settings)}

    origins = {
        re.sub(r"(services|identities)\.\w+", r"\1.<name>", key) for key in use(GOOD).origins
    }

    left_out = {key for key in expected if key.startswith(("fleet.", "listen_tls."))}
    assert origins == expected - left_out | {"fleet", "listen_tls"}


def test_environment_reaches_every_depth_in_any_case() -> None:
    """Names are paths joined by `__`; lists are JSON or separated by commas."""
    loaded = load(
        file=None,
        environ={
            "GATEWAY_SERVICES__IRIS__URL": URL,
            "gateway_services__iris__timeouts__connect": "7s",
            "GATEWAY_SERVICES__IRIS__METHODS": "GET, POST,",
            "GATEWAY_SERVICES__IRIS__TLS__VERIFY": "false",
            "GATEWAY_ALLOWED_HOSTS": '["a", "B"]',
            "GATEWAY_IDENTITIES__DEFAULT": '{"method": "none"}',
            "GATEWAY_QUITQUITQUIT": "true",
            "GATEWAY_CONFIG": "/not/followed/here",
            "UNRELATED": "x",
        },
    )

    iris = loaded.settings.services["iris"]
    assert (iris.timeouts.connect, iris.methods, iris.tls.verify) == (7, ("GET", "POST"), False)
    assert loaded.settings.allowed_hosts == ("a", "b")
    assert loaded.settings.quitquitquit is True
    assert (
        loaded.origins["services.iris.timeouts.connect"]
        == "env gateway_services__iris__timeouts__connect"
    )
    assert loaded.origins["identities.default.method"] == "env GATEWAY_IDENTITIES__DEFAULT"


def test_empty_variables_are_unset() -> None:
    """`NAME=` does not overwrite anything."""
    assert use(GOOD, {"GATEWAY_LISTEN": "", "OS_PASSWORD": ""}).settings.listen.port == 8080


def test_flags_of_none_are_not_given(write: Write) -> None:
    """A command-line option that was left out leaves the other layers alone."""
    file = write(GOOD | {"listen": "127.0.0.1:1", "drain": {"timeout": 2}})

    flags = {"listen": None, "drain": {"timeout": None}}
    settings = load(file=file, environ={}, flags=flags).settings

    assert (settings.listen.port, settings.drain.timeout) == (1, 2)


def test_service_url_alone_defines_the_default_service() -> None:
    """One variable is a configuration, given an identity; its long form is stronger."""
    environ = {"GATEWAY_SERVICE_URL": URL, "GATEWAY_IDENTITIES__DEFAULT__METHOD": "none"}
    longer = {"GATEWAY_SERVICES__DEFAULT__URL": "https://other.example/x"}

    assert load(file=None, environ=environ).settings.services["default"].url == URL
    for both in (environ | longer, longer | environ):
        services = load(file=None, environ=both).settings.services
        assert services["default"].url == "https://other.example/x"


def test_service_url_adds_to_the_services_of_the_file(write: Write) -> None:
    """The variable defines `default` and leaves other services alone."""
    loaded = load(file=write(GOOD), environ={"GATEWAY_SERVICE_URL": "https://other.example/x"})

    assert set(loaded.settings.services) == {"iris", "default"}


# ---- OpenStack's variables and alternatives


def test_openstack_variables_fill_the_default_identity() -> None:
    """An RC file is all that a login needs."""
    loaded = load(file=None, environ=OPENSTACK | {"GATEWAY_SERVICE_URL": URL})

    default = loaded.settings.identities["default"]
    assert default.password is not None
    assert default.password.get_secret_value() == "hunter2"
    assert (default.username, default.user_domain, default.project) == (
        "infer",
        "account",
        "region",
    )
    assert default.project_domain == "account"
    assert loaded.origins["identities.default.username"] == "env OS_USERNAME"
    assert "hunter2" not in repr(loaded)
    assert loaded.warnings == ()


def test_openstack_variables_lie_between_ours_and_the_file(write: Write) -> None:
    """Stronger than the file, weaker than GATEWAY_IDENTITIES__DEFAULT__…."""
    file = write(identity(username="from-file", project="from-file", password_file="secret"))
    environ = OPENSTACK | {"GATEWAY_IDENTITIES__DEFAULT__PROJECT": "from-env"}

    default = load(file=file, environ=environ).settings.identities["default"]

    assert (default.username, default.project) == ("infer", "from-env")
    assert default.password_file is None
    assert default.password is not None


def test_rc_files_that_give_name_and_id_of_the_project_work() -> None:
    """RC files export both; the id is used."""
    environ = OPENSTACK | {
        "OS_PROJECT_ID": "0a1b",
        "OS_PROJECT_DOMAIN_NAME": "account",
        "GATEWAY_SERVICE_URL": URL,
    }

    default = load(file=None, environ=environ).settings.identities["default"]

    assert (default.project, default.project_id) == (None, "0a1b")


@pytest.mark.parametrize(
    "default", [{"method": "none"}, {"method": "file", "token_file": "secret"}]
)
def test_openstack_variables_leave_other_methods_alone(
    write: Write, default: dict[str, str]
) -> None:
    """They are ignored, and somebody is told."""
    loaded = load(file=write(identity(**default)), environ=OPENSTACK)

    assert loaded.settings.identities["default"].username is None
    (warning,) = loaded.warnings
    assert warning.startswith(f"identities.default: has method {default['method']}; OS_AUTH_URL")
    assert "hunter2" not in warning


def test_openstack_variables_make_no_identity_that_nobody_uses() -> None:
    """Variables meant for another program do not break a configuration that does without."""
    loaded = use(
        {"services": {"a": {"url": URL, "identity": "b"}}, "identities": {"b": {"method": "none"}}},
        {"OS_AUTH_URL": "https://iam.example"},
    )

    assert set(loaded.settings.identities) == {"b"}
    assert loaded.warnings == ("identities.default: no service uses it; OS_AUTH_URL ignored",)


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [
        ({"GATEWAY_IDENTITIES__DEFAULT__PASSWORD": "p"}, {"password_file": "secret"}),
        ({"GATEWAY_IDENTITIES__DEFAULT__PROJECT_ID": "i"}, {"project": "n", "project_domain": "d"}),
        ({"GATEWAY_IDENTITIES__DEFAULT__PROJECT": "n"}, {"project_id": "i"}),
    ],
)
def test_a_stronger_alternative_replaces_a_weaker_one(
    write: Write, stronger: dict[str, str], weaker: dict[str, str]
) -> None:
    """Two answers to one question are an override when they come from different layers."""
    login = {"auth_url": "https://iam", "username": "u", "user_domain": "d"}
    rest = {"password_file": "secret"} if "project" in str(weaker) else {"project": "n"}

    loaded = load(file=write(identity(**login, **rest, **weaker)), environ=stronger)

    default = loaded.settings.identities["default"].model_dump()
    assert all(default[key] is None for key in weaker if key != "project_domain")
    assert all(loaded.origins[f"identities.default.{key}"] == "default" for key in weaker)


def test_password_file_and_secret_file_replace_what_is_weaker(tmp_path: Path) -> None:
    """A flag's file is stronger than the environment's secret."""
    file = tmp_path / "secret"
    file.touch()
    login = {"auth_url": "https://iam", "username": "u", "user_domain": "d", "project": "p"}
    by_password = use(
        identity(**login, password_file=str(file)), {"GATEWAY_IDENTITIES__DEFAULT__PASSWORD": "p"}
    )
    by_secret = use(
        identity(
            method="application_credential", auth_url="https://i", id="i", secret_file=str(file)
        ),
        {"GATEWAY_IDENTITIES__DEFAULT__SECRET": "p"},
    )

    assert by_password.settings.identities["default"].password is None
    assert by_secret.settings.identities["default"].secret is None


def test_secret_replaces_a_weaker_secret_file(write: Write) -> None:
    """As with passwords."""
    keys = {"auth_url": "https://i", "id": "i", "secret_file": "secret"}
    file = write(identity(method="application_credential", **keys))

    loaded = load(file=file, environ={"GATEWAY_IDENTITIES__DEFAULT__SECRET": "hunter2"})

    default = loaded.settings.identities["default"]
    assert default.secret_file is None
    assert default.secret == SecretStr("hunter2")


# ---- variables that are not ours


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_SERVICE_HOST", "10.0.0.1"),
        ("GATEWAY_SERVICE_PORT", "8080"),
        ("GATEWAY_SERVICE_PORT_HTTP_ADMIN", "8080"),
        ("GATEWAY_PORT", "tcp://10.0.0.1:8080"),
        ("GATEWAY_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("GATEWAY_PORT_8080_TCP_PROTO", "tcp"),
        ("GATEWAY_PORT_8080_TCP_PORT", "8080"),
        ("GATEWAY_PORT_8080_UDP_ADDR", "10.0.0.1"),
        ("GATEWAY_METRICS_SERVICE_HOST", "10.0.0.1"),
        ("GATEWAY_METRICS_PORT", "tcp://10.0.0.1:8080"),
    ],
)
def test_service_links_of_kubernetes_are_passed_over(name: str, value: str) -> None:
    """A Service named `gateway` in the namespace does not stop the gateway."""
    assert use(GOOD, {name: value}).warnings == ()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("GATEWAY_LISTN", "GATEWAY_LISTEN"),
        ("GATEWAY_DRAIN_TIMEOUT", "GATEWAY_DRAIN__TIMEOUT"),
        ("GATEWAY_SERVICES_IRIS_URL", "GATEWAY_SERVICES__IRIS__URL"),
        ("GATEWAY_SERVICE_URI", "GATEWAY_SERVICE_URL"),
        ("GATEWAY_CONFG", "GATEWAY_CONFIG"),
    ],
)
def test_unknown_variables_are_refused_with_what_was_meant(name: str, meant: str) -> None:
    """A misspelt limit is a missing limit. The value may be a secret and is not shown."""
    (problem,) = problems_of(GOOD, environ={name: "hunter2"})

    assert problem == f"{name}: unknown variable, did you mean {meant}?"


@pytest.mark.parametrize(
    "name", ["GATEWAY_PORT", "GATEWAY_PORT_8080", "GATEWAY_PORT_8080_HTTP", "GATEWAY_SERVICE_HOSTS"]
)
def test_only_the_shapes_of_service_links_are_passed_over(name: str) -> None:
    """What merely resembles one is refused."""
    (problem,) = problems_of(GOOD, environ={name: "8080"})

    assert problem.startswith(f"{name}: unknown variable")


# ---- the file


@pytest.mark.parametrize(
    ("environ", "level"),
    [
        ({}, "INFO"),
        ({"GATEWAY_LOG_LEVEL": "debug"}, "DEBUG"),
        ({"gateway_log_level": "WARNING"}, "WARNING"),
        ({"GATEWAY_LOG_LEVEL": ""}, "INFO"),
    ],
)
def test_the_log_level_is_a_variable(environ: dict[str, str], level: str) -> None:
    """It is no key of the file, and known all the same."""
    load(file=None, environ=environ, flags=GOOD)
    assert find_log_level(environ) == level


def test_an_unknown_log_level_is_a_problem() -> None:
    """With those there are."""
    [problem] = problems_or_none(GOOD, {"GATEWAY_LOG_LEVEL": "loud"})
    assert problem == "GATEWAY_LOG_LEVEL: 'loud' is not one of DEBUG, INFO, WARNING, ERROR"
    [problem] = problems_or_none(GOOD, {"GATEWAY_LOG_FORMAT": "xml"})
    assert problem == "GATEWAY_LOG_FORMAT: 'xml' is not one of auto, text, json"


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


# ---- sentences


def test_all_problems_are_named_at_once(write: Write) -> None:
    """Keys, values, rules and variables, each on one line with key, fault and remedy."""
    found = problems_of(
        {
            "listen": 8080,
            "quitquitquit": "maybe",
            "drain": "soon",
            "services": {
                "iris": {
                    "url": "ftp://h",
                    "tiemouts": {"connect": 1},
                    "timeouts": {"idle": -1},
                    "identity": "defalt",
                    "methods": ["post", "GET"],
                },
                "Iris": {},
            },
            "identities": {
                "default": {"method": "pasword", "username": 5},
                "other": {"auth_url": "https://iam", "id": "x"},
            },
        },
        write=write,
        environ={"GATEWAY_LISTN": "x", "GATEWAY_ADMIN_LISTEN": "unix:/a"},
    )

    keys = [problem.partition(": ")[0] for problem in found]
    assert sorted(keys) == sorted(
        [
            "GATEWAY_LISTN",
            "listen",
            "admin_listen",
            "quitquitquit",
            "drain",
            "services.iris.url",
            "services.iris.tiemouts",
            "services.iris.timeouts.idle",
            "services.iris.identity",
            "services.iris.methods[0]",
            "services.Iris",
            "services.Iris.url",
            "identities.default.method",
            "identities.default.username",
            "identities.other.username",
            "identities.other.user_domain",
            "identities.other.password_file",
            "identities.other.project",
            "identities.other.id",
        ]
    )
    assert not any("\n" in problem for problem in found)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (
            service(tiemouts={}),
            (
                "services.iris.tiemouts: unknown key, did you mean timeouts? allowed: url, "
                "identity, "
                "methods, max_body, replay_buffer, websocket, max_in_flight, queue, breaker, "
                "retry, usage, timeouts, tls, egress_proxy"
            ),
        ),
        (
            GOOD | {"zzz": 1},
            (
                "zzz: unknown key; allowed: listen, listen_mode, reuse_port, listen_tls, "
                "admin_listen, token_listen, token_listen_mode, allowed_hosts, "
                "allowed_origins, drain, limits, quitquitquit, "
                "fleet, identities, services"
            ),
        ),
        (
            service(identity="defalt"),
            (
                "services.iris.identity: 'defalt' is not configured; use one of identities: "
                "default, "
                "did you mean default?"
            ),
        ),
        (
            service(methods=["post"]),
            (
                "services.iris.methods[0]: 'post' is not a method; use GET, HEAD, POST, PUT, "
                "PATCH, "
                "DELETE, OPTIONS, did you mean POST?"
            ),
        ),
        (
            service(max_body="12Mi"),
            (
                "services.iris.max_body: '12Mi' is not a size; use bytes, or a number with kB, "
                "MB, GB, "
                "KiB, MiB or GiB, such as 12MiB, did you mean 12MiB?"
            ),
        ),
        (
            GOOD | {"drain": {"timeout": "soon"}},
            (
                "drain.timeout: 'soon' is not a duration; use seconds, or a number with ms, s, "
                "m, h or "
                "d, such as 40s"
            ),
        ),
        (
            GOOD | {"listen": 8080},
            (
                "listen: 8080 is not an address; use host:port with a port from 0 to 65535, "
                "[::1]:port, or unix:/path, did you mean 127.0.0.1:8080?"
            ),
        ),
        (
            GOOD | {"quitquitquit": "on time"},
            "quitquitquit: 'on time' is neither true nor false; use one of them",
        ),
        (
            identity(method="paswd"),
            (
                f"identities.default.method: 'paswd' is not one of {', '.join(LOGIN_KEYS)}, "
                "did you mean password?"
            ),
        ),
        (service(url=None), "services.iris.url: required, but not given"),
        (
            service(methods=5),
            "services.iris.methods: 5 is not a list; use [one, two]",
        ),
        (
            GOOD | {"allowed_hosts": "[a"},
            'allowed_hosts: not a JSON list; use ["one", "two"] or one,two',
        ),
        (
            service(timeouts=5),
            "services.iris.timeouts: not a mapping; write keys and values below it, indented",
        ),
        (
            service(url="models.example/v1"),
            (
                "services.iris.url: 'models.example/v1' is not a URL; use https://host/path, "
                "did you mean https://models.example/v1?"
            ),
        ),
        (
            identity(method="none", username="u"),
            "identities.default.username: makes no sense with method none; allowed: no key",
        ),
        (
            {"services": {"iris": {"url": URL}}},
            (
                "identities.default: no identity is configured; give auth_url, username, "
                "user_domain, "
                "password_file and project here, or OS_* variables, or method: none if no token is "
                "needed"
            ),
        ),
        (
            {"identities": ANONYMOUS},
            (
                "services: at least one is required; write services.<name>.url, or set "
                "GATEWAY_SERVICE_URL"
            ),
        ),
    ],
)
def test_problems_say_what_was_wrong_and_what_is_allowed(bad: dict[str, Any], problem: str) -> None:
    """Key, value, remedy and, where something is near, what was meant."""
    assert problems_of(bad) == (problem,)


def test_problems_name_the_line_or_the_variable(write: Write) -> None:
    """What is to be corrected can be found."""
    found = problems_of(
        f"services:\n  iris:\n    url: {URL}\n    max_body: x\n"
        "identities: {default: {method: none}}",
        write=write,
        environ={"GATEWAY_SERVICES__IRIS__TIEMOUTS__IDLE": "1"},
    )

    assert found[0].endswith("[env GATEWAY_SERVICES__IRIS__TIEMOUTS__IDLE]")
    assert found[1].endswith("gateway.yaml:4]")


def test_strange_keys_stay_on_one_line(write: Write) -> None:
    """A problem is one line, and sends nothing to the terminal but text."""
    strange = '"a\\n\\e[2J": 1\n"a\\n\\e[2J": 2\n'

    found = problems_of(
        strange + yaml.safe_dump(GOOD), write=write, environ={"GATEWAY_A\n\x1b[2J": "x"}
    )

    assert len(found) == 3
    assert all(problem.isprintable() and r"a\n\x1b[2j" in problem.lower() for problem in found)


def test_long_values_are_cut() -> None:
    """A pasted certificate does not fill the screen; 80 characters are shown."""
    (whole,) = problems_of(service(max_body="x" * 78))
    (cut,) = problems_of(service(max_body="x" * 79))

    assert "x" * 78 in whole
    assert f"'{'x' * 76}... is not a size" in cut


KEYS = st.sampled_from(sorted({part for path in leaf_keys(Settings) for part in path}))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.dates()
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=2),
    st.dictionaries(st.one_of(KEYS, st.text(max_size=2), st.integers()), SCALARS, max_size=3),
)
NAMED = st.dictionaries(
    st.sampled_from(["default", "a", 5]), st.dictionaries(KEYS, VALUES, max_size=4), max_size=2
)


@given(data=st.dictionaries(KEYS, st.one_of(VALUES, NAMED), max_size=4), services=NAMED)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_data_is_settings_or_problems_in_our_words(
    data: dict[str, Any], services: dict[Any, Any]
) -> None:
    """No other exception, and no jargon of the library."""
    for problem in problems_or_none(data | {"services": services}, {}):
        assert ": " in problem
        assert "\n" not in problem
        assert not re.search(
            r"Input should|type=|pydantic|validation error|Traceback|not a value that", problem
        )


@example(environ={"GATEWAY_SERVICE_URL": "\n"})
@given(
    environ=st.dictionaries(
        st.sampled_from(list(variable_names())).map(lambda name: name.replace("<NAME>", "A")),
        st.text(),
        max_size=6,
    )
)
def test_any_environment_is_settings_or_problems(environ: dict[str, str]) -> None:
    """As above, for variables."""
    assert not any("\n" in problem for problem in problems_or_none({}, environ))


_PARSERS = [
    values.parse_name, values.parse_text, values.parse_duration, values.parse_positive_duration,
    values.parse_size, values.parse_method, addresses.parse_host_name, addresses.parse_allowed_host,
    addresses.parse_listen, addresses.parse_listen_tcp, addresses.parse_auth_url,
    types.parse_service_url,
]  # fmt: skip
_WRITTEN = st.lists(
    st.sampled_from(
        [
            "http", "https", "://", "HTTP://", "a", "B", "example", ".", "-", "_", "1", "80",
            "65536",
            ":", "[", "]", "::1", "127.0.0.1", "/", "/v3", "..", "%2e", "%41", "%", "@", "?", "#",
            " ",
            "\n", "\x00", "é", "s", "ms", "m", "1.5", "e9", "MiB", "kB", "unix:", "/run/x", "GET",
            "*",
        ]
    ),
    max_size=7,
).map("".join)  # fmt: skip


def _read(parse: Callable[[Any], Any], value: object) -> tuple[Any, str | None]:
    """Return what `value` is read as, or the sentence."""
    try:
        return parse(value), None
    except ValueError as error:
        return None, str(error)


@pytest.mark.parametrize("parse", _PARSERS, ids=lambda parse: parse.__name__)
@given(value=st.text(max_size=20) | _WRITTEN | VALUES)
def test_a_value_has_one_normal_form_or_a_sentence(
    parse: Callable[[Any], Any], value: object
) -> None:
    """No other exception; and what was read is read again as itself, also when written down."""
    parsed, problem = _read(parse, value)
    if problem is None:
        assert parse(parsed) == parsed
        if not isinstance(parsed, float):
            assert parse(parsed if isinstance(parsed, int) else str(parsed)) == parsed
    else:
        assert problem
        assert "\n" not in problem


@given(value=st.text(max_size=30) | VALUES)
def test_a_list_is_split_or_left_alone(value: object) -> None:
    """Texts become lists, other data is for the next to judge; a secret is never repeated."""
    parts, problem = _read(types.split_list, value)
    assert "JSON list" in problem if problem else parts is value or isinstance(parts, list)
    secret, problem = _read(types.parse_secret, value)
    assert "not shown" in problem if problem else secret.get_secret_value() == value


# ---- values, both sides of each limit


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("40s", 40),
        ("5m", 300),
        ("1.5h", 5400),
        ("1d", 86400),
        ("7", 7),
        (7, 7),
        (0.5, 0.5),
        (0, 0),
        ("0s", 0),
        (" 2 s ", 2),
    ],
)
def test_durations(text: Any, seconds: float) -> None:
    """Seconds, or a number with a unit."""
    assert values.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "-1s",
        -1,
        -0.001,
        True,
        None,
        "1w",
        "1 h 5 m",
        "1e3",
        "٣s",
        float("inf"),
        float("nan"),
        "9" * 400,
        10**400,
        [],
        "4,5s",
    ],
)
def test_what_is_no_duration(text: Any) -> None:
    """Negative, infinite and unknown forms are refused with what is allowed."""
    with pytest.raises(ValueError, match=r"is not a duration; use seconds, or a number with ms"):
        values.parse_duration(text)


def test_timeouts_are_above_zero() -> None:
    """A wait of 0 would fail every request; of 1 ms it is a choice."""
    assert (
        use(service(timeouts={"connect": "1ms"})).settings.services["iris"].timeouts.connect
        == 0.001
    )
    for key in ("connect", "first_byte", "first_chunk", "idle"):
        (problem,) = problems_of(service(timeouts={key: 0}))
        assert problem.startswith(f"services.iris.timeouts.{key}: 0 would end every request")


def test_the_whole_process_has_limits() -> None:
    """Callers are counted in whole numbers; what a body must keep may be nothing."""
    assert use(service()).settings.limits.connections == 4096
    assert use({**service(), "limits": {"connections": "8"}}).settings.limits.connections == 8
    for wrong in (0, -1, "many", 1.5, 100_001, True):
        (problem,) = problems_of({**service(), "limits": {"connections": wrong}})
        assert "is not a number of connections; use 1 to 100000" in problem
    for said, rate in (({}, 1024), ({"upload_rate": "2KiB"}, 2048), ({"upload_rate": 0}, 0)):
        found = use(service(timeouts=said)).settings.services["iris"].timeouts
        assert found.upload_rate == rate


def test_a_body_may_take_as_long_to_begin_as_a_response() -> None:
    """Unless it is said."""

    def timeouts(**given: Any) -> tuple[float, float]:
        found = use(service(timeouts=given)).settings.services["iris"].timeouts
        return found.first_byte, found.first_chunk

    assert timeouts() == (40, 40)
    assert timeouts(first_byte="90s") == (90, 90)
    assert timeouts(first_chunk="5m") == (40, 300)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("12MiB", 12582912),
        ("1KiB", 1024),
        ("1GiB", 2**30),
        ("10MB", 10**7),
        ("500kB", 500_000),
        ("2GB", 2 * 10**9),
        ("1.5KiB", 1536),
        ("17", 17),
        ("17 B", 17),
        (17, 17),
        (0, 0),
    ],
)
def test_sizes(text: Any, size: int) -> None:
    """Bytes, or a number with a unit."""
    assert values.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "MiB", -1, "-1", 1.5, True, None, "12mb", "12M", "1TiB", [], "9" * 400 + "MiB"]
)
def test_what_is_no_size(text: Any) -> None:
    """Negative, fractional and unknown forms are refused with what is allowed."""
    with pytest.raises(ValueError, match=r"is not a size; use bytes, or a number with kB"):
        values.parse_size(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ListenAddress("127.0.0.1", 8080)),
        ("[::1]:8080", ListenAddress("::1", 8080)),
        ("localhost:0", ListenAddress("localhost", 0)),
        ("0.0.0.0:65535", ListenAddress("0.0.0.0", 65535)),
        ("unix:/run/gateway/gateway.sock", ListenAddress(path="/run/gateway/gateway.sock")),
        ("unix:/" + "a" * 106, ListenAddress(path="/" + "a" * 106)),
    ],
)
def test_listen_addresses(text: str, address: ListenAddress) -> None:
    """TCP with any port, or a socket file; and they are written as they are read."""
    assert addresses.parse_listen(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        ":8080",
        "*:8080",
        "8080",
        "::1:8080",
        "[::1]",
        "[::g]:1",
        "127.0.0.1:65536",
        "127.0.0.256:1",
        "a b:1",
        "a..b:1",
        "host:",
        "unix:relative",
        "unix:/",
        "unix:/a/",
        None,
        "unix:/" + "a" * 107,
        "unix:/a\n",
        8080,
        "http://a:1",
        "a:1\n",
        "\u212a.example:1",
        "[fe80::1%eth0]:1",
    ],
)
def test_what_is_no_listen_address(text: Any) -> None:
    """Everything else is refused."""
    with pytest.raises(ValueError, match=r"use|at most 107 bytes"):
        addresses.parse_listen(text)


def test_two_listeners_need_two_addresses() -> None:
    """The same port is refused, port 0 is two different ones, and admin is TCP."""
    (problem,) = problems_of(GOOD | {"listen": "127.0.0.1:9090"})
    assert problem.startswith("admin_listen: 127.0.0.1:9090 is where callers connect")

    assert use(GOOD | {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"}).warnings == ()

    (problem,) = problems_of(GOOD | {"admin_listen": "unix:/a"})
    assert problem.startswith("admin_listen: 'unix:/a' is a socket file")


@pytest.mark.parametrize(
    ("url", "parts", "authority"),
    [
        ("https://h", ("https", "h", 443, ""), "h"),
        ("https://h/", ("https", "h", 443, ""), "h"),
        ("HTTPS://Models.Example/A/b/", ("https", "models.example", 443, "/A/b"), "models.example"),
        ("https://h:443/a", ("https", "h", 443, "/a"), "h"),
        ("http://h:80", ("http", "h", 80, ""), "h"),
        ("http://h:443/a", ("http", "h", 443, "/a"), "h:443"),
        (
            f"https://{'a' * 63}.{'a.' * 94}a",
            ("https", f"{'a' * 63}.{'a.' * 94}a", 443, ""),
            f"{'a' * 63}.{'a.' * 94}a",
        ),
        ("http://127.0.0.1:1/a%20b", ("http", "127.0.0.1", 1, "/a%20b"), "127.0.0.1:1"),
        ("https://[0:0::1]:65535/a", ("https", "::1", 65535, "/a"), "[::1]:65535"),
        ("https://a_b.example./x", ("https", "a_b.example.", 443, "/x"), "a_b.example."),
    ],
)
def test_service_urls(url: str, parts: tuple[str, str, int, str], authority: str) -> None:
    """A URL comes apart into what a connection and a request need."""
    made = Service.model_validate({"url": url})

    assert (made.scheme, made.host, made.port, made.path) == parts
    assert made.authority == authority
    assert Service.model_validate({"url": made.url}) == made


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h",
        "//h/a",
        "ftp://h",
        "https://",
        "https:///a",
        "https://u@h",
        "https://u:p@h/",
        "https://h?a",
        "https://h/a?b=c",
        "https://h/#f",
        "https://h:0",
        "https://h:65536",
        "https://h:x",
        "https://h/a//b",
        "https://h//",
        "https://h/a/../b",
        "https://h/./a",
        "https://h/..",
        "https://h/a%2fb",
        "https://h/a%2Fb",
        "https://h/a%5cb",
        "https://h/%2e%2E",
        "https://h/a b",
        "https://h/a;b",
        "https://h/\\",
        "https://h/ä",
        "https://h/%zz",
        "https://h/%0a",
        f"https://{'a' * 63}.{'a.' * 95}",
        f"https://{'a' * 64}/",
        "https://[::1",
        "https://[v1.a]/",
        "https://-a/",
        "https://a..b/",
        "https://ä/",
        "https://h\n",
        "https://h/a\n",
        "http\u017f://h",
        "https://\u212a/",
        "https://h/\u017f",
        "https://h/%25",
        5,
        None,
        ["https://h"],
    ],
)
def test_what_is_no_service_url(url: Any) -> None:
    """Nothing that two programs may read in two ways."""
    with pytest.raises(ValueError, match=r"use|holds"):
        addresses.parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://iam.example",
        "https://iam.example/",
        "https://iam.example/v3",
        "https://IAM.example/v3/",
    ],
)
def test_auth_url_ends_in_v3_exactly_once(url: str) -> None:
    """With or without `/v3`."""
    made = Identity.model_construct(auth_url=addresses.parse_auth_url(url))

    assert made.tokens_url == "https://iam.example/v3/auth/tokens"


def test_auth_url_keeps_its_prefix_and_a_host_named_v3() -> None:
    """Keystone behind a path, and the trap of cutting texts."""
    assert addresses.parse_auth_url("https://c.example:5000/identity") == (
        "https://c.example:5000/identity/v3"
    )
    assert addresses.parse_auth_url("https://v3") == "https://v3/v3"


@pytest.mark.parametrize("path", ["/v3/auth/tokens", "/auth/tokens", "/v2.0", "/v2.0/"])
def test_other_places_of_keystone_lead_to_the_root(path: str) -> None:
    """What people paste is refused with what they meant."""
    with pytest.raises(ValueError, match=r"did you mean https://iam.example/v3\?"):
        addresses.parse_auth_url(f"https://iam.example{path}")


@pytest.mark.parametrize("name", ["a", "0", "a-b_c", "a" * 63])
def test_names(name: str) -> None:
    """Names of services and identities."""
    assert set(
        use({"services": {name: {"url": URL}}, "identities": ANONYMOUS}).settings.services
    ) == {name}


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "_", "a.b", "a/b", "a" * 64, "ä", "a\n"])
def test_what_is_no_name(name: str) -> None:
    """Everything else is refused, with something near."""
    (problem,) = problems_of({"services": {name: {"url": URL}}, "identities": ANONYMOUS})

    assert "is not a name; use 1 to 63 of a-z 0-9 _ -" in problem


@pytest.mark.parametrize(
    ("host", "kept"),
    [("A.example", "a.example"), ("*", "*"), ("[::1]", "[::1]"), ("10.0.0.1", "10.0.0.1")],
)
def test_allowed_hosts(host: str, kept: str) -> None:
    """Names in lower case, addresses, or all."""
    assert use(GOOD | {"allowed_hosts": [host]}).settings.allowed_hosts == (kept,)


@pytest.mark.parametrize("host", ["a:80", "*.a", "::1", "", "a b", 5, "https://a", "a/"])
def test_what_is_no_allowed_host(host: Any) -> None:
    """No ports, patterns or URLs."""
    (problem,) = problems_of(GOOD | {"allowed_hosts": [host]})

    assert problem.startswith("allowed_hosts[0]: ")


@pytest.mark.parametrize(
    ("origin", "kept"),
    [
        ("HTTPS://App.Example:443", "https://app.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_allowed_origins(origin: str, kept: str) -> None:
    """As browsers write them."""
    assert use(GOOD | {"allowed_origins": [origin]}).settings.allowed_origins == (kept,)


@pytest.mark.parametrize(
    "origin", ["*", "null", "app.example", "https://a/", "https://a/b", "https://*.a", "", 5]
)
def test_what_is_no_allowed_origin(origin: Any) -> None:
    """No patterns, and nothing beside scheme, host and port."""
    (problem,) = problems_of(GOOD | {"allowed_origins": [origin]})

    assert problem.startswith("allowed_origins[0]: ")


@pytest.mark.parametrize("text", ["", " ", "a\n", 5, True, 1.5, ["a"]])
def test_what_is_no_text(text: Any) -> None:
    """Numbers and dates that YAML sees in an unquoted text are not guessed at."""
    with pytest.raises(ValueError, match=r"not text|empty|control character"):
        values.parse_text(text)


def test_settings_never_change() -> None:
    """They are shared by everything that runs."""
    settings = use(GOOD).settings
    with pytest.raises(ValidationError):
        settings.quitquitquit = True  # type: ignore[misc]  # that is the test


# ---- rules between keys

LOGIN = {
    "auth_url": "https://iam.example",
    "username": "u",
    "user_domain": "d",
    "password_file": "secret",
    "project": "p",
}
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


# ---- warnings


@pytest.mark.parametrize(
    ("data", "warning"),
    [
        (GOOD | {"listen": "0.0.0.0:8080"}, "listen: 0.0.0.0:8080 can be reached"),
        (service(tls={"verify": False}), "services.iris.tls.verify: false; whoever answers as"),
        (service(url="http://h", tls={"verify": False}), "services.iris.tls: has no effect"),
        (
            identity(method="application_credential", auth_url="http://iam.example", id="i"),
            "identities.default.auth_url: http to another machine; the login can be read",
        ),
        (
            {
                "services": {"iris": {"url": "http://models.example"}},
                "identities": {
                    "default": {
                        "method": "application_credential",
                        "auth_url": "https://i",
                        "id": "i",
                    }
                },
            },
            "services.iris.url: http to another machine; the token can be read",
        ),
    ],
)
def test_risks_are_warned_about(data: dict[str, Any], warning: str) -> None:
    """One line each, with the key."""
    (found,) = use(
        data,
        {"GATEWAY_IDENTITIES__DEFAULT__SECRET": "s"}
        if "id" in str(data["identities"]["default"])
        else {},
    ).warnings

    assert found.startswith(warning)


@pytest.mark.parametrize(
    "data",
    [
        GOOD,
        GOOD | {"listen": "unix:/run/a"},
        GOOD | {"listen": "[::1]:1"},
        GOOD | {"admin_listen": "0.0.0.0:9090"},
        service(url="http://127.0.0.1:5000"),
        service(url="http://models.example"),  # no token is sent
    ],
)
def test_what_is_safe_is_not_warned_about(data: dict[str, Any]) -> None:
    """Warnings that come every time are not read."""
    assert use(data).warnings == ()


@pytest.mark.parametrize(
    ("url", "keys", "words"),
    [
        ("https://a.example/v2/infers/x", {"method": "ak_sk", "from": "metadata"}, "a signature"),
        (
            "https://a.example/v2/infer/x",
            {"method": "header", "header": "x-apig-appcode", "value_file": "secret"},
            "an AppCode",
        ),
        (
            "https://a.example/v1/infers/x",
            {"method": "api_key", "key_file": "secret"},
            "an API key",
        ),
        ("https://api.modelarts-maas.com/v1", {"method": "none"}, "MaaS takes API keys only"),
        ("https://a.example/v2/infers/x", {"method": "api_key", "key_file": "secret"}, ""),
        ("https://a.example/v1/infers/x", {"method": "ak_sk", "from": "metadata"}, ""),
        ("https://api.modelarts-maas.com/v1", {"method": "api_key", "key_file": "secret"}, ""),
    ],
)
def test_the_wrong_kind_of_credential_for_a_url_is_warned_about(
    write: Write, url: str, keys: dict[str, str], words: str
) -> None:
    """Before the first call is refused for it."""
    data = {"services": {"llm": {"url": url}}, "identities": {"default": keys}}
    warnings = load(file=write(data), environ={}).warnings
    assert len(warnings) == bool(words)
    assert all("services.llm.identity: " in line and words in line for line in warnings)


def test_large_signed_requests_are_warned_about(write: Write) -> None:
    """The cloud takes 12 MiB of them, whatever it takes with a token."""
    service = {"url": "https://a.example/v1/infers/x", "max_body": "13MiB"}
    keys = {"method": "ak_sk", "from": "metadata"}
    [warning] = load(
        file=write({"services": {"a": service}, "identities": {"default": keys}}), environ={}
    ).warnings
    assert warning.startswith("services.a.max_body: the cloud takes no signed request above 12 MiB")


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({}, "access_key: required with method ak_sk, or access_key_file, or from"),
        ({"access_key": "a"}, "secret_key_file: required with method ak_sk, or secret_key"),
        ({"from": "metadata", "access_key": "a"}, "access_key: from is given too"),
        ({"from": "pod", "metadata_url": "http://a"}, "metadata_url: makes no sense without from"),
        (
            {"access_key": "a", "access_key_file": "secret", "secret_key_file": "secret"},
            "access_key_file: access_key is given too",
        ),
        ({"from": "metadata", "sinks": []}, "sinks: makes no sense with method ak_sk"),
        (
            {"from": "metdata"},
            "from: 'metdata' is not one of metadata, pod, did you mean metadata?",
        ),
    ],
)
def test_an_access_key_is_whole_or_comes_from_a_platform(
    write: Write, keys: dict[str, Any], problem: str
) -> None:
    """Half of it, or both, is a mistake; its lines differ by request, so no file can hold them."""
    found = problems_of(identity(method="ak_sk", **keys), write=write)
    assert found[0].startswith(f"identities.default.{problem}")


def test_services_that_share_a_path_are_warned_about() -> None:
    """Both are named; other services are not."""
    urls = {"a": "https://x/p", "b": "https://y/p/", "c": "https://z/q", "d": "https://z/c"}
    loaded = use({"services": {k: {"url": v} for k, v in urls.items()}, "identities": ANONYMOUS})

    assert [warning.partition(": ")[0] for warning in loaded.warnings] == [
        "services.a.url",
        "services.b.url",
        "services.d.url",
    ]
    assert "neither is served there, this one only at /b" in loaded.warnings[1]
    assert "is another service's name" in loaded.warnings[2]


# ---- probes


def test_probes_find_the_admin_listener_as_the_gateway_does(write: Write) -> None:
    """The same precedence as for everything else."""
    file = write(GOOD | {"admin_listen": "127.0.0.1:3"})
    environ = {"gateway_admin_listen": "127.0.0.1:2"}

    assert find_admin_listen(file=file, environ=environ, flag="127.0.0.1:1").port == 1
    assert find_admin_listen(file=file, environ=environ).port == 2
    assert find_admin_listen(file=file, environ={"GATEWAY_ADMIN_LISTEN": ""}).port == 3
    assert find_admin_listen(file=None, environ={}) == use(GOOD).settings.admin_listen


def test_probes_look_at_nothing_else(write: Write, tmp_path: Path) -> None:
    """A file that broke after the start does not end a healthy gateway; a bad address does."""
    assert find_admin_listen(file=write("{"), environ={}).port == 9090
    assert find_admin_listen(file=tmp_path / "none", environ={}).port == 9090
    assert find_admin_listen(file=write("services: 5\nadmin_listen: a:1"), environ={}).port == 1
    with pytest.raises(ConfigError, match=r"admin_listen: 'x' is not an address"):
        find_admin_listen(file=None, environ={"GATEWAY_ADMIN_LISTEN": "x"})


def test_probes_do_not_load_the_settings_library() -> None:
    """A probe runs every few seconds; the models cost ten times the rest."""
    code = "import sys; from gateway.settings import find_admin_listen; "
    code += "sys.exit('pydantic' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_room_shows_only_what_it_names() -> None:
    """Misspelt names fail as in any module."""
    import gateway.settings

    assert all(getattr(gateway.settings, name) for name in gateway.settings.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        getattr(gateway.settings, "lo" + "de")


# ---- config/


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


# ---- sinks


def with_sinks(*sinks: Any) -> dict[str, Any]:
    """Return settings of an identity that has a token and these sinks."""
    return identity(method="file", token_file="/dev/null", sinks=list(sinks))


def test_a_sink_has_safe_defaults() -> None:
    """Only its path is required."""
    (sink,) = use(with_sinks({"path": "/run/t"})).settings.identities["default"].sinks

    assert (sink.format, sink.name, sink.mode, sink.remove_on_exit) == (
        "plain",
        None,
        "0600",
        False,
    )


@pytest.mark.parametrize(
    ("sink", "problem"),
    [
        ({}, "sinks[0].path: required, but not given"),
        ({"path": "t"}, "sinks[0].path: 't' is not absolute; use /run/tokens/default.token"),
        ({"path": "/run"}, "sinks[0].path: '/run': a folder; name a file in it"),
        (
            {"path": "/run/t", "format": "envoy-sds"},
            (
                "sinks[0].format: 'envoy-sds' is not one of plain, envoy_sds, haproxy_map, "
                "did you mean envoy_sds?"
            ),
        ),
        (
            {"path": "/run/t", "format": "envoy_sds"},
            "sinks[0].path: '/run/t' does not end in .yaml, by which Envoy chooses its parser",
        ),
        (
            {"path": "/run/t", "name": "x"},
            "sinks[0].name: makes no sense with format plain; use envoy_sds or haproxy_map",
        ),
        (
            {"path": "/run/t", "format": "haproxy_map", "name": "a b"},
            "sinks[0].name: 'a b' cannot be a map's key; use one without space and #",
        ),
        (
            {"path": "/run/t", "mode": 600},
            (
                "sinks[0].mode: 600 is not a mode; use octal digits, such as '0660'; "
                "in YAML write it in quotes"
            ),
        ),
        (
            {"path": "/run/t", "removeOnExit": True},
            (
                "sinks[0].removeOnExit: unknown key, did you mean remove_on_exit? allowed: path, "
                "format, name, mode, remove_on_exit"
            ),
        ),
    ],
)
def test_a_sink_that_cannot_work_is_refused(sink: dict[str, Any], problem: str) -> None:
    """With its place in the list, and what is allowed."""
    (found,) = problems_of(with_sinks(sink))

    assert found.removesuffix(" [flag]") == f"identities.default.{problem}"


def test_two_sinks_cannot_share_a_file() -> None:
    """Each would undo what the other writes, of whatever identity they are."""
    data = with_sinks({"path": "/run/t"})
    data["identities"]["other"] = dict(data["identities"]["default"])

    (problem,) = problems_of(data)

    assert "'/run/t' is written by identities.default.sinks[0] too; use another file" in problem


def test_an_identity_without_a_token_has_no_sinks() -> None:
    """There would be nothing to write."""
    (problem,) = problems_of(identity(method="none", sinks=[{"path": "/run/t"}]))

    assert "sinks: makes no sense with method none" in problem


def test_a_sink_that_others_can_read_is_warned_about(tmp_path: Path) -> None:
    """Whoever reads the file has the token."""
    path = str(tmp_path / "t")

    assert use(with_sinks({"path": path, "mode": "0640"})).warnings == ()
    (warning,) = use(with_sinks({"path": path, "mode": "0644"})).warnings
    assert warning.startswith("identities.default.sinks[0].mode: 0644 lets every user")
    (warning,) = use(with_sinks({"path": str(tmp_path / "no" / "t")})).warnings
    assert "there is no folder" in warning


# ---- the token endpoint


@pytest.mark.parametrize(
    "address", ["0.0.0.0:9095", "10.0.0.1:9095", "[::]:9095", "gateway.example:9095"]
)
def test_the_token_endpoint_is_refused_where_other_machines_reach_it(address: str) -> None:
    """Whoever reaches it has the token."""
    (problem,) = problems_of(GOOD | {"token_listen": address})

    assert problem.startswith(f"token_listen: '{address}' can be reached from other machines")


@pytest.mark.parametrize("key", ["listen", "admin_listen"])
def test_the_token_endpoint_has_an_address_of_its_own(key: str) -> None:
    """The other listeners hand out no token."""
    (problem,) = problems_of(GOOD | {"token_listen": "127.0.0.1:7", key: "127.0.0.1:7"})

    assert problem.startswith("token_listen: 127.0.0.1:7 is another listener's")


def test_a_token_endpoint_that_many_can_ask_is_warned_about() -> None:
    """A socket file says who may; TCP does not."""
    sock = {"token_listen": "unix:/run/t.sock"}

    assert use(GOOD | sock).settings.token_listen_mode == "0600"
    assert use(GOOD | sock).warnings == ()
    (warning,) = use(GOOD | {"token_listen": "localhost:7"}).warnings
    assert warning.startswith("token_listen: every process")
    (warning,) = use(GOOD | sock | {"token_listen_mode": "0666"}).warnings
    assert warning.startswith("token_listen_mode: 0666 lets every user")


PROXY = {"url": "http://proxy.internal:3128"}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            service(url="http://models.example/v1", egress_proxy=PROXY),
            "services.iris.egress_proxy: the proxy would see what is sent, because url is plain",
        ),
        (
            service(egress_proxy={"url": "https://proxy.internal"}),
            "services.iris.egress_proxy.url: 'https://proxy.internal' is not a proxy; use http",
        ),
        (
            service(egress_proxy={"url": "http://user:word@proxy.internal"}),
            "services.iris.egress_proxy.url: holds user information (@), not shown here",
        ),
        (
            service(egress_proxy={"username": "a"}),
            "services.iris.egress_proxy.url: required with egress_proxy",
        ),
        (
            service(egress_proxy=PROXY | {"username": "a"}),
            "services.iris.egress_proxy.password_file: required with username",
        ),
        (
            GOOD | {"identities": {"default": {"method": "none", "egress_proxy": PROXY}}},
            "identities.default.egress_proxy: makes no sense with method none",
        ),
    ],
)
def test_what_a_proxy_must_not_see_or_lacks_is_refused(given: Any, problem: str) -> None:
    """A token in plain text, most of all."""
    assert [found for found in problems_of(given) if found.startswith(problem)]


def test_a_plain_login_through_a_proxy_is_refused(write: Write) -> None:
    """It would show the password."""
    identity = {
        "auth_url": "http://iam.example/v3", "username": "u", "user_domain": "d", "project": "p",
        "password": "x", "egress_proxy": PROXY,
    }  # fmt: skip
    found = problems_of(GOOD | {"identities": {"default": identity}})

    assert any("because auth_url is plain http" in problem for problem in found)


# ---- the fleet


def with_fleet(tmp_path: Path, **keys: Any) -> dict[str, Any]:
    """Return settings with a fleet; its files exist."""
    (tmp_path / "key").write_text("x")
    (tmp_path / "password").write_text("x")
    return GOOD | {"fleet": {"key_file": str(tmp_path / "key"), **keys}}


@pytest.mark.parametrize(
    ("url", "shown_as"),
    [
        ("rediss://redis.internal", "rediss://redis.internal:6379/0"),
        ("rediss://redis.internal:6380/3", "rediss://redis.internal:6380/3"),
        ("redis://127.0.0.1:7/", "redis://127.0.0.1:7/0"),
        ("redis://[::1]:7/2", "redis://[::1]:7/2"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock?db=0"),
        ("unix:///run/redis.sock?db=4", "unix:///run/redis.sock?db=4"),
    ],
)
def test_a_fleet_names_one_redis(tmp_path: Path, url: str, shown_as: str) -> None:
    """By TLS, or on this machine."""
    loaded = use(with_fleet(tmp_path, url=url))

    assert loaded.settings.fleet is not None
    assert str(loaded.settings.fleet.url) == shown_as
    assert loaded.settings.fleet.prefix == "gw:"
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://redis.internal:6379", "to another machine shows the password"),
        ("redis+sentinel://a:1,b:2/primary", "Sentinel and Cluster are not supported"),
        ("rediss-cluster://hunter2@a:1", "Sentinel and Cluster are not supported"),
        ("rediss://a:1,b:2", "Sentinel and Cluster are not supported"),
        ("http://hunter2@redis", "not the URL of a Redis"),
        ("rediss://:hunter2@redis:99999", "not the URL of a Redis"),
        ("rediss://redis/zero", "not the URL of a Redis"),
        ("rediss://redis/0?password=hunter2", "not the URL of a Redis"),
    ],
)
def test_other_urls_are_refused_unseen(tmp_path: Path, url: str, problem: str) -> None:
    """With a sentence, and never with what may be a password."""
    (found,) = problems_of(with_fleet(tmp_path, url=url))

    assert found.startswith("fleet.url: ")
    assert problem in found
    assert "hunter2" not in found


def test_a_password_in_the_url_is_warned_about_and_never_shown(tmp_path: Path) -> None:
    """Nor is the user's name."""
    loaded = use(with_fleet(tmp_path, url="rediss://ann:hunter2@redis.internal"))

    (warning,) = loaded.warnings
    assert warning.startswith("fleet.url: holds a password")
    assert "hunter2" not in warning + str(loaded.settings) + str(loaded.settings.model_dump())
    twice = with_fleet(
        tmp_path, url="rediss://:hunter2@r", password_file=str(tmp_path / "password")
    )
    (problem,) = problems_of(twice)
    assert problem.startswith("fleet.password_file: the URL holds a password too")


def test_tls_is_for_rediss_alone(tmp_path: Path) -> None:
    """Elsewhere it would have no effect."""
    (problem,) = problems_of(with_fleet(tmp_path, url="redis://localhost", tls={"verify": False}))

    assert problem.startswith("fleet.tls: makes sense with rediss:// only")


# ---- TLS for callers


def test_who_may_call_needs_somebody_who_vouches(tmp_path: Path) -> None:
    """A list of names without an authority would be a list that anybody is on."""
    (tmp_path / "pem").touch()
    pem = str(tmp_path / "pem")
    tls = {"cert_file": pem, "allowed_clients": "a,b"}

    (problem,) = problems_of(GOOD | {"listen_tls": tls})
    assert problem.startswith("listen_tls.client_ca_file: required with allowed_clients")
    (problem,) = problems_of(
        GOOD | {"listen": "unix:/run/g.sock", "listen_tls": {"cert_file": pem}}
    )
    assert problem.startswith("listen_tls: makes no sense on a socket file")


def test_a_listener_that_others_reach_is_warned_about_unless_callers_are_known(
    tmp_path: Path,
) -> None:
    """TLS alone does not say who calls."""
    (tmp_path / "pem").touch()
    pem = str(tmp_path / "pem")
    open_to_all = GOOD | {"listen": "0.0.0.0:8443"}

    for tls in (None, {"cert_file": pem}):
        (warning,) = use(open_to_all | {"listen_tls": tls}).warnings
        assert warning.startswith("listen: 0.0.0.0:8443 can be reached from other machines")
    tls = {"cert_file": pem, "client_ca_file": pem}
    assert use(open_to_all | {"listen_tls": tls}).warnings == ()


def test_a_socket_file_is_not_shared() -> None:
    """The kernel shares out connections to TCP ports only."""
    (problem,) = problems_of(GOOD | {"listen": "unix:/run/g.sock", "reuse_port": True})

    assert problem.startswith("reuse_port: makes no sense on a socket file")
