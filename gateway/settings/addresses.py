"""What an address or a URL may look like, and the sentence for one that does not. Pure.

Every `parse_` function is as in `values`.
"""

import re
from dataclasses import dataclass, replace
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Any

from gateway.settings.values import shown

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
_SUN_PATH_BYTES = 107  # unix(7): sun_path holds 108 bytes, the last of them NUL


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
            f"{shown(str(value))} can be reached from other machines, and everything that "
            "reaches it has the token; use unix:/path, or a loopback address"
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
