"""Faults of a real-time service's response, and the syntax that asks for them. Pure.

One grammar for both ways of asking: `twin-<name>=<value>` in the query of a call, and
`{"<name>": <value>}` for the next calls through the control API.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl

from gateway.twin.duration import parse_duration
from gateway.twin.reply import KNOWN_CODES

PREFIX = "twin-"
MAX_SIZE = 1 << 30


class FaultError(Exception):
    """An unknown fault, or a value that does not fit; the text lists what is allowed."""


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of one response; by default there are none."""

    delay_s: float = 0.0
    """Wait this long before the head of the answer."""
    hang: bool = False
    """Never answer; ends when the caller goes away."""
    early: bool = False
    """Answer without having read the request's body, so no model runs."""
    status: int = 0
    """Answer this instead of the model; 0 for no such fault."""
    code: str = ""
    """Error code of that answer; empty: the model's own error, `{"message": …}`."""
    retry_after_s: int = 0
    """`Retry-After` of that answer; 0 for none."""
    size: int = -1
    """Answer this many bytes instead of the model; -1 for no such fault."""
    sse: int = 0
    """Answer this many server-sent events instead of the model."""
    gap_s: float = 0.1
    """Pause between server-sent events."""
    first_token_s: float = 0.0
    """Wait this long between the head of the answer and its body."""
    chunked: bool = False
    """Frame the answer with chunks instead of `Content-Length`."""
    slow_bytes: int = 0
    """Send the body in pieces of this many bytes; 0 for at once."""
    slow_pause_s: float = 0.0
    """Pause between those pieces."""
    cut: int = -1
    """Close the connection after this many bytes of the body; -1 for not at all."""
    reset: str = ""
    """Reset the connection: `head` before the answer, `body` in the middle of it."""


def _flag(text: str) -> bool:
    if text not in {"", "1", "true", "True"}:
        raise ValueError("it takes no value")
    return True


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text[:12]) <= most:
            raise ValueError(f"{text!r} is not a number from {least} to {most}")
        return int(text)

    return parse


def _code(text: str) -> str:
    layer, _, number = text.partition(".")
    if layer not in {"APIG", "ModelArts", "MR"} or not number.isalnum():
        raise ValueError(f"{text!r} is not a code such as APIG.0202")
    return text


def _reset(text: str) -> str:
    if text not in {"head", "body"}:
        raise ValueError(f"{text!r} is neither head nor body")
    return text


def _slow(text: str) -> tuple[int, float]:
    size, _, pause = text.partition("/")
    return _number(1, MAX_SIZE)(size.removesuffix("B")), parse_duration(pause)


# name -> (fields of Faults that it sets, parser of its value)
_GRAMMAR: dict[str, tuple[tuple[str, ...], Callable[[str], Any]]] = {
    "delay": (("delay_s",), parse_duration),
    "hang": (("hang",), _flag),
    "early": (("early",), _flag),
    "status": (("status",), _number(200, 599)),
    "code": (("code",), _code),
    "retry-after": (("retry_after_s",), _number(1, 86400)),
    "size": (("size",), _number(0, MAX_SIZE)),
    "sse": (("sse",), _number(1, 1_000_000)),
    "gap": (("gap_s",), parse_duration),
    "first-token": (("first_token_s",), parse_duration),
    "chunked": (("chunked",), _flag),
    "slow": (("slow_bytes", "slow_pause_s"), _slow),
    "cut": (("cut",), _number(0, MAX_SIZE)),
    "reset": (("reset",), _reset),
}
FAULT_NAMES = tuple(_GRAMMAR)


def parse_faults(wanted: Mapping[str, str]) -> Faults:
    """Faults by name, without the prefix.

    Raises:
        FaultError: an unknown name, or a value that does not fit.
    """
    fields: dict[str, Any] = {}
    for name, value in wanted.items():
        if name not in _GRAMMAR:
            known = ", ".join(FAULT_NAMES)
            raise FaultError(f"{name!r} is not a fault of a service; known are: {known}")
        names, parse = _GRAMMAR[name]
        try:
            parsed = parse(value)
        except ValueError as error:
            raise FaultError(f"fault {name!r}: {error}") from error
        fields.update(zip(names, parsed if len(names) > 1 else (parsed,), strict=True))
    faults = replace(Faults(), **fields)
    if faults.code and not faults.status:
        if faults.code not in KNOWN_CODES:
            raise FaultError(f"fault 'code': {faults.code} is not known here; add a status to it")
        return replace(faults, status=KNOWN_CODES[faults.code][0])
    return faults


def faults_in_query(target: str) -> Faults:
    """Faults that the query of a request target asks for; other parameters are left alone.

    Raises:
        FaultError: as `parse_faults`.
    """
    if PREFIX not in target:
        return Faults()
    pairs = parse_qsl(target.partition("?")[2], keep_blank_values=True)
    return parse_faults(
        {name.removeprefix(PREFIX): value for name, value in pairs if name.startswith(PREFIX)}
    )
