"""An IAM without a network: the gateway's own source talks to it, and it remembers everything."""

import asyncio
import json
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from enum import Enum, auto

import aiohttp
from pydantic import SecretStr
from yarl import URL

from gateway.identity.answer import Answer
from gateway.identity.http_client import IAM_REMEDY, HttpClient
from gateway.identity.keystone import KeystoneSource, PasswordLogin
from gateway.identity.refresh import RefreshResult
from gateway.identity.source import Login, LoginError
from tests.support.virtual_loop import EPOCH, Machine

TIMEOUT_S = 10.0
_LOCKS_AFTER, _LOCKS_FOR_S = 5, 900.0


class Fault(Enum):
    """What an IAM may do instead of answering in good order."""

    NONE = auto()
    REFUSED = auto()
    """Nobody listens: known at once."""
    RESET = auto()
    HANG = auto()
    """The connection is accepted and never answered."""
    LOST = auto()
    """As `HANG`, but the login was judged all the same."""
    FAILING = auto()
    """503."""
    THROTTLED = auto()
    GARBAGE = auto()
    """201 without anything to believe."""


class Times(Enum):
    """What an answer tells of the time it was given at."""

    ALL = auto()
    NO_DATE = auto()
    NO_ISSUED_AT = auto()
    REISSUED = auto()
    """The token that was handed out last, if it is still good, with its own `issued_at`."""


@dataclass(eq=False)
class Issued:
    """A token by IAM's books."""

    user: str
    project: str
    secret: str
    issued_at: float
    expires_at: float
    """True time."""
    revoked: bool = False


@dataclass(eq=False)
class Account:
    """A user, and the instants of his refused logins."""

    secret: str
    refused_at: list[float] = field(default_factory=list)
    """Of all, by IAM's count."""
    told_at: list[float] = field(default_factory=list)
    """Of those whose answer arrived."""

    def refusals_since(self, instant: float) -> int:
        return len(self.refused_at) - bisect_right(self.refused_at, instant)

    def locked(self, now: float) -> bool:
        return self.refusals_since(now - _LOCKS_FOR_S) >= _LOCKS_AFTER


class SimulatedIam:
    """One host, its accounts and the tokens it has issued."""

    def __init__(self, name: str, machine: Machine) -> None:
        self.url = f"https://{name}/v3/auth/tokens"
        self.fault = Fault.NONE
        self.times = Times.ALL
        self.life_s = 86400.0
        self.latency_s = 0.05
        self.retry_after: int | None = None
        self.accounts: dict[str, Account] = {}
        self.issued: dict[bytes, Issued] = {}
        """By the header line that carries it."""
        self.storm = False
        """Whether services refuse every token of this IAM."""
        self._machine = machine
        self._last: dict[tuple[str, str], str] = {}

    def accepts(self, line: bytes) -> bool:
        """Tell what a service does with a request that carries `line`."""
        token = self.issued[line]
        return not (self.storm or token.revoked or self._machine.clock() >= token.expires_at)

    def revoke(self, user: str) -> None:
        for token in self.issued.values():
            token.revoked = token.revoked or token.user == user

    async def answer(self, body: bytes) -> Answer:
        """Answer a login as aiohttp would tell it, time limit included."""
        fault = self.fault
        if fault is Fault.REFUSED:
            raise aiohttp.ClientConnectionError
        slow_s = self.latency_s
        await asyncio.sleep(min(slow_s / 2, TIMEOUT_S))
        if fault is Fault.RESET:
            raise aiohttp.ServerDisconnectedError
        verdict = None if fault is Fault.HANG else self._verdict(fault, body)
        if verdict is None or fault is Fault.LOST or slow_s > TIMEOUT_S:
            await asyncio.sleep(TIMEOUT_S - min(slow_s / 2, TIMEOUT_S))
            raise TimeoutError
        await asyncio.sleep(slow_s / 2)
        return verdict

    def _verdict(self, fault: Fault, body: bytes) -> Answer:
        match fault:
            case Fault.FAILING:
                return _answer(503, b"<html>busy</html>")
            case Fault.THROTTLED:
                told = None if self.retry_after is None else str(self.retry_after)
                return _answer(429, b'{"error_code":"IAM.0012"}', retry_after=told)
            case Fault.GARBAGE:
                return _answer(201, b"{}")
            case _:
                return self._judge(body)

    def _judge(self, body: bytes) -> Answer:
        auth = json.loads(body)["auth"]
        user = auth["identity"]["password"]["user"]
        account, now = self.accounts[user["name"]], self._machine.clock()
        if account.locked(now) or user["password"] != account.secret:
            account.refused_at.append(now)
            return _answer(401, b'{"error_code":"IAM.0061"}' if account.locked(now) else b"{}")
        return self._grant(user["name"], auth["scope"]["project"]["name"], account.secret, now)

    def _grant(self, user: str, project: str, secret: str, now: float) -> Answer:
        text = self._last.get((user, project), "")
        known = self.issued.get(_line(text))
        if (
            self.times is not Times.REISSUED
            or known is None
            or known.revoked
            or now >= known.expires_at
            or now < known.issued_at + 2  # `Date` cannot tell it from a new one
        ):
            text = f"{user}.{project}.{len(self.issued)}"
            known = Issued(user, project, secret, now, now + self.life_s)
            self.issued[_line(text)] = known
            self._last[user, project] = text
        token = {
            "expires_at": _iso(known.expires_at),
            "project": {"id": project, "name": project, "domain": {"name": "domain"}},
            "user": {"name": user},
        }
        if self.times is not Times.NO_ISSUED_AT:
            token["issued_at"] = _iso(known.issued_at)
        date = None if self.times is Times.NO_DATE else formatdate(EPOCH + now, usegmt=True)
        return _answer(201, json.dumps({"token": token}).encode(), tokens=(text,), date=date)


