"""Sinks of a gateway as users run it: files with the token, from start to end."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.twin import IRIS_ID, Twin
from tests.cloud.serving import CALL, password_identity
from tests.life.test_reload import ask, reload
from tests.support.served import Served, served, settings_of
from tests.support.twin import running_twin
from tests.support.until import until


def good_token(twin: Twin) -> str:
    """Return the one token that the stand-in cloud takes at this moment."""
    (grant,) = twin._state.tokens._good()
    return grant.token


def sds_token(file: Path) -> str:
    """Return what Envoy reads."""
    resources = yaml.safe_load(file.read_text())["resources"]
    token = resources[0]["generic_secret"]["secret"]["inline_string"]
    assert isinstance(token, str)
    return token


class Scene:
    """A stand-in cloud, and the configuration of a gateway with sinks."""

    def __init__(self, folder: Path, twin: Twin) -> None:
        self.plain, self.sds = folder / "t" / "default.token", folder / "t" / "default.sds.yaml"
        self.plain.parent.mkdir()
        self.identity = password_identity(twin.auth_url, folder)
        self.iris = {"iris": {"url": twin.service_url(IRIS_ID)}}

    def settings(self, *sinks: dict[str, Any]) -> dict[str, Any]:
        """Return a configuration with these sinks."""
        identities = {"default": self.identity | {"sinks": list(sinks)}}
        return settings_of(0, {"identities": identities, "services": self.iris})


async def test_a_token_is_in_its_files_for_exactly_as_long_as_it_is_good(tmp_path: Path) -> None:
    """Fresh, revoked and renewed, and gone at the end where that is asked for."""
    async with running_twin() as twin:
        scene = Scene(tmp_path, twin)
        settings = scene.settings(
            {"path": str(scene.plain)},
            {
                "path": str(scene.sds),
                "format": "envoy_sds",
                "name": "modelarts",
                "remove_on_exit": True,
            },
        )
        async with served(tmp_path, 0, settings) as process:
            await until(lambda: scene.plain.exists() and scene.plain.read_text())
            assert scene.plain.read_text() == good_token(twin)
            await until(lambda: sds_token(scene.sds) == good_token(twin))
            assert scene.plain.stat().st_mode & 0o777 == 0o600

            twin._state.tokens.revoke_all()
            assert (await ask(process, CALL))[0] == 200
            await until(lambda: sds_token(scene.sds) == good_token(twin))
            await until(lambda: scene.plain.read_text() == good_token(twin))
            written = await process.sample(
                "gateway_sink_writes_total", identity="default", result="ok"
            )
            assert written is not None
            assert written >= 4
            assert await process.sample("gateway_sink_writes_total", result="failed") == 0

            process.signal(signal.SIGTERM)
            assert await process.ended() == 0
        assert scene.plain.read_text() == good_token(twin)
        assert sds_token(scene.sds) == ""


async def test_a_file_is_emptied_when_its_token_expires_and_no_other_can_be_had(
    tmp_path: Path,
) -> None:
    """A data plane that reads it must not send a dead token while IAM is away."""
    async with running_twin(token_ttl_s=3.0) as twin:
        scene = Scene(tmp_path, twin)
        settings = scene.settings({"path": str(scene.sds), "format": "envoy_sds"})
        async with served(tmp_path, 0, settings):
            assert scene.sds.exists()  # before anything else is said: Envoy needs it to start
            await until(lambda: sds_token(scene.sds))
            await twin.stop()
            await until(lambda: sds_token(scene.sds) == "")


async def test_a_reload_adds_and_takes_away_sinks_without_a_login(tmp_path: Path) -> None:
    """The token at hand is written to a new file, and is taken out of one that is given up."""
    async with running_twin() as twin:
        scene = Scene(tmp_path, twin)
        given_up = {"path": str(scene.plain), "remove_on_exit": True}
        stays = {"path": str(scene.sds), "format": "envoy_sds", "remove_on_exit": True}
        async with served(tmp_path, 0, scene.settings(given_up)) as process:
            await until(lambda: scene.plain.exists() and scene.plain.read_text())
            process.write(scene.settings(given_up, stays))
            assert (await reload(process))[0] == 200
            await until(lambda: scene.sds.exists() and sds_token(scene.sds) == good_token(twin))

            process.write(scene.settings(stays))
            assert (await reload(process))[0] == 200
            await until(lambda: scene.plain.read_text() == "")
            assert sds_token(scene.sds) == good_token(twin)
            assert twin._state.stats.login_attempts == 1


async def test_a_sink_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    """One warning before the start, one when it fails, a count, and service goes on."""
    async with running_twin() as twin:
        scene = Scene(tmp_path, twin)
        missing = scene.plain.parent / "missing" / "token"
        async with served(tmp_path, 0, scene.settings({"path": str(missing)})) as process:
            assert (await ask(process, CALL))[0] == 200
            line = await process.says("cannot be written")
            assert good_token(twin) not in line
            failed = await process.sample("gateway_sink_writes_total", result="failed")
            assert failed is not None
            assert failed >= 1
            assert len([line for line in process.log if "cannot be written" in line]) == 1
            warning = "identities.default.sinks[0].path: there is no folder"
            assert len([line for line in process.log if warning in line]) == 1


@pytest.mark.parametrize("as_json", [True, False], ids=["environment", "file"])
async def test_sinks_come_from_the_environment_too(tmp_path: Path, as_json: bool) -> None:
    """As JSON, as every list of mappings."""
    async with running_twin() as twin:
        scene = Scene(tmp_path, twin)
        sinks = [{"path": str(scene.plain)}]
        environ = {"GATEWAY_IDENTITIES__DEFAULT__SINKS": json.dumps(sinks)} if as_json else {}
        settings = scene.settings(*([] if as_json else sinks))
        if as_json:
            del settings["identities"]["default"]["sinks"]
        async with served(tmp_path, 0, settings, environ=environ) as process:
            assert isinstance(process, Served)
            await until(lambda: scene.plain.exists() and scene.plain.read_text())
