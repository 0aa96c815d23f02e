"""What one value may look like, and the sentence for one that does not. Pure; needs no pydantic.

Every `parse_` function takes what YAML, JSON or the environment can hold, or its own result, and
raises `ValueError` with a sentence for the person who wrote the value.
"""

import math
import re
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any

NAME_PATTERN = r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?"
DURATION_PATTERN = r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d)?"
SIZE_PATTERN = r"([0-9]+(?:\.[0-9]+)?) ?(B|kB|MB|GB|KiB|MiB|GiB)?"
SHARE_PATTERN = r"([0-9]{1,3}(?:\.[0-9]+)?) ?(%)?"
DURATION_HELP = "use seconds, or a number with ms, s, m, h or d, such as 40s"
SIZE_HELP = "use bytes, or a number with kB, MB, GB, KiB, MiB or GiB, such as 12MiB"
AUTO = "auto"
MOST = 100_000
"""Requests: more than any gateway holds at a time."""
LEAST_MEMORY = 4 * 2**20
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_SECONDS = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {None: 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
# No underscore: servers that turn names into variables cannot tell it from a hyphen.
_FIELD_NAME = r"[!#$%&'*+.^`|~0-9A-Za-z-]+"
_OWN_FIELDS = frozenset(
    "connection keep-alive te transfer-encoding upgrade trailer http2-settings host content-length "  # noqa: SIM905
    "content-type content-encoding expect cookie via date x-request-id traceparent "
    "tracestate".split()
)
_OWN_PREFIXES = ("proxy-", "x-forwarded")


def printable(key: str) -> str:
    """Return a key for a message: as it is, or quoted when it would break the line."""
    return key if key.isprintable() else repr(key)


def shown(value: object) -> str:
    """Return `value` for a message: on one line, and short."""
    if isinstance(value, (dict, list, tuple)):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def did_you_mean(value: str, allowed: tuple[str, ...]) -> str:
    """Return `, did you mean …` when something allowed is near `value`, else nothing."""
    from difflib import get_close_matches

    near = get_close_matches(value, allowed, n=1) or [
        name for name in allowed if name.lower() == value.lower()
    ]
    return f", did you mean {near[0]}?" if near else ""


def parse_text(value: Any) -> str:
    """Return a text that is not empty and has no control characters."""
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, (int, float)) else ""
        raise ValueError(f"{shown(value)} is not text{hint}")  # noqa: TRY004  # pydantic's protocol
    if not value.strip():
        raise ValueError("empty; give a value or leave the key out")
    if not value.isprintable():
        raise ValueError(f"{shown(value)} holds a control character; use one line of plain text")
    return value


def parse_name(value: Any) -> str:
    """Return the name of a service or an identity."""
    if not isinstance(value, str) or not re.fullmatch(NAME_PATTERN, value):
        near = re.sub(r"[^a-z0-9_-]+", "-", str(value).lower()).strip("_-")[:63].rstrip("_-")
        hint = f", did you mean {near}?" if near else ""
        raise ValueError(
            f"{shown(value)} is not a name; use 1 to 63 of a-z 0-9 _ -, "
            f"a letter or digit at both ends{hint}"
        )
    return value


def parse_segment(value: Any) -> str:
    """Return an id that stands in a URL's path as it is."""
    if not isinstance(value, str) or not re.fullmatch(r"(?!\.\.?$)[A-Za-z0-9._~-]{1,255}", value):
        raise ValueError(f"{shown(value)} is not an id; use letters, digits and . _ ~ -")
    return value


def parse_field_name(value: Any) -> str:
    """Return the name of a header field that may carry a credential."""
    if not isinstance(value, str) or not re.fullmatch(_FIELD_NAME, value):
        raise ValueError(
            f"{shown(value)} is not the name of a header field; use letters, digits and -, "
            "such as X-Apig-AppCode"
        )
    if value.lower() in _OWN_FIELDS or value.lower().startswith(_OWN_PREFIXES):
        raise ValueError(
            f"{shown(value)} may not be set: it belongs to the connection, to the message's "
            "framing or to the gateway; use the name that the service asks for, such as "
            "X-Apig-AppCode"
        )
    return value


def parse_field_prefix(value: Any) -> str:
    """Return what stands before a value: one line of ASCII that may end with a space."""
    if not isinstance(value, str) or not re.fullmatch("(?:[!-~][ -~]*)?", value):
        raise ValueError(
            f"{shown(value)} is not the beginning of a header field's value; use one line of "
            'ASCII that does not begin with a space, such as "Bearer "'
        )
    return value


