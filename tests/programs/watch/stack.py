"""A real Prometheus and a real Alertmanager, in processes of their own, on shortened rules."""

import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.programs.watch.short import write_shortened
from tests.support.tools import tool

_START_S = 20


@dataclass(frozen=True)
class Stack:
    """Where the two listen."""

    prometheus: str
    alertmanager: str

    def ask(self, path: str, **parameters: str | float) -> Any:
        """Ask Prometheus' API; return `data` of its answer.

        Raises:
            AssertionError: it reports an error; the text says which.
        """
        answer = _get(f"{self.prometheus}/api/v1/{path}", parameters)
        told = answer.json()
        assert told["status"] == "success", told.get("error")
        return told["data"]

    def scraped(self, count: int) -> bool:
        """Whether `count` targets are there and were all scraped."""
        targets = self.ask("targets")["activeTargets"]
        return len(targets) == count and all(target["health"] == "up" for target in targets)


def free_port() -> int:
    """Return a port on loopback that nobody listens on just now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert isinstance(port, int)
    return port


@contextmanager
def running_stack(folder: Path, admin_ports: list[int], webhook_port: int) -> Iterator[Stack]:
    """Run both on the shipped files, 60 times as fast; end them at the end.

    Args:
        folder: empty; keeps configurations, data and logs.
        admin_ports: of the gateways to scrape, on loopback.
        webhook_port: takes the place of the example's receivers, on loopback.
    """
    prometheus = tool("prometheus", "prometheus")
    alertmanager = tool("prometheus-alertmanager", "prometheus-alertmanager")
    port, alert_port = free_port(), free_port()
    write_shortened(
        folder,
        {
            "127.0.0.1:9090]": ", ".join(f"127.0.0.1:{port}" for port in admin_ports) + "]",
            "127.0.0.1:9093": f"127.0.0.1:{alert_port}",
            "127.0.0.1:9099": f"127.0.0.1:{webhook_port}",
        },
    )
    commands = {
        "prometheus": [
            prometheus,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
            "--query.lookback-delta=10s",
        ],
        "alertmanager": [
            alertmanager,
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{alert_port}",
            "--cluster.listen-address=",
        ],
    }
    stack = Stack(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{alert_port}")
    processes = []
    try:
        for name, command in commands.items():
            with (folder / f"{name}.log").open("wb") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        for url, process in zip((stack.prometheus, stack.alertmanager), processes, strict=True):
            _until_ready(url, process, folder)
        yield stack
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(100)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _until_ready(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if _get(f"{url}/-/ready", {}).ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.1)
    logs = "\n".join(log.read_text()[-500:] for log in folder.glob("*.log"))
    raise AssertionError(f"{url} did not become ready:\n{logs}")


def _get(url: str, parameters: Mapping[str, str | float]) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, params=dict(parameters), timeout=10)
