"""The Helm chart: linted and rendered by Helm's own engine, and what it renders validated."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import check_policies, check_schema, containers_of, settings_of
from tests.deploy.parts import ROOT

HERE = Path(__file__).parent
CHART = ROOT / "deploy" / "helm" / "modelarts-gateway"
VALUES = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted((HERE / "values").iterdir())
}
MINIMAL = VALUES["minimal"]
# The value sets, each with the chart it is for.
STANDALONE = tuple(VALUES)
SIDECARS: dict[str, dict[str, Any]] = {
    "native": {"modelarts-gateway": {**MINIMAL, "mode": "sidecar"}},
    "classic": {"modelarts-gateway": {**MINIMAL, "mode": "sidecar", "classic": {"enabled": True}}},
}


class Helm:
    """Asks the engine."""

    def __init__(self, tools: Path) -> None:
        self._command = [str(tools / "python"), str(HERE / "helm_engine.py")]

    def ask(self, chart: Path, *values: dict[str, Any]) -> list[dict[str, Any]]:
        """Lint and render a chart with each set of values."""
        questions = [
            {"chart": str(chart), "values": each, "namespace": "inference"} for each in values
        ]
        ended = subprocess.run(
            self._command, input=json.dumps(questions), capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return list(json.loads(ended.stdout))

    def manifest(self, chart: Path, values: dict[str, Any], folder: Path) -> Path:
        """Return the file with what a chart renders; linting finds nothing."""
        (answer,) = self.ask(chart, values)
        assert "error" not in answer, answer
        assert answer["lint"] == []
        file = folder / "manifest.yaml"
        file.write_text(answer["manifest"])
        return file


@pytest.fixture(scope="module")
def helm(tools: Path) -> Helm:
    return Helm(tools)


@pytest.fixture(scope="module")
def application_chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chart that depends on ours, as `helm dependency build` leaves it."""
    folder = tmp_path_factory.mktemp("chart") / "my-application"
    shutil.copytree(HERE / "application-chart", folder)
    shutil.copytree(CHART, folder / "charts" / CHART.name)
    return folder


@pytest.mark.parametrize("name", STANDALONE)
def test_standalone_renders_to_valid_manifests(
    helm: Helm, tools: Path, tmp_path: Path, name: str
) -> None:
    """
    Strictly linted, rendered, strictly valid for Kubernetes 1.29 and 1.37, in line with the
    policies; and the gateway accepts the configuration in it.
    """
    file = helm.manifest(CHART, VALUES[name], tmp_path)

    check_schema(tools, file, "1.29", "1.37")
    check_policies(tools, file)
    kinds = {document["kind"] for document in yaml.safe_load_all(file.read_text())}
    wanted = (
        "ConfigMap Deployment Service HorizontalPodAutoscaler PodDisruptionBudget NetworkPolicy"
    )
    assert kinds == set(wanted.split())
    settings = settings_of(file, tmp_path)
    assert settings.listen.port == (8000 if name == "everything" else 8080)
    assert "demo-modelarts-gateway.inference.svc" in settings.allowed_hosts
    assert settings.drain.announce == (10 if name == "everything" else 5)


@pytest.mark.parametrize("name", SIDECARS)
def test_sidecar_of_another_chart_renders_to_valid_manifests(
    helm: Helm, tools: Path, application_chart: Path, tmp_path: Path, name: str
) -> None:
    """
    An application's chart gets the sidecar from ours, native and classic: valid, in line with the
    policies, and listening on loopback.
    """
    file = helm.manifest(application_chart, SIDECARS[name], tmp_path)

    check_schema(tools, file, *(("1.29", "1.37") if name == "native" else ("1.25", "1.37")))
    check_policies(tools, file)
    assert settings_of(file, tmp_path).listen.host == "127.0.0.1"
    gateway = containers_of(file)["modelarts-gateway"]
    assert (gateway.get("restartPolicy") == "Always") is (name == "native")
    assert ("lifecycle" in gateway) is (name == "classic")


