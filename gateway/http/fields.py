"""Which header fields cross the gateway. Pure: names, and what their values list.

Facts that these rules stand on:

- A field list is ordered pairs of bytes. Order and duplicates are meaning (RFC 9110 section 5.3),
  values are opaque octets (section 5.5). Hence no dict and no str.
- "Intermediaries MUST parse a received Connection header field before a message is forwarded and,
  for each connection-option in this field, remove any header or trailer field(s) from the message
  with the same name" (RFC 9110 section 7.6.1). So a client can delete, by naming it, whatever is
  already there when we strip: ours is written after (golang/go#50580).
- Servers that turn names into environment variables cannot tell `X_Auth_Token` from
  `X-Auth-Token`, and some fold every separator: such a name is judged by its twin.
"""

from collections.abc import Iterable
from typing import Final

# RFC 9110 section 7.6.1 names the first six; section 11.7 makes Proxy-Auth* single-hop; trailers
# are not forwarded, so announcing them would be untrue (section 6.6.2).
HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-connection te transfer-encoding upgrade proxy-authenticate "
    b"proxy-authorization proxy-authentication-info trailer http2-settings".split()
)

# The service is told about us alone, not who the client says it is. A leftover `Authorization` even
# makes the vendor's gateway ignore the token (APIG.0301).
_IDENTITY: Final = frozenset(
    b"authorization x-auth-token x-subject-token x-service-token x-security-token "
    b"x-apig-appcode apikey x-domain-id x-project-id cookie "
    # Headers that keystonemiddleware sets and the application trusts as identity.
    b"x-identity-status x-service-identity-status x-roles x-service-roles x-role x-service-catalog "
    b"x-is-admin-project x-domain-name x-project-name x-project-domain-id x-project-domain-name "
    b"x-user x-user-id x-user-name openstack-system-scope "
    b"x-user-domain-id x-user-domain-name x-tenant-id x-tenant-name x-tenant".split()
)

# Claims about an earlier hop, and ways to ask for another method than the admitted one.
_CLAIMS: Final = frozenset(
    b"forwarded x-real-ip x-client-ip true-client-ip x-http-method x-http-method-override "
    b"x-method-override".split()
)

DROPPED_FROM_REQUESTS: Final = HOP_BY_HOP | _IDENTITY | _CLAIMS
_DROPPED_PREFIXES: Final = (
    b"proxy-",
    b"x-sdk-",
    b"x-forwarded",
    b"x-service-user-",
    b"x-service-project-",
    b"x-service-domain-",
)
# Of a name, to the one that servers fold together which make variables out of names.
_FOLDING: Final = bytes.maketrans(b"!#$%&'*+._`|~^", b"-" * 14)

# Cookies would mix clients that share one gateway; tokens are not for clients at all.
DROPPED_FROM_RESPONSES: Final = HOP_BY_HOP | frozenset(
    b"set-cookie set-cookie2 x-auth-token x-subject-token".split()
)

# `Connection` options that are not field names.
_OPTIONS: Final = frozenset({b"close", b"keep-alive", b""})

NO_NAMES: Final[frozenset[bytes]] = frozenset()

# What nearly every message says of its connection.
_KEEP_ALIVE: Final[frozenset[bytes]] = frozenset({b"keep-alive"})
_CLOSE: Final[frozenset[bytes]] = frozenset({b"close"})
_COMMON_OPTIONS: Final[dict[bytes, frozenset[bytes]]] = {
    b"keep-alive": _KEEP_ALIVE,
    b"close": _CLOSE,
}


def is_dropped_from_requests(name: bytes, judged: Iterable[bytes]) -> bool:
    """Return whether a request's field ends here although `name` is on no list.

    Args:
        name: in lower case.
        judged: names, in lower case, that are on a list; their twins end here as well.
    """
    if name.startswith(_DROPPED_PREFIXES):
        return True
    twin = name.translate(_FOLDING)
    if twin == name:
        return False
    return twin in judged or twin.startswith(_DROPPED_PREFIXES)


def options_of(value: bytes) -> frozenset[bytes]:
    """Return the options that a Connection value lists, in lower case; empty ones included."""
    common = _COMMON_OPTIONS.get(value)
    if common is not None:
        return common
    if b"," not in value:
        return frozenset((value.lower(),))
    return frozenset(option.strip(b" \t").lower() for option in value.split(b","))


def named_by(options: frozenset[bytes]) -> frozenset[bytes]:
    """Return the names of fields among the `options` of Connection."""
    if options is _KEEP_ALIVE or options is _CLOSE or options <= _OPTIONS:
        return NO_NAMES
    return options - _OPTIONS


def is_always_dropped(name: bytes) -> bool:
    """Return whether no request's field of this name, in lower case, is ever forwarded."""
    return name in DROPPED_FROM_REQUESTS or name.startswith(_DROPPED_PREFIXES)


def without_twins(lines: list[bytes], name: bytes) -> list[bytes]:
    """Return the field lines not named `name` (lower case); an underscore counts as a hyphen."""
    return [line for line in lines if line.partition(b":")[0].lower().replace(b"_", b"-") != name]


def without(lines: list[bytes], named: frozenset[bytes]) -> list[bytes]:
    """Return the field lines whose names, in lower case, are not in `named`."""
    return [line for line in lines if line.partition(b":")[0].lower() not in named]
