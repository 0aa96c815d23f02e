"""Which service a path belongs to, and what is admitted."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import DownstreamError, ErrorCode
from gateway.http.host import AllowedHosts
from gateway.http.request import Request
from gateway.http.request_reader import RequestReader
from gateway.observe.service_metrics import ServiceMetrics
from gateway.proxy.admission import RefusedByServiceError, Rules, admit
from gateway.proxy.service import RouteTable, Service, sharing_a_path
from gateway.upstream.opener import Origin
from gateway.upstream.pool import Pool
from tests.support.gateway import FakeCredentials


def service(name: str, path: bytes, *, methods: str = "POST", max_body: int = 10) -> Service:
    """A service that nobody connects to."""
    return Service(
        name=name,
        path=path,
        origin=b"https://service.example",
        host_line=b"Host: service.example",
        methods=frozenset(methods.split(",")),
        max_body_bytes=max_body,
        replay_bytes=0,
        first_byte_s=1,
        first_chunk_s=1,
        idle_s=1,
        websocket=False,
        max_in_flight=1,
        credentials=FakeCredentials(),
        pool=Pool(Origin(host="127.0.0.1", port=1), clock=lambda: 0.0),
        metrics=ServiceMetrics(name, ["POST"], []),
    )


A = service("a", b"/v1/infers/1")
AB = service("ab", b"/v1/infers/1/deeper")
ROOT = service("root", b"")


def found(table: RouteTable, path: bytes) -> tuple[str, bytes]:
    """Return name and path, or empty ones."""
    try:
        one, asked = table.find(path)
    except DownstreamError:
        return "", b""
    return one.name, asked


def test_what_belongs_to_nobody_is_unknown() -> None:
    """The caller hears that there is no such service."""
    with pytest.raises(DownstreamError) as caught:
        RouteTable((A,)).find(b"/x")

    assert caught.value.code is ErrorCode.UNKNOWN_SERVICE


@pytest.mark.parametrize(
    ("path", "name", "asked"),
    [
        (b"/a", "a", b"/v1/infers/1"),
        (b"/a/", "a", b"/v1/infers/1/"),
        (b"/a/x/y", "a", b"/v1/infers/1/x/y"),
        (b"/ab", "ab", b"/v1/infers/1/deeper"),
        (b"/v1/infers/1", "a", b"/v1/infers/1"),
        (b"/v1/infers/1/x", "a", b"/v1/infers/1/x"),
        (b"/v1/infers/1/deeper", "ab", b"/v1/infers/1/deeper"),
        (b"/v1/infers/1/deeper/x", "ab", b"/v1/infers/1/deeper/x"),
        (b"/v1/infers/1/deepe", "a", b"/v1/infers/1/deepe"),
        (b"/v1/infers/1/deeperx", "a", b"/v1/infers/1/deeperx"),
        (b"/v1/infers/12", "", b""),
        (b"/a" + b"/x" * 4000, "a", b"/v1/infers/1" + b"/x" * 4000),
        (b"/x" * 4000, "", b""),
        (b"/abc", "", b""),
        (b"/A", "", b""),
        (b"/%61", "", b""),
        (b"/", "", b""),
    ],
)
def test_the_longest_prefix_at_a_slash_wins(path: bytes, name: str, asked: bytes) -> None:
    """Whatever order the services are in."""
    assert found(RouteTable((A, AB)), path) == (name, asked)
    assert found(RouteTable((AB, A)), path) == (name, asked)


@pytest.mark.parametrize(
    ("path", "name", "asked"),
    [
        (b"/", "root", b"/"),
        (b"/root", "root", b"/"),
        (b"/root/x", "root", b"/x"),
        (b"/x/y", "root", b"/x/y"),
        (b"/a/x", "a", b"/v1/infers/1/x"),
        (b"/v1/infers/1", "a", b"/v1/infers/1"),
        (b"/v1/infers/2", "root", b"/v1/infers/2"),
    ],
)
def test_a_service_at_the_root_gets_what_nobody_else_has(
    path: bytes, name: str, asked: bytes
) -> None:
    """Its URL has no path, so every path is below it."""
    assert found(RouteTable((ROOT, A)), path) == (name, asked)


def test_a_shared_path_belongs_to_nobody() -> None:
    """Each of the two answers at its name only, and they are reported as a pair."""
    one, other, third = service("one", b"/p"), service("other", b"/p"), service("third", b"/q")
    table = RouteTable((one, other, third))

    assert found(table, b"/p") == ("", b"")
    assert found(table, b"/p/x") == ("", b"")
    assert found(table, b"/one/x") == ("one", b"/p/x")
    assert found(table, b"/other/x") == ("other", b"/p/x")
    assert found(table, b"/q/x") == ("third", b"/q/x")
    assert sharing_a_path([one, other, third]) == [(one, other)]


def test_a_name_wins_over_another_services_path() -> None:
    """`/b` is service b, though the URL of another has that path."""
    table = RouteTable((service("x", b"/b"), service("b", b"/c")))

    assert found(table, b"/b/y") == ("b", b"/c/y")


@given(st.lists(st.sampled_from([b"a", b"ab", b"v1", b"infers", b"1", b"deeper", b""]), max_size=6))
def test_what_is_found_is_below_the_services_path(parts: list[bytes]) -> None:
    """And the tail is a tail of what was asked."""
    path = b"/" + b"/".join(parts)
    table = RouteTable((A, AB))
    try:
        one, asked = table.find(path)
    except DownstreamError:
        return
    assert asked == one.path or asked.startswith(one.path + b"/")
    assert path.endswith(asked[len(one.path) :])


def test_finding_takes_as_long_among_many_services() -> None:
    """A look-up per slash of the path, whatever the number of services."""
    services = tuple(service(f"s{number}", b"/v1/%d" % number) for number in range(100))

    assert found(RouteTable(services), b"/s99/a/b") == ("s99", b"/v1/99/a/b")
    assert found(RouteTable(services), b"/v1/7/a") == ("s7", b"/v1/7/a")


# Admission.

RULES = Rules(RouteTable((A, AB)), AllowedHosts([]))
HOST = (b"Host", b"localhost")


def inbound(
    target: bytes = b"/a", *fields: tuple[bytes, bytes], method: str = "POST", version: str = "1.1"
) -> Request:
    """A request with Host, as the reader reads it."""
    return read(method, target, version, (HOST, *fields))


def read(
    method: str, target: bytes, version: str, fields: Iterable[tuple[bytes, bytes]]
) -> Request:
    """Return the request whose head says so.

    Raises:
        DownstreamError: the reader refuses it.
    """
    start = b"%b %b HTTP/%b" % (method.encode(), target, version.encode())
    lines = [start, *(b"%b: %b" % field for field in fields)]
    reader = RequestReader()
    reader.feed(b"\r\n".join(lines) + b"\r\n\r\n")
    if reader.refusal is not None:
        raise reader.refusal
    assert reader.request is not None
    return reader.request


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (inbound(version="2.0"), ErrorCode.VERSION_NOT_SUPPORTED),
        (inbound(version="0.9"), ErrorCode.VERSION_NOT_SUPPORTED),
        (inbound(b"/a", (b"Origin", b"https://x")), ErrorCode.BROWSER_REFUSED),
        (inbound(b"/a", (b"Sec-Fetch-Site", b"cross-site")), ErrorCode.BROWSER_REFUSED),
        (inbound(b"/a", (b"Sec-Fetch-Site", b"same-site")), ErrorCode.BROWSER_REFUSED),
        (inbound(b"/nobody"), ErrorCode.UNKNOWN_SERVICE),
        (inbound(b"/a/../ab"), ErrorCode.BAD_TARGET),
        (inbound(method="GET"), ErrorCode.METHOD_NOT_ALLOWED),
        (inbound(b"/a", (b"Content-Length", b"11")), ErrorCode.BODY_TOO_LARGE),
    ],
)
def test_what_is_not_admitted(request_: Request, code: ErrorCode) -> None:
    """And by whose rule: what a service refuses is counted as its own."""
    with pytest.raises(DownstreamError) as caught:
        admit(RULES, request_)

    assert caught.value.code is code
    assert isinstance(caught.value, RefusedByServiceError) == (
        code in {ErrorCode.METHOD_NOT_ALLOWED, ErrorCode.BODY_TOO_LARGE}
    )


@pytest.mark.parametrize("site", [b"none", b"same-origin", b"None"])
def test_a_person_or_our_own_page_may_call(site: bytes) -> None:
    """Typing the address is not what a web page does."""
    assert admit(RULES, inbound(b"/a", (b"Sec-Fetch-Site", site))).service is A


@pytest.mark.parametrize("target", [b"/a", b"/a?x=/../y", b"/v1/infers/1?q", b"/a/x%20y?"])
def test_target_of_the_request_that_is_sent(target: bytes) -> None:
    """The service's path for the prefix, the rest as it came."""
    admission = admit(RULES, inbound(target, (b"Content-Length", b"10")))
    head = admission.upstream_head

    tail = target.removeprefix(b"/a").removeprefix(b"/v1/infers/1")
    assert head == (
        b"POST /v1/infers/1" + tail + b" HTTP/1.1\r\nHost: service.example\r\n"
        b"Content-Length: 10\r\nVia: 1.1 modelarts-gateway\r\n"
    )


