"""The fleet's shelf in Redis: one script per step, so that each is atomic and one round trip."""

import ssl
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from gateway.identity.fleet.shelf import Found, Shelf, ShelfError

_T = TypeVar("_T")

_READ = """
return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1]), redis.call('GET', KEYS[2]),
        redis.call('GET', KEYS[3]), redis.call('PTTL', KEYS[3])}
"""
_ACQUIRE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return redis.call('INCR', KEYS[2])
end
return false
"""
_EXTEND = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
_PUT = """
local before = redis.call('GET', KEYS[1])
local fence = before and tonumber(string.match(before, '^(%d+)|'))
if fence and fence > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. '|' .. ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[2])
return 1
"""
_COUNT = """
local count = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return count
"""


class RedisShelf(Shelf):
    """Owns a few connections to one Redis."""

    def __init__(self, client: "redis.asyncio.Redis", prefix: str) -> None:
        """Take a client that returns bytes; `prefix` begins every key."""
        self._redis = client
        self._prefix = prefix

    async def read(self, entry: str, account: str) -> Found:
        """See `Shelf`."""
        keys = [self._key(entry, "token"), self._key(entry, "refused"), self._key(account, "pause")]
        reply = await self._eval(_READ, keys)
        if not isinstance(reply, list) or len(reply) != 5:
            raise ShelfError("its answer makes no sense")
        token, token_ms, refusals, pause, pause_ms = reply
        try:
            return Found(
                token=token.partition(b"|")[2] if token is not None else None,
                token_left_s=int(token_ms) / 1000,
                refusals=int(refusals or 0),
                pause=pause,
                pause_left_s=int(pause_ms) / 1000,
            )
        except (ValueError, TypeError, AttributeError):
            raise ShelfError("its answer makes no sense") from None

    async def acquire(self, entry: str, owner: str, life_s: float) -> int | None:
        """See `Shelf`."""
        keys = [self._key(entry, "lock"), self._key(entry, "fence")]
        fence = await self._eval(_ACQUIRE, keys, owner, _ms(life_s))
        return None if fence is None else int(fence)

    async def extend(self, entry: str, owner: str, life_s: float) -> bool:
        """See `Shelf`."""
        return bool(await self._eval(_EXTEND, [self._key(entry, "lock")], owner, _ms(life_s)))

    async def release(self, entry: str, owner: str) -> None:
        """See `Shelf`."""
        await self._eval(_RELEASE, [self._key(entry, "lock")], owner)

    async def put_token(self, entry: str, token: bytes, fence: int, life_s: float) -> bool:
        """See `Shelf`."""
        keys = [self._key(entry, "token"), self._key(entry, "refused")]
        return bool(await self._eval(_PUT, keys, fence, token, _ms(life_s)))

    async def count_refusal(self, entry: str, life_s: float) -> int:
        """See `Shelf`."""
        return int(await self._eval(_COUNT, [self._key(entry, "refused")], _ms(life_s)))

    async def pause(self, account: str, reason: bytes, life_s: float) -> None:
        """See `Shelf`."""
        await self._do(self._redis.set(self._key(account, "pause"), reason, px=_ms(life_s)))

    async def report(self, entry: str, fingerprint: str, life_s: float) -> None:
        """See `Shelf`."""
        key = self._key(entry, f"rejected:{fingerprint}")
        await self._do(self._redis.set(key, b"1", nx=True, px=_ms(life_s)))

    async def is_reported(self, entry: str, fingerprint: str) -> bool:
        """See `Shelf`."""
        return bool(await self._do(self._redis.exists(self._key(entry, f"rejected:{fingerprint}"))))

    async def check(self, mark: bytes, *, replace: bool = False) -> bytes:
        """See `Shelf`."""
        key = f"{self._prefix}check"
        await self._do(self._redis.set(key, mark, nx=not replace))
        found = await self._do(self._redis.get(key))
        return found if isinstance(found, bytes) else b""

    async def aclose(self) -> None:
        """See `Shelf`."""
        try:
            await self._redis.aclose()
        except (RedisError, OSError):
            return

    def _key(self, name: str, kind: str) -> str:
        return f"{self._prefix}{name}:{kind}"

    async def _eval(self, script: str, keys: list[str], *arguments: Any) -> Any:
        return await self._do(self._redis.eval(script, len(keys), *keys, *arguments))

    async def _do(self, command: Awaitable[_T]) -> _T:
        try:
            return await command
        except (AuthenticationError, AuthorizationError, NoPermissionError):
            reason = "it refuses the password, or lacks permission for a command"
        except (RedisTimeoutError, TimeoutError):
            reason = "it does not respond in time"
        except (RedisConnectionError, OSError):
            reason = "it cannot be connected to; check url, tls and that it speaks Redis"
        except ResponseError as error:
            code = str(error).partition(" ")[0]
            known = (
                code if code in {"NOAUTH", "MOVED", "READONLY", "LOADING", "OOM"} else "an error"
            )
            reason = f"it answers {known}; a single, writable Redis is needed"
        except (RedisError, ValueError, TypeError):
            reason = "its answer makes no sense"
        raise ShelfError(reason)  # outside every handler: its text may quote what was sent


def redis_client(
    *,
    host: str,
    port: int,
    path: str,
    database: int,
    username: str | None,
    password: str | None,
    tls: ssl.SSLContext | None,
) -> "redis.asyncio.Redis":
    """Return a client that neither retries nor waits by itself: its caller bounds every step.

    Args:
        host: name or address; unused with `path`.
        port: on that host.
        path: of a socket file; empty for TCP.
        database: its number.
        username: of an ACL user.
        password: if it wants one.
        tls: None: without TLS.
    """
    common: dict[str, Any] = {
        "db": database,
        "username": username,
        "password": password,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
    }
    if path:
        return redis.asyncio.Redis(unix_socket_path=path, **common)
    common |= {"host": host, "port": port}
    if tls is None:
        return redis.asyncio.Redis(**common)
    pool = redis.asyncio.ConnectionPool(connection_class=_TlsConnection, context=tls, **common)
    return redis.asyncio.Redis.from_pool(pool)


class _TlsConnection(redis.asyncio.SSLConnection):
    """Takes a context. redis-py would read all authorities of the system for each connection."""

    def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:
        super().__init__(**options)
        self._context = context

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {"host": self.host, "port": self.port, "ssl": self._context}


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
