"""The README's table, made from `results/latest.json`."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.programs.bench import overload
from tests.programs.bench.shapes import MOST_LATE_MS

_ROOT = Path(__file__).parents[3]
README = _ROOT / "README.md"
_LATEST = Path(__file__).parent / "results" / "latest.json"
_BEGIN, _END = "<!-- make bench writes from here -->", "<!-- to here -->"
_OVERLOAD = "<!-- the overload benchmark writes from here -->"
_COLUMNS = (
    ("real", "cpu_us", "real, µs"),
    ("real-tls", "cpu_us", "real over TLS, µs"),
    ("real-one", "p50_ms", "real alone, p50 µs"),
    ("real-512", "cpu_us", "real on 512 connections, µs"),
    ("close", "cpu_us", "new connection each, µs"),
    ("stream", "cpu_us", "event of a stream, µs"),
    ("upload-1m", "cpu_us", "1 MiB up to Go, µs"),
    ("upload-1m-tls", "cpu_us", "over TLS, µs"),
    ("upload-1m-ours", "cpu_us", "1 MiB up to ours, µs"),
    ("download-1m", "cpu_us", "1 MiB down from Go, µs"),
    ("json", "cpu_us", "json: heads alike, µs"),
    ("open-2000", "added_p99_ms", "p99 added at 2000/s, µs"),
    ("real", "rss_mib", "RSS, MiB"),
)
_IN_MICROSECONDS = {"p50_ms", "added_p99_ms"}
_NAMES = {
    "compiled": "**modelarts-gateway**, compiled",
    "interpreted": "**modelarts-gateway**, interpreted",
    "plain": "aiohttp proxy, as usually written",
    "nginx": "nginx",
    "haproxy": "HAProxy",
    "envoy": "Envoy, `credential_injector`",
    "go": "Go, `httputil.ReverseProxy`",
    "caddy": "Caddy",
}
_OURS = ("compiled", "interpreted")
_MEANING = (
    "*real*: what Python's `requests` sends, each with a `traceparent` and a body length of its "
    "own; each response has a `Date` and an id; the token has 3.9 KB, as IAM's. *json*: every "
    "request like the one before. As a service, Go's `net/http` reads 32 KiB at a time, and ours "
    "all that is there."
)


def readme() -> str:
    """Return the README with the table of the latest results; as it is where there are none."""
    text = README.read_text(encoding="utf-8")
    if _LATEST.exists() and _BEGIN in text:
        text = between(text, _BEGIN, markdown(json.loads(_LATEST.read_text(encoding="utf-8"))))
    if overload.RESULTS.exists() and _OVERLOAD in text:
        kept = json.loads(overload.RESULTS.read_text(encoding="utf-8"))
        text = between(text, _OVERLOAD, overload.document(kept))
    return text


def between(text: str, begin: str, made: str) -> str:
    """Return `text` with `made` between the line `begin` and the next end."""
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(_END)
    return f"{before}{begin}\n{made}\n{_END}{after}"


def write_readme() -> None:
    """Bring the README up to date."""
    README.write_text(readme(), encoding="utf-8")


def markdown(result: Mapping[str, Any]) -> str:
    """Return the table and what is to be known about it. A missing figure is a dash."""
    shapes = result["shapes"]
    present = [name for name in _NAMES if any(name in found for found in shapes.values())]
    columns = [column for column in _COLUMNS if column[0] in shapes]
    rows = [
        "| | " + " | ".join(title for _, _, title in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name in present:
        cells = [
            _cell(shapes[shape].get(name, {}).get("median", {}), key) for shape, key, _ in columns
        ]
        rows.append(f"| {_NAMES[name]} | " + " | ".join(cells) + " |")
    ratios = [
        f"{ours} {found:.2f} of {_NAMES[name].partition(',')[0]}'s"
        for ours in _OURS
        for name in present
        if name not in _OURS and (found := _ratio(shapes, ours, name)) is not None
    ]
    missing = [
        f"{name} gateway" if name in _OURS else _NAMES[name].partition(",")[0]
        for name in _NAMES
        if name not in present
    ]
    return "\n".join(
        [
            *rows,
            "",
            *wrapped(f"CPU per request in `real`: {', '.join(ratios)}." if ratios else ""),
            *wrapped(_MEANING),
            *wrapped(_about(result)),
            *wrapped(_note(shapes)),
            *wrapped(f"Not installed, so missing: {', '.join(missing)}." if missing else ""),
        ]
    )


def _note(shapes: Mapping[str, Any]) -> str:
    late = [found["median"].get("late_ms", 0) for found in shapes.get("open-2000", {}).values()]
    if max(late, default=0) <= MOST_LATE_MS:
        return ""
    return "busy: the machine was too busy to send requests on time, so latency means nothing."


def _about(result: Mapping[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    found = " ".join(re.findall(r"[\d.]+", versions["python"])[:1])
    return (
        f"{result['date'][:10]}, {machine['cpu']}, {machine['cores']} cores shared with load and "
        f"service, {machine['kernel']}, Python {found}, uvloop {versions['uvloop']}; medians of "
        f"{result['rounds']} rounds of {result['seconds']} s, interleaved, each with a fresh "
        "process of one worker; load "
        f"average {machine['load_average_before']} before, {machine['stolen_percent']} % of the "
        "CPU stolen by other machines."
    )


def _ratio(shapes: Mapping[str, Any], ours: str, name: str) -> float | None:
    ratio: float | None = shapes.get("real", {}).get(name, {}).get(f"{ours}_cpu_ratio")
    return ratio


def _cell(figures: Mapping[str, float], key: str) -> str:
    value = figures.get(key)
    if value is None:
        return "-"
    if key == "added_p99_ms" and figures["late_ms"] > MOST_LATE_MS:
        return "busy"
    if key in _IN_MICROSECONDS:
        value *= 1000
    return f"{value:.0f}" if value >= 20 else f"{value:.1f}"


def wrapped(text: str, width: int = 100) -> list[str]:
    """Return lines of at most `width` characters."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
