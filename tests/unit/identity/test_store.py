"""Tokens and refusals that outlive a cache."""

from collections.abc import Hashable

from gateway.identity.credential import Credential
from gateway.identity.source import Login
from gateway.identity.store import TokenStore
from tests.support.fake_time import FakeTime


def login(key: Hashable, end: float) -> Login:
    return Login(Credential(b"", stale_at=0.0, expires_at=end), key)


def test_login_is_found_under_its_own_key_until_it_expires() -> None:
    """Not a moment longer, and never under another key."""
    time = FakeTime(0.0)
    store = TokenStore(time.clock)
    store.put(kept := login("a", 10.0))
    time.now = 9.9
    assert store.get("a") is kept
    assert store.get("b") is None
    time.now = 10.0
    assert store.get("a") is None


def test_expired_login_is_not_even_kept() -> None:
    """And it displaces what was there: the later word counts."""
    time = FakeTime(5.0)
    store = TokenStore(time.clock)
    store.put(login("a", 10.0))
    store.put(login("a", 5.0))
    assert store.get("a") is None


def test_drop_spares_a_successor() -> None:
    """A late rejection of an old token must not cost the new one."""
    store = TokenStore(FakeTime(0.0).clock)
    store.put(old := login("a", 10.0))
    store.put(new := login("a", 10.0))
    store.drop(old)
    assert store.get("a") is new
    store.drop(new)
    assert store.get("a") is None
    store.drop(new)


def test_tokens_for_ever_are_bounded_in_number() -> None:
    """A token file that changes daily for years must not fill the memory."""
    store = TokenStore(FakeTime(0.0).clock, capacity=2)
    for key in "abc":
        store.put(login(key, float("inf")))
    assert [store.get(key) is not None for key in "abc"] == [False, True, True]


def test_ledger_is_shared_by_account() -> None:
    """Refusals count against the account, whichever identity made them."""
    store = TokenStore(FakeTime().clock)
    assert store.ledger("a") is store.ledger("a")
    assert store.ledger("a") is not store.ledger("b")
