"""Which Host values are ours."""

from ipaddress import ip_address
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import DownstreamError, ErrorCode
from gateway.http.host import AllowedHosts

OURS = ["gateway.internal", "[fd00::1]", "10.0.0.7"]


def verdict(host: bytes, names: list[str] = OURS) -> ErrorCode | None:
    """Return why `host` is refused, asking twice: what is remembered changes nothing."""
    hosts = AllowedHosts(names)
    verdicts: list[ErrorCode | None] = []
    for _ in range(2):
        try:
            hosts.admit(host)
            verdicts.append(None)
        except DownstreamError as error:
            verdicts.append(error.code)
    first, second = verdicts
    assert first is second
    return first


@pytest.mark.parametrize(
    "host",
    [
        b"localhost", b"LOCALHOST:8080", b"127.0.0.1", b"127.255.0.9:1", b"[::1]", b"[::1]:65535",
        b"gateway.internal", b"Gateway.Internal:80", b"[FD00::1]:80", b"10.0.0.7",
    ],
)  # fmt: skip
def test_loopback_and_configured_names_are_admitted(host: bytes) -> None:
    """In any case, with any port."""
    assert verdict(host) is None


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example", b"localhost.evil.example", b"127.0.0.1.evil.example", b"xlocalhost",
        b"localhostx", b"128.0.0.1", b"[::2]", b"gateway.internal.", b"gatewayxinternal",
        b"localhost.", b"0.0.0.0", b"127.1", b"2130706433", b"10.0.0.70", b"*", b"127.0.0.256",
        b"127.999.1.1", b"127.00.0.1", b"127.0.0.01", b"127.0.0.0.1", b"1127.0.0.1",
    ],
)  # fmt: skip
def test_other_names_are_somebody_elses(host: bytes) -> None:
    """A name that was rebound to loopback is not a name of ours."""
    assert verdict(host) in {ErrorCode.WRONG_HOST, ErrorCode.BAD_REQUEST}
    assert verdict(host) is (ErrorCode.BAD_REQUEST if host == b"*" else ErrorCode.WRONG_HOST)


@pytest.mark.parametrize(
    "host",
    [
        b"", b":80", b"localhost:", b"localhost:x", b"localhost:123456", b"user@localhost",
        b"localhost,evil.example", b"localhost evil", b"local%68ost", b"[::1%25lo]", b"::1",
        b"localhost/", b"localhost\x00", b"localhost\n", b"lo\xffcal", b"[::1", b"localhost:80:80",
        b"localhost:65536", b"[::1]:99999",
    ],
)  # fmt: skip
@pytest.mark.parametrize("names", [OURS, ["*"]])
def test_malformed_values_are_refused_even_by_star(host: bytes, names: list[str]) -> None:
    """`*` admits every name, and still no user information, lists, zones or odd octets."""
    assert verdict(host, names) is ErrorCode.BAD_REQUEST


def test_star_admits_every_name() -> None:
    """For those who have another guard."""
    assert verdict(b"evil.example:80", ["*"]) is None


@pytest.mark.parametrize(
    ("host", "good"),
    [
        (b"10.0.0.7", True), (b"10.200.3.4:9090", True), (b"[fd00::2]:9090", True),
        (b"0.0.0.0", True), (b"10.0.0.7.evil.example", False), (b"x10.0.0.7", False),
        (b"10.0.0", False), (b"1000.0.0.7", False), (b"evil.example", False),
    ],
)  # fmt: skip
def test_addresses_are_admitted_where_they_are_enough(host: bytes, good: bool) -> None:
    """A page that rebinds has a name, whatever it looks like."""
    hosts = AllowedHosts([], addresses=True)
    if good:
        hosts.admit(host)
    else:
        with pytest.raises(DownstreamError):
            hosts.admit(host)


@given(st.binary(max_size=40))
def test_arbitrary_octets_are_judged(host: bytes) -> None:
    """Nothing but our own two errors comes out."""
    assert verdict(host) in {None, ErrorCode.BAD_REQUEST, ErrorCode.WRONG_HOST}


_PARTS = st.sampled_from(
    [
        b"localhost", b"LocalHost", b"127", b"0", b"1", b"255", b"256", b"00", b".", b":", b"::1",
        b"[",
        b"]", b"80", b"65535", b"65536", b"@", b"evil", b",", b" ", b"%", b"/", b"10.0.0.7",
        b"gateway.internal", b"[::1]", b"[fd00::1]", b"127.0.0.1", b"x",
    ]
)  # fmt: skip


@given(st.lists(_PARTS, max_size=8).map(b"".join))
def test_what_is_admitted_is_ours_to_another_reader(host: bytes) -> None:
    """Read by the standard library: a loopback address or name, or a configured one; any port."""
    if verdict(host) is None:
        parts = urlsplit("http://" + host.decode())
        assert parts.username is None
        assert parts.port is None or parts.port <= 65535
        name = parts.hostname or ""
        own = {"localhost", "gateway.internal", "fd00::1", "10.0.0.7"}
        assert name in own or ip_address(name).is_loopback


def test_memory_is_bounded() -> None:
    """A caller that varies the port makes nothing grow beyond 64 values."""
    hosts = AllowedHosts([])
    for port in range(1000):
        hosts.admit(b"localhost:%d" % port)

    assert len(hosts._admitted) == 64
