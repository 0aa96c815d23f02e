"""Logging in, against a server that says exactly the bytes it is told to."""

import asyncio
import email.utils
import gzip
import json
import logging
import socket
import ssl
import traceback
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import SecretStr

from gateway.identity.keystone import (
    ApplicationCredentialLogin,
    KeystoneSource,
    PasswordLogin,
)
from gateway.identity.passwords import PasswordMemory
from gateway.identity.refresh import RefreshResult, RefusalLedger
from gateway.identity.refusal_file import RefusalFile
from gateway.identity.source import Login, LoginError
from tests.support.fake_iam import HANG, FakeIam, reply, token_body
from tests.support.until import PATIENCE_S

PASSWORD = 'pass-canary-é"\\'
TOKEN = "MIIS+canary/80T9wHQ=="
ISSUED = 1893456000.0  # 2030-01-01T00:00:00Z
BIG = 1024 * 1024


def http_date(instant: float) -> str:
    return email.utils.formatdate(instant, usegmt=True)


def good(
    token: str | bytes = TOKEN, body: bytes | None = None, fields: dict[str, str] | None = None
) -> bytes:
    every: dict[str, str | bytes] = {"X-Subject-Token": token, **(fields or {})}
    return reply(201, token_body() if body is None else body, every)


def password_login(tokens_url: str, **changes: str | None) -> PasswordLogin:
    wanted: dict[str, Any] = {"project": "region-1", **changes}
    return PasswordLogin(
        tokens_url=tokens_url,
        username="infer",
        user_domain="my-account",
        read_secret=lambda: SecretStr(PASSWORD),
        **wanted,
    )


def source(
    login: PasswordLogin | ApplicationCredentialLogin,
    *,
    wall: float = ISSUED,
    tls: ssl.SSLContext | None = None,
    name: str | None = None,
    total_s: float = PATIENCE_S,
) -> KeystoneSource:
    return KeystoneSource(
        login,
        clock=lambda: 5000.0,
        wall_clock=lambda: wall,
        random=lambda: 0.0,
        tls=tls,
        server_hostname=name,
        connect_timeout_s=PATIENCE_S,
        total_timeout_s=total_s,
    )


async def log_in(answer: bytes, *, wall: float = ISSUED, **changes: str | None) -> Login:
    async with FakeIam(answer) as iam:
        return await source(password_login(iam.tokens_url, **changes), wall=wall).fetch()


async def failure(answer: bytes, *, wall: float = ISSUED, **changes: str | None) -> LoginError:
    with pytest.raises(LoginError) as caught:
        await log_in(answer, wall=wall, **changes)
    told = "".join(traceback.format_exception(caught.value))
    assert "canary" not in told
    assert caught.value.__context__ is None or "canary" not in str(caught.value.__context__)
    return caught.value


async def test_login_sends_what_the_manual_says_and_keeps_what_it_gets() -> None:
    """One POST with the documented body; the answer becomes a header line and the rest facts."""
    async with FakeIam(good(fields={"Date": http_date(ISSUED)})) as iam:
        login = await source(password_login(iam.tokens_url)).fetch()
        [(line, fields, body)] = iam.requests
    assert line == "POST /v3/auth/tokens?nocatalog=true HTTP/1.1"
    assert fields["content-type"] == "application/json;charset=utf8"
    assert not {"cookie", "authorization"} & fields.keys()
    domain = {"name": "my-account"}
    user = {"name": "infer", "password": PASSWORD, "domain": domain}
    assert json.loads(body) == {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": "region-1", "domain": domain}},
        }
    }
    assert login.credential.field_lines == f"X-Auth-Token: {TOKEN}\r\n".encode()
    assert login.credential.stale_at == 5000 + 43200
    assert login.credential.expires_at == 5000 + 86395
    assert login.credential.wall_expires_at == ISSUED + 86395
    assert login.skew_s == 0
    facts = login.facts
    assert facts is not None
    assert (facts.user, facts.domain, facts.project, facts.project_id) == (
        *("infer", "my-account", "region-1", "p1"),
    )
    assert facts.roles == ("te_admin", "op")
    assert facts.length == len(TOKEN)
    assert facts.expires_at is not None
    assert facts.expires_at.timestamp() == ISSUED + 86400
    assert "canary" not in repr(login)


