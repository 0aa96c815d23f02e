"""`POST /log-level?level=…`: how much the process logs, until the next change or start."""

import logging

from aiohttp import web

from gateway.settings.environment import LOG_LEVELS

_log = logging.getLogger("gateway.admin")


def change_log_level(request: web.Request) -> web.Response:
    """Set the level that the query names, or refuse with 400 and say what is allowed."""
    asked = request.query.getall("level", [])
    root = logging.getLogger()
    before = logging.getLevelName(root.level)
    if len(asked) != 1 or (level := asked[0].upper()) not in LOG_LEVELS:
        return web.json_response(
            {"problem": f"level: give it once, as one of {', '.join(LOG_LEVELS)}", "level": before},
            status=400,
            headers={"Cache-Control": "no-store"},
        )
    root.setLevel(level)
    _log.log(max(root.level, logging.INFO), "log level changed from %s to %s", before, level)
    return web.json_response(
        {"level": level, "before": before}, headers={"Cache-Control": "no-store"}
    )
