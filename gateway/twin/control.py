"""The control API of the twin, `/twin/…`: faults, revocation, statistics. Needs no token."""

import json
from typing import Any

from aiohttp import web

from gateway.twin import wire
from gateway.twin.capacity import Slots, parse_capacity
from gateway.twin.faults import FaultError
from gateway.twin.federation import AUDIENCE, SUBJECT
from gateway.twin.reply import TWIN, Reply, json_body
from gateway.twin.services import SERVICES
from gateway.twin.state import CloudState, FaultPlan, Stats, parse_plan


class Control:
    """Handlers of `/twin/…`."""

    def __init__(self, state: CloudState) -> None:
        self._state = state

    def routes(self) -> list[web.RouteDef]:
        """Where the handlers answer."""
        return [
            web.get("/twin/faults", self._show_faults),
            web.put("/twin/faults", self._plan_faults),
            web.delete("/twin/faults", self._clear_faults),
            web.get("/twin/capacity", self._show_capacity),
            web.put("/twin/capacity", self._set_capacity),
            web.post("/twin/revoke", self._revoke),
            web.post("/twin/expire", self._expire),
            web.get("/twin/stats", self._show_stats),
            web.delete("/twin/stats", self._clear_stats),
            web.get("/twin/id-token", self._issue_id_token),
        ]

    async def _show_faults(self, _request: web.Request) -> web.Response:
        return _json(200, self._state.plan.as_json())

    async def _plan_faults(self, request: web.Request) -> web.Response:
        try:
            plan = parse_plan(
                json.loads(await request.read()), [service.name for service in SERVICES]
            )
        except FaultError as error:
            return _json(400, {"error_code": "Twin.UnknownFault", "error_msg": str(error)})
        except ValueError:
            return _json(400, {"error_code": "Twin.NotJson", "error_msg": "the body is not JSON"})
        self._state.plan = plan
        return _json(200, plan.as_json())

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self._state.plan = FaultPlan()
        return _json(200, self._state.plan.as_json())

    async def _show_capacity(self, _request: web.Request) -> web.Response:
        return _json(200, self._state.slots.capacity.as_json())

    async def _set_capacity(self, request: web.Request) -> web.Response:
        try:
            wanted = json.loads(await request.read())
            capacity = parse_capacity(wanted, self._state.slots.capacity)
        except FaultError as error:
            return _json(400, {"error_code": "Twin.BadCapacity", "error_msg": str(error)})
        except ValueError:
            return _json(400, {"error_code": "Twin.NotJson", "error_msg": "the body is not JSON"})
        self._state.slots = Slots(capacity)
        return _json(200, capacity.as_json())

    async def _revoke(self, _request: web.Request) -> web.Response:
        return _json(200, {"revoked": self._state.tokens.revoke_all()})

    async def _expire(self, _request: web.Request) -> web.Response:
        return _json(200, {"expired": self._state.tokens.expire_all()})

    async def _issue_id_token(self, request: web.Request) -> web.Response:
        """Return an ID token like a cluster's for a pod; `sub`, `aud` and `ttl` change it."""
        query = request.query
        try:
            life_s = float(query.get("ttl", "3600"))
        except ValueError:
            return _json(400, {"error_code": "Twin.BadTtl", "error_msg": "ttl is not seconds"})
        token = self._state.issuer.issue(
            self._state.clock.wall().timestamp(),
            subject=query.get("sub", SUBJECT),
            audience=query.get("aud", AUDIENCE),
            life_s=life_s,
        )
        return web.Response(text=token)

    async def _show_stats(self, _request: web.Request) -> web.Response:
        counted = self._state.stats.as_json()
        return _json(200, {**counted, "tokens_good": self._state.tokens.count_good()})

    async def _clear_stats(self, request: web.Request) -> web.Response:
        self._state.stats = Stats()
        return await self._show_stats(request)


def _json(status: int, value: dict[str, Any]) -> web.Response:
    return wire.whole(Reply(status, json_body(value), TWIN), wire.new_request_id())
