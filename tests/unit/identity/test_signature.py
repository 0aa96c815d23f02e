"""Signatures: as the vendor's SDKs make them, and no dearer than they must be."""

import hmac
import json
import random
import subprocess
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials  # type: ignore[import-untyped]
from huaweicloudsdkcore.sdk_request import SdkRequest  # type: ignore[import-untyped]
from huaweicloudsdkcore.signer.signer import Signer  # type: ignore[import-untyped]

from gateway.identity.credential import Credential
from gateway.identity.signature import (
    LARGEST_CLOCK_ERROR_S,
    ServiceClocks,
    SignedCredential,
    _KeyedHash,
    canonical_path,
    canonical_query,
    date_text,
)
from tests.support.tools import npm_package, tool

AK, SK, TOKEN = "TWINACCESSKEY0000001", "twin-secret-key-canary", "temporary-token-canary"
NOW = 1_795_000_000.0
STAMP = datetime.fromtimestamp(NOW, UTC).strftime("%Y%m%dT%H%M%SZ")
TEXTS = "abcXYZ019-._~ !$&'()*+,;=:@/?#[]%\u00e9\u4e2d\U0001f600"
# What a caller may send as it is: gateway/http/target.py.
PLAIN = "abcXYZ019-._~!$&'()*+,=:@"
IN_QUERIES = PLAIN.replace("&", "")
ROOT = Path(__file__).parents[3]


class Clocks:
    """A gateway clock that begins at 0 and a wall clock, both set by the test."""

    def __init__(self, *, wall: float = NOW) -> None:
        self.now = 0.0
        self.wall = wall
        self.of_services = ServiceClocks(lambda: self.now, lambda: self.wall)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds

    def credential(self, security_token: str | None = None) -> SignedCredential:
        return SignedCredential(
            AK, SK, security_token, self.of_services, stale_at=9e9, expires_at=9e9
        )


def fields(lines: bytes) -> dict[str, str]:
    """The header fields in `lines`, which must be whole."""
    assert lines.endswith(b"\r\n")
    pairs = (line.partition(": ") for line in lines.decode("ascii").split("\r\n")[:-1])
    return {name: value for name, _, value in pairs}


def text(chance: random.Random, alphabet: str, longest: int) -> str:
    return "".join(chance.choices(alphabet, k=chance.randint(0, longest)))


def encoded(chance: random.Random, decoded: str, plain: str) -> str:
    """Percent-encode what must be, and some of the rest, in either letter case."""
    out = ""
    for char in decoded:
        if char in plain and chance.random() < 0.8:
            out += char
        else:
            code = "".join(f"%{byte:02X}" for byte in char.encode())
            out += code if chance.random() < 0.8 else code.lower()
    return out


def by_sdk(
    method: str, host: str, path: str, pairs: list[tuple[str, str]], token: str | None
) -> dict[str, str]:
    headers = {"X-Sdk-Date": STAMP, "X-Sdk-Content-Sha256": "UNSIGNED-PAYLOAD", "Host": host}
    if token:
        headers["X-Security-Token"] = token
    request = SdkRequest(
        method=method,
        schema="https",
        host=host,
        resource_path=path,
        query_params=pairs,
        header_params=headers,
        body="a body, without which the SDK signs another hash",
    )
    signed = Signer(BasicCredentials(AK, SK, "project")).sign(request).header_params
    signed.pop("Host")
    return {str(name): str(value) for name, value in signed.items()}


def test_signatures_are_those_of_the_sdk() -> None:
    """2500 targets: every kind of character, encoded or not, with and without a temporary key."""
    chance = random.Random(15)
    clocks = Clocks()
    credentials = {token: clocks.credential(token) for token in (None, TOKEN)}
    seen = set()
    for _ in range(2500):
        segments = [text(chance, TEXTS.replace("/", ""), 8) for _ in range(chance.randint(0, 5))]
        path = "/" + "/".join(encoded(chance, segment, PLAIN) for segment in segments)
        pairs = [
            ("n" + text(chance, TEXTS, 3), text(chance, TEXTS, 6))
            for _ in range(chance.choice([0, 0, 1, 2, 6]))
        ]
        query = "&".join(
            encoded(chance, name, IN_QUERIES.replace("=", ""))
            + ("=" + encoded(chance, value, IN_QUERIES) if value or chance.random() < 0.5 else "")
            for name, value in pairs
        )
        method = chance.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
        host = chance.choice(["models.example", "models.example:8443", "127.0.0.1:81", "[::1]:8"])
        token = chance.choice([None, TOKEN])
        lines = credentials[token].lines_for(
            method,
            f"Host: {host}".encode(),
            path.encode(),
            f"?{query}".encode() if query or chance.random() < 0.1 else b"",
            clocks.now,
        )
        assert fields(lines) == by_sdk(method, host, path, list(pairs), token), (path, query)
        seen.add(lines)
    assert len(seen) > 2000


