"""Runs the program that loads, whichever it is, and says what it saw in one shape."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.programs.bench import open_loop, peers, uploads
from tests.programs.bench.processes import child, describe_exit
from tests.programs.bench.shapes import REAL_BODIES, Load, Shape
from tests.programs.bench.upstream import IAM_TOKEN

_ENDURANCE_PART_S = 10
_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "{content_type}"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {{"requests":%d,"us":%d,"p50":%d,"p99":%d,"errors":' ..
    '{{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}}}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
"""
_REAL = """
local head = "POST {path} HTTP/1.1\\r\\nHost: {host}\\r\\n" ..
  "User-Agent: python-requests/2.32.3\\r\\nAccept-Encoding: gzip, deflate\\r\\n" ..
  "Accept: */*\\r\\nConnection: {connection}\\r\\n" ..
  "traceparent: 00-%08x%08x%08x%08x-%08x%08x-01\\r\\n" ..
  "Content-Length: %d\\r\\nContent-Type: application/json\\r\\n\\r\\n%s"
local bodies = {{}}
for n = 0, {bodies} - 1 do
  bodies[n] = wrk.body:sub(1, -3) .. ',"note":"' .. string.rep("n", n) .. '"}}}}'
end
local id, run = 0, os.time() % 0x7fffffff
request = function()
  id = id + 1
  local body = bodies[id * 197 % {bodies}]
  return string.format(head, run, id, 7, id, run, id, #body, body)
end
"""
_REAL_NOTE = len(',"note":""')
"""What such a body is longer than the JSON body at least."""


@dataclass(frozen=True)
class Outcome:
    """What a load program said about the contestant, whichever program it was."""

    requests: int
    least_body: int
    most_body: int
    """Bytes of a request's body."""
    figures: dict[str, float]
    errors: list[str]


def run(shape: Shape, port: int, seconds: int, folder: Path) -> Outcome:
    """Load `port` as `shape` says, with temporary files in `folder`."""
    match shape.load:
        case Load.WRK:
            return run_wrk(shape, port, seconds, folder)
        case Load.OPEN_LOOP:
            return run_open_loop(shape, port, seconds, shape.path, token=False)
        case Load.UPLOADS:
            return _run_uploads(shape, port)
        case Load.ENDURANCE:
            return _run_endurance(shape, port, folder)


def run_wrk(shape: Shape, port: int, seconds: int, folder: Path) -> Outcome:
    content = shape.body()
    body, script = folder / "body", folder / "load.lua"
    body.write_bytes(content)
    text = _SCRIPT.format(content_type=shape.content_type, body=body)
    host = f"127.0.0.1:{port}"
    if shape.real:
        connection = "close" if shape.closes else "keep-alive"
        text += _REAL.format(path=shape.path, host=host, connection=connection, bodies=REAL_BODIES)
    script.write_text(text)
    command = [
        *(str(peers.find("wrk")), "--threads", "1", "--connections", str(shape.connections)),
        *("--duration", f"{seconds}s", "--timeout", "10s", "--script", str(script)),
        f"http://{host}{shape.path}",
    ]
    said = output_of(command, seconds + 20)
    result = json.loads(said.rpartition("RESULT ")[2])
    failed = {kind: count for kind, count in result["errors"].items() if count}
    errors = [f"wrk: {count} {kind} errors" for kind, count in failed.items()]
    if not result["requests"]:
        errors.append("wrk: no request was answered")
    figures = {
        "rate": result["requests"] / result["us"] * 1e6,
        "p50_ms": result["p50"] / 1e3,
        "p99_ms": result["p99"] / 1e3,
    }
    least = len(content) + _REAL_NOTE if shape.real else len(content)
    most = least + REAL_BODIES - 1 if shape.real else least
    return Outcome(result["requests"], least, most, figures, errors)


def run_open_loop(shape: Shape, port: int, seconds: int, path: str, *, token: bool) -> Outcome:
    """Send to `path` at the rate of `shape`; `token`: as a contestant would, not as a caller."""
    body = shape.body().decode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {shape.content_type}\r\n"
    )
    if token:
        head += f"X-Auth-Token: {IAM_TOKEN}\r\n"
    order = open_loop.Order(port, shape.rate, seconds, head, body)
    result = json.loads(output_of(open_loop.ask_for(order), seconds + 30))
    figures = {
        "rate": result["rate"],
        "p50_ms": result["p50"],
        "p99_ms": result["p99"],
        "p999_ms": result["p999"],
        "late_ms": result["late"],
    }
    errors = [f"open loop: {failure}" for failure in result["failures"]]
    return Outcome(result["requests"], len(body), len(body), figures, errors)


def _run_endurance(shape: Shape, port: int, folder: Path) -> Outcome:
    """Repeat `run_wrk` until so many requests were answered as the shape wants, or one failed."""
    parts: list[Outcome] = []
    while sum(part.requests for part in parts) < shape.requests:
        parts.append(run_wrk(shape, port, _ENDURANCE_PART_S, folder))
        if parts[-1].errors:
            break
    return Outcome(
        sum(part.requests for part in parts),
        parts[-1].least_body,
        parts[-1].most_body,
        {key: median(part.figures[key] for part in parts) for key in parts[-1].figures},
        parts[-1].errors,
    )


def _run_uploads(shape: Shape, port: int) -> Outcome:
    order = uploads.Order(port, shape.path, shape.connections, shape.upload_bytes)
    ended: dict[str, int] = json.loads(output_of(uploads.ask_for(order), 90))
    good = ended.pop("200", 0)
    errors = [f"{count} uploads ended with {how}" for how, count in ended.items()]
    return Outcome(good, shape.upload_bytes, shape.upload_bytes, {}, errors)


def output_of(command: list[str], timeout_s: float) -> str:
    """Run a program; return what it printed.

    Raises:
        RuntimeError: it failed.
    """
    with child(command, output=subprocess.PIPE) as process:
        said, _ = process.communicate(timeout=timeout_s)
    if process.returncode:
        raise RuntimeError(f"{Path(command[0]).name}: {describe_exit(process.returncode)}")
    return said.decode()
