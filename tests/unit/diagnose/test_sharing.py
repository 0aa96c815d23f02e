"""What `doctor` says about sinks, and about a Redis that cannot be had."""

import base64
from pathlib import Path
from typing import Any

import pytest

from gateway.diagnose.findings import Finding, Level, Step
from gateway.diagnose.sharing import examine_fleet, examine_sinks
from gateway.settings import Settings, load

EMPTY = {"plain": b"", "envoy_sds": b'    {inline_string: ""}\n', "haproxy_map": b"# expires x\n"}
FULL = {
    "plain": b"MIIS",
    "envoy_sds": b'# expires x\n    {inline_string: "MIIS"}\n',
    "haproxy_map": b"# expires x\ndefault MIIS\n",
}


def settings_with(folder: Path, sinks: list[Any], **keys: Any) -> Settings:
    (folder / "token").write_text("MIIS")
    flags = {
        "identities": {
            "default": {"method": "file", "token_file": str(folder / "token"), "sinks": sinks}
        },
        "services": {"iris": {"url": "http://127.0.0.1:1/"}},
        **keys,
    }
    return load(file=None, environ={}, flags=flags).settings


@pytest.mark.parametrize("kind", FULL)
def test_a_sinks_file_is_looked_into(tmp_path: Path, kind: str) -> None:
    """Missing, empty, or with a token, which is not shown."""
    path = tmp_path / "sink.yaml"
    settings = settings_with(tmp_path, [{"path": str(path), "format": kind}])

    def found() -> Finding:
        (one,) = examine_sinks("default", settings.identities["default"])
        assert (one.key, one.step) == ("identities.default.sinks[0]", Step.SINK)
        assert "MIIS" not in one.text
        return one

    assert (found().level, "is not there" in found().text) == (Level.WARN, True)
    path.write_bytes(EMPTY[kind])
    assert (found().level, "holds no token since" in found().text) == (Level.WARN, True)
    path.write_bytes(FULL[kind])
    assert (found().level, "holds a token, written" in found().text) == (Level.OK, True)


async def test_without_a_fleet_nothing_is_said(tmp_path: Path) -> None:
    assert await examine_fleet(settings_with(tmp_path, [])) == []


@pytest.mark.parametrize(
    ("key", "text"), [("short", "key_file: "), ("good", "cannot be connected to")]
)
async def test_a_fleet_that_cannot_be_had_is_a_warning(tmp_path: Path, key: str, text: str) -> None:
    """The gateway serves all the same; and the key is not shown."""
    good = base64.urlsafe_b64encode(b"k" * 32).decode()
    (tmp_path / "key").write_text(good if key == "good" else key)
    fleet = {"url": "redis://127.0.0.1:1", "key_file": str(tmp_path / "key")}
    (found,) = await examine_fleet(settings_with(tmp_path, [], fleet=fleet))
    assert (found.level, found.key, found.step) == (Level.WARN, "fleet", Step.FLEET)
    assert text in found.text
    assert found.text.endswith("; replicas then log in one by one")
    assert good not in found.text
