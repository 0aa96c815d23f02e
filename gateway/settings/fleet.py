"""What can be set about the fleet: one login for all replicas, by way of a Redis."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from pydantic import BeforeValidator, PlainSerializer, SecretStr, WithJsonSchema

from gateway.settings.addresses import ListenAddress
from gateway.settings.sections import Fault, Section
from gateway.settings.types import ReadableFile, Text
from gateway.settings.values import parse_text

_HELP = "use rediss://host:port/0, redis://127.0.0.1:6379/0 or unix:///path"
_PREFIX = re.compile(r"[A-Za-z0-9:._-]{1,64}")


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """Where a Redis is."""

    host: str = ""
    """Empty for a socket file."""
    port: int = 6379
    path: str = ""
    """Of a socket file; empty for TCP."""
    database: int = 0
    is_tls: bool = False
    username: str | None = None
    password: SecretStr | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """Return the URL without user and password."""
        if self.path:
            return f"unix://{self.path}?db={self.database}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"redis{'s' * self.is_tls}://{host}:{self.port}/{self.database}"


def parse_redis_url(value: Any) -> RedisUrl:
    """Return where a Redis is. The sentences do not repeat the URL, which may hold a password."""
    if isinstance(value, RedisUrl):
        return value
    if not isinstance(value, str):
        raise ValueError(f"not a URL; {_HELP}")  # noqa: TRY004  # pydantic's protocol
    scheme = value.partition("://")[0].lower()
    if "sentinel" in scheme or "cluster" in scheme or "," in value:
        raise ValueError(
            "Sentinel and Cluster are not supported, because a lock needs one place; use the URL "
            "of a single Redis, or of a proxy or service that always leads to its primary"
        )
    try:
        parts = urlsplit(value)
        port = parts.port or 6379
        return _from_parts(parts.scheme.lower(), parts.hostname or "", port, value)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if _HELP in text or "other machine" in text else _bad()) from None


def _from_parts(scheme: str, host: str, port: int, value: str) -> RedisUrl:
    parts = urlsplit(value)
    password = SecretStr(unquote(parts.password)) if parts.password else None
    username = unquote(parts.username) if parts.username else None
    if scheme == "unix" and parts.path.startswith("/") and not host:
        found = re.fullmatch(r"(?:db=([0-9]{1,4}))?", parts.query)
        if found is not None:
            return RedisUrl(path=parts.path, database=int(found[1] or 0))
    found = re.fullmatch(r"(?:/([0-9]{1,4})?)?", parts.path)
    if scheme not in {"redis", "rediss"} or not host or found is None or parts.query:
        raise ValueError(_bad())
    if scheme == "redis" and not ListenAddress(host, port).is_local:
        raise ValueError(
            "redis:// to another machine shows the password to everybody on the way; use rediss://"
        )
    return RedisUrl(
        host=host,
        port=port,
        database=int(found[1] or 0),
        is_tls=scheme == "rediss",
        username=username,
        password=password,
    )


def _bad() -> str:
    return f"not the URL of a Redis (not shown, as it may hold a password); {_HELP}"


def parse_prefix(value: Any) -> str:
    """Return what begins every key."""
    text = parse_text(value)
    if not _PREFIX.fullmatch(text):
        raise ValueError("use 1 to 64 letters, digits and : . _ -")
    return text


class FleetTls(Section):
    """How Redis is verified and how we show who we are, with rediss:// only."""

    ca_file: ReadableFile | None = None
    """PEM file of the authorities to trust instead of the system's."""
    verify: bool = True
    """Whether the certificate is verified. `false` sends the password to any server."""
    client_cert_file: ReadableFile | None = None
    """PEM file of our own certificate with its chain, when Redis asks for one."""
    client_key_file: ReadableFile | None = None
    """PEM file of that certificate's key."""


class Fleet(Section):
    """One login for all replicas: a Redis holds the token, encrypted, and a lock."""

    url: Annotated[
        RedisUrl,
        BeforeValidator(parse_redis_url),
        PlainSerializer(str),
        WithJsonSchema({"type": "string", "examples": ["rediss://redis.internal:6379/0"]}),
    ]
    """`rediss://host:port/database`; `redis://` only on loopback, or `unix:///path`. A single
    Redis, neither Sentinel nor Cluster. A password in it is accepted with a warning."""
    username: Text | None = None
    """Name of the ACL user."""
    password_file: ReadableFile | None = None
    """File with the password; read at the start."""
    key_file: ReadableFile
    """File with the keys that encrypt the token, 32 bytes in URL-safe base64 on each line. The
    first one encrypts, all decrypt, the last one names entries: a rotation writes the new one
    above, and takes the old one away after every replica has restarted."""
    prefix: Annotated[
        str, BeforeValidator(parse_prefix), WithJsonSchema({"type": "string", "minLength": 1})
    ] = "gw:"
    """Begins every key, so that a Redis can be shared."""
    tls: FleetTls = FleetTls()
    """TLS towards Redis."""

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield TLS without rediss://, and a password that is given twice."""
        url = str(given.get("url", ""))
        if "tls" in given and url and not url.lower().startswith("rediss:"):
            yield ("tls",), "makes sense with rediss:// only"
        if "@" in url and "password_file" in given:
            yield ("password_file",), "the URL holds a password too; keep one of them"