@pytest.mark.parametrize(
    ("changes", "scope"),
    [
        ({"project_id": "p1"}, {"id": "p1"}),
        ({"project": None, "project_id": "p1"}, {"id": "p1"}),
        (
            {"project_domain": "MY-account"},
            {"name": "region-1", "domain": {"name": "MY-account"}},
        ),
    ],
)
async def test_project_is_asked_for_by_id_or_by_name_with_domain(
    changes: dict[str, str | None], scope: dict[str, object]
) -> None:
    """A name without a domain is refused by real Keystone; an id needs none."""
    async with FakeIam(good()) as iam:
        await source(password_login(iam.tokens_url, **changes)).fetch()
        assert json.loads(iam.requests[0][2])["auth"]["scope"] == {"project": scope}


class TwoPasswords:
    """A login whose files hold what the test says, and whose account knows what it learns."""

    def __init__(
        self, iam: FakeIam, first: str, second: str, refusals: RefusalFile | None = None
    ) -> None:
        self.first, self.second = first, second
        self.ledger, self.passwords = RefusalLedger(), PasswordMemory()
        self._iam = iam
        login = PasswordLogin(
            tokens_url=iam.tokens_url,
            username="infer",
            user_domain="my-account",
            project="region-1",
            read_secret=lambda: SecretStr(self.first),
            read_next_secret=lambda: SecretStr(self.second),
        )
        self.source = KeystoneSource(
            login,
            clock=lambda: 5000.0,
            wall_clock=lambda: ISSUED,
            random=lambda: 0.0,
            ledger=self.ledger,
            passwords=self.passwords,
            refusals=refusals,
        )

    async def log_in(self) -> RefreshResult:
        """Log in as a cache does."""
        self.ledger.begin()
        result, asked = RefreshResult.OK, True
        try:
            login = await self.source.fetch()
            assert login.cache_key == await self.source.cache_key()
        except LoginError as error:
            result, asked = error.result, not error.is_remembered
        self.ledger.end(5000.0, refused=asked and result is RefreshResult.REFUSED)
        return result

    def tried(self) -> list[str]:
        """Return the passwords that IAM was asked with since the last time."""
        asked = [json.loads(body)["auth"]["identity"] for _, _, body in self._iam.requests]
        self._iam.requests.clear()
        return [identity["password"]["user"]["password"] for identity in asked]


