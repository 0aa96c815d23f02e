"""What a reload makes anew and what it leaves; real processes are in tests/life/test_reload.py."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import trustme

from gateway.assembly.gateway import build_gateway
from gateway.assembly.secrets import unusable_secrets
from gateway.errors import DownstreamError
from gateway.identity.keystone import KeystoneSource
from gateway.lifecycle.gateway import Gateway
from gateway.observe.access_log import AccessLog
from gateway.proxy.downstream import Downstream
from gateway.proxy.outcome import GOOD
from gateway.settings import load

Settings = dict[str, Any]


def configuration() -> Settings:
    """Two services over https, one over http, and two identities."""
    return {
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "identities": {"default": {"method": "none"}, "other": {"method": "none"}},
        "services": {
            "one": {"url": "https://one.example/1"},
            "two": {"url": "https://two.example/2", "identity": "other"},
            "plain": {"url": "http://127.0.0.1:1/3"},
        },
    }


class Running:
    """A gateway whose configuration is `settings`, as they are at a reload."""

    def __init__(self, settings: Settings, fd: int) -> None:
        self.settings = settings
        loaded = self._read()
        self.gateway: Gateway = build_gateway(loaded.settings, AccessLog(fd), read=self._read)

    def _read(self) -> Any:
        return load(file=None, environ={}, flags=self.settings)

    def pools(self) -> dict[str, Any]:
        return {service.name: service.pool for service in self.gateway._parts.services}

    async def reload(self) -> None:
        assert (await self.gateway.reload()).problems == ()


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    fd = os.open(os.devnull, os.O_WRONLY)
    made = Running(configuration(), fd)
    await made.gateway.start()
    yield made
    await made.gateway.stop(drain=False)
    os.close(fd)


async def test_nothing_new_of_the_same_settings(running: Running) -> None:
    """Caches, pools and counters are the same objects, the rules are others."""
    before, parts = running.pools(), running.gateway._parts
    await running.reload()
    now = running.gateway._parts

    assert running.pools() == before
    assert now.credential_caches == parts.credential_caches
    assert now.rules is not parts.rules
    assert parts.data.context.rules is now.rules
    assert [s.metrics for s in now.services] == [s.metrics for s in parts.services]


@pytest.mark.parametrize(
    ("key", "value", "moves"),
    [
        ("url", "https://one.example:444/1", True),
        ("url", "https://other.example/1", True),
        ("url", "http://one.example/1", True),
        ("url", "https://one.example/another", False),
        ("timeouts", {"connect": "1s"}, True),
        ("timeouts", {"first_byte": "1s"}, False),
        ("tls", {"server_name": "x.example"}, True),
        ("tls", {"verify": False}, True),
        ("max_body", 7, False),
        ("identity", "other", False),
        ("methods", "GET,PUT", False),
    ],
)
async def test_a_way_is_made_anew_only_when_it_is_another(
    key: str, value: object, moves: bool, running: Running
) -> None:
    """Other limits and another token go the same way; the other services' ways stay."""
    before = running.pools()
    running.settings["services"]["one"][key] = value
    await running.reload()
    now = running.pools()

    assert (now["one"] is not before["one"]) is moves
    assert before["one"].closed is moves
    assert (now["two"], now["plain"]) == (before["two"], before["plain"])


async def test_services_share_what_verifies_them(running: Running, tmp_path: Path) -> None:
    """A context takes a megabyte; another authority is another one, and so is other content."""
    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))

    def contexts() -> list[object]:
        return [pool.origin.tls for pool in running.pools().values() if pool.origin.tls]

    first, second = contexts()
    assert first is second
    for name in ("one", "two"):
        running.settings["services"][name]["tls"] = {"ca_file": str(authority)}
    await running.reload()
    private = contexts()
    assert private[0] is private[1]
    assert private[0] is not first
    trustme.CA().cert_pem.write_to_path(str(authority))
    await running.reload()
    assert contexts()[0] is contexts()[1]
    assert contexts()[0] is not private[0]


async def test_logins_share_what_verifies_services(running: Running, tmp_path: Path) -> None:
    """Twenty of them, each with the system's authorities, would take half a second and 20 MiB."""
    (first, *_) = running.pools().values()
    (tmp_path / "password").write_text("secret")
    for name in running.settings["identities"]:
        running.settings["identities"][name] = {
            "auth_url": "https://127.0.0.1:1",
            "username": "u",
            "user_domain": "d",
            "project": "p",
            "password_file": str(tmp_path / "password"),
        }
    await running.reload()
    caches = running.gateway._parts.credential_caches.values()
    sources = [cast(KeystoneSource, cache._source) for cache in caches]
    assert [source._client._tls for source in sources] == [first.origin.tls] * 2


