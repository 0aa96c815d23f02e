"""The image: built by buildah from deploy/Dockerfile, run by podman as tightly as it can be."""

import json
import re
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from gateway.twin import IRIS_ID
from tests.programs.deploy.conftest import Build, Say
from tests.programs.deploy.containers import Containers
from tests.programs.deploy.manifests import containers_of
from tests.programs.deploy.parts import ROOT, output_of

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
LOCK = ROOT / "deploy" / "requirements.txt"
TIGHT = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--network=host",  # the loopback that the namespaces of this test run have for themselves
)
# An attacker who gets in finds no shell, and what needs one fails.
NO_SHELL = tuple(f"--volume=/dev/null:/usr/bin/{name}:ro" for name in ("dash", "bash"))

_IRIS = {"sepal_length": 3, "sepal_width": 1, "petal_length": 2.2, "petal_width": 4}
IRIS = json.dumps({"data": {"req_data": [_IRIS]}})


def ask(containers: Containers, url: str, *, host: str = "127.0.0.1", body: str = "") -> str:
    """Return the answer to one request from inside the namespaces; a POST if there is a body."""
    return containers.python(
        """
import sys, urllib.request
url, host, body = sys.argv[1:4]
asked = urllib.request.Request(url, data=body.encode() or None, headers={"Host": host})
print(urllib.request.urlopen(asked, timeout=10).read().decode())
""",
        url,
        host,
        body,
    )


def until_answered(containers: Containers, url: str, *, within_s: float = 30.0) -> None:
    """Return once there is a good answer; ask ten times a second."""
    containers.python(
        """
import sys, time, urllib.request
give_up_at = time.monotonic() + float(sys.argv[2])
while True:
    try:
        urllib.request.urlopen(sys.argv[1], timeout=2)
        break
    except OSError as error:
        if time.monotonic() > give_up_at:
            sys.exit(f"{sys.argv[1]}: {error}")
        time.sleep(0.02)
""",
        url,
        str(within_s),
    )


def until_logged(log: Path, text: str, *, within_s: float = 30.0) -> None:
    """Return once a container has written something."""
    give_up_at = time.monotonic() + within_s
    while text not in log.read_text():
        assert time.monotonic() < give_up_at, log.read_text()[-2000:]
        time.sleep(0.02)


def test_hadolint_finds_nothing(tools: Path) -> None:
    """
    The Dockerfile follows the rules of the field, without exceptions.
    """
    assert output_of(str(tools / "hadolint"), str(DOCKERFILE)) == ""


@pytest.mark.parametrize("extra", ["", "demo", "otel", "fleet"])
def test_locked_packages_are_those_that_the_project_asks_for(extra: str) -> None:
    """
    deploy/requirements.txt has each of the project's requirements, at a version it allows, and a
    hash of every file; so have those of the extras, with what these need, and otherwise the same.
    """
    lock = LOCK.with_stem(f"requirements-{extra}") if extra else LOCK
    locked = _locked(lock)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + (project["optional-dependencies"][extra] if extra else [])

    for line in wanted:
        requirement = Requirement(line)
        version = locked.get(requirement.name.lower())
        assert version is not None, f"{line}: run the command at the top of {lock.name}"
        assert requirement.specifier.contains(Version(version)), line
    assert len(re.findall(r"^    --hash=", lock.read_text(), re.MULTILINE)) > len(locked)
    assert _locked(LOCK).items() <= locked.items()


def test_what_builds_the_wheel_is_locked() -> None:
    """
    The build is not isolated, so what it asks for must be among what is installed by hash.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    hook = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]
    wanted = {
        *project["build-system"]["requires"],
        *hook["dependencies"],
        *project["dependency-groups"]["build"],
    }
    locked = _locked(LOCK.with_stem("requirements-build"))

    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(locked[requirement.name.lower()]), requirement
    both = locked.keys() & _locked(LOCK).keys()
    assert {name: locked[name] for name in both} == {name: _locked(LOCK)[name] for name in both}
    commands = DOCKERFILE.read_text()
    assert "--no-build-isolation" in commands
    assert commands.count(" install ") == commands.count("--require-hashes") + 1  # our own wheel


def test_steps_for_systemd_install_nothing_that_is_not_locked() -> None:
    """
    Every pip either checks hashes, or builds or takes our own wheel alone, without fetching.
    """
    page = (ROOT / "deploy" / "README.md").read_text()
    steps = re.findall(
        r"^.*\bpip (?:install|wheel) .*$", page.partition("\n## systemd")[2], re.MULTILINE
    )
    assert len(steps) >= 4
    for step in steps:
        own = "--no-deps" in step and ("--no-build-isolation" in step or ".whl" in step)
        assert own or "--require-hashes" in step, step


def _locked(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize(
    ("extra", "loaded"),
    [
        ("otel", "gateway.observe.tracing.Tracer"),
        ("fleet", "gateway.identity.fleet.redis_shelf.RedisShelf"),
    ],
)
def test_image_can_be_built_with_an_extra(
    containers: Containers, build: Build, extra: str, loaded: str
) -> None:
    """
    With one argument the image has what the extra needs, and nothing is asked for in vain.
    """
    name = f"localhost/modelarts-gateway:{extra}"
    build(name, f"--build-arg=REQUIREMENTS=requirements-{extra}.txt")

    module, _, kind = loaded.rpartition(".")
    said = containers.podman(
        "run",
        "--rm",
        *TIGHT,
        "--entrypoint=/opt/modelarts-gateway/bin/python",
        name,
        "-c",
        f"from {module} import {kind}; print({kind}.__name__)",
    )
    assert said.strip() == kind


@pytest.fixture(scope="module")
def twin(
    containers: Containers, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The stand-in cloud, in a container of the same image."""
    log = tmp_path_factory.mktemp("twin") / "log"
    process = containers.start("run", "--rm", "--name=twin", *TIGHT, image, "twin", log=log)
    try:
        until_logged(log, "stand-in cloud")
        yield "http://127.0.0.1:8081"
    finally:
        containers.podman("stop", "--time=5", "twin", check=False)
        process.wait(20)


