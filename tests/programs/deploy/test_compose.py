"""The compose file: resolved by docker-compose, and our two containers run as it says."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.programs.deploy.containers import Containers
from tests.programs.deploy.parts import ROOT, output_of
from tests.programs.deploy.test_image import IRIS, TIGHT, ask, until_answered

FILE = ROOT / "deploy" / "compose.yaml"


@pytest.fixture(scope="module")
def project(programs: Path) -> dict[str, Any]:
    """What docker-compose makes of the file; unknown keys and wrong types are errors to it."""
    resolved = output_of(
        str(programs / "docker-compose"), "--file", str(FILE), "config", "--format", "json"
    )
    return dict(json.loads(resolved))


def test_files_that_are_mounted_exist(project: dict[str, Any]) -> None:
    """
    What containers are given is there; Docker would make an empty folder of what is not.
    """
    sources = [
        volume["source"]
        for service in project["services"].values()
        for volume in service.get("volumes", [])
    ]
    assert sources
    for source in [*sources, project["secrets"]["iam-password"]["file"]]:
        assert Path(source).exists(), source
    scrape = yaml.safe_load(project["configs"]["prometheus"]["content"])
    (rules,) = (Path(path) for path in sources if Path(path).name == "prometheus")
    for file in scrape["rule_files"]:
        assert (rules / Path(file).name).exists(), file


def test_nothing_listens_to_other_machines(project: dict[str, Any]) -> None:
    """
    All ports are published on loopback: every client that connects uses the token.
    """
    for service in project["services"].values():
        for port in service["ports"]:
            assert port["host_ip"] == "127.0.0.1"


def test_gateway_and_twin_work_together_as_they_are_configured(
    project: dict[str, Any], containers: Containers, image: str
) -> None:
    """
    With the commands, variables and secret of the file the gateway gets a token from the stand-in
    cloud and passes a request on.
    """
    for name in ("twin", "gateway"):
        service = project["services"][name]
        assert service["image"] == image.removeprefix("localhost/")
        options = [f"--env={key}={value}" for key, value in service.get("environment", {}).items()]
        for secret in service.get("secrets", []):
            file = project["secrets"][secret["source"]]["file"]
            options.append(f"--volume={file}:{secret['target']}:ro")
        options += ["--add-host=twin:127.0.0.1", *TIGHT]
        containers.podman("run", "--detach", f"--name={name}", *options, image, *service["command"])
    try:
        until_answered(containers, "http://127.0.0.1:9090/readyz")
        answer = ask(containers, "http://127.0.0.1:8080/iris", body=IRIS)
    finally:
        containers.podman("rm", "--force", "--all", "--time=0")

    assert "versicolor" in answer
