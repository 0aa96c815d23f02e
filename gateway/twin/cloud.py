"""The stand-in cloud as one object: starts and stops a server, and holds what it remembers."""

import asyncio
import ssl
from collections.abc import Sequence
from email.utils import format_datetime

from aiohttp import web

from gateway.twin.account import Account
from gateway.twin.capacity import Slots, parse_capacity
from gateway.twin.clock import Clock
from gateway.twin.control import Control
from gateway.twin.iam import Iam
from gateway.twin.platform import Platform
from gateway.twin.services import MAX_BODY, MAX_HEAD, SERVICES, Services
from gateway.twin.state import CloudState, Stats, parse_plan

_DEFAULT_TOKEN_SIZE = 183  # a real Keystone's


class Twin:
    """IAM and the real-time services `iris`, `image`, `llm`, `echo` and `slow`, on one listener.

    Invariants:
        - Nothing is shared between two twins.
        - Nothing is written to any log about what clients do.
    """

    def __init__(
        self,
        *,
        token_ttl_s: float = 86400.0,
        token_size: int = _DEFAULT_TOKEN_SIZE,
        accounts: Sequence[Account] = (Account(),),
        clock: Clock | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare a cloud.

        Args:
            token_ttl_s: life of a token, in seconds, more than 0.
            token_size: bytes of a token, at least 20.
            accounts: who may log in.
            clock: both clocks; the system's by default.
            ssl_context: a server's; makes the listener HTTPS.
        """
        self._state = CloudState(accounts, clock or Clock(), token_ttl_s, token_size)
        self._ssl_context = ssl_context
        self._runner: web.AppRunner | None = None
        self._url = ""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one.

        Raises:
            OSError: the address cannot be had.
        """
        services = Services(self._state)
        app = web.Application(client_max_size=MAX_BODY)
        app.on_response_prepare.append(self._set_date)
        app.add_routes(Iam(self._state).routes())
        app.add_routes(self._state.platform.routes())
        app.add_routes(Control(self._state).routes())
        app.router.add_route("*", "/{anything:.*}", services.handle)
        runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            auto_decompress=False,
            # Above our own limits, so that we answer and not the parser.
            max_field_size=2 * MAX_HEAD,
            max_headers=1000,
            max_line_size=MAX_HEAD,
            shutdown_timeout=0.05,
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, ssl_context=self._ssl_context).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        bound = runner.addresses[0][1]
        scheme = "https" if self._ssl_context else "http"
        self._url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{bound}"

    async def _set_date(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Set `Date` from the cloud's clock, which may be wrong on purpose."""
        response.headers["Date"] = format_datetime(self._state.clock.wall(), usegmt=True)

    async def stop(self) -> None:
        """Close the listener and all connections, hanging ones too; does nothing if stopped."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        await _turns()  # a connection that is being accepted cannot be closed yet (Python 3.11)
        for site in tuple(runner.sites):
            await site.stop()
        await _turns()  # accepted sockets become connections, which are closed below
        await runner.cleanup()
        await _turns()  # closed connections release their sockets

    @property
    def url(self) -> str:
        """`http://127.0.0.1:8081`, without a final slash; empty before the start."""
        return self._url

    @property
    def auth_url(self) -> str:
        """What OpenStack calls `OS_AUTH_URL`."""
        return f"{self._url}/v3"

    def service_url(self, identifier: str, *, version: str = "v1") -> str:
        """URL of a service by its id, such as `IRIS_ID`; `v2` is the vendor's new version."""
        return f"{self._url}/{version}/infers/{identifier}"

    @property
    def platform(self) -> Platform:
        """Stand-ins for the metadata service and the pod identity agent, live."""
        return self._state.platform

    def set_capacity(self, wanted: dict[str, object]) -> None:
        """Change what the service `slow` can do; as `PUT /twin/capacity`.

        Raises:
            FaultError: something in it is unknown or does not fit.
        """
        self._state.slots = Slots(parse_capacity(wanted, self._state.slots.capacity))

    @property
    def stats(self) -> Stats:
        """Counters, live; as `GET /twin/stats`."""
        return self._state.stats

    def plan_faults(self, plan: dict[str, object]) -> None:
        """Replace the faults to come; as `PUT /twin/faults`, `{}` for none.

        Raises:
            FaultError: something in it is unknown.
        """
        self._state.plan = parse_plan(plan, [service.name for service in SERVICES])

    def revoke_tokens(self) -> int:
        """Revoke every good token; as `POST /twin/revoke`. Returns how many."""
        return self._state.tokens.revoke_all()

    def expire_tokens(self) -> int:
        """Let every good token die now; as `POST /twin/expire`. Returns how many."""
        return self._state.tokens.expire_all()


async def _turns() -> None:
    """Let the event loop turn: it needs three turns from accepting to `connection_made`."""
    for _ in range(5):
        await asyncio.sleep(0)
