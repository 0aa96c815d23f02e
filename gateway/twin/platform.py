"""Stand-ins for what hands out temporary access keys: a metadata service, a pod identity agent."""

import json
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from aiohttp import web

from gateway.twin.clock import Clock

METADATA_TOKEN_PATH = "/meta-data/latest/api/token"  # noqa: S105  # a path
METADATA_KEY_PATH = "/openstack/latest/securitykey"
POD_PATH = "/pod-identity/credentials"
POD_TOKEN = "twin-pod-token"  # noqa: S105  # of nobody
"""What the pod identity agent takes as `Authorization`."""


class MetadataMode(StrEnum):
    """How the metadata service behaves."""

    V2 = "v2"
    """Requires a token of its own, which PUT returns."""
    V1 = "v1"
    """Has no tokens: 404 to PUT."""
    NO_AGENCY = "no-agency"
    """The server has no agency: 401, as the real one says it."""
    DOWN = "down"
    """500 to everything."""


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A temporary access key."""

    access_key: str
    secret_key: str = field(repr=False)
    security_token: str = field(repr=False)
    expires_at: datetime


class Platform:
    """Hands out temporary access keys, and remembers them."""

    def __init__(self, clock: Clock, life_s: float) -> None:
        """Begin without keys; each lives for `life_s` seconds."""
        self._clock = clock
        self.life_s = life_s
        self.mode = MetadataMode.V2
        self.keys: dict[str, IssuedKey] = {}
        """By access key; expired ones too."""
        self.pod_calls = 0
        self.metadata_calls = 0
        """Keys handed out by each."""
        self._tokens: set[str] = set()

    def routes(self) -> list[web.RouteDef]:
        """Where the handlers answer."""
        return [
            web.put(METADATA_TOKEN_PATH, self._give_token),
            web.get(METADATA_KEY_PATH, self._metadata),
            web.post(POD_PATH, self._pod),
        ]

    async def _give_token(self, request: web.Request) -> web.Response:
        if self.mode is MetadataMode.V1:
            return web.Response(status=404)
        life = request.headers.get("X-Metadata-Token-Ttl-Seconds", "")
        if self.mode is MetadataMode.DOWN or not life.isdigit() or not 1 <= int(life) <= 21600:
            return web.Response(status=500 if self.mode is MetadataMode.DOWN else 400)
        token = secrets.token_urlsafe(32)
        self._tokens.add(token)
        return web.Response(text=token)

    async def _metadata(self, request: web.Request) -> web.Response:
        if self.mode is MetadataMode.DOWN:
            return web.Response(status=500)
        if self.mode is MetadataMode.NO_AGENCY:
            text = "401 Unauthorized: Please configure Cloud Service Agency first"
            return web.Response(status=401, text=text)
        if (
            self.mode is MetadataMode.V2
            and request.headers.get("X-Metadata-Token") not in self._tokens
        ):
            return web.Response(status=401, text="401 Unauthorized")
        self.metadata_calls += 1
        key = self._issue()
        return _json(
            {
                "credential": {
                    "access": key.access_key,
                    "secret": key.secret_key,
                    "securitytoken": key.security_token,
                    "expires_at": key.expires_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                }
            }
        )

    async def _pod(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != POD_TOKEN:
            return web.Response(status=401, text="invalid token")
        if await request.json() != {}:
            return web.Response(status=400)
        self.pod_calls += 1
        key = self._issue()
        return _json(
            {
                "access_key_id": key.access_key,
                "secret_access_key": key.secret_key,
                "security_token": key.security_token,
                "expiration": key.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )

    def _issue(self) -> IssuedKey:
        key = IssuedKey(
            f"HST{secrets.token_hex(8).upper()}",
            secrets.token_urlsafe(30),
            secrets.token_urlsafe(200),
            self._clock.wall() + timedelta(seconds=self.life_s),
        )
        self.keys[key.access_key] = key
        return key


def _json(document: object) -> web.Response:
    return web.Response(text=json.dumps(document), content_type="application/json")
