"""The three clients of the vendor's manual, as real programs: curl, Python's requests, Postman.

Each calls the stand-in cloud directly, with a token, which proves the client's command and the
twin; and calls through `modelarts-gateway demo` without a token, which proves the gateway.
"""

import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from gateway.twin import IMAGE_ID, IRIS_ID
from tests.support.demo import ENVIRONMENT, Demo, running_demo
from tests.support.tools import lacking, npm_program
from tests.support.twin import fetch_token, twin_in_thread

ROOT = Path(__file__).parents[2]
NEWMAN = ROOT / ".venv" / "newman"
COLLECTION = ROOT / "config" / "modelarts-gateway.postman_collection.json"
WORKING_DIR = ROOT / "config" / "postman"


@dataclass(frozen=True)
class Way:
    """How a client reaches the two services."""

    iris: str
    image: str
    token: str = ""
    """Sent by the client itself; empty where the gateway adds it."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """`modelarts-gateway demo`, ready."""
    with running_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.fixture(scope="module", params=["cloud", "gateway, by name", "gateway, own path"])
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    """Straight to the cloud with a token; through the gateway without, at both kinds of path."""
    if request.param == "cloud":
        with twin_in_thread() as twin:
            token = fetch_token(twin.url)
            yield Way(twin.service_url(IRIS_ID), twin.service_url(IMAGE_ID), token)
        return
    base = request.getfixturevalue("demo").url
    if request.param == "gateway, by name":
        yield Way(f"{base}/iris", f"{base}/image")
    else:
        yield Way(f"{base}/v1/infers/{IRIS_ID}", f"{base}/v1/infers/{IMAGE_ID}")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A PNG, a JPEG, and a PNG of more than 5 MiB."""
    folder = tmp_path_factory.mktemp("data")
    paths = {name: folder / name for name in ("test.png", "test.jpg", "large.png")}
    Image.linear_gradient("L").convert("RGB").save(paths["test.png"])
    Image.radial_gradient("L").convert("RGB").save(paths["test.jpg"])
    noise = random.Random(1).randbytes(1400 * 1400 * 3)
    Image.frombytes("RGB", (1400, 1400), noise).save(paths["large.png"], compress_level=1)
    assert paths["large.png"].stat().st_size > 5 << 20
    return paths


def _is_of(result: dict[str, Any], path: Path) -> bool:
    """Tell whether the model saw exactly the bytes of the file."""
    content = path.read_bytes()
    kind = "JPEG" if path.suffix == ".jpg" else "PNG"
    wanted = (kind, len(content), hashlib.sha256(content).hexdigest())
    return (result["format"], result["bytes"], result["sha256"]) == wanted


# curl