async def test_next_password_is_tried_once_when_the_first_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And is the first from then on, until a file changes; no log shows either."""
    async with FakeIam(reply(401, b""), good(), good(), reply(401, b"")) as iam:
        it = TwoPasswords(iam, "old-canary", "new-canary")
        assert await it.log_in() is RefreshResult.OK
        assert it.tried() == ["old-canary", "new-canary"]
        assert await it.log_in() is RefreshResult.OK
        assert it.tried() == ["new-canary"]
        assert "write it into password_file" in caplog.text
        assert "canary" not in caplog.text
        it.second = "newer-canary"
        assert await it.log_in() is RefreshResult.REFUSED
        assert it.tried() == ["old-canary"]


@pytest.mark.parametrize(("second", "tried"), [("", ["a"]), ("a", ["a"]), ("b", ["a", "b"])])
async def test_what_is_refused_is_refused(second: str, tried: list[str]) -> None:
    """A missing next password and an equal one are none; two wrong ones are two refused logins."""
    async with FakeIam(reply(401, b"")) as iam:
        it = TwoPasswords(iam, "a", second)
        assert await it.log_in() is RefreshResult.REFUSED
        assert it.tried() == tried
        assert it.ledger.exhausted(5000.0) == (len(tried) == RefusalLedger.LIMIT)


async def test_next_password_is_not_tried_at_the_limit_of_refusals() -> None:
    """One login was refused before: with both passwords there would be three."""
    async with FakeIam(reply(401, b"")) as iam:
        it = TwoPasswords(iam, "a", "b")
        it.ledger.begin()
        it.ledger.end(5000.0, refused=True)
        assert await it.log_in() is RefreshResult.REFUSED
        assert it.tried() == ["a"]


async def test_refused_login_is_not_repeated_by_the_next_process(tmp_path: Path) -> None:
    """Another secret is tried, once; after that the account is left alone, whatever the secret."""
    async with FakeIam(reply(401, b"")) as iam:
        tried = []
        for secret in ("a", "a", "a", "b", "b", "c"):
            it = TwoPasswords(iam, secret, "", RefusalFile(tmp_path, lambda: ISSUED))
            assert await it.log_in() is RefreshResult.REFUSED
            tried += it.tried()
    assert tried == ["a", "b"]


async def test_next_process_begins_with_the_password_that_was_not_refused(tmp_path: Path) -> None:
    """However often it is started after a rotation, the old one is refused once."""
    async with FakeIam(reply(401, b""), good()) as iam:
        tried = []
        for _ in range(4):
            it = TwoPasswords(iam, "old", "new", RefusalFile(tmp_path, lambda: ISSUED))
            assert await it.log_in() is RefreshResult.OK
            tried += it.tried()
    assert tried == ["old", "new", "new", "new", "new"]


async def test_two_wrong_passwords_are_two_refused_logins_for_all_processes(tmp_path: Path) -> None:
    """The next one knows of both, and of one alone that a second one would be the last."""
    async with FakeIam(reply(401, b"")) as iam:
        refusals = RefusalFile(tmp_path, lambda: ISSUED)
        it = TwoPasswords(iam, "a", "", refusals)
        await it.log_in()
        it = TwoPasswords(iam, "b", "c", refusals)
        await it.log_in()
        assert it.tried() == ["a", "b"]


@pytest.mark.parametrize(
    "answer", [reply(500, b""), reply(429, b""), reply(401, b'{"error":{"message":"project"}}')]
)
async def test_next_password_is_not_for_other_failures(answer: bytes) -> None:
    """IAM that fails, that throttles, that refuses the project."""
    async with FakeIam(answer) as iam:
        it = TwoPasswords(iam, "a", "b")
        assert await it.log_in() is not RefreshResult.OK
        assert it.tried() == ["a"]


async def test_application_credential_is_sent_without_scope() -> None:
    """It carries its own project; any is believed."""
    async with FakeIam(good()) as iam:
        login = ApplicationCredentialLogin(
            tokens_url=iam.tokens_url,
            credential_id="ac",
            read_secret=lambda: SecretStr("s"),
        )
        await source(login).fetch()
        auth = json.loads(iam.requests[0][2])["auth"]
    assert auth == {
        "identity": {
            "methods": ["application_credential"],
            "application_credential": {"id": "ac", "secret": "s"},
        }
    }


async def test_application_credential_by_name_says_whose_it_is() -> None:
    """Keystone looks a name up among one user's."""
    async with FakeIam(good()) as iam:
        login = ApplicationCredentialLogin(
            tokens_url=iam.tokens_url,
            name="gateway",
            username="infer",
            user_domain="account",
            read_secret=lambda: SecretStr("s"),
        )
        await source(login).fetch()
        [request] = iam.requests
    assert json.loads(request[2])["auth"]["identity"]["application_credential"] == {
        "name": "gateway",
        "user": {"name": "infer", "domain": {"name": "account"}},
        "secret": "s",
    }


async def test_secret_is_read_for_each_login_and_is_part_of_the_key() -> None:
    """A changed file is used at once, and its token is never mixed up with the old one's."""
    secrets = iter(["first", "second", "second"])
    async with FakeIam(good()) as iam:
        login = ApplicationCredentialLogin(
            tokens_url=iam.tokens_url,
            credential_id="ac",
            read_secret=lambda: SecretStr(next(secrets)),
        )
        keystone = source(login)
        keys = [(await keystone.fetch()).cache_key for _ in range(2)]
        assert await keystone.cache_key() == keys[1]
    assert keys[0] != keys[1]
    assert b'"first"' in iam.requests[0][2]
    assert b'"second"' in iam.requests[1][2]
    assert "first" not in repr(keys)


@pytest.mark.parametrize(
    "changes",
    [{"project": "other"}, {"project_id": "p1"}, {"project_domain": "other"}],
)
async def test_key_covers_what_was_asked_for(changes: dict[str, str | None]) -> None:
    """A token for one project must never be found by an identity of another."""
    url = "http://127.0.0.1:1/v3/auth/tokens"
    plain, other = source(password_login(url)), source(password_login(url, **changes))
    assert await plain.cache_key() != await other.cache_key()
    assert plain.account == other.account