class SimulatedSource(KeystoneSource):
    """The gateway's own source, but for the socket; tells when each login begins and ends."""

    def __init__(
        self,
        iam: SimulatedIam,
        machine: Machine,
        *,
        user: str,
        project: str,
        read_secret: Callable[[], SecretStr],
        random: Callable[[], float],
        began: Callable[[], None],
        ended: Callable[[Login | LoginError | None], None],
    ) -> None:
        login = PasswordLogin(
            tokens_url=iam.url,
            username=user,
            user_domain="domain",
            project=project,
            read_secret=read_secret,
        )
        super().__init__(login, clock=machine.clock, wall_clock=machine.wall, random=random)
        self._client = _SimulatedClient(iam)
        self._began = began
        self._ended = ended

    async def fetch(self) -> Login:
        self._began()
        outcome: Login | LoginError | None = None
        try:
            outcome = await super().fetch()
        except LoginError as error:
            outcome = error
            raise
        finally:
            self._ended(outcome)
        return outcome


class _SimulatedClient(HttpClient):
    """Asks the simulated IAM; timeouts and texts are those of the real client."""

    def __init__(self, iam: SimulatedIam) -> None:
        super().__init__("IAM", remedy=IAM_REMEDY, connect_timeout_s=2.0, total_timeout_s=10.0)
        self._iam = iam

    async def _exchange(
        self,
        method: str,  # noqa: ARG002  # there is one question only
        url: URL,  # noqa: ARG002  # there is one question only
        body: bytes | None,
        headers: Mapping[str, str],  # noqa: ARG002  # there is one question only
    ) -> Answer:
        assert body is not None
        return await self._iam.answer(body)


def unreadable() -> SecretStr:
    """Read a secret that cannot be read."""
    raise LoginError(RefreshResult.BAD_REPLY, "secret file cannot be used")


def _answer(
    status: int,
    body: bytes,
    *,
    tokens: tuple[str, ...] = (),
    date: str | None = None,
    retry_after: str | None = None,
) -> Answer:
    return Answer(status, tokens, date, retry_after, None, body)


def _line(text: str) -> bytes:
    return b"X-Auth-Token: %b\r\n" % text.encode()


def _iso(instant: float) -> str:
    return datetime.fromtimestamp(EPOCH + instant, UTC).isoformat()
