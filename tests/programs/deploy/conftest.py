"""What is made or started once for all checks of deploy/."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
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
Made = dict[str, Future[Path]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each check time for what its fixtures install, build and run; images come last."""
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.timeout(3000))
    if len(ours) == len(items):
        items.sort(key=_needs_image)


def _needs_image(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and "first_image" in item.fixturenames


@pytest.fixture(scope="session", autouse=True)
def _image_is_begun(request: pytest.FixtureRequest) -> None:
    """Begin with what takes longest, beside the checks that need no image."""
    if any(map(_needs_image, request.session.items)):
        with suppress(
            pytest.skip.Exception, pytest.fail.Exception
        ):  # tests that need it report this
            request.getfixturevalue("first_image")


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Say:
    """Print a line past pytest's capture: figures, and what takes long."""
    capture: Any = pytestconfig.pluginmanager.getplugin("capturemanager")

    def print_line(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{line}", flush=True)

    return print_line


@pytest.fixture(scope="session")
def made(say: Say) -> Iterator[Made]:
    """Every part by its name, in the making."""
    lines: list[str] = []  # the capture is this thread's
    with ThreadPoolExecutor(2) as pool:
        yield {make.__name__: pool.submit(make, lines.append) for make in parts.MAKERS}
    for line in lines:
        say(line)


@pytest.fixture(scope="session")
def part(made: Made) -> Part:
    """Return a part's folder by its name."""

    def get(name: str) -> Path:
        try:
            return made[name].result()
        except PartMissingError as error:
            lacking(str(error))

    return get


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
def first_image(
    containers: Containers, made: Made, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Future[Build]]:
    """The image, in the making; with it comes what builds further ones.

    That builds deploy/Dockerfile as it is, under a name, with arguments; the bases are our own.
    """
    pip = tmp_path_factory.mktemp("pip") / "pip.conf"
    pip.write_text("[global]\nno-index = true\nfind-links = /wheels\n")

    def run(name: str, *arguments: str) -> str:
        containers.build(
            ROOT / "deploy" / "Dockerfile",
            name,
            ROOT,
            f"--volume={made['wheels'].result()}:/wheels:ro",
            f"--secret=id=pip,src={pip}",
            f"--ignorefile={ROOT / '.dockerignore'}",
            *arguments,
        )
        return name

    def begin() -> Build:
        for part, name in (("base", _BASE_IMAGE), ("builder", _BUILDER_IMAGE)):
            folder = made[part].result()
            containers.build(folder / "Dockerfile", name, folder)
        run(IMAGE)
        return run

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(begin)


@pytest.fixture(scope="session")
def build(first_image: Future[Build]) -> Build:
    """Builds further images; what they share with the first is there."""
    try:
        return first_image.result()
    except PartMissingError as error:
        lacking(str(error))


@pytest.fixture(scope="session")
def image(build: Build) -> str:  # it comes with the first image
    """The image."""
    return IMAGE
