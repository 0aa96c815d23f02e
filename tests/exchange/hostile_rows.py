"""The rows of `test_hostile`: bytes a caller may send, and what must come of them."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.support.upstream import Request

HOST = b"Host: localhost\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@dataclass(frozen=True)
class Row:
    """One attack, or a legal request that looks like one."""

    name: str
    sent: bytes
    statuses: tuple[int, ...]
    """Of the answers, in order; empty when the connection just ends."""
    forwarded: int = 0
    """How many whole requests the upstream sees."""
    closes: bool = True
    """Whether the last answer ends the connection."""
    check: Callable[[Request], bool] = lambda _request: True
    """Holds for each request that the upstream sees whole."""
    ends: bool = False
    """The caller closes its side after sending: only then it is clear that nothing follows."""


def post(
    *fields: bytes,
    target: bytes = b"/iris/p",
    body: bytes = b"{}",
    method: bytes = b"POST",
    version: bytes = b"HTTP/1.1",
    host: bytes = HOST,
    length: bool = True,
) -> bytes:
    """Return a request with `fields` as they stand."""
    lines = b"".join(field + b"\r\n" for field in fields)
    framing = b"Content-Length: %d\r\n" % len(body) if length else b""
    return b"%b %b %b\r\n%b%b%b\r\n%b" % (method, target, version, host, lines, framing, body)


def chunked(body: bytes, *fields: bytes) -> bytes:
    """Return a chunked request whose body is as it stands, framing included."""
    return post(*fields, b"Transfer-Encoding: chunked", body=body, length=False)


def get(target: bytes, *fields: bytes) -> bytes:
    return post(*fields, target=target, body=b"", method=b"GET", length=False)


def refused(name: str, sent: bytes, status: int = 400, *, closes: bool = True) -> Row:
    return Row(name, sent, (status,), closes=closes)


def passes(
    name: str,
    sent: bytes,
    check: Callable[[Request], bool] = lambda _request: True,
    *,
    closes: bool = False,
) -> Row:
    return Row(name, sent, (200,), forwarded=1, closes=closes, check=check)


def _content_is(content: bytes) -> Callable[[Request], bool]:
    return lambda request: request.content == content


def _target_is(target: bytes) -> Callable[[Request], bool]:
    return lambda request: request.target == target


def _has(name: bytes, *values: bytes) -> Callable[[Request], bool]:
    return lambda request: request.values(name) == list(values)


FRAMING = [
    refused("CL and TE", post(b"Content-Length: 2", CHUNKED[:-2], body=b"0\r\n\r\n", length=False)),
    refused("TE and CL", post(CHUNKED[:-2], b"Content-Length: 2", body=b"0\r\n\r\n", length=False)),
    refused("two equal CL", post(b"Content-Length: 2")),
    refused("two different CL", post(b"Content-Length: 3")),
    *(
        refused(f"CL {value!r}", post(b"Content-Length: " + value, length=False))
        for value in (
            b"2, 2",
            b"+2",
            b"-2",
            b"0x2",
            b"",
            b"2 2",
            b"2_0",
            b"2.0",
            b"2;",
            b"\xef\xbc\x92",
            b"99999999999999999999",
            b"18446744073709551618",
            b"9999999999999999",
            b"2\x0b",
            b"-0",
            b"2e0",
            b"2,",
            b'"2"',
            b"\xd9\xa2",
            b"00000000000000000002",
        )
    ),
    *(
        refused(
            f"TE {value!r}",
            post(b"Transfer-Encoding: " + value, body=b"0\r\n\r\n", length=False),
        )
        for value in (
            b"xchunked",
            b"chunked, chunked",
            b"chunked, identity",
            b"gzip, chunked",
            b"gzip",
            b"identity",
            b"",
            b",chunked",
            b"chunked,",
            b"\x0bchunked",
            b"chunked\x0b",
            b"chunked;q=1",
            b'"chunked"',
            b"\x00chunked",
            b"c\xc2\xadhunked",
            b"chunked\xa0",
            b"\xa0chunked",
            b"chun ked",
            b"trailers",
            b"'chunked'",
            b"chunked\t,",
            b"chunked\t",
            b"chunked \t ",
            b"identity, chunked",
        )
    ),
    refused("two TE", chunked(b"0\r\n\r\n", b"Transfer-Encoding: chunked")),
    refused("TE, then identity", chunked(b"0\r\n\r\n", b"Transfer-Encoding: identity")),
    refused("TE with a space before the colon", post(b"Transfer-Encoding : chunked")),
    refused("TE with a tab before the colon", post(b"Transfer-Encoding\t: chunked")),
    refused("TE behind a bare CR", post(b"X: y\rTransfer-Encoding: chunked")),
    refused("CL behind a NUL", post(b"\x00Content-Length: 2", length=False)),
    refused("empty TE and CL", post(b"Transfer-Encoding:")),
    refused("TE folded", post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n", length=False)),
    refused(
        "TE on HTTP/1.0",
        post(CHUNKED[:-2], version=b"HTTP/1.0", body=b"0\r\n\r\n", length=False),
    ),
    *(
        refused(f"chunk {body!r}", chunked(body))
        for body in (
            b"+2\r\n{}\r\n0\r\n\r\n",
            b"-2\r\n{}\r\n0\r\n\r\n",
            b"0x2\r\n{}\r\n0\r\n\r\n",
            b" 2\r\n{}\r\n0\r\n\r\n",
            b"2 \r\n{}\r\n0\r\n\r\n",
            b"\r\n{}\r\n0\r\n\r\n",
            b"g\r\n{}\r\n0\r\n\r\n",
            b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
            b"10000000000000002\r\n{}\r\n0\r\n\r\n",
            b"2;a=\n\r\n{}\r\n0\r\n\r\n",
            b"2;a=\r\r\n{}\r\n0\r\n\r\n",
            b"2;a\nb\r\n{}\r\n0\r\n\r\n",
            b"2;a\x00\r\n{}\r\n0\r\n\r\n",
            b"2;a\x7f\r\n{}\r\n0\r\n\r\n",
            b'2;a="\r\n"\r\n{}\r\n0\r\n\r\n',
            b"2;\r\n{}\r\n0\r\n\r\n",
            b"2\r\r\n{}\r\n0\r\n\r\n",
            b"2\r\n{}\r\n\r\n0\r\n\r\n",
            b"2\r\n{}\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
            b"2\r\n{}\r\n0\r\nX: a\nY: b\r\n\r\n",
            b"2\r\n{}\r\n0\r\n X: a\r\n\r\n",
            b"2\n{}\r\n0\r\n\r\n",
            b"2\r{}\r\n0\r\n\r\n",
            b"2\r\n{}0\r\n\r\n",
            b"2\r\n{}x\r\n0\r\n\r\n",
            b"2\r\n{}\n0\r\n\r\n",
            b"2\r\n{}\r\n0\n\n",
            b"2\r\n{}\r\n0\r\nX : y\r\n\r\n",
            b"2\r\n{}\r\n0\r\nX: a\x00b\r\n\r\n",
            b"2\r\n{}\r\n0\r\nX: a\r\n b\r\n\r\n",
        )
    ),
    refused("obs-fold", post(b"X: a\r\n b")),
    refused("obs-fold with a tab", post(b"X: a\r\n\tb")),
    refused("obs-fold of the first field", b"POST /iris HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n"),
    refused("bare LF everywhere", post().replace(b"\r\n", b"\n")),
    refused("bare LF after the request line", post().replace(b"\r\n", b"\n", 1)),
    refused("bare LF after a field", post(b"X: a\nY: b")),
    refused("bare LF to end the head", b"GET /iris HTTP/1.1\r\n" + HOST + b"\n"),
    refused("bare CR in a value", post(b"X: a\rb")),
    refused("CR CR LF", post(b"X: a\r")),
    refused("NUL in a value", post(b"X: a\x00b")),
    refused("control octet in a value", post(b"X: a\x01b")),
    refused("DEL in a value", post(b"X: a\x7fb")),
    refused("escape in a value", post(b"X: a\x1bb")),
    refused("NUL in a name", post(b"X\x00Y: a")),
    refused("8-bit name", post(b"X\xff: a")),
    refused("space before the colon", post(b"X : a")),
    refused("tab before the colon", post(b"X\t: a")),
    refused("space in a name", post(b"X Y: a")),
    refused("empty name", post(b": a")),
    refused("field without colon", post(b"X")),
    refused("separator in a name", post(b"X(Y): a")),
    refused("white space for a field", post(b" ")),
    refused("a colon for a field", post(b":")),
    refused("vertical tab in a value", post(b"X: a\x0bb")),
    refused("form feed in a value", post(b"X: a\x0cb")),
    refused("CR CR LF to end the head", get(b"/iris")[:-2] + b"\r\r\n"),
    refused("LF CR to end the head", get(b"/iris")[:-2] + b"\n\r"),
    *(
        refused(f"{octet!r} in a name", post(b"X" + octet + b"Y: a"))
        for octet in (b"/", b"@", b"=", b"\\", b",", b"?", b"[", b"{", b'"', b"\x7f", b"\xc2\xa0")
    ),
    refused("byte order mark first", b"\xef\xbb\xbf" + post(), 501),
    refused("space first", b" " + post(), 501),
    refused("PROXY line first", b"PROXY TCP4 10.0.0.1 10.0.0.1 1 2\r\n" + post(), 501),
    refused("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Row("HTTP/0.9", b"GET /iris\r\n", (400,), ends=True),
    refused("HTTP/0.9 with fields", b"GET /iris\r\n" + HOST + b"\r\n", 505),
    refused("version 0.9", get(b"/iris").replace(b"HTTP/1.1", b"HTTP/0.9"), 505),
    refused("version 2.0", get(b"/iris").replace(b"HTTP/1.1", b"HTTP/2.0"), 505),
    # A higher minor version is processed as ours (RFC 9110 section 2.5).
    passes("version 1.2", get(b"/iris").replace(b"HTTP/1.1", b"HTTP/1.2")),
    refused("version 3", get(b"/iris").replace(b"HTTP/1.1", b"HTTP/3")),
    refused("version 1.10", get(b"/iris").replace(b"HTTP/1.1", b"HTTP/1.10")),
    refused("version 01.1", get(b"/iris").replace(b"HTTP/1.1", b"HTTP/01.1")),
    refused("lower-case version", get(b"/iris").replace(b"HTTP/1.1", b"http/1.1")),
    *(
        refused(f"version {version!r}", get(b"/iris").replace(b"HTTP/1.1", version))
        for version in (b"HTTP/1", b"HTTP/1.", b"HTTP/11", b"HTTP/1,1", b"HTTP/ 1.1", b"HTTP/+1.1",
                        b"HTTP/1.1x", b"HTTP/1.1\t", b"HTTPS/1.1", b"SIP/2.0", b"HTTP")
    ),
    refused("version 9.9", get(b"/iris").replace(b"HTTP/1.1", b"HTTP/9.9"), 505),
    refused("other protocol", get(b"/iris").replace(b"HTTP/1.1", b"ICE/1.0")),
    # Another protocol's name, and a request line that readers split in different ways.
    refused("RTSP 1.0", get(b"/iris").replace(b"HTTP/1.1", b"RTSP/1.0")),
    refused("RTSP 1.1", get(b"/iris").replace(b"HTTP/1.1", b"RTSP/1.1")),
    refused("two spaces behind the target", get(b"/iris").replace(b" HTTP", b"  HTTP")),
    refused("two spaces", get(b"/iris").replace(b"GET ", b"GET  ")),
    refused("space after the version", get(b"/iris").replace(b"1.1\r\n", b"1.1 \r\n", 1)),
    refused("tab for space", get(b"/iris").replace(b"GET ", b"GET\t"), 501),
    refused("word too many", get(b"/iris x")),
    passes("empty lines first", b"\r\n\r\n" + post()),
    passes("TE in capitals", post(b"tRANSFER-eNCODING: CHUNKED", body=b"0\r\n\r\n", length=False)),
    passes("TE with spaces before", chunked(b"0\r\n\r\n").replace(b": chunked", b": \t chunked")),
    passes("TE with spaces behind", chunked(b"0\r\n\r\n").replace(b": chunked", b": chunked ")),
    passes("CL with leading zeros", post(b"Content-Length: 002", length=False),
           _has(b"content-length", b"2")),
    passes("chunk extensions", chunked(b'2;a="b;c"\r\n{}\r\n0;d=e\r\n\r\n'), _content_is(b"{}")),
    # White space is allowed around the parts of an extension (RFC 9112 section 7.1.1).
    passes("space before a chunk extension", chunked(b"2 ;a\r\n{}\r\n0\r\n\r\n"),
           _content_is(b"{}")),
    passes("white space in chunk extensions",
           chunked(b'2; a \t=\t"b" ; c\r\n{}\r\n0 ; d= e\r\n\r\n'), _content_is(b"{}")),
]  # fmt: skip

BODY_TRICKS = [
    passes("GET with a body", post(method=b"GET"), _content_is(b"{}")),
    passes("HEAD with a body", post(method=b"HEAD"), _content_is(b"{}")),
    passes("GET whose body looks like a request", post(method=b"GET", body=post(body=b"stolen?")),
           _content_is(post(body=b"stolen?"))),
    passes("trailers", chunked(b"2\r\n{}\r\n0\r\nX-Auth-Token: stolen\r\nHost: x\r\n\r\n"),
           _content_is(b"{}")),
    passes("trailers that are hop-by-hop",
           chunked(b"2\r\n{}\r\n0\r\nConnection: close\r\nUpgrade: h2c\r\nHost: x\r\n\r\n"),
           _content_is(b"{}")),
    passes("150 trailers", chunked(b"2\r\n{}\r\n0\r\n" + b"X: stolen\r\n" * 150 + b"\r\n"),
           _content_is(b"{}")),
    Row("HEAD whose chunks are malformed", chunked(b"g\r\n").replace(b"POST", b"HEAD"), (400,)),
    Row("HEAD with too large a field",
        get(b"/iris", b"X: " + b"y" * 40000).replace(b"GET", b"HEAD"), (431,)),
    refused("Content-Length in trailers", chunked(b"2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n")),
    refused("Transfer-Encoding in trailers",
            chunked(b"2\r\n{}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n")),
    Row("request behind trailers",
        chunked(b"2\r\n{}\r\n0\r\nX-Leaked: stolen\r\n\r\n") + post(), (200, 200), forwarded=2,
        closes=False),
    Row("request behind a chunked one", chunked(b"2\r\n{}\r\n0\r\n\r\n") + post(), (200, 200),
        forwarded=2, closes=False),
    Row("body shorter than CL", post(b"Content-Length: 9", length=False), (), ends=True),
    Row("no body at all", post(b"Content-Length: 9", length=False, body=b""), (), ends=True),
    Row("chunked body cut in a chunk", chunked(b"5\r\n{}"), (), ends=True),
    Row("chunked body cut between chunks", chunked(b"2\r\n{}\r\n"), (), ends=True),
    Row("chunked body without its last empty line", chunked(b"2\r\n{}\r\n0\r\n"), (),
        ends=True),
    Row("body longer than CL", post() + b"stolen", (200, 501), forwarded=1),
    Row("body longer than CL, as a request", post() + b"GET /stolen HTTP/1.1\r\n\r\n", (200, 400),
        forwarded=1),
]  # fmt: skip

EXPECTATION = [
    passes("100-continue without waiting", post(b"Expect: 100-continue")),
    passes("100-Continue in capitals", post(b"Expect: 100-CONTINUE")),
    refused("unknown expectation on HTTP/1.0", post(b"Expect: other", version=b"HTTP/1.0"), 417),
    refused("unknown expectation", post(b"Expect: 200-maybe"), 417, closes=False),
    refused("two expectations", post(b"Expect: 100-continue, other"), 417, closes=False),
    refused("8-bit expectation", post(b"Expect: \xff\xfe"), 417, closes=False),
    passes("two fields of 100-continue", post(b"Expect: 100-continue", b"Expect: 100-continue")),
    passes("100-continue without a body", get(b"/iris", b"Expect: 100-continue")),
    *(
        refused(f"expectation {value!r}", post(b"Expect: " + value), 417, closes=False)
        for value in (b"100-continue, 100-continue", b"100-continue,", b"100-continue;q=1", b"100",
                      b'"100-continue"', b"stolen=1")
    ),
    refused("empty expectation", post(b"Expect:"), 417, closes=False),
    refused("refused before the body", post(b"Expect: 100-continue", b"Content-Length: 5",
                                            target=b"/nowhere", body=b"", length=False), 404),
]  # fmt: skip


def _offer_is_gone(request: Request) -> bool:
    names = {name.lower() for name, _ in request.fields}
    return not names & {b"upgrade", b"connection", b"http2-settings"}


UPGRADE = [
    # An offer to switch may be made to anybody, and is ignored (RFC 9110 section 7.8). These rows
    # once were refused, which no client of Java's `HttpClient` survived: it offers h2c by default.
    passes("h2c", get(b"/iris", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c",
                      b"HTTP2-Settings: AAMAAABkAAQAAP__"), _offer_is_gone),
    passes("h2c with a body", post(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c",
                                   b"HTTP2-Settings: AAMAAABkAAQAAP__"), _offer_is_gone),
    passes("upgrade not named by Connection", get(b"/iris", b"Upgrade: h2c"), _offer_is_gone),
    *(
        passes(f"upgrade to {value!r}",
               get(b"/iris", b"Connection: Upgrade", b"Upgrade: " + value), _offer_is_gone)
        for value in (b"H2C", b"TLS/1.2", b"HTTP/2.0", b"", b"stolen", b"h2c, TLS/1.2",
                      b"websocket/13", b"xwebsocket", b"h2c\r\nUpgrade: TLS/1.2")
    ),
    passes("upgrade on HTTP/1.0", get(b"/iris", b"Connection: upgrade", b"Upgrade: h2c")
           .replace(b"HTTP/1.1", b"HTTP/1.0"), _offer_is_gone, closes=True),
    passes("upgrade of a chunked request", chunked(b"0\r\n\r\n", b"Connection: upgrade",
                                                   b"Upgrade: h2c"), _offer_is_gone),
    # WebSocket is no offer but what the client is there for.
    refused("websocket", get(b"/iris", b"Connection: Upgrade", b"Upgrade: websocket",
                             b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
                             b"Sec-WebSocket-Version: 13")),
    refused("websocket and a request behind",
            get(b"/iris", b"Connection: Upgrade", b"Upgrade: websocket",
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13")
            + post()),
    *(
        refused(f"websocket among {value!r}",
                get(b"/iris", b"Connection: Upgrade", b"Upgrade: " + value))
        for value in (b"h2c, websocket", b"WebSocket ,h2c", b"h2c\r\nUpgrade: websocket")
    ),
    passes("Connection: upgrade alone", get(b"/iris", b"Connection: upgrade")),
    refused("upgrade with a body", post(b"Connection: upgrade", b"Upgrade: websocket")),
    passes("HTTP2-Settings alone", get(b"/iris", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
           _has(b"http2-settings")),
]  # fmt: skip

TARGET = [
    *(
        refused(f"target {target!r}", get(target))
        for target in (
            b"http://user:pw@localhost/iris",
            b"https://localhost/iris",
            b"ftp://localhost/iris",
            b"http:/iris",
            b"http:iris",
            b"file:///iris",
            b"localhost/iris",
            b"///iris",
            b"/./iris",
            b"/@evil.example/iris",
            b"/iris/%2e./other",
            b"/iris/%%32%65%%32%65/other",
            b"/iris/%u002e%u002e/other",
            b"/iris/..%00/other",
            b"/iris/.%00./other",
            b"/iris/..%5c..%5cother",
            b"/iris/..%252fother",
            b"/iris/;/other",
            b"/iris;",
            b"/iris/%3b/other",
            b"/iris%2f..%2fother",
            b"/iris%2e",
            b"/iris%00",
            b"/iris%23",
            b"/iris/%09",
            b"/iris/%7f",
            b"/iris/%f0%80%80%ae/other",
            b"/iris/%c1%9c",
            b"/iris/%ed%a0%80",
            b"/iris/%c0%2e",
            b"/iris/[a]",
            b"/v1/infers/abc/../other",
            b"/v1//infers/abc",
            b"/v1/infers/abc%2f..%2fother",
            b"/iris?a=\x7f",
            b"//evil.example/iris",
            b"localhost:80",
            b"iris",
            b"*",
            b"?a=b",
            b"#",
            b"/iris/..",
            b"/iris/../v3/auth/tokens",
            b"/iris/./p",
            b"/iris/.",
            b"/iris/%2e%2e/other",
            b"/iris/.%2E/other",
            b"/iris/%252e%252e/other",
            b"/iris/%25252e/other",
            b"/iris/..%2fother",
            b"/iris/a%2Fb",
            b"/iris/a%5cb",
            b"/iris/a\\b",
            b"/iris/..;/other",
            b"/iris;x=y/p",
            b"/iris/a%3bb",
            b"/iris//p",
            b"/iris/p//",
            b"/iris/@evil.example",
            b"/iris/%00",
            b"/iris/%0d%0aX-Auth-Token:%20stolen",
            b"/iris/a\tb",
            b"/iris/p#fragment",
            b"/iris?a#b",
            b"/iris/%23",
            b"/iris/%3f",
            b"/iris/%c0%ae%c0%ae/other",
            b"/iris/%ff",
            b"/iris/%e0%80%af",
            b"/iris/\xff",
            b"/iris/\xc3\xa4",
            b"/iris?q=\xff",
            b"/iris/%",
            b"/iris/%2",
            b"/iris/%zz",
            b"/iris/<a>",
            b"/iris/{a}",
            b"/iris/a|b",
            b"/iris/a^b",
            b"/iris/a`b",
            b'/iris/a"b',
            b"/iris/\x7f",
            b"/iris/\x00",
            b"http://[::1",
            b"http://a:b:c/",
            b"http://localhost:99999/iris",
            b"http:///iris",
            b"http://localhost//iris",
            b"http://localhost/x/../iris",
            b"http://localhost@evil.example/iris",
            b"http://localhost#/iris",
            b"/iris?a\x00b",
        )
    ),
    # RFC 9112 section 3.2.2: absolute form is accepted, its authority stands in for Host.
    *(
        passes(f"absolute form {target!r}", get(target), _target_is(b"/v1/infers/abc?a=http://b/"))
        for target in (b"http://localhost/iris?a=http://b/",
                       b"HTTP://LOCALHOST:8080/iris?a=http://b/",
                       b"http://[::1]:1/v1/infers/abc?a=http://b/")
    ),
    passes("absolute form with another Host",
           get(b"http://localhost/iris").replace(b"Host: localhost", b"Host: evil.example")),
    refused("absolute form of a foreign host", get(b"http://evil.example/iris"), 421, closes=False),
    refused("absolute form without Host",
            get(b"http://localhost/iris").replace(b"Host: localhost\r\n", b"")),
    *(
        refused(f"absolute form of no service {target!r}", get(target), 404, closes=False)
        for target in (b"http://localhost", b"http://localhost?iris")
    ),
    refused("another service's path", get(b"/v1/infers/other"), 404, closes=False),
    *(
        refused(f"not ours: {target!r}", get(target), 404, closes=False)
        for target in (b"/iris.", b"/iris..", b"/iris./p", b"/iris%20", b"/Iris/p",
                       b"/v1/infers/abcd", b"/v1/infers/ab", b"/v1/infers/ABC",
                       b"/v1/infers/%61bc", b"/metrics", b"/livez", b"/status", b"/reload")
    ),
    refused("longer name", get(b"/irises"), 404, closes=False),
    refused("shorter path", get(b"/v1/infers"), 404, closes=False),
    refused("root", get(b"/"), 404, closes=False),
    refused("IAM's path", get(b"/v3/auth/tokens"), 404, closes=False),
    refused("IAM's path, encoded", get(b"/v3/auth%2ftokens")),
    refused("name in capitals", get(b"/IRIS"), 404, closes=False),
    refused("name, encoded", get(b"/%69ris"), 404, closes=False),
    refused("X-Original-URL", get(b"/iris", b"X-Original-URL: /v3/auth/tokens")),
    refused("X-Rewrite-URL", get(b"/iris", b"X-Rewrite-URL: /v3/auth/tokens")),
    passes("X_Original_URL is dropped", get(b"/iris", b"X_Original_URL: /v3/auth/tokens"),
           _has(b"x_original_url")),
    refused("OPTIONS *", post(method=b"OPTIONS", target=b"*", body=b"")),
    passes("legal query", get(b'/iris/p?a=%2F&b=+&c=%7e&d=;&e=/../&f=?&g=%00&h=[]{}|^`"\\<>'),
           _target_is(
               b'/v1/infers/abc/p?a=%2F&b=+&c=%7e&d=;&e=/../&f=?&g=%00&h=[]{}|^`"\\<>')),
    passes("empty query", get(b"/iris?"), _target_is(b"/v1/infers/abc?")),
    passes("own path", get(b"/v1/infers/abc/p%20q"), _target_is(b"/v1/infers/abc/p%20q")),
    passes("final slash", get(b"/iris/"), _target_is(b"/v1/infers/abc/")),
    passes("CR and LF, encoded, in a query", get(b"/iris?a=%0d%0aX-Auth-Token:%20b"),
           _target_is(b"/v1/infers/abc?a=%0d%0aX-Auth-Token:%20b")),
    passes("unreserved octets, encoded", get(b"/iris/%7E%2B%5B?%2e%2e%2f"),
           _target_is(b"/v1/infers/abc/%7E%2B%5B?%2e%2e%2f")),
    passes("dots in a name", get(b"/iris/...a/b..c/.d"),
           _target_is(b"/v1/infers/abc/...a/b..c/.d")),
    passes("UTF-8, encoded", get(b"/iris/%C3%A4"), _target_is(b"/v1/infers/abc/%C3%A4")),
    passes("letter case of escapes", get(b"/iris/%c3%A4%20"),
           _target_is(b"/v1/infers/abc/%c3%A4%20")),
]  # fmt: skip

METHOD = [
    refused("TRACE", get(b"/iris").replace(b"GET", b"TRACE"), 501),
    refused("CONNECT", b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n", 501),
    refused("CONNECT own path", get(b"/iris").replace(b"GET", b"CONNECT"), 501),
    refused("unknown", get(b"/iris").replace(b"GET", b"BREW"), 501),
    *(
        refused(f"{method!r}", get(b"/iris").replace(b"GET", method), 501)
        for method in (
            b"TRACK",
            b"DEBUG",
            b"DESCRIBE",
            b"SETUP",
            b"PURGE",
            b"M-SEARCH",
            b"QUERY",
            b"LINK",
            b"G",
            b"Post",
            b"POST,GET",
            b"G\x00ET",
            b"\tGET",
        )
    ),
    refused("of WebDAV", get(b"/iris").replace(b"GET", b"PROPFIND"), 501),
    refused("lower case", get(b"/iris").replace(b"GET", b"get"), 501),
    refused("mixed case", get(b"/iris").replace(b"GET", b"Get"), 501),
    refused("8-bit", get(b"/iris").replace(b"GET", b"G\xc3\x84T"), 501),
    refused("empty", get(b"/iris").removeprefix(b"GET"), 501),
    refused("longer than known", get(b"/iris").replace(b"GET", b"GETX"), 501),
    refused("very long", b"A" * 9000 + b" /iris HTTP/1.1\r\n" + HOST + b"\r\n", 501),
]

IDENTITY = [
    passes(f"{name.decode()} is dropped", post(name + b": stolen"),
           _has(name, *[b"token-1"][: name.lower() == b"x-auth-token"]))
    for name in (
        b"X-Auth-Token", b"x-auth-token", b"X-AUTH-TOKEN", b"X_Auth_Token", b"X-Auth_Token",
        b"x_auth-token", b"X-Subject-Token", b"X_Subject_Token", b"X-Service-Token",
        b"X-Security-Token", b"Authorization", b"Proxy-Authorization", b"X-Apig-AppCode",
        b"apikey", b"X-Domain-Id", b"X-Project-Id", b"X_Project_Id", b"X-Sdk-Date",
        b"X-Sdk-Content-Sha256", b"X_Sdk_Date", b"Cookie", b"X-Forwarded-For", b"X-Forwarded-Host",
        b"X-Forwarded-Proto", b"X_Forwarded_For", b"Forwarded", b"X-Real-IP", b"X_Real_IP",
        b"X-Client-IP", b"True-Client-IP", b"X-HTTP-Method-Override", b"X-HTTP-Method",
        b"X-Method-Override", b"X_HTTP_Method_Override", b"X_SUBJECT-TOKEN", b"X-Service_Token",
        b"X_Security_Token", b"X_Apig_AppCode", b"X-Domain_ID", b"X-Forwarded",
        b"X_Forwarded-Proto",
        b"X-HTTP_Method", b"X_Client_IP", b"True_Client_IP", b"X-Identity-Status", b"X-Roles",
        b"X_Roles", b"X-Project-Name", b"X-Service-Catalog", b"X-Tenant-Id", b"X-Is-Admin-Project",
    )
] + [
    passes("two tokens", post(b"X-Auth-Token: stolen", b"X-Auth-Token: token-9"),
           _has(b"x-auth-token", b"token-1")),
    passes("harmless underscore", post(b"X_Custom: 1"), _has(b"x_custom", b"1")),
    passes("Content_Length twin", post(b"Content_Length: 9"), _has(b"content_length")),
    passes("Host twin", post(b"Transfer_Encoding: chunked"), _has(b"transfer_encoding")),
]  # fmt: skip

HOP_BY_HOP = [
    passes("Connection names our token", post(b"Connection: X-Auth-Token"),
           _has(b"x-auth-token", b"token-1")),
    passes("Connection names it in capitals", post(b"CONNECTION: X-AUTH-TOKEN, Via, Host"),
           _has(b"x-auth-token", b"token-1")),
    passes("Connection names framing", post(b"Connection: close, Content-Type, Content-Length",
                                            b"Content-Type: text/plain; a=b"),
           lambda request: not request.values(b"content-type") and request.content == b"{}",
           closes=True),
    passes("Connection names a field that comes first",
           post(b"X-Custom: stolen", b"Connection: x-cUSTOM"), _has(b"x-custom")),
    passes("Connection names one of many",
           post(b"X-Custom: stolen", b"X-Other: 1", b"X-custom: stolen",
                b"Connection: keep-alive , X-Custom\t,, "),
           lambda seen: seen.values(b"x-other") == [b"1"] and not seen.values(b"x-custom")),
    passes("Connection names what ends a value", post(b"X-Own: stolen", b"connection:,\tX-OWN\t,"),
           _has(b"x-own")),
    passes("Connection names Via and Host", post(b"Connection: Via, Host, Transfer-Encoding"),
           _has(b"via", b"1.1 modelarts-gateway")),
    passes("Connection names the framing that is used",
           chunked(b"2\r\n{}\r\n0\r\n\r\n", b"Connection: Transfer-Encoding"), _content_is(b"{}")),
    passes("Connection with 8-bit octets", post(b"Connection: \xff, X-\xe4")),
    passes("close among others", post(b"Connection: keep-alive, cLoSe ,"), closes=True),
    passes("two Connection fields", post(b"X-A: stolen", b"X-B: stolen", b"Connection: X-A",
                                         b"Connection: X-B"), _has(b"x-a")),
    *(
        passes(f"{name.decode()} is dropped", post(name + b": stolen"), _has(name))
        for name in (b"Keep-Alive", b"Proxy-Connection", b"TE", b"Trailer", b"Proxy-Authenticate",
                     b"Proxy-Anything", b"Proxy-Authentication-Info", b"Keep_Alive",
                     b"HTTP2_Settings", b"Proxy_Connection", b"te")
    ),
]  # fmt: skip

HOST_AND_BROWSER = [
    *(
        refused(f"Host {value!r}", post(host=b"Host: " + value + b"\r\n"), 421, closes=False)
        for value in (b"evil.example", b"evil.example:8080", b"localhost.evil.example",
                      b"localhost.", b"128.0.0.1", b"127.0.0.1.nip.io", b"10.0.0.1", b"[::2]",
                      b"iris", b"0.0.0.0", b"127.1", b"2130706433", b"0x7f000001", b"127.0.0.256",
                      b"127.000.000.001", b"127.0.0.1.", b"[::]", b"[::ffff:127.0.0.1]",
                      b"localhost.localdomain", b"a.localhost", b"..", b"-")
    ),
    *(
        refused(f"malformed Host {value!r}", post(host=b"Host: " + value + b"\r\n"))
        for value in (b"", b"user@localhost", b"localhost:", b"localhost:80:80", b"localhost:x",
                      b"localhost/iris", b"localhost, localhost", b"local host", b"::1",
                      b"[::1", b"[::1%25lo]", b"localhost#", b"\xff", b"localhost:123456",
                      b"localhost:65536", b"127.0.0.1:8080@evil.example", b"[::1]x", b"localhost;x",
                      b"localhost?x", b"localhost\\x", b"localhost%00", b"*", b"http://localhost",
                      b"localhost:80,localhost:80", b"localhost:-1")
    ),
    refused("no Host", post(host=b"")),
    refused("two Hosts", post(host=HOST + HOST)),
    refused("foreign Host second", post(b"Host: evil.example")),
    refused("Host folded", post(host=b"Host: localhost\r\n evil.example\r\n")),
    *(
        passes(f"own Host {value!r}", post(host=b"hOST: " + value + b"\r\n"))
        for value in (b"localhost", b"LOCALHOST:1", b"127.0.0.1:65535", b"127.1.2.3", b"[::1]:80")
    ),
    refused("foreign Host on HTTP/1.0", post(host=b"Host: evil.example\r\n", version=b"HTTP/1.0"),
            421),
    refused("two Hosts on HTTP/1.0", post(host=HOST + HOST, version=b"HTTP/1.0")),
    refused("Host with a space before the colon", post(host=b"Host : localhost\r\n")),
    passes("no Host on HTTP/1.0", post(host=b"", version=b"HTTP/1.0"), closes=True),
    *(
        refused(f"Origin {value!r}", post(b"Origin: " + value), 403, closes=False)
        for value in (b"http://evil.example", b"http://localhost", b"null", b"")
    ),
    *(
        refused(f"Sec-Fetch-Site {value!r}", post(b"Sec-Fetch-Site: " + value), 403, closes=False)
        for value in (b"cross-site", b"same-site", b"anything")
    ),
    *(
        refused(f"Sec-Fetch-Site {one.decode()}, then {other.decode()}",
                post(b"Sec-Fetch-Site: " + one, b"sec-fetch-site: " + other), 403, closes=False)
        for one, other in ((b"cross-site", b"none"), (b"none", b"cross-site"),
                           (b"none", b"none"))
    ),
    refused("Sec-Fetch-Site with a list", post(b"Sec-Fetch-Site: none, none"), 403, closes=False),
    refused("empty Sec-Fetch-Site", post(b"Sec-Fetch-Site:"), 403, closes=False),
    refused("Sec-Fetch-Site in capitals", post(b"SEC-FETCH-SITE: CROSS-SITE"), 403, closes=False),
    refused("two Origins", post(b"Origin: http://localhost", b"Origin: null"), 403, closes=False),
    refused("simple POST of a page", post(b"Origin: http://evil.example",
                                          b"Content-Type: text/plain"), 403, closes=False),
    refused("preflight", post(b"Origin: http://evil.example",
                              b"Access-Control-Request-Method: POST", method=b"OPTIONS", body=b""),
            403, closes=False),
    passes("Sec-Fetch-Site none", post(b"Sec-Fetch-Site: none"), _has(b"sec-fetch-site")),
]  # fmt: skip

SIZE = [
    refused("200 fields", post(*[b"X: y"] * 200), 431),
    refused("101 fields", get(b"/iris", *[b"X: y"] * 100), 431),
    passes("100 fields", get(b"/iris", *[b"X: y"] * 99), _has(b"x", *[b"y"] * 99)),
    refused("a field of 64 KiB", post(b"X: " + b"y" * 65536), 431),
    refused("a field one too large", post(b"X: " + b"y" * 32768), 431),
    passes("a field as large as may be", post(b"X: " + b"y" * 32767), _has(b"x", b"y" * 32767)),
    refused("a name of 64 KiB", post(b"X" * 65536 + b": y"), 431),
    refused("fields of 200 KiB in all", post(*[b"X: " + b"y" * 30000] * 7) , 431),
    refused("a target of 64 KiB", get(b"/iris/" + b"a" * 65536), 414),
    refused("a target one too long", get(b"/iris/" + b"a" * (8193 - 6)), 414),
    passes("a target as long as may be", get(b"/iris/" + b"a" * (8192 - 6)),
           _target_is(b"/v1/infers/abc/" + b"a" * (8192 - 6))),
    refused("a body over the limit, declared", post(b"Content-Length: 12582913", length=False),
            413),
    refused("a body far over the limit", post(b"Content-Length: 999999999999", body=b"",
                                              length=False), 413),
]  # fmt: skip

VALUES = [
    passes("8-bit value", post(b"X: \x80\xff\xc3\xa4"), _has(b"x", b"\x80\xff\xc3\xa4")),
    passes("tab inside", post(b"X: a\tb"), _has(b"x", b"a\tb")),
    passes("empty value", post(b"X:", b"Y: \t "), _has(b"x", b"")),
    passes("spaces around", post(b"X: \t a \t"), _has(b"x", b"a")),
    passes("format characters", post(b"X: %s%d{0}\\n%(x)"), _has(b"x", b"%s%d{0}\\n%(x)")),
    passes("order and case are kept", post(b"b: 1", b"A: 2", b"B: 3", b"a: 4"),
           lambda request: [field for field in request.fields if field[0].lower() in {b"a", b"b"}]
           == [(b"b", b"1"), (b"A", b"2"), (b"B", b"3"), (b"a", b"4")]),
    passes("gzip body is opaque", post(b"Content-Encoding: gzip", body=b"not gzip"),
           _content_is(b"not gzip")),
    passes("unknown coding", post(b"Content-Encoding: br, zstd", body=b"\x00\xff"),
           _content_is(b"\x00\xff")),
    passes("malformed request id", post(b'X-Request-Id: a"b\\'), _has(b"x-request-id", b'a"b\\')),
]  # fmt: skip


def _nothing_added(request: Request) -> bool:
    names = [name.lower() for name, _ in request.fields]
    return names == [b"host", b"content-length", b"via", b"x-auth-token"]


ADDITIONS = [passes("nothing is added but ours", post(), _nothing_added)]

CONNECTION = [
    Row("pipelined", post(target=b"/iris/1") + post(target=b"/iris/2") + post(target=b"/iris/3"),
        (200, 200, 200), forwarded=3, closes=False),
    Row("pipelined, the second is refused", post() + get(b"/nowhere") + post(), (200, 404, 200),
        forwarded=2, closes=False),
    Row("pipelined behind a HEAD", get(b"/iris").replace(b"GET", b"HEAD") + post(), (200, 200),
        forwarded=2, closes=False),
    Row("pipelined behind a refused HEAD", get(b"/nowhere").replace(b"GET", b"HEAD") + post(),
        (404, 200), forwarded=1, closes=False),
    Row("pipelined behind an offered upgrade",
        get(b"/iris", b"Connection: upgrade", b"Upgrade: h2c") + post(), (200, 200), forwarded=2,
        closes=False),
    Row("pipelined behind Proxy-Connection: close", post(b"Proxy-Connection: close") + post(),
        (200,), forwarded=1),
    Row("HTTP/1.0 kept alive", post(b"Connection: keep-alive", version=b"HTTP/1.0") + post(),
        (200, 200), forwarded=2, closes=False),
    Row("request behind CL 0", post(body=b"") + post(), (200, 200), forwarded=2, closes=False),
    Row("lone CR and LF between requests", post() + b"\n\r\r\n" + post(), (200, 200), forwarded=2,
        closes=False),
    Row("pipelined behind a bad one", get(b"/iris/..") + post(), (400,)),
    Row("pipelined behind close", post(b"Connection: close") + post(), (200,), forwarded=1),
    Row("pipelined behind HTTP/1.0", post(version=b"HTTP/1.0") + post(), (200,), forwarded=1),
    Row("garbage behind a request", post() + b"\x00\x01\x02\r\n\r\n", (200, 501), forwarded=1),
    Row("garbage behind a GET", get(b"/iris") + b"garbage\r\n\r\n", (200, 501), forwarded=1),
    Row("TLS hello behind a request", post() + b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        (200, 501), forwarded=1),
    refused("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 501),
    refused("binary garbage", bytes(range(256)) * 4, 501),
    refused("text garbage", b"hello, is this HTTP?\r\n\r\n", 501),
    Row("SMTP", b"EHLO evil.example\r\n", (501,), ends=True),
    refused("a megabyte of garbage", b"\xff" * 2**20, 501),
    Row("an unfinished head", b"GET /iris HTTP/1.1\r\nHost: local", (400,), ends=True),
    Row("an unfinished request line", b"GET /ir", (400,), ends=True),
    Row("nothing", b"", (), ends=True),
    Row("only empty lines", b"\r\n\r\n", (), ends=True),
]  # fmt: skip

CLASSES = {
    "framing": FRAMING, "body tricks": BODY_TRICKS, "expectation": EXPECTATION, "upgrade": UPGRADE,
    "target": TARGET, "method": METHOD, "identity": IDENTITY, "hop-by-hop": HOP_BY_HOP,
    "host and browser": HOST_AND_BROWSER, "size": SIZE, "values": VALUES, "additions": ADDITIONS,
    "connection": CONNECTION,
}  # fmt: skip
"""Rows by class of attack."""
