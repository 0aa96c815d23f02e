"""The exchanges of `test_leaks`: every fault of service, IAM and caller, with canaries in them."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from tests.exchange.hostile_rows import CLASSES, HOST
from tests.support.canaries import Canary
from tests.support.client import Caller, connect
from tests.support.fake_iam import reply, token_body
from tests.support.upstream import Link, Script, Upstream, answer, scripted_upstream

TOKEN = Canary("token", rb'tK"%7\qZ')
"""What IAM hands out, and the token file holds."""
FORGED = Canary("token of a bad answer", rb'fG"%9\jW')
"""What IAM hands out in answers that must not be believed."""
PASSWORD = Canary("password", rb'pW"%3\xRe')
COOKIE_IN = Canary("caller's cookie", rb'cI"%5\mVo')
BEARER = Canary("caller's own credential", rb'bR"%8\hUy')
QUERY = Canary("query", rb'qU"%2\nXe')
BODY = Canary("request body", rb'bO"%4\kJd')
RESPONSE = Canary("response body", rb'rS"%6\wLp')
COOKIE_OUT = Canary("service's cookie", rb'cO"%1\gTu')
SUBJECT = Canary("service's X-Subject-Token", rb'sJ"%0\vDb')

OURS = (TOKEN, FORGED, PASSWORD)
"""Must not be anywhere."""
CALLERS = (COOKIE_IN, BEARER, QUERY, BODY)
"""Go to the service, and nowhere else."""
SERVICES = (COOKIE_OUT, SUBJECT)
"""Stop at the gateway."""
EVERY = (*OURS, *CALLERS, *SERVICES, RESPONSE)

_LONG = 40
"""Copies of a word in a secret: as long as real tokens are, by a power of ten."""

SECRET_FIELDS = (
    b"Cookie: session=%b\r\nAuthorization: Bearer %b\r\nX-Auth-Token: %b\r\n"
    b"Proxy-Authorization: Basic %b\r\n"
    % (COOKIE_IN.times(4), BEARER.times(_LONG), BEARER.times(_LONG), BEARER.times(4))
)
_HIDDEN = (
    b"Set-Cookie: id=%b; HttpOnly" % COOKIE_OUT.times(8),
    b"X-Subject-Token: " + SUBJECT.times(_LONG),
    b"X-Auth-Token: " + SUBJECT.times(_LONG),
)
_TEXT = RESPONSE.times(16)


def call(service: str, tail: str = "", *, method: bytes = b"POST", more: bytes = b"") -> bytes:
    """Return a request that has a canary wherever one can be."""
    body = BODY.times(30)
    return b"%b /%b?q=%b HTTP/1.1\r\n%b%b%bContent-Length: %d\r\n\r\n%b" % (
        method, (service + tail).encode(), QUERY.times(6), HOST, SECRET_FIELDS, more, len(body),
        body,
    )  # fmt: skip


def handshake(tail: str) -> bytes:
    """Return a request to switch to WebSocket, with the same canaries."""
    switch = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    lines = HOST + SECRET_FIELDS + switch
    return b"GET /socket%b?q=%b HTTP/1.1\r\n%b\r\n" % (tail.encode(), QUERY.times(6), lines)


def _vendor(code: str) -> bytes:
    return json.dumps({"error_code": code, "error_msg": _TEXT.decode()}).encode()


# What the service answers, by the last segment of the path. Its first byte is all that is looked
# at by the gateway until it knows better, so that a canary stands wherever a parser may quote.
_WORD = RESPONSE.times(6)
_UPSTREAM: Mapping[str, bytes] = {
    "plain": answer(200, _TEXT, *_HIDDEN),
    "chunked": b"HTTP/1.1 200 OK\r\n%b\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n"
    b"X-Trailer: %b\r\n\r\n" % (b"\r\n".join(_HIDDEN), len(_TEXT), _TEXT, _WORD),
    "until-close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + _TEXT,
    "empty": b"HTTP/1.1 204 No Content\r\n\r\n",
    "redirect": answer(302, _TEXT, b"Location: https://evil.example/" + _WORD),
    "unauthorized": answer(401, _TEXT, *_HIDDEN),
    "forbidden": answer(403, _vendor("APIG.0302")),
    "throttled": answer(429, _vendor("APIG.0308")),
    "model-error": answer(500, b"Traceback (most recent call last): " + _TEXT),
    "many-interim": b"HTTP/1.1 102 %b\r\n\r\n" % _WORD * 20,
    "continue-first": b"HTTP/1.1 100 Continue\r\nX: %b\r\n\r\n%b" % (_WORD, answer(200, _TEXT)),
    "early-hints": b"HTTP/1.1 103 Hints\r\nLink: %b\r\n\r\n%b" % (_WORD, answer(200, _TEXT)),
    "switching": b"HTTP/1.1 101 %b\r\nUpgrade: %b\r\nConnection: upgrade\r\n\r\n" % (_WORD, _WORD),
    "not-http": b"SSH-2.0-%b\r\n" % _WORD,
    "bad-version": b"HTTP/%b 200 OK\r\n\r\n" % _WORD,
    "bad-status": b"HTTP/1.1 2x%b OK\r\n\r\n" % _WORD,
    "bad-reason": b"HTTP/1.1 200 %b\x01\r\nContent-Length: 0\r\n\r\n" % _WORD,
    "bad-name": b"HTTP/1.1 200 OK\r\nX %b: y\r\n\r\n" % _WORD,
    "no-colon": b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % _WORD,
    "bad-value": b"HTTP/1.1 200 OK\r\nX-Y: \x00%b\r\n\r\n" % _WORD,
    "bare-lf": b"HTTP/1.1 200 OK\nX-Y: %b\n\n" % _WORD,
    "obs-fold": b"HTTP/1.1 200 OK\r\nX-Y: a\r\n %b\r\n\r\n" % _WORD,
    "bad-length": b"HTTP/1.1 200 OK\r\nContent-Length: -%b\r\n\r\n" % _WORD,
    "two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n" + _WORD,
    "both-framings": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
    + _WORD,
    "bad-coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: %b\r\n\r\n" % _WORD,
    "bad-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b\r\n" % _WORD,
    "late-bad-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz"
    + _WORD,
    "huge-head": b"HTTP/1.1 200 OK\r\nX-Y: %b\r\n\r\n" % RESPONSE.times(10_000),
    "many-fields": b"HTTP/1.1 200 OK\r\n%b\r\n" % (b"X-Y: %b\r\n" % _WORD * 300),
    "body-on-204": b"HTTP/1.1 204 No\r\nContent-Length: 99\r\n\r\n" + _WORD,
    "cut-head": b"HTTP/1.1 200 OK\r\nX-Y: " + _WORD,
    "cut-body": b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + _TEXT,
    "cut-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n999\r\n" + _TEXT,
    "more-than-asked": answer(200, _TEXT) + answer(200, _TEXT),
    "nothing": b"",
}  # fmt: skip
_STAYS_OPEN = frozenset({"plain", "chunked", "empty", "unauthorized", "more-than-asked"})

_UPSTREAM_STEPS: Mapping[str, Callable[[Link, bytes], None]] = {
    # The second argument is the token that came.
    "rejects": lambda link, _: link.send(answer(401, _vendor("APIG.0301"))),
    "resets": lambda link, _: link.reset(),
    "cuts": lambda link, _: link.cut(),
    "says-nothing": lambda _link, _: None,
    "stalls": lambda link, _: link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + _TEXT),
    "switches": lambda link, _: link.send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n%b\r\n\r\n%b"
        % (b"\r\n".join(_HIDDEN), _TEXT)
    ),
    # A service that has our token, and quotes it where a gateway might quote the service.
    "quotes-token": lambda link, token: link.send(
        answer(200, b"", b"X-Subject-Token: " + token, b"Set-Cookie: " + token)
    ),
    "quotes-token-badly": lambda link, token: link.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % token),
    "quotes-token-in-status": lambda link, token: link.send(b"%b\r\n\r\n" % token),
    "quotes-token-in-chunk": lambda link, token: link.send(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b\r\n" % token
    ),
}
TAILS = (*_UPSTREAM, *_UPSTREAM_STEPS)


async def _service(link: Link) -> None:
    while True:
        request = await link.request()
        name = request.target.partition(b"?")[0].rpartition(b"/")[2].decode()
        tokens = request.values(b"x-auth-token")
        if name in _UPSTREAM_STEPS:
            _UPSTREAM_STEPS[name](link, tokens[0] if tokens else b"")
            if name in {"says-nothing", "stalls", "cuts", "switches"}:
                await link.hold()
            continue
        link.send(_UPSTREAM.get(name, _UPSTREAM["plain"]))
        if name in _UPSTREAM and name not in _STAYS_OPEN:
            return


# What IAM answers, by the first segment of the path.
_GOOD_TOKEN = TOKEN.times(_LONG)
_BAD_TOKEN = FORGED.times(_LONG)
_PROJECT = json.loads(token_body())["token"]["project"]
_BODY = token_body(padding=10)


def _granted(body: bytes = _BODY, token: bytes = _BAD_TOKEN, **fields: bytes) -> bytes:
    more = {name.replace("_", "-"): value for name, value in fields.items()}
    return reply(201, body, {"X-Subject-Token": token, **more})


def _said(status: int, request: bytes, **fields: bytes) -> bytes:
    """Return an error that quotes the login, password and all, and a token."""
    text = json.dumps(
        {"error": {"message": request.decode(), "code": FORGED.times(4).decode()}}
    ).encode()
    more = {name.replace("_", "-"): value for name, value in fields.items()}
    return reply(status, text, {"X-Subject-Token": _BAD_TOKEN, **more})


_NOT_JSON = b'{"token": ' + _BAD_TOKEN
IAM: Mapping[str, Callable[[bytes], bytes]] = {
    # Each is told the login that came.
    "good": lambda _: _granted(token=_GOOD_TOKEN),
    "refused": lambda login: _said(401, login),
    "malformed": lambda login: _said(400, login),
    "forbidden": lambda login: _said(403, login, X_Request_Id=PASSWORD.times(2)),
    "missing": lambda login: _said(404, login),
    "throttled": lambda login: _said(429, login, Retry_After=FORGED.times(4)),
    "failing": lambda login: _said(500, login, Date=FORGED.times(4)),
    "moved": lambda login: _said(302, login, Location=b"http://127.0.0.1:1/" + _BAD_TOKEN),
    "teapot": lambda login: _said(299, login),
    "no-token": lambda _: reply(201, token_body()),
    "two-tokens": lambda _: (
        b"HTTP/1.1 201 Created\r\nX-Subject-Token: %b\r\nX-Subject-Token: %b\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (_BAD_TOKEN, _BAD_TOKEN, len(_BODY), _BODY)
    ),
    "token-with-space": lambda _: _granted(token=_BAD_TOKEN + b" x"),
    "token-with-latin": lambda _: _granted(token=_BAD_TOKEN + b"\xe9"),
    "token-with-nul": lambda _: _granted(token=_BAD_TOKEN + b"\x00"),
    "token-with-cr": lambda _: _granted(token=_BAD_TOKEN + b"\r"),
    "token-folded": lambda _: _granted(token=_BAD_TOKEN + b"\r\n " + _BAD_TOKEN),
    "token-without-end": lambda _: _granted(token=FORGED.times(20_000)),
    "token-too-long": lambda _: _granted(token=FORGED.times(8_195)),
    "token-as-name": lambda _: b"HTTP/1.1 201 Created\r\n%b\r\n\r\n" % _BAD_TOKEN,
    "token-as-bad-name": lambda _: b"HTTP/1.1 201 Created\r\nX (%b): y\r\n\r\n" % _BAD_TOKEN,
    "token-as-status": lambda _: b"HTTP/1.1 %b\r\n\r\n" % _BAD_TOKEN,
    "token-as-line": lambda _: b"%b\r\n\r\n" % _BAD_TOKEN,
    "token-as-length": lambda _: b"HTTP/1.1 201 OK\r\nContent-Length: %b\r\n\r\n" % _BAD_TOKEN,
    "token-as-coding": lambda _: b"HTTP/1.1 201 OK\r\nTransfer-Encoding: %b\r\n\r\n" % _BAD_TOKEN,
    "token-as-chunk": lambda _: (
        b"HTTP/1.1 201 OK\r\nX-Subject-Token: %b\r\nTransfer-Encoding: chunked\r\n\r\n%b\r\n"
        % (_BAD_TOKEN, _BAD_TOKEN)
    ),
    "cookies": lambda _: _granted(token=_GOOD_TOKEN, Set_Cookie=b"%b=%b" % (_BAD_TOKEN, b"x")),
    "not-json": lambda _: _granted(_NOT_JSON),
    "not-utf8": lambda _: _granted(_NOT_JSON + b"\xff"),
    "deep-json": lambda _: _granted(b'{"token": %b' % (b"[" * 100_000)),
    "token-in-body": lambda _: reply(201, token_body(project={"id": FORGED.times(3).decode()})),
    "other-project": lambda _: _granted(token_body(project={**_PROJECT, "name": "other"})),
    "expired": lambda _: _granted(token_body(expires_at="2001-01-01T00:00:00Z")),
    "odd-expiry": lambda _: _granted(token_body(expires_at=FORGED.times(3).decode())),
    "immortal": lambda _: _granted(token_body(expires_at="2999-01-01T00:00:00Z")),
    "packed": lambda _: _granted(_BAD_TOKEN, Content_Encoding=b"gzip"),
    "huge-body": lambda _: _granted(token_body(padding=2**20 + 1)),
    "cut": lambda _: reply(201, _BODY, {"X-Subject-Token": _BAD_TOKEN}, length=99_999),
    "cut-head": lambda _: b"HTTP/1.1 201 Created\r\nX-Subject-Token: " + _BAD_TOKEN,
    "silent": lambda _: b"",
}  # fmt: skip
_GOOD = ("good", "cookies")


async def _iam(link: Link) -> None:
    request = await link.request()
    name = request.target.split(b"/")[1].decode()
    if name != "hangs":
        link.send(IAM[name](request.body))
        if not IAM[name](request.body):
            link.reset()
        await link.flush()
    else:
        await link.hold()


@dataclass
class World:
    """What a gateway talks to, and how it is configured for it."""

    service: Upstream
    iam: Upstream
    settings: dict[str, Any]
    got: list[bytes] = field(default_factory=list)
    """What callers got, all of one connection each."""

    @property
    def refusals(self) -> list[bytes]:
        """What callers got from us alone."""
        return [
            received
            for received in self.got
            if received.count(b"HTTP/1.") == received.count(b"Proxy-Status: modelarts-gateway") == 1
        ]


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """Run services and IAM with every fault, and write the files of a gateway in front of them."""
    authority = trustme.CA()
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    secrets = {
        "password": PASSWORD.times(3),
        "token": _GOOD_TOKEN,
        "bad-token": FORGED.times(3) + b" \xc2\xa0",
        "not-utf8": PASSWORD.times(3) + b"\xff",
    }
    for name, secret in secrets.items():
        (folder / name).write_bytes(secret)
    async with AsyncExitStack() as stack:

        async def run(script: Script, tls: ssl.SSLContext | None = None) -> Upstream:
            return await stack.enter_async_context(scripted_upstream(script, tls=tls))

        service, iam = await run(_service), await run(_iam)
        secure_service, secure_iam = await run(_service, server), await run(_iam, server)
        yield World(
            service,
            iam,
            _settings(folder, str(ca_file), service, iam, secure_service, secure_iam),
        )
        service.links += secure_service.links
        iam.links += secure_iam.links


def _settings(  # noqa: PLR0917  # what there is
    folder: Path,
    ca_file: str,
    service: Upstream,
    iam: Upstream,
    secure_service: Upstream,
    secure_iam: Upstream,
) -> dict[str, Any]:
    login = {
        "username": "infer",
        "user_domain": "my-account",
        "project": "region-1",
        "password_file": str(folder / "password"),
    }
    plain_iam, tls_iam = f"http://127.0.0.1:{iam.port}", f"https://127.0.0.1:{secure_iam.port}"
    identities: dict[str, dict[str, Any]] = {
        name: {"auth_url": f"{plain_iam}/{name}", **login, "username": f"user-{name}"}
        for name in (*IAM, "hangs")
    }
    ways: dict[str, dict[str, Any]] = {
        "tls": {"auth_url": f"{tls_iam}/good", "tls": {"ca_file": ca_file}},
        "tls-untrusted": {"auth_url": f"{tls_iam}/good"},
        "tls-to-plain": {"auth_url": f"https://127.0.0.1:{iam.port}/good"},
        "plain-to-tls": {"auth_url": f"http://127.0.0.1:{secure_iam.port}/good"},
        "nobody": {"auth_url": "http://127.0.0.1:1/good"},
    }
    identities |= {f"iam-{name}": {**login, **keys} for name, keys in ways.items()}
    identities["app"] = {
        "method": "application_credential",
        "auth_url": f"{plain_iam}/refused",
        "id": "app",
        "secret_file": str(folder / "password"),
    }
    identities["file"] = {"method": "file", "token_file": str(folder / "token")}
    identities["bad-file"] = {"method": "file", "token_file": str(folder / "bad-token")}
    identities["bad-bytes"] = {"method": "file", "token_file": str(folder / "not-utf8")}
    identities["default"] = identities.pop("good")
    quick = {
        "methods": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        "timeouts": {"connect": 2, "first_byte": 0.3, "idle": 0.3},
        "max_body": "10MiB",
    }
    url = f"http://127.0.0.1:{service.port}/v1"
    secure = f"https://127.0.0.1:{secure_service.port}/v1"
    services: dict[str, dict[str, Any]] = {
        f"by-{name}": {"url": f"{url}/by-{name}", "identity": name, **quick} for name in identities
    }
    services |= {
        "iris": {"url": f"{url}/iris", **quick},
        "socket": {"url": f"{url}/socket", "websocket": True, **quick},
        "tls": {"url": f"{secure}/tls", "tls": {"ca_file": ca_file}, **quick},
        "tls-untrusted": {"url": f"{secure}/untrusted", **quick},
        "tls-to-plain": {"url": f"https://127.0.0.1:{service.port}/v1/to-plain", **quick},
        "plain-to-tls": {"url": f"http://127.0.0.1:{secure_service.port}/v1/to-tls", **quick},
        "nobody": {"url": "http://127.0.0.1:1/v1/nobody", **quick},
    }
    return {"identities": identities, "services": services}


async def play(world: World, port: int, *, hostile: bool = True) -> None:
    """Make every exchange there is with the gateway at `port`; `hostile`: those rows, too."""
    services = world.settings["services"]
    requests = [call(name) for name in services]
    requests += [call(service, f"/{tail}") for service in ("iris", "tls") for tail in TAILS]
    requests += [call("iris", "/plain", method=name) for name in (b"GET", b"HEAD", b"PUT")]
    requests += [call("iris", "/rejects")] * 5
    requests += [handshake(f"/{tail}") for tail in TAILS if tail != "switches"]
    requests += _MALFORMED
    if hostile:
        rows = [row.sent for kind in CLASSES.values() for row in kind]
        requests += [sent.replace(HOST, HOST + SECRET_FIELDS, 1) for sent in rows]
    at_once = asyncio.Semaphore(32)

    async def one(request: bytes) -> None:
        async with at_once, asyncio.timeout(60):
            world.got.append(await _ask(port, request))

    await asyncio.gather(*map(one, requests))
    for leave in _LEAVERS:
        caller = await connect(port)
        try:
            await leave(caller)
        finally:
            caller.leave()
        world.got.append(bytes(caller.received))


async def _ask(port: int, request: bytes) -> bytes:
    """Send a request and take whatever comes until the gateway closes."""
    caller = await connect(port)
    try:
        caller.send(request)
        with suppress(EOFError, TimeoutError, AssertionError):
            async with asyncio.timeout(2.5):
                await caller.reply(to_head=request.startswith(b"HEAD"))
        caller.half_close()
        await caller.rest()
    finally:
        caller.leave()
    return bytes(caller.received)


_MALFORMED = [
    b"%b / HTTP/1.1\r\n\r\n" % BEARER.times(3),
    b"POST %b HTTP/1.1\r\n%b\r\n" % (QUERY.times(3), HOST),
    b"POST /iris?%b\x00 HTTP/1.1\r\n%b\r\n" % (QUERY.times(3), HOST),
    b"POST /iris HTTP/%b\r\n%b\r\n" % (BEARER.times(3), HOST),
    b"POST /iris HTTP/1.1\r\nHost: %b\r\n\r\n" % BEARER.times(3),
    b"POST /iris HTTP/1.1\r\n%b%b\r\n\r\n" % (HOST, BEARER.times(3)),
    b"POST /iris HTTP/1.1\r\n%bX (%b): 1\r\n\r\n" % (HOST, BEARER.times(3)),
    b"POST /iris HTTP/1.1\r\n%bX: \x00%b\r\n\r\n" % (HOST, BEARER.times(3)),
    b"POST /iris HTTP/1.1\r\n%bContent-Length: %b\r\n\r\n" % (HOST, BEARER.times(3)),
    b"POST /iris HTTP/1.1\r\n%bTransfer-Encoding: %b\r\n\r\n" % (HOST, BEARER.times(3)),
    b"POST /iris HTTP/1.1\r\n%bExpect: %b\r\n\r\n" % (HOST, BEARER.times(3)),
    b"POST /iris HTTP/1.1\r\n%bUpgrade: %b\r\n\r\n" % (HOST, BEARER.times(3)),
    b"POST /iris HTTP/1.1\r\n%bOrigin: https://%b\r\n\r\n" % (HOST, BEARER.times(3)),
    b"POST /iris HTTP/1.1\r\n%bX-Request-Id: %b\r\n\r\n" % (HOST, BEARER.times(3)),
    b"POST /iris HTTP/1.1\r\n%bX-Original-URL: /%b\r\n\r\n" % (HOST, BEARER.times(3)),
    b"POST /iris HTTP/1.1\r\n%bCookie: %b\r\n\r\n" % (HOST, COOKIE_IN.times(20_000)),
    b"POST /%b HTTP/1.1\r\n%b\r\n" % (QUERY.times(3).replace(b"\\", b""), HOST),
    b"POST /iris HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n%b\r\n" % (HOST, BODY.times(3)),
    b"POST /iris HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n3;%b\r\nabc\r\n" % (HOST, b"\x01"),
    b"POST /iris HTTP/1.1\r\n%bContent-Length: 99999999\r\n\r\n%b" % (HOST, BODY.times(3)),
]


async def _leave_in_the_head(caller: Caller) -> None:
    caller.send(call("iris")[:80])
    await asyncio.sleep(0.05)
    caller.reset()


async def _leave_in_the_body(caller: Caller) -> None:
    caller.send(call("iris")[:-20])
    await asyncio.sleep(0.05)
    caller.reset()


async def _leave_waiting(caller: Caller) -> None:
    caller.send(call("iris", "/says-nothing"))
    await asyncio.sleep(0.05)
    caller.reset()


async def _leave_waiting_for_a_token(caller: Caller) -> None:
    caller.send(call("by-hangs"))
    await asyncio.sleep(0.05)
    caller.reset()


async def _leave_in_the_answer(caller: Caller) -> None:
    caller.send(call("iris", "/stalls"))
    with suppress(EOFError):
        await caller.head()
    caller.reset()


async def _leave_after_a_switch(caller: Caller) -> None:
    caller.send(handshake("/switches"))
    assert b" 101 " in await caller.head()
    caller.send(BODY.times(30))
    await caller.take(len(_TEXT))
    caller.reset()


async def _be_silent_after_a_switch(caller: Caller) -> None:
    caller.send(handshake("/switches") + BODY.times(30))
    await caller.rest()


async def _send_too_slowly(caller: Caller) -> None:
    caller.send(call("iris")[:-20])
    with suppress(EOFError):
        await caller.reply()


_LEAVERS: list[Callable[[Caller], Awaitable[None]]] = [
    _leave_in_the_head,
    _leave_in_the_body,
    _leave_waiting,
    _leave_waiting_for_a_token,
    _leave_in_the_answer,
    _leave_after_a_switch,
    _be_silent_after_a_switch,
    _send_too_slowly,
]


_ADMIN_PAGES = [
    (b"/metrics", b""),
    (b"/metrics", b"Accept: application/openmetrics-text; version=1.0.0\r\n"),
    (b"/status", b""),
    (b"/readyz?verbose", b""),
    (b"/readyz", b""),
    (b"/livez", b""),
    (b"/startupz", b""),
    (b"/nothing", b""),
]


async def admin_pages(port: int) -> list[bytes]:
    """Return everything that the admin listener says."""
    pages = []
    for path, more in _ADMIN_PAGES:
        lines = HOST + SECRET_FIELDS + more + b"Connection: close\r\n"
        pages.append(await _ask(port, b"GET %b HTTP/1.1\r\n%b\r\n" % (path, lines)))
    return pages


async def abuse_admin(port: int) -> list[bytes]:
    """Send the admin listener what is no request; return its answers."""
    return [await _ask(port, request) for request in (*_MALFORMED, call("readyz"), call("status"))]
