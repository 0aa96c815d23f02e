"""Looks at Kubernetes manifests: by schema, by policy, and by the gateway's own eyes."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from gateway.settings import Settings, load
from tests.programs.deploy.parts import ROOT

_POLICIES = ROOT / "deploy" / "checkov.yaml"


def check_schema(tools: Path, file: Path, *versions: str) -> None:
    """Fail unless every object in `file` is strictly valid for these versions of Kubernetes."""
    for version in versions:
        ended = _run(tools / "kubernetes-validate", "-k", version, "--strict", str(file))
        found = ended.stdout + ended.stderr
        assert ended.returncode == 0, found
        assert "passed" in found, "nothing was validated"
        assert "ERROR" not in found, found


def check_policies(tools: Path, file: Path, *but: str) -> None:
    """Fail unless `file` passes checkov's checks, but `but` and those of deploy/checkov.yaml."""
    skipped = ",".join([*yaml.safe_load(_POLICIES.read_text())["skip-check"], *but])
    ended = _run(
        tools / "checkov", "--quiet", "--compact", "--config-file", str(_POLICIES),
        "--framework", "kubernetes", "--file", str(file), "--skip-check", skipped,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr


def containers_of(file: Path) -> dict[str, dict[str, Any]]:
    """Return the containers of the Deployment in `file`, by name."""
    (pod,) = (
        document["spec"]["template"]["spec"]
        for document in yaml.safe_load_all(file.read_text())
        if document["kind"] == "Deployment"
    )
    return {
        container["name"]: container
        for container in [*pod.get("initContainers", []), *pod["containers"]]
    }


def settings_of(file: Path, folder: Path) -> Settings:
    """Load the configuration in the ConfigMap of `file`, with an empty file for each of its files.

    Raises:
        ConfigError: the gateway would not start with it.
    """
    (text,) = (
        document["data"]["gateway.yaml"]
        for document in yaml.safe_load_all(file.read_text())
        if document["kind"] == "ConfigMap" and "gateway.yaml" in document["data"]
    )
    secret = folder / "secret"
    secret.write_text("x\n")
    config = folder / "gateway.yaml"
    document = yaml.safe_load(text)
    for identity in document.get("identities", {}).values():
        identity.pop("tls", None)  # its files would have to be certificates
        for key in identity.keys() & {
            "password_file",
            "secret_file",
            "token_file",
            "id_token_file",
        }:
            identity[key] = str(secret)
    for section in (
        document.get("listen_tls", {}),
        fleet := document.get("fleet", {}),
        fleet.get("tls", {}),
    ):
        for key in section:
            if key.endswith("_file"):
                section[key] = str(secret)
    config.write_text(yaml.safe_dump(document))
    return load(file=config, environ={}, flags={}).settings


def _run(*arguments: Path | str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