async def test_replaced_ways_are_counted_until_they_are_empty(running: Running) -> None:
    """Connections of requests that began before a reload are connections to the service."""
    series = "gateway_upstream_connections"
    old = running.pools()["plain"]
    old.active += 1  # as a request does that holds one
    running.settings["services"]["plain"]["url"] = "http://127.0.0.1:2/3"
    await running.reload()

    def active() -> bool:
        page, _ = running.gateway._parts.metrics.exposition("")
        return f'{series}{{service="plain",state="active"}} 1.0' in page.decode()

    assert active()
    old.active -= 1
    assert not active()


async def test_an_identity_that_changes_has_another_cache(running: Running, tmp_path: Path) -> None:
    """The old one ends; that of the other identity stays, and one that is gone is closed."""
    before = running.gateway._parts.credential_caches
    token = tmp_path / "token"
    token.write_text("token")
    running.settings["identities"]["default"] = {"method": "file", "token_file": str(token)}
    await running.reload()
    now = running.gateway._parts.credential_caches
    assert now["default"] is not before["default"]
    assert now["other"] is before["other"]
    running.settings["services"].pop("two")
    running.settings["identities"].pop("other")
    await running.reload()
    assert running.gateway._parts.credential_caches == {"default": now["default"]}
    retiring = running.gateway._reloader._caches.tasks()
    assert len([t for t in retiring if t.get_name() == "retire"]) == 2


def test_a_secret_without_content_is_named(tmp_path: Path) -> None:
    """With its key; a token that somebody else has yet to write may be passed over."""
    empty = tmp_path / "empty"
    empty.touch()
    flags = configuration()
    login = {"auth_url": "http://127.0.0.1:1", "username": "u", "user_domain": "d", "project": "p"}
    flags["identities"]["default"] = login | {"password_file": str(empty)}
    flags["identities"]["other"] = {"method": "file", "token_file": str(empty)}
    settings = load(file=None, environ={}, flags=flags).settings

    named = [problem.partition(":")[0] for problem in unusable_secrets(settings)]
    assert named == ["identities.default.password_file", "identities.other.token_file"]
    [problem] = unusable_secrets(settings, tokens=False)
    assert "it is empty" in problem


async def test_signatures_are_not_handed_out(running: Running) -> None:
    """The token endpoint knows only services whose credential is the same for every request."""
    assert set(running.gateway._parts.token_sources) == {"one", "two", "plain"}
    running.settings["identities"]["default"] = {"method": "ak_sk", "from": "metadata"}
    await running.reload()
    assert set(running.gateway._parts.token_sources) == {"two"}


async def test_limits_change_with_a_reload_and_keep_count(running: Running) -> None:
    """The gate stays, with all that are in flight; a service whose limits go has none."""
    plain = running.settings["services"]["plain"]
    plain["max_in_flight"] = 4
    await running.reload()
    [gate] = [s.gate for s in running.gateway._parts.services if s.gate is not None]
    place = gate.ask(Downstream(), 0.0)
    assert (gate.gauges().limit, gate.gauges().in_flight) == (4, 1)
    plain["max_in_flight"] = 7
    await running.reload()
    [same] = [s.gate for s in running.gateway._parts.services if s.gate is not None]
    assert same is gate
    assert (gate.gauges().limit, gate.gauges().in_flight) == (7, 1)
    place.leave(GOOD, 1.0, None)
    assert gate.gauges().in_flight == 0
    del plain["max_in_flight"]
    await running.reload()
    assert all(service.gate is None for service in running.gateway._parts.services)


@pytest.mark.parametrize(
    ("listen", "host", "ours"),
    [
        ("0.0.0.0:0", b"0.0.0.0:8080", False),
        ("[::]:0", b"[::]:8080", False),
        ("0.0.0.0:0", b"localhost:8080", True),
        ("127.0.0.2:0", b"127.0.0.2", True),
    ],
)
async def test_all_addresses_are_nobodys_name(listen: str, host: bytes, ours: bool) -> None:
    """C7: a web page may call 0.0.0.0 without any mark of a browser's."""
    loaded = load(file=None, environ={}, flags={**configuration(), "listen": listen})
    hosts = build_gateway(loaded.settings, AccessLog(1))._parts.rules.hosts
    if ours:
        hosts.admit(host)
    else:
        with pytest.raises(DownstreamError):
            hosts.admit(host)
