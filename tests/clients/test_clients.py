"""Real clients with their defaults: each calls, uploads, streams, and keeps its connection."""

import asyncio
import email
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.downstream.connection import ClientConnection
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.served import served
from tests.support.tools import lacking, tool
from tests.support.upstream import Link, Request, answer, scripted_upstream

PROGRAMS = Path(__file__).parent / "programs"
BODY = bytes(range(256)) * 12_000  # 3 MB, more than every buffer on the way
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
}

pytestmark = pytest.mark.timeout(300)  # Java compiles its source first


@dataclass
class Service:
    """What the clients call: `/call` echoes, `/upload` hashes, `/stream` waits to be told.

    So do the same of OpenAI's API: `/chat/completions`, `/files`, and the former as a stream.
    """

    next_event: asyncio.Event = field(default_factory=asyncio.Event)
    """Sends the second event of a stream; not set before the client has shown the first one."""
    heads: list[bytes] = field(default_factory=list)

    async def __call__(self, link: Link) -> None:
        while True:
            request = await link.request()
            self.heads.append(request.head)
            match request.target.partition(b"?")[0].rpartition(b"/")[2]:
                case b"call":
                    link.send(answer(200, request.content, b"Content-Type: application/json"))
                case b"upload":
                    link.send(answer(200, hashlib.sha256(request.content).hexdigest().encode()))
                case b"stream":
                    await self._stream(link, b"data: first\n\n", b"data: second\n\n")
                case b"completions":
                    asked = json.loads(request.content)
                    if asked.get("stream"):
                        events = [_completion("delta", text) for text in ("first", "second")]
                        await self._stream(link, *(b"data: %b\n\n" % event for event in events))
                    else:
                        said = _completion("message", asked["messages"][0]["content"])
                        link.send(answer(200, said, b"Content-Type: application/json"))
                case b"files":
                    name = hashlib.sha256(_file_in(request)).hexdigest()
                    said = json.dumps({"id": name, "object": "file"}).encode()
                    link.send(answer(200, said, b"Content-Type: application/json"))
                case _:
                    link.send(answer(200, b"ok"))

    async def _stream(self, link: Link, first: bytes, second: bytes) -> None:
        link.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(first), first)
        )
        await self.next_event.wait()
        link.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(second), second))


def _completion(kind: str, text: str) -> bytes:
    """Return a response of OpenAI's API, or an event of one."""
    choice = {"index": 0, kind: {"role": "assistant", "content": text}}
    return json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]}).encode()


def _file_in(request: Request) -> bytes:
    """Return the content of the file in a form."""
    [kind] = request.values(b"content-type")
    form = email.message_from_bytes(b"Content-Type: " + kind + b"\r\n\r\n" + request.content)
    [content] = [part.get_payload(decode=True) for part in form.walk() if part.get_filename()]
    assert isinstance(content, bytes)
    return content


@dataclass
class Scene:
    """A gateway before the service, and where it is."""

    service: Service
    gateway: RunningGateway
    url: str
    connections: set[ClientConnection] = field(default_factory=set)

    async def run(self, *command: str) -> list[str]:
        """Run a client; return its lines. The second event waits for it to show the first one."""
        return await _run(*command, heard=self._heard)

    def _heard(self, line: str) -> None:
        self.connections.update(self.gateway.gateway._parts.data.clients())
        if "data: first" in line:
            self.service.next_event.set()


