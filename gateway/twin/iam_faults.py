"""Faults of a login, and the syntax that asks for them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.twin.duration import parse_duration
from gateway.twin.faults import FaultError
from gateway.twin.reply import json_body


class IamFault(StrEnum):
    """Ways in which a login goes wrong. The correct password does not help."""

    UNAUTHORIZED = "unauthorized"
    """401 as for a wrong password; does not count for the lock-out."""
    LOCKED = "locked"
    """401 `IAM.0061`."""
    FORBIDDEN = "forbidden"
    """403."""
    THROTTLED = "throttled"
    """429 `IAM.0012`; `retry_after` adds the field."""
    STATUS = "status"
    """Any `status` (default 500), with an error body of any `shape`."""
    HTML = "html"
    """A page of HTML with `status` (default 200), as from a login portal in the way."""
    OK_200 = "ok-200"
    """A good answer, but 200 instead of 201."""
    NO_TOKEN = "no-token"  # noqa: S105  # the name of a fault
    """201 without `X-Subject-Token`."""
    EMPTY_TOKEN = "empty-token"  # noqa: S105  # as above
    """201 with an empty `X-Subject-Token`."""
    BAD_TOKEN = "bad-token"  # noqa: S105  # as above
    """201 with a token that is not ASCII."""
    LARGE_TOKEN = "large-token"  # noqa: S105  # as above
    """A good token of `size` bytes (default 32768)."""
    EXPIRED = "expired"
    """A token whose `expires_at` is an hour ago."""
    FAR_EXPIRY = "far-expiry"
    """A token whose `expires_at` is in the year 9999, although it lives as long as any other."""
    NO_EXPIRY = "no-expiry"
    """201 whose body has no `expires_at`."""
    BIG_BODY = "big-body"
    """A good answer with `size` bytes (default 2097152) of padding in its body."""
    SLOW = "slow"
    """A good answer after `delay`."""
    HANG = "hang"
    """No answer at all."""
    RESET = "reset"
    """The connection is reset instead of an answer."""


class ErrorShape(StrEnum):
    """The forms in which IAM writes an error."""

    KEYSTONE = "keystone"
    """`{"error": {"code", "message", "title"}}`"""
    VENDOR = "vendor"
    """`{"error_code", "error_msg"}`"""
    CAMEL = "camel"
    """`{"errorCode", "errorMsg"}`"""
    CODE = "code"
    """`{"code", "message"}`"""
    NESTED = "nested"
    """`{"error": {"error_code", "error_msg"}}`"""


@dataclass(frozen=True, slots=True)
class IamFaultSpec:
    """One fault with its parameters; `IamFault` says which parameters each fault uses."""

    fault: IamFault
    times: int | None = None
    """How many logins it affects; None: all, until the fault is removed."""
    delay_s: float = 0.0
    """Waited before the answer, whatever that is."""
    status: int | None = None
    retry_after: int | None = None
    size: int | None = None
    shape: ErrorShape = ErrorShape.KEYSTONE


def parse_iam_fault(wanted: Mapping[str, Any]) -> IamFaultSpec:
    """Read one entry of `iam` in `PUT /twin/faults`.

    Raises:
        FaultError: an unknown fault or parameter, or a value that does not fit.
    """
    given = dict(wanted)
    name = given.pop("fault", None)
    if name not in set(IamFault):
        raise FaultError(f"{name!r} is not a fault of IAM; known are: {', '.join(IamFault)}")
    shape = given.pop("shape", ErrorShape.KEYSTONE)
    if shape not in set(ErrorShape):
        raise FaultError(f"{shape!r} is not an error shape; known are: {', '.join(ErrorShape)}")
    try:
        delay_s = parse_duration(str(given.pop("delay", 0)))
    except ValueError as error:
        raise FaultError(f"parameter 'delay': {error}") from error
    spec = IamFaultSpec(
        IamFault(name),
        times=take_number(given, "times", 1, 1_000_000),
        delay_s=delay_s,
        status=take_number(given, "status", 200, 599),
        retry_after=take_number(given, "retry_after", 0, 86400),
        size=take_number(given, "size", 1, 1 << 24),
        shape=ErrorShape(shape),
    )
    if given:
        raise FaultError(
            f"{next(iter(given))!r} is not a parameter of an IAM fault; known are: "
            "times, delay, status, retry_after, size, shape"
        )
    return spec


def take_number(given: dict[str, Any], name: str, least: int, most: int) -> int | None:
    """Remove the number `name` from `given`; None if it is not there or null.

    Raises:
        FaultError: it is not a number from `least` to `most`.
    """
    value = given.pop(name, None)
    if value is not None and (type(value) is not int or not least <= value <= most):
        raise FaultError(f"parameter {name!r}: {value!r} is not a number from {least} to {most}")
    return value


def error_body(shape: ErrorShape, status: int, code: str, message: str) -> bytes:
    """Error of IAM in one of its shapes."""
    match shape:
        case ErrorShape.KEYSTONE:
            titles = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}
            title = titles.get(status, "Error")
            return json_body({"error": {"code": status, "message": message, "title": title}})
        case ErrorShape.VENDOR:
            return json_body({"error_code": code, "error_msg": message})
        case ErrorShape.CAMEL:
            return json_body({"errorCode": code, "errorMsg": message})
        case ErrorShape.CODE:
            return json_body({"code": code, "message": message})
        case ErrorShape.NESTED:
            return json_body({"error": {"error_code": code, "error_msg": message}})
