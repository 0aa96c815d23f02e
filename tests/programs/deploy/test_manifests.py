"""The plain manifests and the kustomize base: schema, policy, and the configuration in them."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import __version__
from gateway.settings import load
from tests.programs.deploy.custom_resources import faults_of, is_known
from tests.programs.deploy.manifests import check_policies, check_schema, containers_of, settings_of
from tests.programs.deploy.parts import ROOT, output_of

HERE = Path(__file__).parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
SIDECAR, CLASSIC = KUBERNETES / "sidecar.yaml", KUBERNETES / "sidecar-classic.yaml"
WORKLOAD = KUBERNETES / "sidecar-workload-identity.yaml"


@pytest.fixture(scope="module")
def standalone(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the kustomize base makes."""
    file = tmp_path_factory.mktemp("standalone") / "standalone.yaml"
    file.write_text(output_of(str(programs / "kustomize"), "build", str(KUBERNETES / "standalone")))
    return file


@pytest.mark.parametrize(
    ("file", "versions"),
    [
        (SIDECAR, ("1.29", "1.37")),
        (WORKLOAD, ("1.29", "1.37")),
        (CLASSIC, ("1.25", "1.29", "1.37")),
    ],
    ids=["native", "workload", "classic"],
)
def test_sidecar_is_valid(
    tools: Path, tmp_path: Path, file: Path, versions: tuple[str, ...]
) -> None:
    """
    Strictly valid for its versions of Kubernetes, in line with the policies; the gateway accepts
    the configuration in it, and listens on loopback.
    """
    check_schema(tools, file, *versions)
    check_policies(tools, file)
    assert settings_of(file, tmp_path).listen.host == "127.0.0.1"


def test_injection_is_valid(tools: Path) -> None:
    """
    Strictly valid since its kind is stable.
    """
    check_schema(tools, KUBERNETES / "injection.yaml", "1.36", "1.37")


def _values(tools: Path, *asked: tuple[str, dict[str, Any]]) -> list[Any]:
    """Return what expressions come to, each for its object."""
    questions = [{"expression": text, "object": given} for text, given in asked]
    ended = subprocess.run(
        [tools / "python", HERE / "cel_engine.py"],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return list(json.loads(ended.stdout))


@pytest.mark.parametrize(
    ("labels", "containers", "wanted"),
    [
        (None, None, False),
        ({"app": "shop"}, [{"name": "other"}], False),
        ({"modelarts-gateway/inject": "false"}, None, False),
        ({"modelarts-gateway/inject": "true"}, None, True),
        ({"modelarts-gateway/inject": "true"}, [{"name": "other"}], True),
        ({"modelarts-gateway/inject": "true"}, [{"name": "modelarts-gateway"}], False),
    ],
)
def test_only_pods_that_ask_for_it_are_injected(
    tools: Path,
    labels: dict[str, str] | None,
    containers: list[dict[str, str]] | None,
    wanted: bool,
) -> None:
    """
    By a label, once, in namespaces that allow it.
    """
    policy, binding = yaml.safe_load_all((KUBERNETES / "injection.yaml").read_text())
    pod: dict[str, Any] = {"metadata": {}, "spec": {}}
    if labels is not None:
        pod["metadata"]["labels"] = labels
    if containers is not None:
        pod["spec"]["initContainers"] = containers

    met = _values(tools, *((one["expression"], pod) for one in policy["spec"]["matchConditions"]))

    assert all(met) is wanted
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    selector = binding["spec"]["matchResources"]["namespaceSelector"]
    assert selector == {"matchLabels": {"modelarts-gateway/injection": "enabled"}}


def test_what_is_injected_is_the_sidecar_of_this_version(tools: Path, tmp_path: Path) -> None:
    """
    Merged into a pod it is strictly valid; the container is native, with sidecar.yaml's mounts.

    The merge is the API server's. Here its object is evaluated as a map, without its types.
    """
    policy, _ = yaml.safe_load_all((KUBERNETES / "injection.yaml").read_text())
    (mutation,) = policy["spec"]["mutations"]
    text = re.sub(r"\bObject[.\w]*\{", "{", mutation["applyConfiguration"]["expression"])
    (injected,) = _values(tools, (re.sub(r"(?<![\w\"])(\w+): ", r'"\1": ', text), {}))
    (given,) = injected["spec"]["initContainers"]

    application = {"name": "application", "image": "application:1"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "application"},
        "spec": injected["spec"] | {"containers": [application]},
    }
    file = tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump(pod))
    check_schema(tools, file, "1.36", "1.37")
    assert given["restartPolicy"] == "Always"
    assert given["image"] == f"modelarts-gateway:{__version__}"
    shipped = containers_of(SIDECAR)["modelarts-gateway"]
    places = [[one["mountPath"] for one in each["volumeMounts"]] for each in (given, shipped)]
    assert places[0] == places[1]
    assert given["args"][-1] == shipped["env"][0]["value"]
    mounted = {one["name"] for one in given["volumeMounts"]}
    assert mounted == {one["name"] for one in injected["spec"]["volumes"]}
    context = given["securityContext"]
    # namespaces that enforce the Pod Security Standard "restricted" take it, too
    assert context.items() >= {"runAsNonRoot": True, "allowPrivilegeEscalation": False}.items()
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["capabilities"] == {"drop": ["ALL"]}