async def _run(*command: str, heard: Callable[[str], None] = lambda _line: None) -> list[str]:
    """Run a client to its end; return its lines, each of which `heard` is told as it comes."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=ENVIRONMENT
    )
    assert process.stdout is not None
    assert process.stderr is not None
    lines = []
    try:
        async with asyncio.timeout(80):
            while line := await process.stdout.readline():
                lines.append(line.decode().rstrip())
                heard(lines[-1])
            errors = await process.stderr.read()
            assert await process.wait() == 0, errors.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # else the pipe stays open
    return lines


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """A gateway before a service that clients can call, upload to, and stream from."""
    service = Service()
    async with (
        scripted_upstream(service) as upstream,
        running_gateway(upstream.port) as gateway,
    ):
        yield Scene(service, gateway, f"http://127.0.0.1:{gateway.port}/iris")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """What is uploaded."""
    path = tmp_path / "body"
    path.write_bytes(BODY)
    return path


def _apache() -> str:
    """Return the class path of Apache HttpClient 5."""
    jars = [
        Path("/usr/share/java", f"{name}.jar")
        for name in ("httpclient5", "httpcore5", "httpcore5-h2", "slf4j-api", "slf4j-nop")
    ]
    if not all(jar.exists() for jar in jars):
        lacking("Apache HttpClient is not installed (Debian: libhttpclient5-java)")
    return ":".join(map(str, jars))


def _command(client: str, folder: Path) -> Sequence[str]:
    match client:
        case "java":
            return [tool("java", "openjdk-17-jdk-headless"), str(PROGRAMS / "Client.java")]
        case "apache":
            java = tool("java", "openjdk-17-jdk-headless")
            return [java, "-cp", _apache(), str(PROGRAMS / "Apache.java")]
        case "go":
            # As a program of its own: `go run` would be killed without it.
            program = str(folder / "client")
            subprocess.run(
                [tool("go", "golang-go"), "build", "-o", program, str(PROGRAMS / "client.go")],
                check=True, timeout=80, env=ENVIRONMENT | {"GO111MODULE": "off"},
            )  # fmt: skip
            return [program]
        case "node":
            return [tool("node", "nodejs"), str(PROGRAMS / "fetch.mjs")]
        case _:
            return [sys.executable, str(PROGRAMS / "python_clients.py"), client]


@pytest.mark.parametrize(
    "client",
    [
        *("requests", "httpx", "urllib3", "aiohttp", "openai", "node"),
        *(pytest.param(compiled, marks=pytest.mark.long) for compiled in ("go", "java", "apache")),
    ],
)
async def test_client(client: str, scene: Scene, file: Path) -> None:
    """Five calls, an upload and a stream on kept connections; events come as they are sent."""
    lines = await scene.run(*_command(client, file.parent), scene.url, str(file))

    assert lines == [
        *(f'call 200 {{"n":{call}}}' for call in range(5)),
        f"upload 200 {hashlib.sha256(BODY).hexdigest()}",
        "event data: first",
        "event data: second",
    ]
    assert len(scene.connections) <= 2  # Node opens a second one while the first is being read
    for head in scene.service.heads:
        assert b"upgrade" not in head.lower()
        assert b"http2-settings" not in head.lower()


@pytest.mark.parametrize("option", ["--http1.1", "--http2", "--http1.0"])
async def test_curl(option: str, scene: Scene, file: Path) -> None:
    """With its offer of HTTP/2, and with the oldest protocol."""
    curl = [tool("curl", "curl"), "-sS", "--no-buffer", option]
    said = [*curl, "-w", "\\n%{http_code}\\n"]

    assert await scene.run(*said, "-d", "{}", f"{scene.url}/call") == ["{}", "200"]
    assert await scene.run(*said, "--data-binary", f"@{file}", f"{scene.url}/upload") == [
        hashlib.sha256(BODY).hexdigest(),
        "200",
    ]
    if option != "--http1.0":  # which curl does not show before its end
        streamed = await scene.run(*said, f"{scene.url}/stream")
        assert [line for line in streamed if line] == ["data: first", "data: second", "200"]
        scene.connections.clear()
        reused = await scene.run(
            *curl, "-w", " %{num_connects}\\n", *[f"{scene.url}/ok?{n}" for n in range(3)]
        )
        assert reused == ["ok 1", "ok 0", "ok 0"]
    for head in scene.service.heads:
        assert b"upgrade" not in head.lower()


async def test_curl_with_absolute_form(scene: Scene) -> None:
    """As to a proxy: the target is a whole URL."""
    lines = await scene.run(
        tool("curl", "curl"), "-sS", "--request-target", f"{scene.url}/ok", scene.url, "-w", "\\n"
    )
    assert lines == ["ok"]


@pytest.mark.parametrize(
    "host",
    ["iris.internal:99", *(pytest.param(it, marks=pytest.mark.long) for it in ("x", "UPPER"))],
)
async def test_curl_through_a_unix_socket(host: str, tmp_path: Path) -> None:
    """Under whatever name: the file's permissions have decided."""
    path = tmp_path / "gateway.sock"
    async with (
        scripted_upstream(answer(200, b"ok")) as upstream,
        served(tmp_path, upstream.port, {"listen": f"unix:{path}"}),
    ):
        lines = await _run(
            tool("curl", "curl"), "-sS", "-w", "\\n%{http_code}\\n", "-d", "{}",
            "--unix-socket", str(path), f"http://{host}/iris/ok",
        )  # fmt: skip
    assert lines == ["ok", "200"]


async def test_wrk(scene: Scene) -> None:
    """Eight connections for a second: every answer is 200, and nothing breaks."""
    said = "\n".join(await scene.run(tool("wrk", "wrk"), "-t1", "-c8", "-d1s", f"{scene.url}/ok"))
    done = re.search(r"(\d+) requests in", said)
    assert done is not None, said
    assert int(done[1]) > 0
    assert "Non-2xx" not in said
    assert "Socket errors" not in said


@pytest.mark.parametrize("keeps", [True, False])
async def test_ab(keeps: bool, scene: Scene) -> None:
    """HTTP/1.0, with and without keep-alive."""
    said = "\n".join(
        await scene.run(
            tool("ab", "apache2-utils"), *["-k"] * keeps, "-n", "200", "-c", "8", f"{scene.url}/ok"
        )
    )
    assert re.search(r"Complete requests: +200\n", said), said
    assert re.search(r"Failed requests: +0\n", said), said
    assert "Non-2xx" not in said
    kept = re.search(r"Keep-Alive requests: +(\d+)", said)
    assert (int(kept[1]) if kept else 0) == (200 if keeps else 0)