def parse_instant(value: Any) -> datetime:
    """Return a moment, in UTC; a date is its first moment. YAML reads dates by itself."""
    moment = None
    if isinstance(value, str):
        with suppress(ValueError):
            moment = datetime.fromisoformat(value.strip())
    elif isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if moment is not None:
        with suppress(OverflowError):
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    raise ValueError(f"{shown(value)} is not a date; use 2027-01-31, or 2027-01-31T12:00:00+08:00")


def parse_duration(value: Any) -> float:
    """Return seconds, from 0 up and finite."""
    seconds = math.inf
    if isinstance(value, str):
        if found := re.fullmatch(DURATION_PATTERN, value.strip()):
            seconds = float(found[1]) * _SECONDS[found[2]]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value) if abs(value) < 1e300 else math.inf
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{shown(value)} is not a duration; {DURATION_HELP}")
    return seconds


def parse_positive_duration(value: Any) -> float:
    """Return seconds above 0, finite."""
    if not (seconds := parse_duration(value)):
        raise ValueError(
            f"{shown(value)} would end every request at once; use a duration above 0, such as 40s"
        )
    return seconds


def parse_count(value: Any) -> int:
    """Return a whole number from 0 to 100 000."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}", value.strip()):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
        raise ValueError(f"{shown(value)} is not a number of requests; use 0 to {MOST}")
    return value


def parse_memory(value: Any) -> int | str:
    """Return a size from 4 MiB, or `auto`."""
    if isinstance(value, str) and value.strip().lower() == AUTO:
        return AUTO
    size = parse_size(value)
    if size < LEAST_MEMORY:
        raise ValueError(f"{shown(value)} leaves no room for requests; use 4MiB or more, or {AUTO}")
    return size


def parse_connections(value: Any) -> int:
    """Return a whole number from 1 to 100 000."""
    try:
        count = parse_count(value)
    except ValueError:
        count = 0
    if not count:
        raise ValueError(f"{shown(value)} is not a number of connections; use 1 to {MOST}")
    return count


def parse_max_in_flight(value: Any) -> int | str:
    """Return a whole number from 1 to 100 000, or `auto`."""
    if isinstance(value, str) and value.strip().lower() == AUTO:
        return AUTO
    try:
        count = parse_count(value)
    except ValueError:
        count = 0
    if not count:
        near = did_you_mean(value, (AUTO,)) if isinstance(value, str) else ""
        raise ValueError(
            f"{shown(value)} is not a limit; use 1 to {MOST}, what the service can take at a time, "
            f"or {AUTO}{near}"
        )
    return count


def parse_share(value: Any) -> float:
    """Return a share from 0 to 1, written as `20%` or 0.2."""
    share = math.inf
    if isinstance(value, str):
        if found := re.fullmatch(SHARE_PATTERN, value.strip()):
            share = float(found[1]) / (100 if found[2] else 1)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        share = float(value)
    if not 0 <= share <= 1:
        raise ValueError(f"{shown(value)} is not a share; use 0% to 100%, such as 20%")
    return share


def parse_size(value: Any) -> int:
    """Return bytes, from 0 up."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        found = re.fullmatch(SIZE_PATTERN, value.strip())
        if found and len(found[1]) <= 20:
            return round(float(found[1]) * _BYTES[found[2]])
        if near := re.fullmatch(r"([0-9.]+) ?([kmg])(?:i?b?)", value.strip().lower()):
            hint = f", did you mean {near[1]}{near[2].upper()}iB?"
            raise ValueError(f"{shown(value)} is not a size; {SIZE_HELP}{hint}")
    raise ValueError(f"{shown(value)} is not a size; {SIZE_HELP}")


def parse_method(value: Any) -> str:
    """Return one of the HTTP methods a service may accept."""
    if value not in METHODS:
        near = did_you_mean(value.upper(), METHODS) if isinstance(value, str) else ""
        raise ValueError(f"{shown(value)} is not a method; use {', '.join(METHODS)}{near}")
    return str(value)


def parse_mode(value: Any) -> str:
    """Return the mode of a socket file as three or four octal digits."""
    if isinstance(value, str) and re.fullmatch(r"0?[0-7]{3}", value):
        return value
    hint = ""
    if isinstance(value, int) and not isinstance(value, bool):  # YAML takes 0660 for 432
        hint = "; in YAML write it in quotes"
    raise ValueError(f"{shown(value)} is not a mode; use octal digits, such as '0660'{hint}")