def test_names_are_asked_for_at_nodelocal_dns(standalone: Path) -> None:
    """
    It listens on an address of the node, which no selector of pods or namespaces means.
    """
    (policy,) = (
        one for one in yaml.safe_load_all(standalone.read_text()) if one["kind"] == "NetworkPolicy"
    )
    rules = [
        rule
        for rule in policy["spec"]["egress"]
        if {"port": 53, "protocol": "UDP"} in rule["ports"]
    ]
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in rules[0]["to"]


def test_token_gate_is_valid(tools: Path, tmp_path: Path) -> None:
    """
    Strictly valid and in line with the policies, the kinds of External Secrets by their published
    types; the gateway accepts the configuration in it, and listens where nginx asks.
    """
    file = KUBERNETES / "token-gate.yaml"
    own, custom = _divided(file, tmp_path)
    check_schema(tools, own, "1.29", "1.37")
    check_policies(tools, own)
    assert {one["kind"] for one in custom} == {"Webhook", "ExternalSecret"}
    assert faults_of(custom, tmp_path) == ""
    address = settings_of(file, tmp_path).token_listen
    assert f"proxy_pass http://{address};" in file.read_text()


@pytest.mark.parametrize("name", ["traefik", "istio", "ingress-nginx", "envoy-gateway"])
def test_configurations_that_are_not_run_have_the_right_shape(
    tools: Path, tmp_path: Path, name: str
) -> None:
    """
    As far as their types can be had; and they say that they are not run.
    """
    file = ROOT / "deploy" / "data-planes" / "not-run" / f"{name}.yaml"
    assert file.read_text().startswith("# Not run by us")
    if name == "envoy-gateway":
        (policy,) = yaml.safe_load_all(file.read_text())
        assert policy["spec"]["extAuth"]["http"]["path"] == "/auth/iris"
        return
    own, custom = _divided(file, tmp_path)
    if custom:
        assert faults_of(custom, tmp_path) == ""
    else:
        check_schema(tools, own, "1.29", "1.37")


