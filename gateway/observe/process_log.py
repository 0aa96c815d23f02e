"""The process's own log: bounded lines, a bounded number of them, and no text of foreign errors.

Parsers and libraries quote in their errors the text that they could not parse, which may be a
token, a password or a caller's header. So an error is logged as its type and places in the code.
"""

import asyncio
import json
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.observe.line_budget import LineBudget

MAX_LINE_BYTES = 2048
"""With the line end."""
BURST = 50
"""Lines of one place in the code at once; then one a second."""
_PER_S = 1.0
_PLACES = 6
_CAUSES = 3

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_log = logging.getLogger("gateway.observe")


class LineFormatter(logging.Formatter):
    """One record, one line of at most `MAX_LINE_BYTES`, whatever is in it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        record.message = record.getMessage()
        record.asctime = self.formatTime(record)
        line = self.formatMessage(record)
        if record.exc_info and record.exc_info[1] is not None:
            line += ": " + "; after ".join(_told(record.exc_info[1]))
        if held_back := getattr(record, "held_back", 0):
            line += f" ({held_back} more from here were not logged)"
        return _cut(_CONTROL.sub(lambda found: ascii(found[0])[1:-1], line))


class JsonFormatter(logging.Formatter):
    """One record, one JSON object of at most `MAX_LINE_BYTES`, whatever is in it.

    `time` (UTC), `level`, `logger`, `message`, and only where there is one `error` (type and
    places) and `held_back` (how many lines of the same place were left out before).
    """

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said: dict[str, str | int] = {
            "time": stamp.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": "",
        }
        if record.exc_info and record.exc_info[1] is not None:
            said["error"] = "; after ".join(_told(record.exc_info[1]))[: MAX_LINE_BYTES // 2]
        if held_back := getattr(record, "held_back", 0):
            said["held_back"] = held_back
        message = record.getMessage()
        said["message"] = message
        while (over := len(line := _json(said)) - MAX_LINE_BYTES + 1) > 0:
            # A character takes 12 octets at most, so this cuts away little more than it must.
            message = message[: min(len(message) - 1 - over // 12, MAX_LINE_BYTES)]
            said["message"] = message + "…"
        return line.decode()


class FloodFilter(logging.Filter):
    """Limits how often each place in the code may log; the next line counts what was left out."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Prepare; `clock` returns seconds and never goes back."""
        super().__init__()
        self._clock = clock
        self._budgets: dict[tuple[str, int], LineBudget] = {}  # one for each place that logs

    def filter(self, record: logging.LogRecord) -> bool:
        """See `logging.Filter`."""
        place = (record.pathname, record.lineno)
        if (budget := self._budgets.get(place)) is None:
            budget = self._budgets[place] = LineBudget(burst=BURST, per_s=_PER_S)
        if not budget.take(self._clock()):
            return False
        record.held_back = budget.told()
        return True


def log_loop_fault(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that the event loop has caught; asyncio's handler would quote arguments."""
    said = re.split(r"[(<{\[]", str(context.get("message", "")))[0].strip()
    _log.error("event loop: %s", said or "fault", exc_info=context.get("exception"))


def _told(error: BaseException) -> Iterator[str]:
    """Yield type and places of an error, the innermost first, and of the errors that caused it."""
    seen: BaseException | None = error
    for _ in range(_CAUSES):
        if seen is None:
            return
        frames = traceback.extract_tb(seen.__traceback__, limit=-_PLACES)
        places = [f"{frame.name} ({Path(frame.filename).name}:{frame.lineno})" for frame in frames]
        yield " in ".join([type(seen).__name__, *reversed(places)])
        seen = seen.__cause__ or seen.__context__


def _json(said: dict[str, str | int]) -> bytes:
    line = json.dumps(said, ensure_ascii=False)
    line = _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", line)
    return line.encode(errors="replace")


def _cut(line: str) -> str:
    octets = line.encode(errors="replace")
    if len(octets) < MAX_LINE_BYTES:
        return line
    return octets[: MAX_LINE_BYTES - 4].decode(errors="ignore") + "…"