async def test_key_and_account_cover_who_asks_and_whom() -> None:
    """Another user, domain or IAM is another account, with tokens and refusals of its own."""
    url = "http://127.0.0.1:1/v3/auth/tokens"
    logins = [
        PasswordLogin(
            tokens_url=tokens_url,
            username=username,
            user_domain=domain,
            project_id="p1",
            read_secret=lambda: SecretStr("same"),
        )
        for tokens_url, username, domain in (
            (url, "infer", "mine"),
            (url, "train", "mine"),
            (url, "infer", "theirs"),
            (url + "/", "infer", "mine"),
        )
    ]
    assert len({await source(login).cache_key() for login in logins}) == 4
    assert len({source(login).account for login in logins}) == 4


@pytest.mark.parametrize("size", [32 * 1024, 65536])
async def test_large_token_is_accepted(size: int) -> None:
    """The vendor declares up to 32 768 bytes; aiohttp by itself would stop at 8190."""
    login = await log_in(good("x" * size))
    assert login.facts is not None
    assert login.facts.length == size


async def test_token_beyond_64_kib_is_refused_without_being_quoted() -> None:
    """aiohttp's own message would contain its beginning."""
    for token in ("x" * 65537, "canary" * 12000):
        assert (await failure(good(token))).result is RefreshResult.BAD_REPLY


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (reply(200, token_body(), {"X-Subject-Token": TOKEN}), "status 200"),
        (reply(204, b"", {"X-Subject-Token": TOKEN}), "status 204"),
        (reply(201, token_body()), "0 X-Subject-Token"),
        (good(""), "empty"),
        (good("a b"), "visible ASCII"),
        (good(b"caf\xe9"), "visible ASCII"),
        (good(b"a\tb"), "visible ASCII"),
        (good(b"canary\x01"), ""),
        (good(b"canary\x00"), ""),
        (good(b"a\r\nX-Subject-Token: b"), "2 X-Subject-Token"),
        (good(body=b"<html>canary</html>"), "not JSON"),
        (good(body=b"[" * 100_000), "not JSON"),
        # Nobody asked for it, and unpacking it would be a way to a gigabyte.
        (good(body=gzip.compress(token_body()), fields={"Content-Encoding": "gzip"}), "not JSON"),
        (good(body=b'{"canary": ' + b"9" * 5000 + b"}"), "not JSON"),
        (good(body=b"\xff\xfe\xfa"), "not JSON"),
        (good(body=b"[]"), "expires_at"),
        (good(body=b'{"token": []}'), "expires_at"),
        (good(body=token_body(expires_at=None)), "expires_at"),
        (good(body=token_body(expires_at=1893542400)), "expires_at"),
        (good(body=token_body(expires_at="tomorrow")), "expires_at"),
        (good(body=token_body(expires_at="2030-01-02T00:00:00")), "expires_at"),
        (good(body=token_body(expires_at="0001-01-01T00:00:00+23:59")), "expires_at"),
        (good(body=token_body(expires_at="2030-01-01T00:00:00Z")), "expired already"),
        (good(body=token_body(expires_at="2029-12-31T00:00:00Z")), "expired already"),
        (good(body=token_body(expires_at="2030-02-01T00:00:01Z")), "31 days"),
        (good(body=token_body(expires_at="9999-12-31T23:59:59Z")), "31 days"),
        (good(body=token_body(project={})), "no project"),
        (good(body=token_body(project="region-1")), "no project"),
        (good(body=token_body(project={"id": "p2", "name": "region-2"})), "another project"),
        (
            good(
                body=token_body(
                    project={"id": "p1", "name": "region-1", "domain": {"name": "theirs"}}
                )
            ),
            "another project",
        ),
        (good(body=token_body(project={"id": "p1", "name": 7})), "another project"),
        (good(body=token_body(padding=BIG)), "larger than 1 MiB"),
        (reply(302, b"", {"Location": "http://127.0.0.1:1/", "X-Subject-Token": TOKEN}), "redir"),
        (reply(307, b"", {"Location": "/canary"}), "redirect"),
        (reply(404, b"{}"), "auth_url"),
        (reply(409, b"{}"), "unexpected status"),
        (
            reply(500, b"canary"),
            "IAM failed (5xx): wait, and check IAM's state and any proxy on the way (status 500)",
        ),
        (reply(503, b'{"code": "IAM.0011"}'), "status 503, code IAM.0011"),
        (b"canary canary\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 201 Created\r\nContent-Length: canary\r\n\r\n", "not valid HTTP"),
        (reply(201, b"{", {"X-Subject-Token": TOKEN}, length=99), "not valid HTTP"),
    ],
)
async def test_answer_that_must_not_be_believed_is_a_bad_reply(answer: bytes, why: str) -> None:
    """Whatever is wrong with it, nothing of it is quoted and no token comes out."""
    error = await failure(answer)
    assert error.result is RefreshResult.BAD_REPLY
    assert why in str(error)
    assert error.skew_s is None


