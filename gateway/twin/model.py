"""What a model is given, returns and raises. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from gateway.twin.reply import Reply


@dataclass(frozen=True, slots=True)
class Call:
    """One prediction, its body complete."""

    method: str
    target: str
    """Path and query as they were on the wire."""
    fields: tuple[tuple[str, str], ...]
    """Header fields in order, duplicates kept; the token is replaced by its fingerprint."""
    content_type: str
    body: bytes
    request_id: str


class ModelError(Exception):
    """The model's input is not valid: 400 `MR.0105`. The text is for the caller."""


Model = Callable[[Call], Reply]
"""Answers or raises `ModelError`. May run in a thread; keeps no state."""
