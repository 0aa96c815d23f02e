"""The proxy that connections to the outside go through."""

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.settings.sections import Fault, Section
from gateway.settings.types import ProxyUrl, ReadableFile, Text


class EgressProxy(Section):
    """A proxy that opens tunnels (CONNECT). None by default; the environment's are not used."""

    url: ProxyUrl | None = None
    """Where the proxy is: `http://host:port`. What passes through it is inside TLS, so it sees the
    name of the host and no token."""
    username: Text | None = None
    """Name for the proxy, if it asks for one (Basic)."""
    password_file: ReadableFile | None = None
    """File with the password for the proxy, read at the start and at each reload; one final line
    break is ignored."""

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield a key without those that it needs."""
        if given and "url" not in given:
            yield ("url",), "required with egress_proxy; use http://host:port"
        for one, other in (("username", "password_file"), ("password_file", "username")):
            if one in given and other not in given:
                yield (other,), f"required with {one}"


def plain_text_faults(given: Mapping[str, Any], key: str) -> Iterator[Fault]:
    """Yield a fault if a proxy would see what is sent, since the URL under `key` is plain HTTP."""
    proxy, url = given.get("egress_proxy"), given.get(key)
    is_given = proxy.get("url") if isinstance(proxy, dict) else getattr(proxy, "url", None)
    if is_given and isinstance(url, str) and url.lower().startswith("http:"):
        yield (
            ("egress_proxy",),
            (
                f"the proxy would see what is sent, because {key} is plain http; use an https "
                "URL, or leave the proxy out"
            ),
        )
