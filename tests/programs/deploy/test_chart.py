"""The Helm chart: linted and rendered by Helm's own engine, and what it renders validated."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.programs.deploy.custom_resources import faults_of, is_known
from tests.programs.deploy.manifests import check_policies, check_schema, containers_of, settings_of
from tests.programs.deploy.parts import ROOT, output_of
from tests.support.tools import tool

HERE = Path(__file__).parent
CHART = ROOT / "deploy" / "helm" / "modelarts-gateway"
VALUES = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted((HERE / "values").iterdir())
}
MINIMAL = VALUES["minimal"]
# The value sets, each with the chart it is for.
STANDALONE = tuple(VALUES)
BY_DEFAULT = [
    "ConfigMap",
    "Deployment",
    "HorizontalPodAutoscaler",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Service",
]
KINDS = {
    "everything": [*BY_DEFAULT, "ConfigMap", "PodMonitor", "PrometheusRule", "ServiceAccount"],
    "openshift": ["ConfigMap", "Deployment", "NetworkPolicy", "Service"],
}
SIDECARS: dict[str, dict[str, Any]] = {
    "native": {"modelarts-gateway": {**MINIMAL, "mode": "sidecar"}},
    "classic": {"modelarts-gateway": {**MINIMAL, "mode": "sidecar", "classic": {"enabled": True}}},
    "token": {
        "modelarts-gateway": {
            **MINIMAL,
            "mode": "sidecar",
            "idToken": {"audience": "modelarts-gateway"},
            "tokenEndpoint": {"enabled": True},
            "podMonitor": {"enabled": True},
        }
    },
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
    documents = list(yaml.safe_load_all(file.read_text()))
    own = tmp_path / "kubernetes.yaml"  # without the kinds of others, which have no schema there
    own.write_text(yaml.safe_dump_all(one for one in documents if not is_known(one)))

    check_schema(tools, own, "1.29", "1.37")
    # On OpenShift the project's range gives the user, and it is a high one.
    check_policies(tools, own, *(["CKV_K8S_40"] if name == "openshift" else []))
    wanted = KINDS.get(name, BY_DEFAULT)
    assert sorted(document["kind"] for document in documents) == sorted(wanted)
    settings = settings_of(file, tmp_path)
    assert settings.listen.port == (8000 if name == "everything" else 8080)
    fullname = {"everything": "demo-gateway", "openshift": "models"}.get(
        name, "demo-modelarts-gateway"
    )
    assert f"{fullname}.inference.svc" in settings.allowed_hosts
    assert settings.drain.announce == (10 if name == "everything" else 5)
    asked = _by_kind(file)["NetworkPolicy"]["spec"]["egress"][0]["to"]
    assert ({"ipBlock": {"cidr": "169.254.20.10/32"}} in asked) is (name != "everything")


def test_every_value_arrives_where_it_works(helm: Helm, tmp_path: Path) -> None:
    """
    With all switched on: the configuration names the files that are mounted, and nothing else is
    mounted; Redis may be reached; the token's socket is shared with the other container.
    """
    file = helm.manifest(CHART, VALUES["everything"], tmp_path)
    documents = _by_kind(file)
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    containers = containers_of(file)
    gateway = containers["modelarts-gateway"]
    assert containers.keys() == {"modelarts-gateway", "envoy"}
    mounts = {one["name"]: one["mountPath"] for one in gateway["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    (text,) = (
        one["data"]["gateway.yaml"]
        for one in yaml.safe_load_all(file.read_text())
        if one["kind"] == "ConfigMap" and "gateway.yaml" in one["data"]
    )
    files = set(re.findall(r"_file: (/\S+)", text))
    assert len(files) == 12
    for name in files:
        assert str(Path(name).parent) in mounts.values(), name
    settings = settings_of(file, tmp_path)
    assert str(settings.token_listen) == f"unix:{mounts['modelarts-gateway-token']}/token.sock"
    assert settings.listen_tls is not None
    assert settings.listen_tls.allowed_clients == ("shop.inference.svc",)
    assert str(settings.fleet and settings.fleet.url) == "rediss://redis.internal:6380/0"
    assert settings.identities["workload"].method == "oidc"
    _, _, *others = documents["NetworkPolicy"]["spec"]["egress"]
    upstream = documents["NetworkPolicy"]["spec"]["egress"][1]["ports"]
    assert {"port": 6380, "protocol": "TCP"} in upstream
    assert others == VALUES["everything"]["networkPolicy"]["extraEgress"]
    assert pod["serviceAccountName"] == documents["ServiceAccount"]["metadata"]["name"]
    assert pod["priorityClassName"] == "inference"
    assert gateway["env"][1:] == VALUES["everything"]["extraEnv"]
    assert documents["Service"]["spec"]["ports"][0]["name"] == "https"


def test_what_is_said_of_objects_stands_in_them(helm: Helm, tmp_path: Path) -> None:
    """
    Where pods run, how many, of which image, how long they may take to end, and annotations.
    """
    given = VALUES["everything"]
    file = helm.manifest(CHART, given, tmp_path)
    documents = _by_kind(file)
    template = documents["Deployment"]["spec"]["template"]
    pod, gateway = template["spec"], containers_of(file)["modelarts-gateway"]
    for key in ("nodeSelector", "tolerations", "affinity", "terminationGracePeriodSeconds"):
        assert pod[key] == given[key], key
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert gateway["image"] == f"{given['image']['repository']}@{given['image']['digest']}"
    assert gateway["imagePullPolicy"] == "Always"
    assert gateway["resources"] == given["resources"]
    assert template["metadata"]["annotations"].items() >= given["podAnnotations"].items()
    assert template["metadata"]["labels"].items() >= given["podLabels"].items()
    for kind, key in (("Service", "service"), ("ServiceAccount", "serviceAccount")):
        assert documents[kind]["metadata"]["annotations"] == given[key]["annotations"], kind
    scaler = documents["HorizontalPodAutoscaler"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 12)
    assert scaler["metrics"][0]["resource"]["target"]["averageUtilization"] == 60
    assert documents["PodDisruptionBudget"]["spec"]["maxUnavailable"] == "25%"


def test_openshift_gives_the_numbers(helm: Helm, tmp_path: Path) -> None:
    """
    A value of null takes a default away, what else it says stays; and pods are as many as said.
    """
    file = helm.manifest(CHART, VALUES["openshift"], tmp_path)
    deployment = _by_kind(file)["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    assert pod["securityContext"].keys() == {"runAsNonRoot", "seccompProfile"}
    context = containers_of(file)["modelarts-gateway"]["securityContext"]
    assert not context.keys() & {"runAsUser", "runAsGroup"}
    assert context["readOnlyRootFilesystem"] is True
    assert deployment["replicas"] == 3
    assert pod["serviceAccountName"] == "inference"


def test_objects_for_the_operator_are_those_of_the_folder(helm: Helm, tmp_path: Path) -> None:
    """
    PodMonitor and PrometheusRule have the operator's published types and hold what
    deploy/prometheus has; promtool accepts the rules; links lead to the runbook that is given. The
    dashboard is deploy/grafana's.
    """
    file = helm.manifest(CHART, VALUES["everything"], tmp_path)
    documents = list(yaml.safe_load_all(file.read_text()))
    custom = [one for one in documents if is_known(one)]
    assert {one["kind"] for one in custom} == {"PodMonitor", "PrometheusRule"}
    assert faults_of(custom, tmp_path) == ""
    broken = json.loads(json.dumps(custom))
    broken[0]["spec"]["podMetricsEndpoints"][0]["prt"] = "admin"
    assert "prt" in faults_of(broken, tmp_path)

    monitor, rule = sorted(custom, key=lambda one: str(one["kind"]))
    plain = yaml.safe_load((ROOT / "deploy" / "prometheus" / "podmonitor.yaml").read_text())
    assert monitor["spec"]["podMetricsEndpoints"] == [
        plain["spec"]["podMetricsEndpoints"][0] | {"interval": "30s"}
    ]
    labels = _by_kind(file)["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert labels.items() >= monitor["spec"]["selector"]["matchLabels"].items()
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    rules = tmp_path / "rules.yml"
    rules.write_text(yaml.safe_dump(rule["spec"]))
    output_of(tool("promtool", "prometheus"), "check", "rules", rules)
    alerts = [one for group in rule["spec"]["groups"] for one in group["rules"] if "alert" in one]
    assert len(alerts) > 10
    for one in alerts:
        link = one["annotations"]["runbook_url"]
        assert link.startswith("https://git.example/gateway/blob/main/deploy/README.md#gateway")
    (dashboard,) = (one for one in documents if one["metadata"]["name"].endswith("-dashboard"))
    shipped = (ROOT / "deploy" / "grafana" / "modelarts-gateway.json").read_text()
    assert json.loads(dashboard["data"]["modelarts-gateway.json"]) == json.loads(shipped)
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def _by_kind(file: Path) -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all(file.read_text())}


@pytest.mark.parametrize("name", SIDECARS)
def test_sidecar_of_another_chart_renders_to_valid_manifests(
    helm: Helm, tools: Path, application_chart: Path, tmp_path: Path, name: str
) -> None:
    """
    An application's chart gets the sidecar from ours, native and classic: valid, in line with the
    policies, and listening on loopback.
    """
    file = helm.manifest(application_chart, SIDECARS[name], tmp_path)

    documents = yaml.safe_load_all(file.read_text())
    own = tmp_path / "kubernetes.yaml"
    own.write_text(yaml.safe_dump_all(one for one in documents if not is_known(one)))
    check_schema(tools, own, *(("1.25", "1.37") if name == "classic" else ("1.29", "1.37")))
    check_policies(tools, own)
    assert settings_of(file, tmp_path).listen.host == "127.0.0.1"
    gateway = containers_of(file)["modelarts-gateway"]
    assert (gateway.get("restartPolicy") == "Always") is (name != "classic")
    assert ("lifecycle" in gateway) is (name == "classic")


def test_admin_port_of_a_sidecar_is_open_to_monitoring_alone(
    helm: Helm, application_chart: Path, tmp_path: Path
) -> None:
    """
    On a pod's address everybody in the cluster would reach it. The policy opens nothing else, which
    would undo what a policy of the application's closes.
    """
    file = helm.manifest(application_chart, SIDECARS["native"], tmp_path)

    documents = list(yaml.safe_load_all(file.read_text()))
    pod = next(one for one in documents if one["kind"] == "Deployment")["spec"]["template"]
    policies = [one["spec"] for one in documents if one["kind"] == "NetworkPolicy"]
    [policy] = [one for one in policies if "modelarts-gateway" in str(one["podSelector"])]
    assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    [monitored] = policy["ingress"]
    assert monitored["ports"] == [{"port": 9090, "protocol": "TCP"}]
    assert [list(peer) for peer in monitored["from"]] == [["namespaceSelector"]]


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
    "unknown value": (_but(replica=3), "'replica' not allowed"),
    "some replicas": (_but(replicas="some"), "/replicas'"),
    "half a fleet": (_but(fleet={"enabled": True}), "at '/fleet/url': minLength"),
    "fleet in the open": (
        _but(fleet={"enabled": True, "url": "redis://redis.internal"}), "at '/fleet/url'",
    ),
    "fleet without its key": (
        _but(fleet={"enabled": True, "url": "rediss://redis.internal"}),
        "fleet.secretName: name the Secret that holds fleet-key",
    ),
    "fleet twice": (
        _but(
            fleet={"enabled": True, "url": "rediss://redis.internal", "secretName": "fleet"},
            config=MINIMAL["config"] | {"fleet": {"url": "rediss://a", "key_file": "/key"}},
        ),
        "config.fleet is given too",
    ),
    "TLS without files": (_but(listenTls={"enabled": True}), "listenTls.secretName: name the"),
    "names without certificates": (
        _but(
            listenTls={
                "enabled": True,
                "secretName": "tls",
                "clientCertificates": False,
                "allowedClients": ["shop"],
            }
        ),
        "listenTls.allowedClients: callers without certificates have no names",
    ),
    "a token for nobody": (
        _but(tokenEndpoint={"enabled": True}),
        "tokenEndpoint: no other container of this pod could ask it",
    ),
    "token on a taken port": (
        _but(mode="sidecar", tokenEndpoint={"enabled": True, "by": "loopback", "port": 9090}),
        "tokenEndpoint.port: must differ",
    ),
    "token for everybody": (
        _but(tokenEndpoint={"enabled": True, "by": "network"}), "at '/tokenEndpoint/by'",
    ),
    "no audience": (
        _but(
            config=MINIMAL["config"]
            | {
                "identities": {
                    "default": {
                        "method": "oidc",
                        "auth_url": "https://iam.example/v3",
                        "idp": "cce",
                        "id_token_file": "/run/secrets/modelarts-gateway/id-token",
                        "project": "a",
                    }
                }
            }
        ),
        "idToken.audience: required by config.identities.default.id_token_file",
    ),
    "a short life": (_but(idToken={"expirationSeconds": 60}), "expirationSeconds': minimum"),
    "a user by name": (_but(securityContext={"runAsUser": "gateway"}), "/securityContext/"),
    "an environment as a map": (_but(extraEnv={"A": "b"}), "at '/extraEnv'"),
    "a scrape in words": (_but(podMonitor={"interval": "often"}), "/podMonitor/interval'"),
    "a budget of nothing": (
        _but(podDisruptionBudget={"maxUnavailable": 0}), "/podDisruptionBudget/maxUnavailable'",
    ),
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
