"""What a release uploads, as `make release-check` has built it in `dist/`, used as users do."""

import email
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest
import requests
from packaging.requirements import Requirement

from gateway import __version__
from tests.support.demo import running_demo

ROOT = Path(__file__).parents[3]
DIST = ROOT / "dist"
HOME = "https://github.com/modelarts-gateway/modelarts-gateway"
RAW = "https://raw.githubusercontent.com/modelarts-gateway/modelarts-gateway"


@pytest.fixture(scope="module")
def wheel() -> Path:
    """The pure wheel, whose version is that of the code."""
    path = DIST / f"modelarts_gateway-{__version__}-py3-none-any.whl"
    assert path.exists(), "run: make release-check"
    return path


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """What an index shows of the wheel; its text is the README."""
    with zipfile.ZipFile(wheel) as archive:
        name = f"modelarts_gateway-{__version__}.dist-info/METADATA"
        return email.message_from_bytes(archive.read(name))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment that `pipx install` made for the wheel."""
    home = tmp_path_factory.mktemp("pipx")
    environment = {
        **os.environ,
        "PIPX_HOME": str(home),
        "PIPX_BIN_DIR": str(home / "bin"),
        "PIPX_DEFAULT_PYTHON": sys.executable,
    }
    pipx = Path(sys.executable).with_name("pipx")
    done = subprocess.run(
        [pipx, "install", wheel], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (home / "bin" / "modelarts-gateway").exists()
    return home / "venvs" / "modelarts-gateway"


def test_wheel_has_licence_types_and_sample_configuration(wheel: Path) -> None:
    """
    The wheel brings what it promises beside the code, and no tests.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        prefix = f"modelarts_gateway-{__version__}"

        for file in ("LICENSE", "NOTICE"):
            kept = archive.read(f"{prefix}.dist-info/licenses/{file}")
            assert kept == (ROOT / file).read_bytes()
        for file in ("gateway.yaml", "gateway.minimal.yaml", "gateway.schema.json"):
            sample = archive.read(f"{prefix}.data/data/share/modelarts-gateway/{file}")
            assert sample == (ROOT / "config" / file).read_bytes()
    assert "gateway/py.typed" in names
    assert not [name for name in names if name.startswith("tests/")]


def test_unpacked_source_can_be_tested() -> None:
    """
    The source distribution has code, tests, documents, and what `make` needs.
    """
    with tarfile.open(DIST / f"modelarts_gateway-{__version__}.tar.gz") as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}

    tops = {path.name for path in ROOT.glob("*") if path.suffix in {".md", ".txt", ".toml"}}
    assert tops | {"Makefile", "LICENSE", "NOTICE", ".ci/run", "tests/conftest.py"} <= names
    assert {"config/gateway.yaml", "deploy/README.md", "gateway/py.typed"} <= names


def test_index_page_has_urls_and_no_link_into_nowhere(metadata: Message) -> None:
    """
    Links and pictures of the README are absolute on the index, and lead to files that exist.
    """
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL", []))
    assert urls["Source"] == HOME
    assert {"Changelog", "Documentation", "Issues", "Security"} <= set(urls)
    text = str(metadata.get_payload())
    targets = [found for found in re.findall(r"\]\(([^)]+)\)", text) if found[0] != "#"]
    ours = [target for target in targets if target.startswith((HOME, RAW))]
    assert len(ours) > 10
    for target in targets:
        assert target.startswith("https://"), target
    for target in ours:
        for prefix in (f"{HOME}/blob/v{__version__}/", f"{RAW}/v{__version__}/"):
            path = target.removeprefix(prefix).split("#")[0]
            if target.startswith(prefix):
                assert (ROOT / path).exists(), target
    assert not re.search(r"src=[\"'](?!https:)", text)


def test_sbom_lists_what_the_wheel_installs(metadata: Message) -> None:
    """
    Every requirement of the wheel and of its extras for production is in the SBOM, by version.
    """
    sbom = json.loads((DIST / "modelarts-gateway.cdx.json").read_text())
    listed = {part["name"].lower().replace("_", "-"): part for part in sbom["components"]}

    for line in metadata.get_all("Requires-Dist", []):
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": "fleet"}):
            assert listed[wanted.name.lower()]["version"] in wanted.specifier
    whole = sbom["metadata"]["component"]
    assert (whole["name"], whole["version"]) == ("modelarts-gateway", __version__)
    assert "pytest" not in listed


def test_installed_command_knows_its_version(installed: Path) -> None:
    """
    What pipx has put on the path runs, from the wheel and not from this folder.
    """
    said = subprocess.run(
        [installed / "bin" / "modelarts-gateway", "--version"],
        cwd=installed,
        capture_output=True,
        text=True,
        check=True,
    )

    assert f"version {__version__}" in said.stdout


def test_uvx_runs_the_wheel_without_installing_it(wheel: Path, tmp_path: Path) -> None:
    """
    The README's line for uvx, with an empty cache and pip's index.
    """
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple")
    environment = {
        **os.environ,
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_DEFAULT_INDEX": index,
        "UV_PYTHON": sys.executable,
    }
    uvx = Path(sys.executable).with_name("uvx")
    said = subprocess.run(
        [uvx, "--from", wheel, "modelarts-gateway", "--version"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert said.returncode == 0, said.stderr
    assert f"version {__version__}" in said.stdout


def test_sample_configuration_of_the_wheel_is_accepted(installed: Path, tmp_path: Path) -> None:
    """
    The sample that the wheel installs passes `check` once its secret files exist.
    """
    sample = (installed / "share" / "modelarts-gateway" / "gateway.minimal.yaml").read_text()
    secret = tmp_path / "secret"
    secret.write_text("a-secret")
    secret.chmod(0o600)
    file = tmp_path / "gateway.yaml"
    file.write_text(re.sub(r"(_file: ).*", rf"\g<1>{secret}", sample))

    done = subprocess.run(
        [installed / "bin" / "modelarts-gateway", "check", "--config", file],
        cwd=installed,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """
    Without a checkout, `demo` predicts, and its image service says what it needs.
    """
    command = (str(installed / "bin" / "modelarts-gateway"), "demo")
    with running_demo(tmp_path, command=command) as demo:
        record = {"sepal_length": 3, "sepal_width": 1, "petal_length": 2.2, "petal_width": 4}
        answer = requests.post(
            f"{demo.url}/iris", json={"data": {"req_data": [record]}}, timeout=10
        )

        picture = requests.post(
            f"{demo.url}/image", files={"images": b"\x89PNG\r\n\x1a\n"}, timeout=10
        )

    assert answer.status_code == 200
    assert "predictresult" in answer.json()["data"]["resp_data"][0]
    assert "pip install 'modelarts-gateway[demo]'" in picture.text  # the extra was not asked for
