"""What is built from the settings of an identity."""

import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.assembly.identities import build_identity
from gateway.identity.platform import POD_TOKEN_FILE_VARIABLE, POD_URL_VARIABLE
from gateway.identity.source import LoginError
from gateway.settings import Tls, load
from tests.support.fake_iam import FakeIam, reply

IN_A_DAY = datetime.now(UTC) + timedelta(days=1)
KEY = {"access": "a", "secret": "s", "expires_at": IN_A_DAY.strftime("%Y-%m-%dT%H:%M:%SZ")}
NO_SESSIONS = reply(404, b"")
GIVEN = reply(200, json.dumps({"credential": KEY}).encode())


@pytest.mark.parametrize("origin", ["metadata", "pod"])
async def test_a_platform_over_https_is_verified_with_the_context_for_its_settings(
    origin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A platform's own context, and no other: an authority that it does not trust is refused."""
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    trusting, strict = ssl.create_default_context(), ssl.create_default_context()
    authority.configure_trust(trusting)
    (tmp_path / "token").write_text("token")
    async with FakeIam(*([NO_SESSIONS] if origin == "metadata" else []), GIVEN, tls=serving) as it:
        url = f"https://127.0.0.1:{it.port}"
        monkeypatch.setenv(POD_URL_VARIABLE, url)
        monkeypatch.setenv(POD_TOKEN_FILE_VARIABLE, str(tmp_path / "token"))
        identity: dict[str, Any] = {"method": "ak_sk", "from": origin}
        if origin == "metadata":
            identity["metadata_url"] = url
        services = {"iris": {"url": "https://127.0.0.1:1/"}}
        flags = {"identities": {"default": identity}, "services": services}
        settings = load(file=None, environ={}, flags=flags).settings.identities["default"]
        asked_for: list[tuple[str, Tls]] = []

        def context_of(key: str, tls: Tls) -> ssl.SSLContext:
            asked_for.append((key, tls))
            return strict if len(asked_for) == 1 else trusting

        with pytest.raises(LoginError, match="certificate is not trusted"):
            await build_identity("default", settings, context_of=context_of).source.fetch()
        assert not it.requests
        await build_identity("default", settings, context_of=context_of).source.fetch()
        assert it.requests
        assert asked_for == [("identities.default.tls", Tls())] * 2
