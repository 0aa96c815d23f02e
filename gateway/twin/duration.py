"""Reads durations in faults: `500ms`, `2s`, `1.5m`, or a number of seconds. Pure."""

import re

_DURATION = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)(ms|s|m|h)?")
_UNITS = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Return the seconds in `text`.

    Raises:
        ValueError: it is no duration.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration such as 500ms or 2s")
    return float(match[1]) * _UNITS[match[2]]