def test_sidecar_of_the_chart_is_that_of_the_manifests(
    helm: Helm, application_chart: Path, tmp_path: Path
) -> None:
    """
    Chart and kubernetes/sidecar.yaml have the same container: probes, security, mounts.
    """
    file = helm.manifest(application_chart, SIDECARS["native"], tmp_path)

    ours = containers_of(file)["modelarts-gateway"]
    theirs = containers_of(ROOT / "deploy" / "kubernetes" / "sidecar.yaml")["modelarts-gateway"]
    ours["securityContext"].pop("seccompProfile")  # there it is the pod's, which is not the chart's
    for key in ("env", "args", "ports", "startupProbe", "readinessProbe", "livenessProbe"):
        assert ours[key] == theirs[key], key
    assert ours["securityContext"] == theirs["securityContext"]
    assert [mount["mountPath"] for mount in ours["volumeMounts"]] == [
        mount["mountPath"] for mount in theirs["volumeMounts"]
    ]


def test_values_in_the_readme_are_good(helm: Helm, tmp_path: Path) -> None:
    """
    What deploy/README.md shows as values.yaml renders.
    """
    page = (ROOT / "deploy" / "README.md").read_text()
    (shown,) = re.findall(r"```yaml\n(# values\.yaml.*?)```", page, re.DOTALL)

    made = helm.manifest(CHART, yaml.safe_load(shown), tmp_path)

    assert settings_of(made, tmp_path).services["iris"].host == "modelarts-infers-1.example"


def test_network_policy_can_be_left_to_others(helm: Helm, tmp_path: Path) -> None:
    """
    `networkPolicy.enabled: false` leaves it out, and nothing else.
    """
    off = helm.manifest(CHART, _but(networkPolicy={"enabled": False}), tmp_path).read_text()

    assert "NetworkPolicy" not in off
    assert "kind: Deployment" in off


def _but(**changes: Any) -> dict[str, Any]:
    return {**MINIMAL, **changes}


def _identity_but(**changes: Any) -> dict[str, Any]:
    identity = MINIMAL["config"]["identities"]["default"] | changes
    identity = {key: value for key, value in identity.items() if value is not None}
    return _but(config=MINIMAL["config"] | {"identities": {"default": identity}})


IRIS = MINIMAL["config"]["services"]["iris"]
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "at '/config': missing property 'services'"),
    "no service": (_but(config={"services": {}}), "minProperties: got 0, want 1"),
    "no secret": (_but(secret={"name": ""}), "name the Secret that holds iam-password"),
    "no password": (_identity_but(password_file=None), "missing property 'password_file'"),
    "password here": (_identity_but(password="secret"), "'password' not allowed"),
    "password elsewhere": (_identity_but(password_file="/etc/password"), "does not match pattern"),
    "no project": (_identity_but(project=None), "missing property 'project'"),
    "not a URL": (_identity_but(auth_url="iam.example"), "/auth_url'"),
    "port too high": (_but(ports={"data": 80800}), "at '/ports/data': maximum"),
    "port as text": (_but(ports={"data": "http"}), "at '/ports/data': got string, want integer"),
    "same ports": (_but(ports={"data": 9090}), "ports: data and admin must differ"),
    "own listen": (
        _but(config=MINIMAL["config"] | {"listen": "0.0.0.0:80"}), "'listen' not allowed",
    ),
    "misspelt key": (
        _but(config=MINIMAL["config"] | {"services": {"iris": {**IRIS, "max_boddy": 1}}}),
        "'max_boddy' not allowed",
    ),
    "unknown identity": (
        _but(config=MINIMAL["config"] | {"services": {"iris": {**IRIS, "identity": "x"}}}),
        'config.services.iris: there is no identity "x"',
    ),
    "unknown mode": (_but(mode="daemon"), "value must be one of 'standalone', 'sidecar'"),
    "unknown value": (_but(replicas=3), "'replicas' not allowed"),
    "secret in values": (_but(secret={"name": "a", "password": "b"}), "'password' not allowed"),
    "half a digest": (_but(image={"digest": "sha256:abc"}), "/image/digest'"),
}  # fmt: skip


def test_values_that_cannot_work_are_refused_with_a_sentence(helm: Helm) -> None:
    """
    A missing secret, a wrong port, a misspelt key and their like stop the installation, and the
    message names the value.
    """
    answers = helm.ask(CHART, *(values for values, _ in BAD.values()))

    for (name, (_, sentence)), answer in zip(BAD.items(), answers, strict=True):
        assert sentence in answer.get("error", "it was rendered"), f"{name}: {answer}"
