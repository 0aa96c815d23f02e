"""Checks of what the gateway shares: logins through the fleet's Redis, tokens through files."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from gateway.assembly.fleet import build_fleet, fleet_problems
from gateway.clock import wall_clock
from gateway.diagnose.findings import Finding, Level, Step, duration_text
from gateway.settings import Identity, Settings
from gateway.settings.sinks import Sink

_LIMIT_S = 5.0


async def examine_fleet(settings: Settings) -> list[Finding]:
    """Return a finding on the fleet's Redis; nothing without a fleet.

    Writes the mark that says which keys are in use, as every replica does.
    """
    if settings.fleet is None:
        return []
    level, text = Level.OK, f"{settings.fleet.url} works, and our keys are those in use"
    problems = await asyncio.to_thread(fleet_problems, settings.fleet)
    if problems:
        level, text = Level.WARN, problems[0].removeprefix("fleet.")
    elif (fleet := build_fleet(settings.fleet)) is not None:
        try:
            reason = await fleet.trial(_LIMIT_S)
        finally:
            await fleet.aclose()
        if reason:
            level, text = Level.WARN, f"{settings.fleet.url} cannot be used: {reason}"
    if level is Level.WARN:
        text += "; replicas then log in one by one"
    return [Finding(level, "fleet", Step.FLEET, text)]


def examine_sinks(name: str, identity: Identity) -> list[Finding]:
    """Return for each of an identity's sinks what its file holds at present. Blocks on the disk."""
    return [
        _sink(f"identities.{name}.sinks[{place}]", sink)
        for place, sink in enumerate(identity.sinks)
    ]


def _sink(key: str, sink: Sink) -> Finding:
    path = Path(sink.path)
    try:
        status = path.stat()
        is_empty = _holds_none(path, sink)
    except FileNotFoundError:
        text = f"{path} is not there: no gateway with this configuration has run here yet"
        return Finding(Level.WARN, key, Step.SINK, text)
    except OSError as error:
        text = f"{path} cannot be read by this user ({error.strerror}); its mode says who can"
        return Finding(Level.WARN, key, Step.SINK, text)
    written = datetime.fromtimestamp(status.st_mtime, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    age = duration_text(wall_clock() - status.st_mtime)
    if is_empty:
        text = (
            f"{path} holds no token since {written} ({age}): there was none that could be used; "
            "the lines above say why"
        )
        return Finding(Level.WARN, key, Step.SINK, text)
    return Finding(Level.OK, key, Step.SINK, f"{path} holds a token, written {age} ago")


def _holds_none(path: Path, sink: Sink) -> bool:
    """True if the file is what a sink without a token is."""
    content = path.read_bytes()
    if sink.format == "envoy_sds":
        return b'inline_string: ""' in content
    lines = [line for line in content.splitlines() if line and not line.startswith(b"#")]
    return not lines
