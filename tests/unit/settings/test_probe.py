"""What probes read of a configuration."""

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.settings import (
    find_admin_listen,
)
from tests.unit.settings.given import GOOD, Write, use


def test_probes_find_the_admin_listener_as_the_gateway_does(write: Write) -> None:
    """The same precedence as for everything else."""
    file = write(GOOD | {"admin_listen": "127.0.0.1:3"})
    environ = {"gateway_admin_listen": "127.0.0.1:2"}

    assert find_admin_listen(file=file, environ=environ, flag="127.0.0.1:1").port == 1
    assert find_admin_listen(file=file, environ=environ).port == 2
    assert find_admin_listen(file=file, environ={"GATEWAY_ADMIN_LISTEN": ""}).port == 3
    assert find_admin_listen(file=None, environ={}) == use(GOOD).settings.admin_listen


def test_probes_look_at_nothing_else(write: Write, tmp_path: Path) -> None:
    """A file that broke after the start does not end a healthy gateway; a bad address does."""
    assert find_admin_listen(file=write("{"), environ={}).port == 9090
    assert find_admin_listen(file=tmp_path / "none", environ={}).port == 9090
    assert find_admin_listen(file=write("services: 5\nadmin_listen: a:1"), environ={}).port == 1
    with pytest.raises(ConfigError, match=r"admin_listen: 'x' is not an address"):
        find_admin_listen(file=None, environ={"GATEWAY_ADMIN_LISTEN": "x"})


def test_probes_do_not_load_the_settings_library() -> None:
    """A probe runs every few seconds; the models cost ten times the rest."""
    code = "import sys; from gateway.settings import find_admin_listen; "
    code += "sys.exit('pydantic' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_room_shows_only_what_it_names() -> None:
    """Misspelt names fail as in any module."""
    import gateway.settings

    assert all(getattr(gateway.settings, name) for name in gateway.settings.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        getattr(gateway.settings, "lo" + "de")
