"""Every problem at once: what was wrong, and what is allowed."""

from typing import Any

import pytest
import yaml

from gateway.settings.identity import LOGIN_KEYS
from tests.unit.settings.given import ANONYMOUS, GOOD, URL, Write, identity, problems_of, service


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
                "allowed_origins, drain, limits, quitquitquit, state_dir, "
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