async def test_wrong_project_id_is_not_believed() -> None:
    """Asked for by id, it must come back with that id."""
    error = await failure(good(), project_id="p9")
    assert "another project" in str(error)


@pytest.mark.parametrize("name", ["region-1", "Region-1"])
async def test_project_name_is_compared_without_case(name: str) -> None:
    """Keystone on MySQL finds names that way."""
    assert (await log_in(good(), project=name)).facts is not None


async def test_body_of_one_mebibyte_is_still_read() -> None:
    """The limit is where it says."""
    padding = BIG - len(token_body())
    assert len(token_body(padding=padding)) == BIG
    await log_in(good(body=token_body(padding=padding)))
    error = await failure(good(body=token_body(padding=padding + 1)))
    assert "1 MiB" in str(error)


@pytest.mark.parametrize(
    ("issued_at", "expires_at", "date", "life_s"),
    [
        ("2030-01-01T00:00:00.000000Z", "2030-01-01T01:00:00.500000Z", None, 3600.5),
        ("2030-01-01T00:00:00Z", "2030-01-01T01:00:00Z", None, 3600),
        ("2030-01-01T00:00:00+00:00", "2030-01-01T03:00:00+02:00", None, 3600),
        ("2030-01-01T00:00:00Z", "2030-02-01T00:00:00Z", None, 31 * 86400),
        # A token that IAM made ten minutes ago has ten minutes less, and what Date leaves out.
        ("2030-01-01T00:00:00Z", "2030-01-01T01:00:00Z", ISSUED + 600, 2999),
        # A Date before issued_at adds nothing.
        ("2030-01-01T00:00:00Z", "2030-01-01T01:00:00Z", ISSUED - 600, 3600),
        (None, "2030-01-01T01:00:00Z", ISSUED + 60, 3539),
        # Without any time of IAM's, our own is all there is; it runs an hour fast here.
        (None, "2030-01-01T02:00:00Z", None, 3600),
    ],
)
async def test_life_is_counted_by_iams_clock(
    issued_at: str | None, expires_at: str, date: float | None, life_s: float
) -> None:
    """Our wall clock is an hour fast throughout, and matters only where IAM tells no time."""
    fields = {} if date is None else {"Date": http_date(date)}
    body = token_body(issued_at=issued_at, expires_at=expires_at)
    login = await log_in(good(body=body, fields=fields), wall=ISSUED + 3600)
    assert login.credential.expires_at == pytest.approx(5000 + life_s - 5)


async def test_life_is_counted_from_the_moment_of_asking() -> None:
    """An answer that takes 3 s shortens the life by 3 s; it never lengthens it."""
    async with FakeIam(good()) as iam:
        keystone = KeystoneSource(
            password_login(iam.tokens_url),
            clock=lambda: 5000.0 + 3 * len(iam.requests),
            wall_clock=lambda: ISSUED + 3 * len(iam.requests),
            random=lambda: 0.0,
        )
        credential = (await keystone.fetch()).credential
    assert credential.stale_at == 5000 + 43200
    assert credential.expires_at == 5000 + 86395
    assert credential.wall_expires_at == ISSUED + 86395