def _divided(file: Path, folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Return a file with what Kubernetes itself knows, and the objects of other kinds."""
    documents = list(yaml.safe_load_all(file.read_text()))
    own = folder / "kubernetes.yaml"
    own.write_text(yaml.safe_dump_all(one for one in documents if not is_known(one)))
    return own, [one for one in documents if is_known(one)]


def test_standalone_is_valid(tools: Path, standalone: Path, tmp_path: Path) -> None:
    """
    The base renders to what is strictly valid and in line with the policies; the time that the pod
    is given is longer than what the gateway takes to leave.
    """
    check_schema(tools, standalone, "1.29", "1.37")
    check_policies(tools, standalone)
    drain = settings_of(standalone, tmp_path).drain
    (deployment,) = (
        document
        for document in yaml.safe_load_all(standalone.read_text())
        if document["kind"] == "Deployment"
    )
    grace_s = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert drain.announce + drain.timeout < grace_s
    assert deployment["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] != (
        "modelarts-gateway"
    ), "a changed configuration would not make new pods"


def test_an_overlay_changes_configuration_and_image(programs: Path, tmp_path: Path) -> None:
    """
    The overlay that kustomization.yaml describes works as it is written there.
    """
    made = _overlay(programs, tmp_path, 5)

    assert "services: {}" in made
    assert "iam.ap-southeast-1" not in made
    assert "image: registry.example/modelarts-gateway:0.1.0" in made
    assert made.count("namespace: inference") == 6


def test_callers_may_need_a_certificate(tools: Path, programs: Path, tmp_path: Path) -> None:
    """
    With the component that kustomization.yaml describes: strictly valid, in line with the policies,
    and the gateway accepts the files that are mounted.
    """
    file = tmp_path / "overlay.yaml"
    file.write_text(_overlay(programs, tmp_path, 6))

    check_schema(tools, file, "1.29", "1.37")
    check_policies(tools, file)
    gateway = containers_of(file)["modelarts-gateway"]
    folders = {mount["mountPath"] for mount in gateway["volumeMounts"]}
    given = {one["name"]: one["value"] for one in gateway["env"]}
    certificate = tmp_path / "file.pem"
    certificate.touch()
    environ = {
        "GATEWAY_SERVICE_URL": "http://127.0.0.1:1/",
        "GATEWAY_IDENTITIES__DEFAULT__METHOD": "none",
    }
    for name, value in given.items():
        if name.startswith("GATEWAY_LISTEN_TLS__"):
            environ[name] = value and str(certificate)
            assert not value or str(Path(value).parent) in folders
    settings = load(file=None, environ=environ, flags={}).settings
    assert settings.listen_tls is not None
    assert settings.listen_tls.client_ca_file is not None
    assert "name: https" in file.read_text()


def _overlay(programs: Path, folder: Path, lines: int) -> str:
    """Return what the first `lines` of the overlay in kustomization.yaml make."""
    described = (KUBERNETES / "standalone" / "kustomization.yaml").read_text().splitlines()
    start = described.index("#   namespace: inference")
    overlay = "\n".join(line.removeprefix("#   ") for line in described[start : start + lines])
    for name in ("standalone", "listen-tls"):
        (folder / name).symlink_to(KUBERNETES / name)
    (folder / "kustomization.yaml").write_text(overlay.replace("path/to/", ""))
    (folder / "gateway.yaml").write_text("services: {}\n")
    return output_of(str(programs / "kustomize"), "build", str(folder))


def test_native_and_classic_sidecar_differ_as_described() -> None:
    """
    The gateway's container is the same in both but for its restart policy and its preStop hook.
    """
    native = containers_of(SIDECAR)["modelarts-gateway"]
    classic = containers_of(CLASSIC)["modelarts-gateway"]

    assert native.pop("restartPolicy") == "Always"
    assert classic.pop("lifecycle")["preStop"]
    assert native == classic


def test_workload_identity_needs_no_secret(tmp_path: Path) -> None:
    """
    The container is the native sidecar's; the file that the configuration names is the projected
    token, which only the gateway mounts.
    """
    assert containers_of(WORKLOAD) == containers_of(SIDECAR)
    identity = settings_of(WORKLOAD, tmp_path).identities["default"]
    assert (identity.method, identity.protocol) == ("oidc", None)
    documents = list(yaml.safe_load_all(WORKLOAD.read_text()))
    (pod,) = (d["spec"]["template"]["spec"] for d in documents if d["kind"] == "Deployment")
    (account,) = (d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount")
    assert pod["serviceAccountName"] == account
    (volume,) = (v for v in pod["volumes"] if v["name"] == "gateway-secret")
    (source,) = volume["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"]
    (mount,) = (
        mount["mountPath"]
        for mount in containers_of(WORKLOAD)["modelarts-gateway"]["volumeMounts"]
        if mount["name"] == "gateway-secret"
    )
    (config,) = (d["data"]["gateway.yaml"] for d in documents if d["kind"] == "ConfigMap")
    file = yaml.safe_load(config)["identities"]["default"]["id_token_file"]
    assert file == f"{mount}/{source['serviceAccountToken']['path']}"


def test_prometheus_finds_every_pod(standalone: Path) -> None:
    """
    The PodMonitor's label is on every pod that a manifest makes, and its port in the container.
    """
    monitor = yaml.safe_load((ROOT / "deploy" / "prometheus" / "podmonitor.yaml").read_text())
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    for file in (SIDECAR, WORKLOAD, CLASSIC, standalone):
        (deployment,) = (
            document
            for document in yaml.safe_load_all(file.read_text())
            if document["kind"] == "Deployment"
        )
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert labels.items() >= monitor["spec"]["selector"]["matchLabels"].items(), file
        ports = containers_of(file)["modelarts-gateway"]["ports"]
        assert endpoint["port"] in [port["name"] for port in ports], file
