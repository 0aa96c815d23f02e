"""F46, F48: names that move and vanish, addresses that are dead, packets that are lost.

Each on a network of its own, in which the test may write /etc/hosts and drop packets; no root.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from tests.life.network import SCENARIOS

_COSTLY = {"packets_are_lost", "address_changes"}
OWN_NETWORK = ["unshare", "-rmn", "--"]


def lacking(what: str) -> NoReturn:
    """Skip, in one line; under `REQUIRE_ALL=1` fail instead."""
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(f"REQUIRE_ALL=1, but {what}", pytrace=False)
    pytest.skip(what)


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(scenario, marks=[pytest.mark.long] if scenario in _COSTLY else [])
        for scenario in SCENARIOS
    ],
)
def test_on_a_network_of_its_own(scenario: str, tmp_path: Path) -> None:
    """What the scenario's docstring says."""
    if subprocess.run([*OWN_NETWORK, "true"], capture_output=True, check=False).returncode:
        lacking("no network namespace can be made (unshare -rmn)")
    tools = {"dead_address": ("nft", "ip"), "packets_are_lost": ("nft",)}.get(scenario, ())
    for tool in tools:
        if shutil.which(tool, path="/usr/sbin:/sbin:" + os.environ["PATH"]) is None:
            lacking(f"{tool} is not installed")

    ended = subprocess.run(
        [*OWN_NETWORK, sys.executable, "-m", "tests.life.network", scenario, str(tmp_path)],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PATH": "/usr/sbin:/sbin:" + os.environ["PATH"]},
        cwd=Path(__file__).parents[2],
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr[-3000:]
