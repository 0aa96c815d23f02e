"""The way through an egress proxy."""

from typing import Any

import pytest

from tests.unit.settings.given import GOOD, Write, problems_of, service

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
