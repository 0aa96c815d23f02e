"""Addresses to listen on, URLs of services and IAM, hosts and origins."""

from typing import Any

import pytest

from gateway.settings import (
    Identity,
    ListenAddress,
    Service,
    addresses,
)
from tests.unit.settings.given import GOOD, problems_of, use


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