@pytest.mark.long
def test_signatures_are_those_of_the_other_sdk(tmp_path: Path) -> None:
    """200 targets, by the SDK for Node, which writes `host` first and takes paths as they are."""
    node = tool("node", "nodejs")
    folder = npm_package(ROOT / ".venv" / "npm-sdk", "@huaweicloud/huaweicloud-sdk-core@3.1.211")
    chance = random.Random(16)
    clocks = Clocks()
    rows, ours = [], []
    for _ in range(200):
        # It does not decode a path before it encodes it.
        path = "/" + "/".join(text(chance, "abcXYZ019-._~", 8) for _ in range(4))
        pairs = {f"n{text(chance, TEXTS, 3)}": text(chance, TEXTS, 6) for _ in range(3)}
        query = "&".join(f"{quote(n, safe='')}={quote(v, safe='')}" for n, v in pairs.items())
        token = chance.choice([None, TOKEN])
        rows.append({"path": path, "query": pairs, "token": token})
        lines = clocks.credential(token).lines_for(
            "POST", b"Host: models.example", path.encode(), f"?{query}".encode(), 0.0
        )
        ours.append(fields(lines)["Authorization"])
    script = tmp_path / "sign.cjs"
    script.write_text(
        f"""
        const {{ AKSKSigner }} = require({json.dumps(str(folder))} + "/auth/AKSKSigner.js");
        const key = {{ getAk: () => {json.dumps(AK)}, getSk: () => {json.dumps(SK)} }};
        const rows = JSON.parse(require("fs").readFileSync(0));
        console.log(JSON.stringify(rows.map((row) => AKSKSigner.sign({{
          method: "POST",
          endpoint: "https://models.example" + row.path,
          queryParams: row.query,
          headers: {{
            "X-Sdk-Date": {json.dumps(STAMP)},
            "X-Sdk-Content-Sha256": "UNSIGNED-PAYLOAD",
            "content-type": "multipart/form-data",
            ...(row.token && {{ "X-Security-Token": row.token }}),
          }},
        }}, key).Authorization)));
        """
    )
    done = subprocess.run(
        [node, str(script)], input=json.dumps(rows), capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == ours


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        (b"/", b"/"),
        (b"/a", b"/a/"),
        (b"/a/", b"/a/"),
        (b"/a%2fb", b"/a/b/"),
        (b"/a+b%20c~", b"/a%2Bb%20c~/"),
        (b"/%E4%b8%ad%ff", b"/%E4%B8%AD%FF/"),
        (b"/100%2525", b"/100%2525/"),
    ],
)
def test_paths_are_decoded_once_and_encoded_anew(path: bytes, canonical: bytes) -> None:
    """With a slash at the end."""
    assert canonical_path(path) == canonical


@pytest.mark.parametrize(
    ("query", "canonical"),
    [
        (b"", b""),
        (b"?", b""),
        (b"?&&", b""),
        (b"?=v", b""),
        (b"?b&a=", b"a=&b="),
        (b"?a=2&a=10&A=1", b"A=1&a=10&a=2"),
        (b"?a=b=c", b"a=b%3Dc"),
        (b"?a+b=c%2Bd", b"a%2Bb=c%2Bd"),
        (b"?a=?", b"a=%3F"),
    ],
)
def test_queries_are_sorted_and_encoded_anew(query: bytes, canonical: bytes) -> None:
    """A plus sign is not a space."""
    assert canonical_query(query) == canonical


def test_a_signature_is_computed_once_per_target_and_second() -> None:
    """The same object within a second, another one in the next; targets do not share."""
    clocks = Clocks()
    credential = clocks.credential()

    def lines(path: bytes = b"/a", query: bytes = b"", method: str = "POST") -> bytes:
        return credential.lines_for(method, b"Host: h", path, query, clocks.now)

    first = lines()
    clocks.advance(0.9)
    assert lines() is first
    assert len({first, lines(b"/b"), lines(query=b"?x"), lines(method="GET")}) == 4
    clocks.advance(0.2)
    assert fields(lines())["X-Sdk-Date"] > fields(first)["X-Sdk-Date"]


