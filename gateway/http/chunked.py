"""Chunked bodies (RFC 9112 section 7.1), read strictly and written plainly. Pure.

One reader serves both sides. What could be read in two ways is refused: bare line ends, signs,
prefixes and white space at sizes, extensions that are not well-formed. White space is allowed where
the grammar has it, around the parts of an extension. Extensions and trailers are dropped.
"""

import re
from enum import Enum, auto
from typing import Final

from gateway.http.lines import is_clean, is_token

# The grammar's `1*HEXDIG`, bounded below 2**60.
_SIZE: Final = re.compile(rb"[0-9A-Fa-f]{1,15}")
_MAX_SIZE_LINE_BYTES: Final = 17  # with its line end
_VALUE: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_EXTENSIONS: Final = re.compile(
    rb"(?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)+" % (_VALUE, _VALUE, _QUOTED)
)
_SMALL: Final = 512
"""Of chunks below it, as events are, the size is looked up, since working it out costs more."""
_SIZES: Final = {b"%x" % size: size for size in range(_SMALL)}
_SIZE_LINES: Final = [b"%x\r\n" % size for size in range(_SMALL)]
# Fields that would change how the message is framed or routed, had they come in the head.
_NOT_TRAILERS: Final = frozenset({b"content-length", b"transfer-encoding"})


class ChunkError(ValueError):
    """A body is not well-formed; the text says where."""


class _Part(Enum):
    """What is to be read next."""

    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    """The line end behind a chunk's data."""
    TRAILER = auto()
    END = auto()


_SIZE_LINE: Final = _Part.SIZE
_DATA: Final = _Part.DATA
_DATA_END: Final = _Part.DATA_END
_TRAILER: Final = _Part.TRAILER
_END: Final = _Part.END


class ChunkedReader:
    """Reads one chunked body.

    Invariants: what it holds is at most one unfinished line; no more than `max_overhead` bytes of
    extensions and trailers are read between two bytes of the body.
    """

    __slots__ = ("_left", "_max_overhead", "_overhead", "_part", "_unread", "chunks")

    def __init__(self, max_overhead: int) -> None:
        self.chunks = 0
        """How many chunks with data have begun."""
        self._max_overhead = max_overhead
        self._part = _SIZE_LINE
        self._left = 0  # of the data of the chunk under way
        self._unread = b""  # the beginning of a line
        self._overhead = 0  # bytes that were no body, since a byte of the body came

    @property
    def ended(self) -> bool:
        """Whether the body is complete."""
        return self._part is _END

    @property
    def waiting_bytes(self) -> int:
        """What is kept of an unfinished line."""
        return len(self._unread)

    def read(self, data: bytes, pieces: list[bytes]) -> bytes:
        """Read `data`, add the pieces of body in it to `pieces`; return what is behind the end.

        Raises:
            ChunkError: the body is not well-formed, or has too much that is no body.
        """
        if self._part is _DATA and len(data) < self._left:
            self._left -= len(data)
            pieces.append(data)
            return b""
        if self._unread:
            data = self._unread + data
            self._unread = b""
        at = 0
        while at < len(data):
            if self._part is _SIZE_LINE:
                at = self._read_whole_chunks(data, at, pieces)
                if at == len(data):
                    break
            if self._part is _DATA:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._overhead = 0
                if not self._left:
                    self._part = _DATA_END
                continue
            end = data.find(b"\n", at)
            if end < 0:
                self._keep_unfinished(data[at:])
                return b""
            self._read_line(data[at : end + 1])
            at = end + 1
            if self._part is _END:
                return data[at:]
        return b""

    def _read_whole_chunks(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Read plain chunks that are there whole, a third as dear as part by part.

        Returns:
            Where the first one begins that is not.
        """
        while at < len(data):
            # A slice is looked through for less than the two bounds of `find` cost.
            text, line_end, _ = data[at : at + _MAX_SIZE_LINE_BYTES].partition(b"\r\n")
            if not line_end:
                break
            size = _SIZES.get(text) or _plain_size(text)
            begin = at + len(text) + 2
            end = begin + size
            if not size or data[end : end + 2] != b"\r\n":
                break
            pieces.append(data[begin:end])
            self.chunks += 1
            self._overhead = 0
            at = end + 2
        return at

    def _keep_unfinished(self, begin: bytes) -> None:
        if self._part is _DATA_END and begin != b"\r":
            raise ChunkError("a chunk is longer than its size")
        if self._part is _SIZE_LINE and not _SIZE.match(begin):
            raise ChunkError("a chunk has no size")
        if self._overhead + len(begin) > self._max_overhead:
            raise ChunkError("chunk extensions or trailers are too large")
        self._unread = begin

    def _read_line(self, line: bytes) -> None:
        if line[-2:] != b"\r\n":
            raise ChunkError("a line ends without CR")
        if self._part is _DATA_END:
            if len(line) != 2:
                raise ChunkError("a chunk is longer than its size")
            self._part = _SIZE_LINE
            return
        self._overhead += len(line)
        if self._overhead > self._max_overhead:
            raise ChunkError("chunk extensions or trailers are too large")
        if self._part is _SIZE_LINE:
            self._left = _size_in(line[:-2])
            if self._left:
                self.chunks += 1
                self._part = _DATA
            else:
                self._part = _TRAILER
        elif len(line) == 2:
            self._part = _END
        else:
            _check_trailer(line[:-2])


def _plain_size(text: bytes) -> int:
    """Return what a size without extensions says; 0 also when it is none."""
    return int(text, 16) if _SIZE.fullmatch(text) else 0


def _size_in(line: bytes) -> int:
    size = _SIZE.match(line)
    if size is None or (size.end() < len(line) and not _EXTENSIONS.fullmatch(line, size.end())):
        raise ChunkError("a chunk's size or extension is not well-formed")
    return int(size[0], 16)


def _check_trailer(line: bytes) -> None:
    name, colon, _ = line.partition(b":")
    if not colon or not is_token(name) or not is_clean(line):
        raise ChunkError("a trailer is no field")
    if name.lower() in _NOT_TRAILERS:
        raise ChunkError("a trailer announces another length")


def chunk(data: bytes) -> bytes:
    """Wrap non-empty `data` as one chunk."""
    size = len(data)
    size_line = _SIZE_LINES[size] if size < _SMALL else b"%x\r\n" % size
    return b"".join((size_line, data, b"\r\n"))


LAST_CHUNK: Final = b"0\r\n\r\n"
"""Ends a chunked body; written only when the other side's body has ended, too."""
