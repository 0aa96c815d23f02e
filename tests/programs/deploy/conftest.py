"""What is made or started once for all checks of deploy/."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway import __version__
from tests.programs.deploy import parts
from tests.programs.deploy.containers import Containers, running_containers
from tests.programs.deploy.parts import ROOT, PartMissingError
from tests.support.tools import lacking

IMAGE = f"localhost/modelarts-gateway:{__version__}"
_BASE_IMAGE = "docker.io/library/python:3.13-slim"
_BUILDER_IMAGE = "docker.io/library/python:3.13"

Say = Callable[[str], None]
Part = Callable[[str], Path]
Build = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each check time for what its fixtures install, build and run."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(3000))


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Say:
    """Print a line past pytest's capture: figures, and what takes long."""
    capture: Any = pytestconfig.pluginmanager.getplugin("capturemanager")

    def print_line(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{line}", flush=True)

    return print_line


@pytest.fixture(scope="session")
def part(say: Say) -> Iterator[Part]:
    """Return a part's folder by its name; all are made at once, at the first question."""
    lines: list[str] = []  # the capture is this thread's
    makers = (parts.tools, parts.base, parts.builder, parts.wheels, parts.programs, parts.systemd)
    with ThreadPoolExecutor(2) as pool:
        futures: dict[str, Future[Path]] = {
            make.__name__: pool.submit(make, lines.append) for make in makers
        }

        def get(name: str) -> Path:
            try:
                return futures[name].result()
            except PartMissingError as error:
                lacking(str(error))
            finally:
                while lines:
                    say(lines.pop(0))

        yield get


@pytest.fixture(scope="session")
def tools(part: Part) -> Path:
    """The folder with hadolint, kubernetes-validate, checkov and a Python that knows Helm."""
    return part("tools")


@pytest.fixture(scope="session")
def programs(part: Part) -> Path:
    """The folder with kustomize and docker-compose."""
    return part("programs")


@pytest.fixture(scope="session")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """Buildah and podman, with an empty store."""
    try:
        with running_containers(tmp_path_factory.mktemp("containers")) as running:
            yield running
    except PartMissingError as error:
        lacking(str(error))


@pytest.fixture(scope="session")
def build(containers: Containers, part: Part, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds deploy/Dockerfile as it is, under a name, with arguments; the bases are our own."""
    containers.build(part("base") / "Dockerfile", _BASE_IMAGE, part("base"))
    containers.build(part("builder") / "Dockerfile", _BUILDER_IMAGE, part("builder"))
    pip = tmp_path_factory.mktemp("pip") / "pip.conf"
    pip.write_text("[global]\nno-index = true\nfind-links = /wheels\n")

    def run(name: str, *arguments: str) -> str:
        containers.build(
            ROOT / "deploy" / "Dockerfile",
            name,
            ROOT,
            f"--volume={part('wheels')}:/wheels:ro",
            f"--secret=id=pip,src={pip}",
            f"--ignorefile={ROOT / '.dockerignore'}",
            *arguments,
        )
        return name

    return run


@pytest.fixture(scope="session")
def image(build: Build) -> str:
    """The image."""
    return build(IMAGE)