def _curl(way: Way, *arguments: str) -> dict[str, Any]:
    """Run the manual's command; without the token's header where the gateway adds it."""
    program = shutil.which("curl")
    if program is None:
        lacking("curl is not installed")
    token = ["-H", f"X-Auth-Token: {way.token}"] if way.token else []
    done = subprocess.run(
        [program, "-kv", *arguments[:-1], *token, "-X", "POST", arguments[-1]],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "< HTTP/1.1 200 OK" in done.stderr, done.stderr + done.stdout
    assert "< Server: ModelArts" in done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("name", ["test.png", "test.jpg", "large.png"])
def test_curl_sends_a_file(way: Way, pictures: dict[str, Path], name: str) -> None:
    """`curl -kv -F 'images=@…' -X POST URL`: the very bytes of the file reach the model."""
    answer = _curl(way, "-F", f"images=@{pictures[name]}", way.image)
    [result] = answer["data"]["resp_data"]
    assert _is_of(result, pictures[name])


def test_curl_sends_json(way: Way) -> None:
    """`curl -kv -d '{"data":…}' -H 'Content-type: application/json' -X POST URL`."""
    body = (
        '{"data":{"req_data":'
        '[{"sepal_length":3,"sepal_width":1,"petal_length":2.2,"petal_width":4}]}}'
    )
    answer = _curl(way, "-d", body, "-H", "Content-type: application/json", way.iris)
    assert answer["meta"] == {"uuid": ""}
    [result] = answer["data"]["resp_data"]
    assert (result["sepal_length"], result["predictresult"]) == (3, "versicolor")


# Python's requests

FILE_SCRIPT = """
import sys
import threading

import requests

url, file_name, token = sys.argv[1:]
headers = {"X-Auth-Token": token} if token else {}


def call():
    for _ in range(20):
        files = {'images': (file_name, open(file_name, 'rb'), "multipart/form-data")}
        response = requests.request("POST", url, headers=headers, files=files, verify=False)
        print(response.status_code, response.text)


thread = threading.Thread(target=call)
thread.start()
thread.join()
"""

JSON_SCRIPT = """
import json
import sys

import requests

url, token = sys.argv[1:]
headers = {"X-Auth-Token": token} if token else {}
body = {"input": [5.1, 3.5, 1.4, 0.2]}
response = requests.request("POST", url, headers=headers, data=json.dumps(body), verify=False)
print(response.status_code, response.text)
"""


def _python(script: str, *arguments: str) -> list[dict[str, Any]]:
    """Run a script that prints status and body per call; all must be 200."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = []
    for line in done.stdout.splitlines():
        status, _, body = line.partition(" ")
        assert status == "200", line
        answers.append(json.loads(body))
    return answers


@pytest.mark.parametrize("name", ["test.png", "test.jpg"])
def test_requests_sends_a_file_twenty_times_in_a_thread(
    way: Way, pictures: dict[str, Path], name: str
) -> None:
    """The manual's script, with its odd media type of the part: twenty answers, all the file's."""
    answers = _python(FILE_SCRIPT, way.image, str(pictures[name]), way.token)
    assert len(answers) == 20
    for answer in answers:
        [result] = answer["data"]["resp_data"]
        assert _is_of(result, pictures[name])


def test_requests_sends_json(way: Way) -> None:
    """`data=json.dumps({"input": …})`, which has no `Content-Type` at all."""
    [answer] = _python(JSON_SCRIPT, way.iris, way.token)
    assert answer["data"]["resp_data"][0]["predictresult"] == "setosa"


def test_twenty_calls_cost_no_login(demo: Demo, pictures: dict[str, Path]) -> None:
    """The cloud counts twenty more predictions, none rejected, and at most a refresh that was due.

    The demo's tokens live five minutes, so at most one refresh can fall into this test.
    """
    before = requests.get(f"{demo.twin_url}/twin/stats", timeout=60).json()
    _python(FILE_SCRIPT, f"{demo.url}/image", str(pictures["test.png"]), "")
    after = requests.get(f"{demo.twin_url}/twin/stats", timeout=60).json()
    seen = before["services"].get("image", {"predictions": 0, "rejected": 0})
    assert after["services"]["image"]["predictions"] == seen["predictions"] + 20
    assert after["services"]["image"]["rejected"] == seen["rejected"]
    assert after["logins"] <= before["logins"] + 1


def test_demo_logs_for_people(demo: Demo) -> None:
    """What the demo logs is text, although it goes to a file, where `serve` would write JSON."""
    printed = demo.printed.read_text()

    assert re.search(
        r"^[0-9-]+ \S+ INFO gateway\.identity: identity default: ", printed, re.MULTILINE
    )


# Postman


@pytest.fixture(scope="module")
def newman() -> Path:
    """Postman's own runner, installed beside the virtual environment's other tools."""
    return npm_program(NEWMAN, "newman", "newman@6.2.2")


@pytest.mark.long
@pytest.mark.timeout(320)  # the first run installs newman
def test_postman_collection_passes(demo: Demo, newman: Path, tmp_path: Path) -> None:
    """Every request of the shipped collection answers as its own tests demand."""
    report = tmp_path / "report.json"
    done = subprocess.run(
        [
            str(newman),
            "run",
            str(COLLECTION),
            "--working-dir",
            str(WORKING_DIR),
            "--env-var",
            f"baseUrl={demo.url}",
            "--timeout",
            "25000",
            "--reporters",
            "cli,json",
            "--reporter-json-export",
            str(report),
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    stats = json.loads(report.read_text())["run"]["stats"]
    requests_in_it = len(json.loads(COLLECTION.read_text())["item"])
    assert stats["requests"] == {"total": requests_in_it, "pending": 0, "failed": 0}
    assert stats["assertions"]["total"] >= 2 * 4 + 2 * 2 + 1
    assert stats["assertions"]["failed"] == 0


def test_collection_describes_the_file_beside_it() -> None:
    """Size and hash that the collection compares with are those of the shipped picture."""
    variables = {v["key"]: v["value"] for v in json.loads(COLLECTION.read_text())["variable"]}
    content = (WORKING_DIR / "test.png").read_bytes()
    assert variables["testPngBytes"] == str(len(content))
    assert variables["testPngSha256"] == hashlib.sha256(content).hexdigest()
