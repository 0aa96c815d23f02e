"""What is allowed, but worth a warning."""

from typing import Any

import pytest

from gateway.settings import (
    load,
)
from tests.unit.settings.given import ANONYMOUS, GOOD, Write, identity, problems_of, service, use


@pytest.mark.parametrize(
    ("data", "warning"),
    [
        (GOOD | {"listen": "0.0.0.0:8080"}, "listen: 0.0.0.0:8080 can be reached"),
        (
            service(tls={"verify": False}),
            "services.iris.tls.verify: false; any machine that answers as",
        ),
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
