"""The systemd unit: verified, rated, and run by a real systemd with all of its sandbox."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gateway.twin import IRIS_ID
from tests.programs.deploy.conftest import Part, Say
from tests.programs.deploy.containers import Containers
from tests.programs.deploy.parts import ROOT
from tests.programs.deploy.test_image import IRIS
from tests.support.tools import tool

UNIT = ROOT / "deploy" / "systemd" / "modelarts-gateway.service"
TEMPLATE = UNIT.with_stem("modelarts-gateway@")  # several processes on one port
PROGRAM = "/opt/modelarts-gateway/bin/modelarts-gateway"
NAME = UNIT.name
_BOOT_S = 30.0
_RATED = "Overall exposure level"

_DOCKERFILE = f"""\
FROM {{image}} AS gateway
FROM localhost/systemd
COPY --from=gateway /opt/modelarts-gateway /opt/modelarts-gateway
COPY gateway.yaml iam-password /etc/modelarts-gateway/
COPY {NAME} {TEMPLATE.name} twin.service /etc/systemd/system/
RUN chmod 600 /etc/modelarts-gateway/iam-password && systemctl set-default basic.target
"""
_TWIN = f"""\
[Service]
ExecStart={PROGRAM} twin
"""


@pytest.fixture(scope="module")
def analyze() -> str:
    return tool("systemd-analyze", "systemd")


@pytest.mark.parametrize("shipped", [UNIT, TEMPLATE], ids=["one", "several"])
def test_unit_is_verified_without_a_word(analyze: str, tmp_path: Path, shipped: Path) -> None:
    """
    systemd-analyze, which exits with 0 whatever it finds, finds nothing to say.
    """
    program = tmp_path / "modelarts-gateway"  # it looks whether the program is there
    program.symlink_to("/bin/true")
    unit = tmp_path / shipped.name.replace("@", "@0")
    unit.write_text(shipped.read_text().replace(PROGRAM, str(program)))

    ended = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize("shipped", [UNIT, TEMPLATE], ids=["one", "several"])
def test_unit_is_hardly_exposed(analyze: str, say: Say, shipped: Path) -> None:
    """
    systemd-analyze rates its exposure 2.0 of 10 at most.
    """
    ended = subprocess.run(
        [analyze, "security", "--offline=yes", "--threshold=20", "--no-pager", str(shipped)],
        capture_output=True,
        text=True,
        check=False,
    )

    (rating,) = (line for line in ended.stdout.splitlines() if _RATED in line)
    say(f"systemd: {rating[rating.index('Overall') :]}")
    assert ended.returncode == 0, ended.stdout


def test_template_is_the_unit_but_for_what_instances_differ_in() -> None:
    """
    Whatever is changed in one of the two is changed in the other.
    """
    one, several = (set(map(str.strip, unit.read_text().splitlines())) for unit in (UNIT, TEMPLATE))
    changed = {line for line in one ^ several if not line.startswith(("#", "Description="))}

    assert changed == {
        "User=modelarts-gateway",
        "Environment=GATEWAY_REUSE_PORT=true GATEWAY_ADMIN_LISTEN=127.0.0.1:909%i",
        "RuntimeDirectory=modelarts-gateway",
        "RuntimeDirectory=modelarts-gateway-%i",
    }


@pytest.fixture(scope="module")
def machine(
    containers: Containers, image: str, part: Part, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Containers]:
    """A Debian run by systemd, with unit, configuration and password as README.md installs them."""
    folder = tmp_path_factory.mktemp("systemd")
    config = yaml.safe_load((UNIT.parent / "gateway.yaml").read_text())
    config["identities"]["default"]["auth_url"] = "http://127.0.0.1:8081/v3"
    config["services"]["iris"]["url"] = f"http://127.0.0.1:8081/v1/infers/{IRIS_ID}"
    (folder / "gateway.yaml").write_text(yaml.safe_dump(config))
    (folder / "iam-password").write_text("twin-password\n")
    for unit in (UNIT, TEMPLATE):
        (folder / unit.name).write_text(unit.read_text())
    (folder / "twin.service").write_text(_TWIN)
    (folder / "Dockerfile").write_text(_DOCKERFILE.format(image=image))
    containers.build(part("systemd") / "Dockerfile", "localhost/systemd", part("systemd"))
    containers.build(folder / "Dockerfile", "localhost/machine", folder)
    containers.podman(
        "run",
        "--detach",
        "--name=machine",
        "--systemd=always",
        "--privileged",
        "--network=host",
        "--ulimit=nofile=4096:4096",
        "--ulimit=nproc=4096:4096",
        "localhost/machine",
        # In a container systemd leaves mounts as they are; credentials need them shared, as they
        # are on a machine.
        "sh",
        "-c",
        "mount --make-rshared / && exec /lib/systemd/systemd",
    )
    give_up_at = time.monotonic() + _BOOT_S
    while _systemctl(containers, "is-active", "basic.target", check=False) != "active\n":
        assert time.monotonic() < give_up_at, containers.log("machine")
        time.sleep(0.1)
    _systemctl(containers, "start", "twin.service")
    yield containers
    containers.podman("rm", "--force", "--time=0", "machine", check=False)


def _systemctl(machine: Containers, *arguments: str, check: bool = True) -> str:
    return machine.podman("exec", "machine", "systemctl", *arguments, check=check)


def _shown(machine: Containers, key: str) -> str:
    return _systemctl(machine, "show", f"--property={key}", "--value", NAME).strip()


def _journal(machine: Containers) -> str:
    return machine.podman("exec", "machine", "journalctl", "--output=cat", f"--unit={NAME}")


def _asked(machine: Containers) -> str:
    """Call the model on that machine, as a program there would."""
    script = (
        "import sys, urllib.request as r;"
        "print(r.urlopen(r.Request(sys.argv[1], sys.argv[2].encode())).read().decode())"
    )
    return machine.podman(
        "exec", "machine", "python3", "-c", script, "http://127.0.0.1:8080/iris", IRIS
    )


def _status(machine: Containers) -> str:
    script = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9090/status').read())"
    return machine.podman("exec", "machine", "python3", "-c", script)


def test_unit_starts_reloads_and_ends(machine: Containers, say: Say) -> None:
    """
    In all of its sandbox the gateway tells systemd that it is ready, reads the password that
    systemd lends it, answers, takes a changed configuration at `systemctl reload`, and ends with 0.
    """
    began = time.monotonic()
    _systemctl(machine, "start", NAME)
    say(f"systemd: ready {time.monotonic() - began:.2f} s after `systemctl start`")
    machine.podman("exec", "machine", PROGRAM, "wait", "--max", "20s")
    assert "versicolor" in _asked(machine)

    first = _shown(machine, "MainPID")
    machine.podman(
        "exec", "machine", "sed", "-i", "s/iris:/flower:/", "/etc/modelarts-gateway/gateway.yaml"
    )
    _systemctl(machine, "reload", NAME)
    give_up_at = time.monotonic() + _BOOT_S
    while "flower" not in _status(machine):
        assert time.monotonic() < give_up_at, _journal(machine)
        time.sleep(0.1)
    machine.podman(
        "exec", "machine", "sed", "-i", "s/flower:/iris:/", "/etc/modelarts-gateway/gateway.yaml"
    )
    assert _shown(machine, "MainPID") == first, "it was restarted"

    _systemctl(machine, "stop", NAME)
    assert _shown(machine, "Result") == "success", _journal(machine)
    assert _shown(machine, "ExecMainStatus") == "0"


def test_unit_is_alone_with_its_secret(machine: Containers) -> None:
    """
    The process runs as a user that exists for it alone, with no capability and a system call
    filter, and the only password it can read is the copy lent to it.
    """
    _systemctl(machine, "start", NAME)
    pid = _shown(machine, "MainPID")

    facts = machine.podman("exec", "machine", "cat", f"/proc/{pid}/status")
    lent = machine.podman("exec", "machine", "ls", "/run/credentials/modelarts-gateway.service")
    _systemctl(machine, "stop", NAME)

    assert "Uid:\t0" not in facts
    for fact in ("CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert fact in facts, fact
    assert lent == "iam-password\n"


def test_instances_of_the_template_share_a_port(machine: Containers) -> None:
    """
    Each has its own admin port and serves a share of the calls; one ends, the other serves all.
    """
    instances = [TEMPLATE.name.replace("@", f"@{number}") for number in range(2)]
    _systemctl(machine, "start", *instances)
    for port in (9090, 9091):
        admin = f"--env=GATEWAY_ADMIN_LISTEN=127.0.0.1:{port}"
        machine.podman("exec", admin, "machine", PROGRAM, "wait", "--max", "20s")
    for _ in range(60):
        assert "versicolor" in _asked(machine)
        if all(_answered(machine, port) for port in (9090, 9091)):
            break
    else:
        pytest.fail("one of them gets nothing")

    _systemctl(machine, "stop", instances[0])
    for _ in range(3):
        assert "versicolor" in _asked(machine)
    _systemctl(machine, "stop", instances[1])
    for instance in instances:
        ended = _systemctl(machine, "show", "--property=Result", "--value", instance)
        assert ended == "success\n"


def _answered(machine: Containers, port: int) -> bool:
    """Return whether the process with this admin port has answered a call with 200."""
    script = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())"
    url = f"http://127.0.0.1:{port}/metrics"
    page = machine.podman("exec", "machine", "python3", "-c", script, url)
    return "gateway_requests_total{" in page and 'code="200"' in page


def test_wrong_configuration_ends_the_start_and_is_not_repeated(machine: Containers) -> None:
    """
    With a wrong port `systemctl start` fails, the journal names the key, and nothing is tried
    again: each try with a wrong password would count towards a lock.
    """
    override = "/run/systemd/system/modelarts-gateway.service.d"
    machine.podman("exec", "machine", "mkdir", "-p", override)
    setting = "[Service]\\nEnvironment=GATEWAY_LISTEN=127.0.0.1:80800\\n"
    machine.podman("exec", "machine", "sh", "-c", f"printf '{setting}' > {override}/port.conf")
    _systemctl(machine, "daemon-reload")

    _systemctl(machine, "start", NAME, check=False)

    assert _shown(machine, "ActiveState") == "failed"
    assert _shown(machine, "ExecMainStatus") == "2"
    assert "listen: " in _journal(machine)