def test_image_serves_with_nothing_but_itself(
    containers: Containers, image: str, twin: str, say: Say, tmp_path: Path
) -> None:
    """
    With a read-only root, no capability, no new privileges, no shell and no writable folder it
    starts, gets a token, answers a request, answers its own probes, and ends with 0 when told to.
    """
    password = tmp_path / "password"
    password.write_text("twin-password\n")
    log = tmp_path / "log"
    began = time.monotonic()
    process = containers.start(
        "run",
        "--name=gateway",
        *TIGHT,
        *NO_SHELL,
        f"--volume={password}:/run/secrets/iam-password:ro",
        f"--env=OS_AUTH_URL={twin}/v3",
        "--env=OS_USERNAME=infer",
        "--env=OS_USER_DOMAIN_NAME=my-account",
        "--env=OS_PROJECT_NAME=ap-southeast-1",
        "--env=GATEWAY_IDENTITIES__DEFAULT__PASSWORD_FILE=/run/secrets/iam-password",
        f"--env=GATEWAY_SERVICES__IRIS__URL={twin}/v1/infers/{IRIS_ID}",
        image,
        log=log,
    )
    try:
        until_answered(containers, "http://127.0.0.1:9090/readyz")
        ready_s = time.monotonic() - began
        answer = ask(containers, "http://127.0.0.1:8080/iris", body=IRIS)
        # as a kubelet asks: by the pod's address
        ask(containers, "http://127.0.0.1:9090/readyz", host="10.1.2.3:9090")
        metrics = ask(containers, "http://127.0.0.1:9090/metrics")
        containers.podman("exec", "gateway", "modelarts-gateway", "wait", "--max", "5s")
        containers.podman("healthcheck", "run", "gateway")
        state = json.loads(containers.podman("inspect", "gateway"))[0]
        facts = Path(f"/proc/{state['State']['Pid']}/status").read_text()
        containers.podman("stop", "--time=20", "gateway")
        code = process.wait(30)
    finally:
        changed = containers.podman("diff", "gateway", check=False)
        containers.podman("rm", "--force", "--time=0", "gateway", check=False)
        process.wait(30)

    assert "versicolor" in answer
    assert re.search(r'^gateway_build_info\{.*compiled="yes"', metrics, re.MULTILINE)
    assert code == 0, log.read_text()[-2000:]
    for fact in ("Uid:\t65532\t", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert fact in facts, fact
    assert not [line for line in changed.splitlines() if line.startswith("A /opt")]
    sizes = [
        int(containers.podman("image", "inspect", "--format={{.Size}}", name)) / 1e6
        for name in (image, "docker.io/library/python:3.13-slim")
    ]
    rss = re.search(r"VmRSS:\s+(\d+)", facts)
    assert rss is not None
    say(
        f"image: {sizes[0]:.0f} MB, of which {sizes[1]:.0f} MB are the base; ready"
        f" {ready_s:.2f} s after `podman run`, with {int(rss[1]) / 1024:.0f} MiB"
    )


def test_start_is_in_time_on_a_full_node(containers: Containers, image: str, say: Say) -> None:
    """
    With no more CPU than the sidecar requests, and no more memory than its limit, it is started
    in half the time after which Kubernetes would give it up.
    """
    sidecar = containers_of(ROOT / "deploy" / "kubernetes" / "sidecar.yaml")["modelarts-gateway"]
    cpus = int(sidecar["resources"]["requests"]["cpu"].removesuffix("m")) / 1000
    memory = sidecar["resources"]["limits"]["memory"].removesuffix("i").lower()
    probe = sidecar["startupProbe"]
    limit_s = probe["periodSeconds"] * probe["failureThreshold"] / 2
    began = time.monotonic()
    containers.podman(
        "run", "--detach", "--name=slow", *TIGHT, f"--cpus={cpus}", f"--memory={memory}",
        "--env=GATEWAY_SERVICE_URL=http://127.0.0.1:8081/v1/infers/x",
        "--env=GATEWAY_IDENTITIES__DEFAULT__METHOD=none", image,
    )  # fmt: skip
    try:
        until_answered(containers, "http://127.0.0.1:9090/startupz", within_s=limit_s)
    finally:
        containers.podman("rm", "--force", "--time=0", "slow")

    say(f"image: started {time.monotonic() - began:.0f} s after `podman run` with {cpus} CPU")


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "services: at least one"),
        ({"GATEWAY_LISTEN": "127.0.0.1:80800"}, "listen: "),
        ({"GATEWAY_SERVICE_URL": "https://x.example/v1/infers/a"}, "identities.default"),
    ],
    ids=["nothing", "port", "no secret"],
)
def test_what_cannot_work_ends_the_start_with_a_sentence(
    containers: Containers, image: str, tmp_path: Path, environment: dict[str, str], sentence: str
) -> None:
    """
    A container without services, with a wrong port or without a secret ends with 2 and names the
    key; it does not wait for the first request.
    """
    log = tmp_path / "log"
    given = [f"--env={name}={value}" for name, value in environment.items()]

    process = containers.start("run", "--rm", *TIGHT, *given, image, log=log)

    assert process.wait(60) == 2, log.read_text()[-2000:]
    assert sentence in log.read_text()
