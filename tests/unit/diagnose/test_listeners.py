"""What `doctor` says about the gateway's own listeners, with real certificates and sockets."""

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from gateway.diagnose.findings import Finding, Level, Step
from gateway.diagnose.listeners import examine_listeners
from gateway.settings import Settings, load


def settings_with(**keys: Any) -> Settings:
    flags = {
        "identities": {"default": {"method": "none"}},
        "services": {"iris": {"url": "http://127.0.0.1:1/"}},
        **keys,
    }
    return load(file=None, environ={}, flags=flags).settings


def found_with(folder: Path, *names: str, days: float, **keys: Any) -> Finding:
    """What is found about a certificate for `names` that ends in so many days."""
    ends = datetime.now(UTC) + timedelta(days=days)
    issued = trustme.CA().issue_cert(*names, not_after=ends)
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    trustme.CA().cert_pem.write_to_path(folder / "ca.pem")
    tls = {"cert_file": str(folder / "server.pem"), **keys}
    (found,) = examine_listeners(settings_with(listen_tls=tls))
    assert (found.key, found.step) == ("listen_tls", Step.LISTENER)
    return found


def test_nothing_is_said_where_neither_is_set() -> None:
    assert examine_listeners(settings_with()) == []


def test_a_good_certificate_is_told_with_its_names(tmp_path: Path) -> None:
    """And who may call."""
    found = found_with(tmp_path, "models.example", "10.0.0.1", days=90.5)
    assert found.level is Level.OK
    assert found.text.startswith("certificate for models.example, 10.0.0.1, 90 d ")
    assert found.text.endswith("left; callers without certificates")
    listed = {"client_ca_file": str(tmp_path / "ca.pem"), "allowed_clients": ["a", "b"]}
    found = found_with(tmp_path, "models.example", days=90, **listed)
    assert found.text.endswith("callers with one of 2 name(s)")


def test_a_certificate_that_ends_soon_is_to_be_renewed(tmp_path: Path) -> None:
    """Nothing else is to be done."""
    found = found_with(tmp_path, "models.example", days=3)
    assert found.level is Level.WARN
    assert "expires in 2 d 23 h: renew it; the gateway takes it by itself" in found.text


def test_an_expired_certificate_fails(tmp_path: Path) -> None:
    """It is this machine's fault."""
    found = found_with(tmp_path, "models.example", days=-1)
    assert (found.level, found.is_local) == (Level.FAIL, True)
    assert "has expired, so callers refuse it" in found.text


@pytest.mark.parametrize("listening", [True, False])
def test_the_tokens_socket_is_tried(tmp_path: Path, *, listening: bool) -> None:
    """A file that nobody listens at is told from one that takes connections."""
    path = tmp_path / "token.sock"
    settings = settings_with(token_listen=f"unix:{path}")
    (found,) = examine_listeners(settings)
    assert found.level is Level.WARN
    assert "is not there" in found.text
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o600)
        if listening:
            server.listen()
        (found,) = examine_listeners(settings)
    if listening:
        assert (found.level, found.text) == (Level.OK, f"{path} takes connections; mode 0600")
    else:
        assert found.level is Level.WARN
        assert "start the gateway" in found.text
