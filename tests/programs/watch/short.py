"""The shipped rules and configurations with all times divided by 60: an hour in a minute. Pure."""

import re
from pathlib import Path

PROMETHEUS = Path(__file__).parents[3] / "deploy" / "prometheus"
SPEED = 60
_LEAST_MS = 1000
"""Scrapes and evaluations closer to each other would be mostly work for two processors."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Windows, `for`, and intervals; not the names of recorded series, which end in `rate5m`.
_TIME = re.compile(r"(\[|for: |_interval: |group_wait: )(\d+)([smhd])\b")


def shortened(text: str) -> str:
    """Return rules or a configuration in which everything happens 60 times as fast."""

    def shorten(found: re.Match[str]) -> str:
        milliseconds = int(found[2]) * _SECONDS[found[3]] * 1000 // SPEED
        return f"{found[1]}{max(_LEAST_MS, milliseconds)}ms"

    return _TIME.sub(shorten, text)


def write_shortened(folder: Path, addresses: dict[str, str]) -> None:
    """Write rules and both configurations to `folder`; `addresses`: shipped → used here."""
    for name in ("recording.rules.yml", "alerts.rules.yml", "prometheus.yml", "alertmanager.yml"):
        text = shortened((PROMETHEUS / name).read_text())
        for shipped, used in addresses.items():
            text = text.replace(shipped, used)
        (folder / name).write_text(text)
