"""PNG decoder: every colour type at bit depth 8, all five filters. Pure.

Source: PNG specification, third edition (W3C). `tRNS` is not honoured.
"""

import struct
import zlib
from collections.abc import Iterator
from itertools import accumulate
from operator import mul

from gateway.twin.picture import Picture, UnreadableError, check_size

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGB_ALPHA: 4}


def read_png(data: bytes) -> Picture:
    """Decode a whole file.

    Raises:
        UnreadableError: damaged, or of a kind this decoder does not read.
    """
    header, palette, packed = b"", b"", bytearray()
    for kind, content in _chunks(data):
        if kind == b"IHDR":
            header = content
        elif kind == b"PLTE":
            palette = content
        elif kind == b"IDAT":
            packed += content
    if len(header) != 13:
        raise UnreadableError("the PNG has no proper IHDR chunk")
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    check_size(width, height)
    if depth != 8 or colour not in _CHANNELS:
        raise UnreadableError(f"PNG colour type {colour} at bit depth {depth} is not supported")
    if interlace:
        raise UnreadableError("interlaced PNG is not supported; save it without interlacing")
    channels = _CHANNELS[colour]
    pixels = _unfilter(_inflate(bytes(packed), height * (1 + width * channels)), width, channels)
    return Picture(width, height, _mean_rgb(pixels, colour, palette, width * height))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    kind = b""
    while kind != b"IEND":
        if at + 12 > len(data):
            raise UnreadableError("the PNG is cut off")
        length = int.from_bytes(data[at : at + 4], "big")
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        check = data[at + 8 + length : at + 12 + length]
        if len(content) != length or len(check) != 4:
            raise UnreadableError("the PNG is cut off")
        if zlib.crc32(content, zlib.crc32(kind)) != int.from_bytes(check, "big"):
            raise UnreadableError("a checksum in the PNG is wrong")
        yield kind, content
        at += 12 + length


def _inflate(packed: bytes, size: int) -> bytes:
    try:
        raw = zlib.decompressobj().decompress(packed, size)
    except zlib.error as error:
        raise UnreadableError("the PNG's pixels cannot be unpacked") from error
    if len(raw) != size:
        raise UnreadableError("the PNG has too few pixels")
    return raw


def _unfilter(raw: bytes, width: int, channels: int) -> bytes:
    """Undo the filter of every line; section 9 of the specification."""
    stride = width * channels
    above = bytes(stride)
    lines = []
    for start in range(0, len(raw), stride + 1):
        line = raw[start + 1 : start + 1 + stride]
        match raw[start]:
            case 0:
                pass
            case 1:
                line = _undo_sub(line, channels)
            case 2:
                line = _add_bytes(line, above)
            case 3:
                line = _undo_average(line, above, channels)
            case 4:
                line = _undo_paeth(line, above, channels)
            case other:
                raise UnreadableError(f"PNG filter {other} does not exist")
        lines.append(line)
        above = line
    return b"".join(lines)


def _undo_sub(line: bytes, channels: int) -> bytes:
    out = bytearray(len(line))
    for channel in range(channels):
        values: Iterator[int] = accumulate(line[channel::channels], _add_byte)
        out[channel::channels] = bytes(values)
    return bytes(out)


def _add_byte(left: int, delta: int) -> int:
    return (left + delta) & 0xFF


def _add_bytes(line: bytes, above: bytes) -> bytes:
    """Add byte by byte, modulo 256, the whole line as one number: ten times a loop's speed."""
    low = int.from_bytes(b"\x7f" * len(line), "big")
    high = int.from_bytes(b"\x80" * len(line), "big")
    a, b = int.from_bytes(line, "big"), int.from_bytes(above, "big")
    return (((a & low) + (b & low)) ^ ((a ^ b) & high)).to_bytes(len(line), "big")


def _undo_average(line: bytes, above: bytes, channels: int) -> bytes:
    out = bytearray(channels) + line
    for i, up in enumerate(above):
        out[i + channels] = (out[i + channels] + (out[i] + up) // 2) & 0xFF
    return bytes(out[channels:])


def _undo_paeth(line: bytes, above: bytes, channels: int) -> bytes:
    out = bytearray(channels) + line
    corners = bytes(channels) + above
    for i, up in enumerate(above):
        left, corner = out[i], corners[i]
        to_left, to_up = abs(up - corner), abs(left - corner)
        to_corner = abs(left + up - corner - corner)
        if to_left <= to_up and to_left <= to_corner:
            nearest = left
        elif to_up <= to_corner:
            nearest = up
        else:
            nearest = corner
        out[i + channels] = (out[i + channels] + nearest) & 0xFF
    return bytes(out[channels:])


def _mean_rgb(pixels: bytes, colour: int, palette: bytes, count: int) -> tuple[int, int, int]:
    if colour == _PALETTE:
        uses = [pixels.count(index) for index in range(256)]
        if any(uses[len(palette) // 3 :]):
            raise UnreadableError("the PNG uses colours that its palette does not have")
        sums = [sum(map(mul, palette[channel::3], uses)) for channel in range(3)]
    elif colour in {_GREY, _RGB}:
        channels = _CHANNELS[colour]
        sums = [sum(pixels[channel::channels]) for channel in range(channels)]
    else:
        channels = _CHANNELS[colour]
        alpha = pixels[channels - 1 :: channels]
        white = 255 * count - sum(alpha)
        sums = [
            sum(map(mul, pixels[channel::channels], alpha)) / 255 + white
            for channel in range(channels - 1)
        ]
    red, green, blue = (round(each / count) for each in (sums * 3 if len(sums) == 1 else sums))
    return red, green, blue