def test_the_time_in_responses_is_looked_at_now_and_then() -> None:
    """At once at first, then every 10 s, and in every refusal."""
    clocks = Clocks()
    credential = clocks.credential()
    assert credential.wants_date(200, clocks.now)
    credential.note_date(b"Host: h", NOW, clocks.now)
    assert not credential.wants_date(200, clocks.now)
    assert credential.wants_date(401, clocks.now)
    clocks.advance(10)
    assert credential.wants_date(200, clocks.now)
    assert not Credential(b"", 0.0, 0.0).wants_date(401, 0.0)


def test_memory_for_targets_is_bounded() -> None:
    """A caller that never asks for the same twice costs a few hundred entries."""
    clocks = Clocks()
    credential = clocks.credential()
    for number in range(3000):
        credential.lines_for("GET", b"Host: h", b"/a", b"?%d" % number, clocks.now)
    [host] = credential._hosts.values()
    assert len(host.lines) <= 512
    assert len(host.canonical) <= 512


def test_long_targets_are_signed_and_not_remembered() -> None:
    """512 of 8 KiB, which any caller can send, would take 16 MiB."""
    clocks = Clocks()
    credential = clocks.credential()

    def sign(number: int) -> bytes:
        query = b"?%d=" % number + b"^" * 8000
        return credential.lines_for("GET", b"Host: h", b"/a", query, clocks.now)

    first = sign(0)
    tracemalloc.start()
    try:
        for number in range(500):
            sign(number)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sign(0) == first
    assert kept < 2**20


def test_a_date_at_the_end_of_the_calendar_is_none() -> None:
    """A second later there would be no day to sign for, and no request that corrects that."""
    clocks = Clocks()
    credential = clocks.credential()
    last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
    credential.note_date(b"Host: h", last, clocks.now)
    clocks.advance(2)
    lines = credential.lines_for("GET", b"Host: h", b"/a", b"", clocks.now)
    assert fields(lines)["X-Sdk-Date"] < "9999"


def test_a_clock_that_is_wrong_is_corrected_by_the_services_own() -> None:
    """From the response on that tells the time, for that host alone, whatever NTP does later."""
    clocks = Clocks(wall=NOW + 1200)
    credential = clocks.credential()

    def date(host: bytes) -> float:
        lines = credential.lines_for("GET", host, b"/a", b"", clocks.now)
        text = fields(lines)["X-Sdk-Date"]
        return datetime.strptime(text, "%Y%m%dT%H%M%S%z").timestamp()

    assert date(b"Host: one") == NOW + 1200
    assert not credential.is_cured(clocks.now)
    credential.note_date(b"Host: one", NOW, clocks.now)
    assert credential.is_cured(clocks.now)
    assert date(b"Host: one") == NOW
    assert date(b"Host: two") == NOW + 1200
    assert credential.skew_s(None) == pytest.approx(1200, abs=1)

    clocks.advance(61)
    assert not credential.is_cured(clocks.now)
    clocks.wall = NOW + clocks.now  # NTP sets it right
    assert date(b"Host: one") == NOW + 61
    credential.note_date(b"Host: one", NOW + 61, clocks.now)
    assert not credential.is_cured(clocks.now)
    assert credential.skew_s(None) == pytest.approx(0, abs=1)
    assert date(b"Host: one") == NOW + 61


def test_small_differences_of_clocks_change_nothing() -> None:
    """A `Date` is told to the second, and on its way for a while."""
    clocks = Clocks()
    credential = clocks.credential()
    first = credential.lines_for("GET", b"Host: h", b"/a", b"", clocks.now)
    credential.note_date(b"Host: h", NOW - LARGEST_CLOCK_ERROR_S + 1, clocks.now)
    assert credential.lines_for("GET", b"Host: h", b"/a", b"", clocks.now) is first
    assert not credential.is_cured(clocks.now)


@pytest.mark.parametrize("key", ["k", "k" * 64, "k" * 65, "k" * 200])
def test_keys_of_any_length_are_hashed_as_the_rfc_has_it(key: str) -> None:
    """RFC 2104: a key longer than a block is hashed first."""
    expected = hmac.new(key.encode(), b"text", "sha256").hexdigest()
    assert _KeyedHash(key.encode()).hexdigest(b"text") == expected


@pytest.mark.parametrize("second", [0, 86399, 86400, 1_795_000_000, 4_102_444_799])
def test_instants_are_written_as_the_signature_wants_them(second: int) -> None:
    """UTC, to the second."""
    expected = datetime.fromtimestamp(second, UTC).strftime("%Y%m%dT%H%M%SZ")
    assert date_text(second) == expected.encode()


def test_nothing_of_a_key_is_in_its_text() -> None:
    """Tracebacks and logs show objects."""
    assert "canary" not in repr(Clocks().credential(TOKEN))
