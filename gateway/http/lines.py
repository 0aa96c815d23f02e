"""What one line of a head means, and the bounded memory of lines that were read before. Pure.

A head is split at its line ends, and each field line is looked up or read. Callers and services
send the same few lines again and again (`Accept: */*`, `Content-Type: application/json`), so most
lines cost one look-up. Only lines whose name is on an allow-list are remembered: never one that
may carry a credential, an id or a trace. Of other names only what the name means is remembered.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

from gateway.errors import GatewayError

_CONTROLS: Final = bytes([*range(9), *range(10, 32), 127])  # every one but HTAB
_WITHOUT_CONTROLS: Final = bytes.maketrans(_CONTROLS, b" " * len(_CONTROLS))
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 section 5.6.2

_SPACE: Final = 0x20

MAX_REMEMBERED: Final = 512
"""Lines, and as many names. When one more comes, all are forgotten, so that nobody can make the
memory grow: at 512 bytes a line it holds 256 KiB at most."""
MAX_REMEMBERED_BYTES: Final = 512
"""Of a line; a longer one is read each time."""

# Fields whose values repeat and are nobody's secret.
_REMEMBERED: Final = frozenset(
    b"accept accept-charset accept-encoding accept-language cache-control connection "
    b"content-encoding content-language content-length content-type date expires host keep-alive "
    b"last-modified pragma server transfer-encoding user-agent vary".split()
)


def is_clean(line: bytes) -> bool:
    """Return whether `line`, without its end, has no control octet but HTAB.

    A bare CR, a bare LF or a NUL makes two readers disagree about where a line ends (RFC 9112
    section 2.2, RFC 9110 section 5.5).
    """
    return line.translate(_WITHOUT_CONTROLS) == line


def is_token(name: bytes) -> bool:
    """Return whether `name` may be a field's name (RFC 9110 section 5.1)."""
    return _TOKEN.fullmatch(name) is not None


class Head:
    """What all heads have in common."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        """Fields to forward as `name: value`, in order, duplicates kept, without line ends."""


_Head = TypeVar("_Head", bound=Head)


Judge = Callable[[_Head, bytes, bytes], None]
"""Notes in a head what a field's value, and the line as it is forwarded, mean. Raises GatewayError:
the head cannot be accepted."""


def _not_known(_head: Head, _value: bytes, _text: bytes) -> None:
    """Stand where a name has not come before; it is never called."""


_NOT_KNOWN: Final = _not_known


class Line(Generic[_Head]):
    """A remembered field line. Not changed; shared by all heads that have it."""

    __slots__ = ("judge", "text", "value")

    def __init__(self, value: bytes, text: bytes, judge: Judge[_Head] | None) -> None:
        self.value = value
        """Without white space around it."""
        self.text = text
        """`name: value`, as it is forwarded."""
        self.judge = judge
        """What acts on the line; None: it is forwarded."""


class FieldReader(Generic[_Head]):
    """Reads the field lines of heads of one kind.

    Invariants: both memories are bounded; what is remembered of a line is what reading it again
    would give.
    """

    def __init__(
        self,
        judges: Mapping[bytes, Judge[_Head]],
        *,
        judge_of: Callable[[bytes], Judge[_Head] | None],
        malformed: Callable[[str], GatewayError],
        only_forwards: Callable[[Judge[_Head], bytes], bool] | None = None,
    ) -> None:
        """Prepare to read.

        Args:
            judges: what acts on a field, by its name in lower case.
            judge_of: what acts on a field with any other name in lower case; None forwards it.
            malformed: makes the error for a line that is no field.
            only_forwards: returns whether a judge does nothing with this value but forward its
                line, which is then remembered without a judge.
        """
        self._judges = judges
        self._transfer_encoding = judges[b"transfer-encoding"]
        self._judge_of = judge_of
        self._malformed = malformed
        self._only_forwards = only_forwards
        self._known: dict[bytes, Line[_Head]] = {}
        self._names: dict[bytes, Judge[_Head] | None] = {}
        self._remembered: set[bytes] = set()  # spellings of the names on the allow-list

    def read(self, lines: list[bytes], head: _Head) -> None:
        """Note in `head` what `lines` mean.

        Raises:
            GatewayError: a line is no field, or its judge does not accept it; control octets.
        """
        known, forwarded = self._known, head.lines
        for raw in lines:
            line = known.get(raw)
            if line is None:
                self._read(raw, head)
            elif (judge := line.judge) is None:
                forwarded.append(line.text)
            else:
                judge(head, line.value, line.text)

    def _read(self, raw: bytes, head: _Head) -> None:
        if not is_clean(raw):  # a line that is known has been clean
            raise self._malformed("control octets in the head")
        name, colon, value = raw.partition(b":")
        judge = self._names.get(name, _NOT_KNOWN) if colon else _NOT_KNOWN
        if judge is _NOT_KNOWN:
            if not colon or not is_token(name):
                # Also white space before the colon, a folded line (RFC 9112 sections 5.1, 5.2).
                raise self._malformed("a line of the head is no field")
            judge = self._learn(name)
        if len(value) > 1 and value[0] == _SPACE and value[1] > _SPACE and value[-1] > _SPACE:
            text, value = raw, value[1:]  # as nearly everybody writes it
        else:
            given, value = value, value.strip(b" \t")
            if judge is self._transfer_encoding and b"\t" in given.lstrip(b" \t"):
                # Some readers do not know the coding then, and read until the connection ends.
                raise self._malformed("a TAB behind Transfer-Encoding")
            text = b"%b: %b" % (name, value)
        if name in self._remembered and len(raw) <= MAX_REMEMBERED_BYTES:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            ask = self._only_forwards
            is_plain = judge is not None and ask is not None and ask(judge, value)
            self._known[raw] = Line(value, text, None if is_plain else judge)
        if judge is None:
            head.lines.append(text)
        else:
            judge(head, value, text)

    def _learn(self, name: bytes) -> Judge[_Head] | None:
        lower = name.lower()
        judge = self._judges.get(lower) or self._judge_of(lower)
        if len(name) <= MAX_REMEMBERED_BYTES:
            if len(self._names) >= MAX_REMEMBERED:
                self._names.clear()
                self._remembered.clear()
            self._names[name] = judge
            if lower in _REMEMBERED:
                self._remembered.add(name)
        return judge
