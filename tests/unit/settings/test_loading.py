"""Which layer wins: flags, environment, file, defaults."""

import re
import subprocess
import sys

from gateway.settings import (
    Settings,
    load,
)
from gateway.settings.environment import leaf_keys
from tests.unit.settings.given import GOOD, URL, Write, use


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


def test_sections_are_built_as_parts_of_the_whole_alone() -> None:
    """Built as wholes of their own, too, they take another MiB."""
    code = "from gateway.settings.models import Service, Settings; "
    code += f"Settings.model_validate({GOOD!r}); "
    code += "assert Settings.__pydantic_complete__; assert not Service.__pydantic_complete__"

    subprocess.run([sys.executable, "-c", code], check=True)