@pytest.mark.parametrize("skew_s", [-3600.0, 3600.0])
async def test_skew_is_measured_on_every_answer(skew_s: float) -> None:
    """Ours minus IAM's, on success, refusal and disbelief alike; the life does not suffer."""
    date = {"Date": http_date(ISSUED)}
    login = await log_in(good(fields=date), wall=ISSUED + skew_s)
    assert login.skew_s == skew_s
    assert login.credential.expires_at == 5000 + 86395
    for answer in (reply(401, b"", date), good("", fields=date)):
        assert (await failure(answer, wall=ISSUED + skew_s)).skew_s == skew_s


@pytest.mark.parametrize("date", ["yesterday", "Tue, 01 Jan 2030 00:00:00 +0100", "", "1893456000"])
async def test_unreadable_date_counts_as_none(date: str) -> None:
    """A broken Date field is no reason to refuse a token."""
    assert (await log_in(good(fields={"Date": date}))).skew_s is None


@pytest.mark.parametrize(
    ("status", "body", "code", "remedy"),
    [
        (401, b'{"error_code": "IAM.0061", "error_msg": "canary"}', "IAM.0061", "locked"),
        (401, b'{"errorCode": "IAM.0101", "errorMsg": "canary"}', "IAM.0101", "user_domain"),
        (401, b'{"code": "IAM.0001", "message": "canary"}', "IAM.0001", "the secret"),
        (401, b'{"error": {"code": 401, "title": "canary"}}', "401", "the secret"),
        (403, b'{"error": {"error_code": "IAM.0002"}}', "IAM.0002", "project role"),
        (400, b'{"data": {"errorCode": "IAM.0061"}}', "IAM.0061", "locked"),
        (400, b'{"error_code": "canary"}', None, "project_domain"),
        (401, b'{"error_code": {"a": 1}, "code": true}', None, "the secret"),
        (401, b"<html>canary</html>", None, "the secret"),
        (401, b"x" * (BIG + 1), None, "the secret"),
        (403, b"", None, "project role"),
    ],
)
async def test_refusal_is_told_with_code_and_remedy(
    status: int, body: bytes, code: str | None, remedy: str
) -> None:
    """In our words: of IAM's only the code and the trace, and those only if they look the part."""
    error = await failure(reply(status, body, {"X-IAM-Trace-Id": "0123456789abcdef"}))
    assert error.result is RefreshResult.REFUSED
    assert remedy in str(error)
    told = f", code {code}" if code else ""
    assert str(error).endswith(f"(status {status}{told}, trace 0123456789abcdef)")


@pytest.mark.parametrize("body", [b"x", b""])
async def test_refusal_counts_though_its_body_is_cut(body: bytes) -> None:
    """IAM has counted the wrong login before it wrote the body."""
    error = await failure(reply(401, body, length=10))
    assert error.result is RefreshResult.REFUSED


async def test_refusal_counts_though_its_body_never_comes() -> None:
    """As above, with a body that stalls past the time limit."""
    async with FakeIam(b"HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\n") as iam:
        keystone = source(password_login(iam.tokens_url), total_s=0.3)
        with pytest.raises(LoginError) as caught:
            await keystone.fetch()
    assert caught.value.result is RefreshResult.REFUSED


async def test_strange_trace_is_not_logged() -> None:
    """A header is no way into our log."""
    assert "trace" not in str(await failure(reply(401, b"", {"X-Request-Id": "pass-canary"})))
    assert "trace req-0a1b2c3d" in str(
        await failure(reply(401, b"", {"X-Request-Id": "req-0a1b2c3d"}))
    )


@pytest.mark.parametrize(
    ("retry_after", "date", "expected"),
    [
        (None, None, None),
        ("17", None, 17.0),
        (http_date(ISSUED + 30), http_date(ISSUED + 10), 20.0),
        (http_date(ISSUED + 30), None, 30.0),
        ("-1", None, None),
        ("soon", None, None),
        ("9" * 400, None, None),
    ],
)
async def test_throttling_carries_retry_after(
    retry_after: str | None, date: str | None, expected: float | None
) -> None:
    """In seconds or as a date, by IAM's own clock where it tells it."""
    fields = {"Retry-After": retry_after, "Date": date}
    error = await failure(reply(429, b"", {k: v for k, v in fields.items() if v is not None}))
    assert error.result is RefreshResult.THROTTLED
    assert error.retry_after_s == expected


