"""Whether a response rejects our token: a question that changes nothing. Pure."""

from enum import Enum, auto
from typing import Final

from gateway.http.response_head import ResponseHead
from gateway.proxy.rejection import PEEK_BYTES, is_token_rejection, readable, vendor_code


class Verdict(Enum):
    """What is known about a response."""

    PENDING = auto()
    """The rest of its body decides."""
    REJECTED = auto()
    """The service did not accept the token."""
    CLEAR = auto()


PENDING: Final = Verdict.PENDING
REJECTED: Final = Verdict.REJECTED
CLEAR: Final = Verdict.CLEAR


_LOCK_OUT: Final = b"failed to reach the limit"
"""In the message "AK access failed to reach the limit, forbidden"; the code is a wrong token's."""


class TokenCheck:
    """Looks at an error response as it arrives, up to `PEEK_BYTES` of its body."""

    __slots__ = ("_head", "_left", "_seen", "verdict")

    def __init__(
        self, head: ResponseHead, *, sends_credential: bool, renewable: bool = True
    ) -> None:
        """Begin with a response of status 400 and above.

        Args:
            head: of the response.
            sends_credential: the request carried one, which a 401 or 403 may be about.
            renewable: another one can be had. Otherwise the body decides nothing: every 401 is
                about the key, and passes.
        """
        self._head = head
        self._seen: list[bytes] = []
        self._left = PEEK_BYTES
        self.verdict = CLEAR
        if sends_credential and head.status in {401, 403}:
            if renewable:
                self.verdict = PENDING
            elif head.status == 401:
                self.verdict = REJECTED

    @property
    def is_full(self) -> bool:
        """Whether more of the body will not be looked at."""
        return self._left <= 0

    @property
    def vendor_code(self) -> str:
        """The vendor's error code in what has been seen of the body, or empty."""
        return vendor_code(self._text())

    @property
    def is_lock_out(self) -> bool:
        """Whether an access key is locked for too many wrong signatures (APIG.0301)."""
        return _LOCK_OUT in self._text()

    def feed(self, body: list[bytes]) -> None:
        """Look at more of the body."""
        for piece in body:
            if self._left <= 0:
                break
            self._seen.append(piece[: self._left])
            self._left -= len(piece)
        if self.verdict is PENDING and not self._may_reject():
            self.verdict = CLEAR

    def end(self) -> None:
        """Decide: the body is complete."""
        if self.verdict is PENDING:
            head = self._head
            rejected = is_token_rejection(
                head.status,
                self.vendor_code,
                server=head.server,
                keystone=head.challenges_for_keystone,
            )
            self.verdict = REJECTED if rejected else CLEAR

    def _may_reject(self) -> bool:
        """Return whether what has been seen can become an error of the vendor's."""
        text = self._text().lstrip()
        return not text or text.startswith(b"{") or self._head.challenges_for_keystone

    def _text(self) -> bytes:
        """Return what has been seen, as text."""
        return readable(b"".join(self._seen), self._head.value_of(b"content-encoding"))
