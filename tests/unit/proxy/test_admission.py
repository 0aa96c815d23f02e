"""Whatever is asked for, it is refused or becomes one request that can be read in one way only.

What is admitted and what is not, row by row, is in `test_routes` and the hostile rows.
"""

from collections.abc import Callable
from functools import partial
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import DownstreamError
from gateway.http.host import AllowedHosts
from gateway.http.request import Request as InboundRequest
from gateway.proxy.admission import Rules, admit
from gateway.proxy.service import RouteTable
from tests.programs.fuzz.cases import request_case
from tests.programs.fuzz.gateway import TOKEN
from tests.programs.fuzz.oracles import Place, judge_forwarded, judge_head
from tests.programs.fuzz.strict import Request, read_request, read_requests
from tests.unit.proxy.test_routes import read, service

_PLACE = Place("a", 9)
_METHODS = "GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS"
_SERVICE = service("aaaa", b"/v1/infers/aaa", methods=_METHODS, max_body=10**6)
_RULES = Rules(RouteTable((_SERVICE,)), AllowedHosts([]))
_CREDENTIAL = b"X-Auth-Token: " + TOKEN + b"\r\n"

_PARTS = st.sampled_from(
    [
        b"/aaaa", b"/v1/infers/aaa", b"/", b"//", b".", b"..", b"%2e", b"%252e", b"%2f", b"%5c",
        b"\\",
        b";", b"%3b", b"?", b"#", b"%23", b"%00", b"%0d%0a", b"%", b"%c0%ae", b"a", b"@", b":",
        b"\xff",
        b" ", b"\t", b"%20", b"*", b"http://", b"\r\n", b"\x00",
    ]
)  # fmt: skip
_TARGETS = st.lists(_PARTS, max_size=8).map(b"".join)
_FIELDS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                b"Host", b"X-Auth-Token", b"x_auth_token", b"Connection", b"Content-Length",
                b"Cookie",
                b"Transfer-Encoding", b"Expect", b"TE", b"X-Own", b"X-Forwarded-For", b"Upgrade",
                b"Origin", b"Sec-Fetch-Site", b"Authorization", b"Proxy-X", b"X-Roles",
            ]
        ),
        st.sampled_from(
            [
                b"localhost", b"0", b"chunked", b"x-own", b"X-Auth-Token, Host", b"100-continue",
                b"stolen", b"", b"none", b"Content-Length", b"\xff", b"+1", b"close",
            ]
        ),
    ),
    max_size=8,
)  # fmt: skip


def forwarded(inbound: Callable[[], InboundRequest], body: bytes) -> Request | None:
    """Return the request that the service would see, as a strict reader takes it."""
    try:
        admission = admit(_RULES, inbound())
    except DownstreamError:
        return None
    head = admission.upstream_head + _CREDENTIAL + b"\r\n"
    head = head.replace(b"Host: service.example\r\n", b"Host: 127.0.0.1:9\r\n")
    framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    sent = head + (framed if admission.head.chunked else body)
    request, end = read_request(sent, from_caller=False)
    assert end == len(sent)
    return request


@given(_TARGETS, _FIELDS, st.sampled_from(_METHODS.split(",")), st.sampled_from(["1.1", "1.0"]))
def test_any_target_and_fields_become_one_safe_head_or_none(
    target: bytes, fields: list[tuple[bytes, bytes]], method: str, version: str
) -> None:
    """Confined, with one Host, one token, one framing at most, and nothing that must stay here."""
    host = [] if any(name == b"Host" for name, _ in fields) else [(b"Host", b"localhost")]
    request = forwarded(partial(read, method, target, version, [*host, *fields]), b"")

    if request is not None:
        assert list(judge_head(_PLACE, request.target, request.fields)) == []
        assert request.target == _PLACE.target_of(target)


@given(st.randoms(use_true_random=False))
def test_what_a_strict_reader_takes_is_forwarded_as_it_was_or_refused(random: Random) -> None:
    """Valid requests, changed at random: method, target, body and own fields are untouched."""
    stream = _PLACE.here(b"".join(request_case(random).pieces))
    for sent in read_requests(stream)[0]:
        version = "1.0" if sent.old else "1.1"
        inbound = partial(read, sent.method.decode(), sent.target, version, sent.fields)
        seen = forwarded(inbound, sent.body)
        assert seen is None or list(judge_forwarded(_PLACE, seen, sent)) == []
