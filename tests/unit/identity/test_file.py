"""Credentials that need no IAM."""

from pathlib import Path

import pytest

from gateway.identity.file import AnonymousSource, FileSource
from gateway.identity.refresh import RefreshResult
from gateway.identity.source import LoginError


async def test_token_file_is_read_each_time_and_never_expires(tmp_path: Path) -> None:
    """Its newlines are not part of the token; each content has a key of its own."""
    path = tmp_path / "token"
    path.write_text("first\r\n\n")
    source = FileSource(path)
    first = await source.fetch()
    assert first.credential.field_lines == b"X-Auth-Token: first\r\n"
    assert first.credential.stale_at == first.credential.expires_at == float("inf")
    assert first.facts is not None
    assert first.facts.length == 5
    assert await source.cache_key() == first.cache_key
    path.write_text("second\n")
    second = await source.fetch()
    assert second.credential.field_lines == b"X-Auth-Token: second\r\n"
    assert second.cache_key != first.cache_key
    assert "first" not in repr(first)


@pytest.mark.parametrize("content", ["", "\n", "\n\n", "can ary", "canary\r\nX-Evil: 1", "é"])
async def test_bad_token_file_is_refused_and_not_quoted(tmp_path: Path, content: str) -> None:
    """As strictly as an answer of IAM's."""
    path = tmp_path / "token"
    path.write_bytes(content.encode())
    with pytest.raises(LoginError) as caught:
        await FileSource(path).fetch()
    assert caught.value.result is RefreshResult.BAD_REPLY
    assert "ary" not in str(caught.value)


async def test_method_none_adds_nothing() -> None:
    """And is always usable."""
    source = AnonymousSource()
    login = await source.fetch()
    assert login.credential.field_lines == b""
    assert login.credential.expires_at == float("inf")
    assert login.facts is None
    assert await source.cache_key() == login.cache_key
