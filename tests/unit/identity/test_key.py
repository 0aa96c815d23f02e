"""Keys that go into one header field, without any login."""

import asyncio
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from gateway.identity.credential_cache import CredentialCache
from gateway.identity.key import LONGEST_KEY, KeySource, key_line
from gateway.identity.refresh import RefreshResult
from gateway.identity.report import KEY_REFUSED
from gateway.identity.source import LoginError
from gateway.identity.store import TokenStore
from tests.support.fake_source import Remembering
from tests.support.fake_time import FakeTime


async def test_a_key_goes_into_its_field_and_never_expires() -> None:
    """`expires` is for people and gauges; each key has a place of its own in the store."""
    keys = iter(["first-canary", "first-canary", "second"])
    end = datetime(2027, 1, 31, tzinfo=UTC)
    source = KeySource("Authorization", "Bearer ", lambda: SecretStr(next(keys)), expires=end)

    login = await source.fetch()

    assert login.credential.field_lines == b"Authorization: Bearer first-canary\r\n"
    assert login.credential.stale_at == login.credential.expires_at == float("inf")
    assert login.credential.wall_expires_at == end.timestamp()
    assert not login.credential.renewable
    assert login.facts is not None
    assert (login.facts.length, login.facts.expires_at) == (12, end)
    assert await source.cache_key() == login.cache_key
    assert await source.cache_key() != login.cache_key
    assert "canary" not in repr(login)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("", "it is empty; write the key"),
        ("can\nary", "it holds a line break; write the key alone, on one line"),
        ("api_key,name\ncan,ary", "of a CSV file only the field api_key"),
        ("Bearer canary", "as `prefix`"),
        ("canar\u00e9", "something else than visible ASCII"),
        ("canary\x00", "something else than visible ASCII"),
        ("c" * (LONGEST_KEY + 1), f"longer than {LONGEST_KEY} bytes"),
    ],
)
async def test_a_key_that_cannot_be_sent_is_refused_and_not_quoted(content: str, hint: str) -> None:
    """With what to do about it."""
    with pytest.raises(LoginError) as caught:
        await KeySource("X-Key", "", lambda: SecretStr(content)).fetch()
    assert caught.value.result is RefreshResult.BAD_REPLY
    assert hint in str(caught.value)
    assert "anar" not in str(caught.value)


def test_the_longest_key_fits() -> None:
    """32 KiB, as the vendor's gateways take them."""
    assert len(key_line("X-Key", "", SecretStr("c" * LONGEST_KEY))) == LONGEST_KEY + 9


async def test_a_refused_key_stays_in_use_until_it_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """There is no other; the status and one line a minute say what it may mean."""
    time = FakeTime()
    source = KeySource("X-Key", "", lambda: SecretStr("canary"))
    cache = CredentialCache(
        "maas",
        source,
        store=TokenStore(time.clock),
        clock=time.clock,
        alarm=time.alarm,
        observer=Remembering(),
        random=lambda: 0.0,
    )
    cache.start()
    credential = await cache.obtain()
    assert cache.status(time.now).refused_s is None

    assert not cache.reject(credential)
    await time.advance(7)
    assert not cache.reject(credential)
    await time.advance(2)

    assert cache.usable(time.now) is credential
    assert cache.status(time.now).refused_s == 2
    lines = [record.getMessage() for record in caplog.records if "401" in record.getMessage()]
    assert lines == [f"identity maas: {KEY_REFUSED}"]
    await time.advance(60)
    cache.secret_changed()
    assert cache._task is not None
    await asyncio.wait({cache._task})
    assert cache.status(time.now).refused_s is None
    await cache.aclose()
