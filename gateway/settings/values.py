"""What one value may look like, and the sentence for one that does not. Pure; needs no pydantic.

Every `parse_` function takes what YAML, JSON or the environment can hold, or its own result, and
raises `ValueError` with a sentence for the person who wrote the value.
"""

import math
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Any

NAME_PATTERN = r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?"
DURATION_PATTERN = r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d)?"
SIZE_PATTERN = r"([0-9]+(?:\.[0-9]+)?) ?(B|kB|MB|GB|KiB|MiB|GiB)?"
SHARE_PATTERN = r"([0-9]{1,3}(?:\.[0-9]+)?) ?(%)?"
DURATION_HELP = "use seconds, or a number with ms, s, m, h or d, such as 40s"
SIZE_HELP = "use bytes, or a number with kB, MB, GB, KiB, MiB or GiB, such as 12MiB"
AUTO = "auto"
MOST = 100_000
LEAST_MEMORY = 4 * 2**20
"""Requests: more than any gateway holds at a time."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_SECONDS = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {None: 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_AUTHORITY = re.compile(r"(\[[^\[\]/]*\]|[^:\[\]/]*)(?::([0-9]{1,5}))?")
_URL = re.compile(r"(https?)://([^/]*)(/.*)?", re.ASCII | re.IGNORECASE | re.DOTALL)
# The same alphabet as for callers' targets (gateway/http/target.py): what a caller could not ask
# for by its own path is not a service's path either.
_SEGMENT = (
    r"(?!\.\.?(?:/|\Z))(?:[A-Za-z0-9\-._~!$&'()*+,=:]|%(?!0|1|7F|2[35EF]|3[BF]|5C)[0-9A-F]{2})+"
)
_PATH = re.compile(rf"(?:/{_SEGMENT})*/?", re.ASCII | re.IGNORECASE)
# No underscore: servers that turn names into variables cannot tell it from a hyphen.
_FIELD_NAME = r"[!#$%&'*+.^`|~0-9A-Za-z-]+"
_OWN_FIELDS = frozenset(
    "connection keep-alive te transfer-encoding upgrade trailer http2-settings host content-length "  # noqa: SIM905
    "content-type content-encoding expect cookie via date x-request-id traceparent "
    "tracestate".split()
)
_OWN_PREFIXES = ("proxy-", "x-forwarded")
_SUN_PATH_BYTES = 107  # unix(7): sun_path holds 108 bytes, the last of them NUL


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


def parse_host_name(value: Any) -> str:
    """Return a host name or address without port, in lower case; IPv6 in brackets."""
    host, port = _split_authority(value) if isinstance(value, str) else (None, None)
    if host is None or port is not None:
        raise ValueError(
            f"{shown(value)} is not a host name; use a name or an address without port"
        )
    return f"[{host}]" if ":" in host else host


def parse_allowed_host(value: Any) -> str:
    """Return a host name, or `*`."""
    return "*" if value == "*" else parse_host_name(value)


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen: TCP when `path` is empty, else a socket file."""

    host: str = ""
    """Name or address, IPv6 without brackets; empty for a socket file."""
    port: int = 0
    """0 to 65535; 0 lets the system choose."""
    path: str = ""
    """Absolute path of a Unix socket, at most 107 bytes; empty for TCP."""

    def __str__(self) -> str:
        """Return what `parse_listen` takes."""
        return f"unix:{self.path}" if self.path else _join(self.host, self.port)

    @property
    def is_local(self) -> bool:
        """Whether only this machine (in Kubernetes: this pod) can connect."""
        return bool(self.path) or _is_loopback(self.host)


DEFAULT_LISTEN = ListenAddress("127.0.0.1", 8080)
DEFAULT_ADMIN_LISTEN = ListenAddress("127.0.0.1", 9090)


def parse_listen(value: Any) -> ListenAddress:
    """Return the address of a listener: TCP or a socket file."""
    if isinstance(value, ListenAddress):
        return value
    if isinstance(value, str):
        if value.startswith("unix:"):
            return _parse_socket_file(value)
        host, port = _split_authority(value)
        if host and port is not None:
            return ListenAddress(host, port)
    bare = re.fullmatch(r"\*?:?([0-9]{1,5})", str(value))
    hint = f", did you mean 127.0.0.1:{bare[1]}?" if bare and int(bare[1]) <= 65535 else ""
    raise ValueError(
        f"{shown(value)} is not an address; use host:port with a port from 0 to 65535, "
        f"[::1]:port, or unix:/path{hint}"
    )


def parse_listen_tcp(value: Any) -> ListenAddress:
    """Return the address of a listener that scrapers and probes can reach: TCP."""
    address = parse_listen(value)
    if address.path:
        raise ValueError(
            f"{shown(str(value))} is a socket file, which Prometheus and probes cannot use; "
            "use host:port"
        )
    return address


