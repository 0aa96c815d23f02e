"""The proxy one writes in an afternoon: `web.Application`, one shared `ClientSession`, a cached
token. The contestant `plain`; a process of its own.
"""

import json
import ssl
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web

_HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
_NOT_FORWARDED = _HOP_BY_HOP | {"host", "content-length"}
_MARGIN_S = 600.0


@dataclass
class Token:
    """The cached token; `expires_at` is on the monotonic clock."""

    value: str = ""
    expires_at: float = 0.0


class PlainProxy:
    """Forwards `/NAME/…` to the service of that name, body and answer in one piece each."""

    def __init__(self, session: ClientSession, targets: dict[str, str]) -> None:
        self.session = session
        self.targets = targets
        self.cached = Token()

    async def token(self) -> str:
        if time.monotonic() > self.cached.expires_at - _MARGIN_S:
            user = {"name": "bench", "password": "bench", "domain": {"name": "bench"}}
            identity = {"methods": ["password"], "password": {"user": user}}
            async with self.session.post(
                f"{self.targets['bench']}/v3/auth/tokens", json={"auth": {"identity": identity}}
            ) as reply:
                reply.raise_for_status()
                self.cached = Token(reply.headers["X-Subject-Token"], time.monotonic() + 24 * 3600)
        return self.cached.value

    async def forward(self, request: web.Request) -> web.Response:
        name, tail = request.match_info["service"], request.match_info["tail"]
        if name not in self.targets:
            raise web.HTTPNotFound
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _NOT_FORWARDED}
        headers["X-Auth-Token"] = await self.token()
        async with self.session.request(
            request.method,
            f"{self.targets[name]}/v1/infers/{name}/{tail}",
            data=await request.read(),
            headers=headers,
            server_hostname="localhost" if self.targets[name].startswith("https:") else None,
        ) as reply:
            kept = {k: v for k, v in reply.headers.items() if k.lower() not in _NOT_FORWARDED}
            return web.Response(status=reply.status, headers=kept, body=await reply.read())


async def application(targets: dict[str, str], ca_file: Path) -> web.Application:
    context = ssl.create_default_context(cafile=ca_file)
    session = ClientSession(
        connector=TCPConnector(ssl=context, limit=0), timeout=ClientTimeout(total=60)
    )

    async def close(app: web.Application) -> None:
        await session.close()

    proxy = PlainProxy(session, targets)
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{service}/{tail:.*}", proxy.forward)
    app.on_cleanup.append(close)
    return app


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    uvloop.install()
    web.run_app(
        application(given["services"], Path(given["ca_file"])),
        host="127.0.0.1",
        port=given["listen"],
        print=None,
        shutdown_timeout=1,
    )