async def test_silent_iam_is_a_timeout() -> None:
    """Connected, asked, never answered."""
    async with FakeIam(HANG) as iam:
        with pytest.raises(LoginError) as caught:
            await source(password_login(iam.tokens_url), total_s=0.2).fetch()
    assert caught.value.result is RefreshResult.TIMEOUT


async def test_cancelled_login_leaves_no_connection() -> None:
    """The server sees the end of it."""
    async with FakeIam(HANG) as iam:
        task = asyncio.create_task(source(password_login(iam.tokens_url)).fetch())
        async with asyncio.timeout(PATIENCE_S):
            await iam.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(PATIENCE_S):
            await iam.left.wait()


async def test_unanswering_network_is_told_apart() -> None:
    """Refused, closed without a word, no such name: all `network`, each with its sentence."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connecting is refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v3/auth/tokens"
        with pytest.raises(LoginError, match="cannot be connected to") as refused:
            await source(password_login(url)).fetch()
    assert (await failure(b"")).result is RefreshResult.NETWORK
    with pytest.raises(LoginError, match="cannot be resolved") as unknown:
        await source(password_login("http://iam.invalid/v3/auth/tokens")).fetch()
    assert refused.value.result is unknown.value.result is RefreshResult.NETWORK


def secure_iam(name: str) -> tuple[AbstractAsyncContextManager[FakeIam], trustme.CA]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)

    @asynccontextmanager
    async def serving() -> AsyncIterator[FakeIam]:
        async with FakeIam(good(), tls=context) as iam:
            yield iam

    return serving(), authority


async def test_certificates_are_verified() -> None:
    """Unknown authority and wrong name fail; the right authority with the given name is good."""
    serving, authority = secure_iam("iam.example")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with serving as iam:
        login = password_login(iam.tokens_url)
        for keystone in (source(login), source(login, tls=trusting)):
            with pytest.raises(LoginError, match="certificate is not trusted") as caught:
                await keystone.fetch()
            assert caught.value.result is RefreshResult.NETWORK
        assert iam.requests == []
        await source(login, tls=trusting, name="iam.example").fetch()
        assert len(iam.requests) == 1


async def test_tls_to_a_plain_port_is_a_network_failure() -> None:
    """The usual wrong scheme."""
    async with FakeIam(good()) as iam:
        url = iam.tokens_url.replace("http:", "https:")
        with pytest.raises(LoginError, match="TLS") as caught:
            await source(password_login(url)).fetch()
    assert caught.value.result is RefreshResult.NETWORK


async def test_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password must not take the way that HTTP_PROXY happens to name."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    await log_in(good())


async def test_cookie_of_one_login_is_not_sent_with_the_next() -> None:
    """IAM's load balancers set them; nothing of one login may show in another."""
    async with FakeIam(good(fields={"Set-Cookie": "a=b; Path=/"})) as iam:
        keystone = source(password_login(iam.tokens_url.replace("127.0.0.1", "localhost")))
        await keystone.fetch()
        await keystone.fetch()
    assert "cookie" not in iam.requests[1][1]


async def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Neither by us nor by aiohttp, even at DEBUG."""
    caplog.set_level(logging.DEBUG)
    await log_in(good())
    await failure(good("canary" * 12000))
    await failure(reply(401, b"canary"))
    assert "canary" not in caplog.text


async def test_texts_of_iam_are_made_printable_and_short() -> None:
    """They are logged and shown: no line breaks, no escape codes, no megabytes."""
    project = {"id": "p1\x1b[2J", "name": "region-1\nX" + "y" * 500}
    body = token_body(project=project)
    async with FakeIam(good(body=body)) as iam:
        login = await source(
            ApplicationCredentialLogin(
                tokens_url=iam.tokens_url, credential_id="ac", read_secret=lambda: SecretStr("s")
            )
        ).fetch()
    assert login.facts is not None
    assert login.facts.project_id == "p1?[2J"
    assert login.facts.project is not None
    assert login.facts.project.startswith("region-1?Xyyy")
    assert len(login.facts.project) == 100