def test_the_head_without_a_body_and_with_chunks() -> None:
    """No framing is invented where there was none, and one only where there was one."""
    bare = admit(RULES, inbound()).upstream_head
    fields = ((b"A", b"1"), (b"Transfer-Encoding", b"chunked"))
    chunked = admit(RULES, inbound(b"/a", *fields)).upstream_head

    assert bare == (
        b"POST /v1/infers/1 HTTP/1.1\r\nHost: service.example\r\nVia: 1.1 modelarts-gateway\r\n"
    )
    assert chunked == (
        b"POST /v1/infers/1 HTTP/1.1\r\nHost: service.example\r\nA: 1\r\n"
        b"Transfer-Encoding: chunked\r\nVia: 1.1 modelarts-gateway\r\n"
    )


def test_what_was_found_is_remembered_within_bounds() -> None:
    """Callers may ask for as many paths as they like, and as long ones."""
    table = RouteTable((A,))
    path = A.path + b"/predict"
    assert table.find(path) == table.find(path) == table._found[path]

    for number in range(10_000):
        assert found(table, A.path + b"/%d" % number) == (A.name, A.path + b"/%d" % number)
    table.find(A.path + b"/" + b"x" * 4096)

    assert len(table._found) <= 256
    assert max(map(len, table._found)) <= 128
