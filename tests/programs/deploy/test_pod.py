"""The sidecar's pod, really run: deploy/kubernetes/sidecar-classic.yaml by `podman kube play`.

Podman 4.3 knows no native sidecar; the two manifests' container is the same, as another test holds.
"""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.twin import IRIS_ID
from tests.programs.deploy.conftest import Say
from tests.programs.deploy.containers import Containers
from tests.programs.deploy.parts import ROOT

MANIFEST = ROOT / "deploy" / "kubernetes" / "sidecar-classic.yaml"
POD, GATEWAY, APPLICATION = (
    f"my-application-pod-0{name}" for name in ("", "-modelarts-gateway", "-my-application")
)
PASSWORD = b"twin-password"
TWIN = "http://127.0.0.1:8081"
_WAIT_S = 30.0


@pytest.fixture(scope="module")
def manifest(image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest with what is marked CHANGE changed, and the stand-in cloud in it."""
    documents = list(yaml.safe_load_all(MANIFEST.read_text()))
    config, deployment, _policy = documents  # podman knows no policies
    settings = yaml.safe_load(config["data"]["gateway.yaml"])
    settings["identities"]["default"]["auth_url"] = f"{TWIN}/v3"
    settings["services"]["iris"]["url"] = f"{TWIN}/v1/infers/{IRIS_ID}"
    config["data"]["gateway.yaml"] = yaml.safe_dump(settings)
    deployment["spec"]["replicas"] = 1
    deployment["spec"]["template"]["spec"]["containers"].append(
        {"name": "twin", "image": image, "args": ["twin"]}
    )
    path = tmp_path_factory.mktemp("pod") / "pod.yaml"
    path.write_text(yaml.safe_dump_all([config, deployment]))
    return path


@pytest.fixture(scope="module")
def pod(containers: Containers, manifest: Path) -> Iterator[Containers]:
    """The pod, running."""
    application = Path(__file__).parent / "application"
    containers.build(application / "Dockerfile", "registry.example/my-application:1.0", application)
    _play(containers, manifest, with_secret=True)
    containers.podman("pod", "start", POD)
    yield containers
    containers.remove_all()


def _play(containers: Containers, manifest: Path, *, with_secret: bool) -> None:
    """Create the pod and its secret, as `kubectl create secret` and `apply` do."""
    secret: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "modelarts-gateway-iam"},
        "data": {"iam-password": base64.b64encode(PASSWORD).decode()} if with_secret else {},
    }
    file = manifest.with_name("secret.yaml")
    file.write_text(yaml.safe_dump(secret))
    containers.podman("kube", "play", str(file))
    containers.podman("kube", "play", "--start=false", "--network=slirp4netns", str(manifest))
    if with_secret:  # podman 4.3 leaves the base64 that Kubernetes decodes
        volume = containers.podman(
            "volume", "inspect", "--format={{.Mountpoint}}", "modelarts-gateway-iam"
        )
        Path(volume.strip(), "iam-password").write_bytes(PASSWORD)


def _until_logged(containers: Containers, container: str, text: str) -> str:
    """Wait until a container has written `text`; return all it has written."""
    give_up_at = time.monotonic() + _WAIT_S
    while text not in (log := containers.log(container)):
        assert time.monotonic() < give_up_at, log[-2000:]
        time.sleep(0.1)
    return log


def test_application_calls_the_model_through_the_sidecar(pod: Containers, say: Say) -> None:
    """
    The application, which knows no credential, gets the model's answers by the plain URL that the
    manifest gives it, across the pod's loopback.
    """
    log = _until_logged(pod, APPLICATION, "versicolor")

    lines = log.splitlines()
    first = next(number for number, line in enumerate(lines) if "versicolor" in line)
    pod.podman("exec", GATEWAY, "modelarts-gateway", "wait", "--max", "5s")
    say(f"pod: the application's call number {first + 1} was answered by the model")


def test_gateway_runs_as_the_manifest_says(pod: Containers) -> None:
    """
    The kernel says of the gateway's process: user 65532, no capability, no new privileges, a
    seccomp filter; its memory is limited and its root cannot be written.
    """
    found = json.loads(pod.podman("inspect", GATEWAY))[0]
    facts = Path(f"/proc/{found['State']['Pid']}/status").read_text()

    for fact in ("Uid:\t65532\t", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert fact in facts, fact
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert found["HostConfig"]["Memory"] == 256 * 2**20


def test_application_cannot_read_the_secret(pod: Containers) -> None:
    """
    The password's file is in the gateway's container and in no other.
    """
    show = (
        "import sys; sys.stdout.write(open('/run/secrets/modelarts-gateway/iam-password').read())"
    )

    assert pod.podman("exec", GATEWAY, "python", "-c", show) == PASSWORD.decode()
    assert pod.podman("exec", APPLICATION, "python3", "-c", show, check=False) == ""


def test_the_hook_before_the_end_needs_no_shell(pod: Containers) -> None:
    """
    The command of preStop runs in the container; podman itself runs no such hooks.
    """
    gateway = next(
        container for container in _containers() if container["name"] == "modelarts-gateway"
    )
    command = gateway["lifecycle"]["preStop"]["exec"]["command"]
    began = time.monotonic()

    pod.podman("exec", GATEWAY, *[part.replace("sleep(15)", "sleep(1)") for part in command])

    assert time.monotonic() - began >= 1


def _containers() -> list[dict[str, Any]]:
    deployment = list(yaml.safe_load_all(MANIFEST.read_text()))[1]
    return list(deployment["spec"]["template"]["spec"]["containers"])


def test_pod_ends_in_time_and_without_loss(pod: Containers) -> None:
    """
    Told to end, application and gateway both end with 0 by themselves, long before anybody kills.
    """
    began = time.monotonic()
    pod.podman("pod", "stop", "--time=30", POD)

    assert time.monotonic() - began < 25
    for name in (GATEWAY, APPLICATION):
        assert json.loads(pod.podman("inspect", name))[0]["State"]["ExitCode"] == 0, name


def test_pod_without_its_secret_says_what_is_missing(pod: Containers, manifest: Path) -> None:
    """
    When the secret lacks the password, the gateway does not start, and names key and file.
    """
    pod.remove_all()
    _play(pod, manifest, with_secret=False)
    pod.podman("pod", "start", POD)

    log = _until_logged(pod, GATEWAY, "identities.default.password_file")

    assert "no such file" in log
