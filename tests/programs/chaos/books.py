"""What was asked, what the service has made of it, and what must never be seen."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum, auto


class Deed(StrEnum):
    """What the service does with a request, or with the connection after it."""

    ANSWER = auto()
    IN_PIECES = auto()
    CHUNKED = auto()
    INTERIM_FIRST = auto()
    NO_CONTENT = auto()
    UNTIL_CLOSE = auto()
    ANSWER_AND_CLOSE = auto()
    ANSWER_AND_BE_GONE = auto()
    """Closes right after a response that does not say so: the next request finds it gone."""
    ANSWER_TWICE = auto()
    """A second response that nobody has asked for: the next caller must not get it."""
    ANSWER_LATE = auto()
    ANSWER_EARLY = auto()
    """Before the request's body has come; the rest of it is not read."""
    CUT = auto()
    CUT_CHUNKED = auto()
    RESET = auto()
    GARBAGE = auto()
    TWO_LENGTHS = auto()


INCOMPLETE = frozenset({Deed.CUT, Deed.CUT_CHUNKED, Deed.RESET, Deed.GARBAGE, Deed.TWO_LENGTHS})
"""After these no caller may get a response of the service's that looks complete."""


def body_of(number: int) -> bytes:
    """Return the body of every response to the request with this id."""
    return b"%d.%b" % (number, b"x" * (number % 300))


@dataclass
class Books:
    """Shared by the service and the callers of one campaign, which run in one event loop."""

    deeds: dict[int, Deed] = field(default_factory=dict)
    """By the request's id, the last deed that was done to it."""
    posts: Counter[int] = field(default_factory=Counter)
    """How often each POST has reached the service."""
    ended: Counter[str] = field(default_factory=Counter)
    """How exchanges ended: a status, `cut` or `left`."""
    wrong: list[str] = field(default_factory=list)
    """Broken promises."""

    @property
    def exchanges(self) -> int:
        """How many exchanges have ended."""
        return self.ended.total()

    def arrived(self, number: int, method: bytes, deed: Deed) -> None:
        """Note that the service has got a request, and what it will do."""
        self.deeds[number] = deed
        if method == b"POST":
            self.posts[number] += 1
            if self.posts[number] > 1:
                self.wrong.append(f"POST {number} was sent twice, the second time for {deed}")

    def got(self, number: int, status: int, named: bytes, body: bytes, *, is_ours: bool) -> None:
        """Hold a complete response against what was asked.

        Args:
            number: of the request.
            status: of the response.
            named: the id in the response's head.
            body: of the response.
            is_ours: it is an error of the gateway's.
        """
        self.ended[str(status)] += 1
        if is_ours:
            return
        deed = self.deeds.get(number)
        own = b"%d" % number
        if named != own:
            self.wrong.append(f"request {number} ({deed}) got the response to {named!r}")
        elif body not in {b"", body_of(number)}:
            self.wrong.append(f"request {number} ({deed}) got another body: {body[:80]!r}")
        elif not body and deed is not Deed.NO_CONTENT:
            self.wrong.append(f"request {number} ({deed}) got no body")
        elif deed in INCOMPLETE:
            self.wrong.append(f"request {number} ({deed}) looks complete: status {status}")

    def cut(self, number: int, *, left: bool) -> None:
        """Note an exchange without a complete response; `left`: its caller went away."""
        del number
        self.ended["left" if left else "cut"] += 1
