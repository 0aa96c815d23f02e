"""The fleet's shelf in memory, by a clock that is passed in: what Redis does, without Redis."""

import asyncio

from gateway.clock import Clock
from gateway.identity.fleet.shelf import Found, Shelf, ShelfError


class MemoryShelf(Shelf):
    """One store for many replicas. Each step takes `latency_s`."""

    def __init__(self, clock: Clock, *, latency_s: float = 0.0005) -> None:
        self.clock = clock
        self.latency_s = latency_s
        self.broken = False
        """Whether every step fails."""
        self.steps = 0
        self._kept: dict[str, tuple[bytes, float]] = {}
        self._fences: dict[str, int] = {}

    def flush(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._fences.clear()

    async def read(self, entry: str, account: str) -> Found:
        await self._step()
        token, left_s = self._get(f"{entry}:token")
        pause, pause_s = self._get(f"{account}:pause")
        refused, _ = self._get(f"{entry}:refused")
        cipher = None if token is None else token.partition(b"|")[2]
        return Found(cipher, left_s, int(refused or 0), pause, pause_s)

    async def acquire(self, entry: str, owner: str, life_s: float) -> int | None:
        await self._step()
        if self._get(f"{entry}:lock")[0] is not None:
            return None
        self._put(f"{entry}:lock", owner.encode(), life_s)
        self._fences[entry] = self._fences.get(entry, 0) + 1
        return self._fences[entry]

    async def extend(self, entry: str, owner: str, life_s: float) -> bool:
        await self._step()
        if self._get(f"{entry}:lock")[0] != owner.encode():
            return False
        self._put(f"{entry}:lock", owner.encode(), life_s)
        return True

    async def release(self, entry: str, owner: str) -> None:
        await self._step()
        if self._get(f"{entry}:lock")[0] == owner.encode():
            del self._kept[f"{entry}:lock"]

    async def put_token(self, entry: str, token: bytes, fence: int, life_s: float) -> bool:
        await self._step()
        before, _ = self._get(f"{entry}:token")
        if before is not None and int(before.partition(b"|")[0]) > fence:
            return False
        self._put(f"{entry}:token", b"%d|%b" % (fence, token), life_s)
        self._kept.pop(f"{entry}:refused", None)
        return True

    async def count_refusal(self, entry: str, life_s: float) -> int:
        await self._step()
        count = int(self._get(f"{entry}:refused")[0] or 0) + 1
        self._put(f"{entry}:refused", b"%d" % count, life_s)
        return count

    async def pause(self, account: str, reason: bytes, life_s: float) -> None:
        await self._step()
        self._put(f"{account}:pause", reason, life_s)

    async def report(self, entry: str, fingerprint: str, life_s: float) -> None:
        await self._step()
        if self._get(f"{entry}:rejected:{fingerprint}")[0] is None:
            self._put(f"{entry}:rejected:{fingerprint}", b"1", life_s)

    async def is_reported(self, entry: str, fingerprint: str) -> bool:
        await self._step()
        return self._get(f"{entry}:rejected:{fingerprint}")[0] is not None

    async def check(self, mark: bytes, *, replace: bool = False) -> bytes:
        await self._step()
        if replace or "check" not in self._kept:
            self._kept["check"] = mark, float("inf")
        return self._kept["check"][0]

    async def _step(self) -> None:
        self.steps += 1
        await asyncio.sleep(self.latency_s)
        if self.broken:
            raise ShelfError("it is broken")

    def _get(self, key: str) -> tuple[bytes | None, float]:
        value, until = self._kept.get(key, (b"", 0.0))
        left_s = until - self.clock()
        return (value, left_s) if left_s > 0 else (None, 0.0)

    def _put(self, key: str, value: bytes, life_s: float) -> None:
        self._kept[key] = value, self.clock() + life_s
