"""Variables: ours, OpenStack's, and those that are nobody's."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.settings import (
    load,
)
from gateway.settings.environment import find_log_level
from tests.unit.settings.given import GOOD, URL, Write, identity, problems_of, problems_or_none, use

OPENSTACK = {
    "OS_AUTH_URL": "https://iam.example/v3",
    "OS_USERNAME": "infer",
    "OS_PASSWORD": "hunter2",
    "OS_USER_DOMAIN_NAME": "account",
    "OS_PROJECT_NAME": "region",
}


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


def test_without_variables_their_library_is_not_loaded() -> None:
    """It costs every start a tenth of a second, and the process a MiB for as long as it lives."""
    code = "import sys; from gateway.settings import load; "
    code += f"load(file=None, environ={{}}, flags={GOOD!r}); "
    code += "sys.exit('pydantic_settings' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