def parse_token_listen(value: Any) -> ListenAddress:
    """Return the address of a listener that hands out tokens: a socket file, or loopback."""
    address = parse_listen(value)
    if not address.is_local:
        raise ValueError(
            f"{shown(str(value))} can be reached from other machines, and whoever reaches it has "
            "the token; use unix:/path, or a loopback address"
        )
    return address


def _parse_socket_file(value: str) -> ListenAddress:
    path = value.removeprefix("unix:")
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        raise ValueError(f"{shown(value)} is not a socket file; use unix: and an absolute path")
    if len(path.encode()) > _SUN_PATH_BYTES:
        raise ValueError(
            f"{shown(value)} is too long; a socket's path has at most {_SUN_PATH_BYTES} bytes"
        )
    return ListenAddress(path=path)


@dataclass(frozen=True, slots=True)
class Url:
    """An http or https URL without user information, query and fragment."""

    scheme: str
    """`http` or `https`."""
    host: str
    """In lower case; IPv6 without brackets."""
    port: int
    """1 to 65535; the scheme's default when the URL has none."""
    path: str
    """As written, without trailing slash; empty for the root."""

    def __str__(self) -> str:
        """Return the URL in its one normal form."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def authority(self) -> str:
        """`host`, or `host:port` when the port is not the scheme's; for the Host field."""
        default = 443 if self.scheme == "https" else 80
        return _join(self.host, None if self.port == default else self.port)

    @property
    def is_open(self) -> bool:
        """Whether what is sent there can be read on a network."""
        return self.scheme == "http" and not _is_loopback(self.host)


def parse_url(value: Any) -> Url:
    """Return the parts of a URL. Its sentences never repeat what may hide a credential."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not a URL; use https://host/path")  # noqa: TRY004  # pydantic's protocol
    for mark, what in (("@", "user information"), ("?", "a query"), ("#", "a fragment")):
        if mark in value:
            raise ValueError(f"holds {what} ({mark}), not shown here; use https://host/path alone")
    found = _URL.fullmatch(value)
    if not found:
        hint = f", did you mean https://{value}?" if _URL.fullmatch(f"https://{value}") else ""
        hint = "" if "://" in value or value.startswith("/") or not value.isprintable() else hint
        raise ValueError(f"{shown(value)} is not a URL; use https://host/path{hint}")
    scheme = found[1].lower()
    host, port = _split_authority(found[2])
    if not host or port == 0:
        raise ValueError(
            f"{shown(value)} has no usable host and port; use https://host/path or "
            "https://host:port/path with a port from 1 to 65535"
        )
    path = found[3] or ""
    if not _PATH.fullmatch(path):
        raise ValueError(
            f"{shown(value)} has a path that servers may read in different ways; use one without "
            "empty or dot segments, encoded slashes or dots, and special characters"
        )
    return Url(scheme, host, port or (443 if scheme == "https" else 80), path.rstrip("/"))


def parse_origin(value: Any) -> str:
    """Return an origin as browsers write it (RFC 6454 section 6.2): lower case, no default port."""
    if value == "*":
        raise ValueError(
            "'*' would let every web page in; name the origins, as https://host[:port]"
        )
    url = parse_url(value)
    if url.path or value.endswith("/"):
        raise ValueError(f"{shown(value)} has a path; use https://host or https://host:port alone")
    return str(url)


def parse_auth_url(value: Any) -> str:
    """Return the URL of Keystone's version 3 API, ending in `/v3` exactly once."""
    url = parse_url(value)
    root = replace(url, path=re.sub(r"(/v2\.0|/v3)?(/auth/tokens)?\Z", "", url.path) + "/v3")
    if url.path.endswith(("/auth/tokens", "/v2.0")):
        raise ValueError(
            f"{shown(value)} is not the root of the version 3 API, did you mean {root}?"
        )
    return str(root)


def _split_authority(text: str) -> tuple[str | None, int | None]:
    """Return host (lower case, IPv6 without brackets) and port; host is None when malformed."""
    found = _AUTHORITY.fullmatch(text)
    if not found or not text.isascii() or int(found[2] or 0) > 65535:
        return None, None
    host = found[1].lower()
    try:
        if host.startswith("["):
            host = str(IPv6Address(host[1:-1])) if "%" not in host else ""
        elif re.fullmatch(r"[0-9.]+", host):
            host = str(IPv4Address(host))
        elif not _HOST.fullmatch(host) or len(host) > 253:
            return None, None
    except AddressValueError:
        return None, None
    return host or None, int(found[2]) if found[2] else None


def _join(host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 section 6.3
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
