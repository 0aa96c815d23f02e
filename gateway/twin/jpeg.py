"""JPEG decoder for mean colours: reads the DC coefficient of each 8x8 block, skips the rest. Pure.

Baseline and extended sequential, Huffman, 8 bit, grey or three colours, any subsampling and
restart interval. Source: ITU-T T.81; section numbers below are its.
"""

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from gateway.twin.picture import Picture, UnreadableError, check_size

SIGNATURE = b"\xff\xd8\xff"

_SOF_SEQUENTIAL = {0xC0, 0xC1}
_SOF_OTHER = {0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_DHT, _SOS, _DQT, _DRI, _EOI, _APP14 = 0xC4, 0xDA, 0xDB, 0xDD, 0xD9, 0xEE
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_PAST_THE_BLOCK = 64


@dataclass(slots=True)
class _Component:
    """One colour plane. `sum` grows to 8 times the sum of its samples, less 128 each."""

    identifier: int
    across: int
    """Sampling factor, horizontal: blocks per MCU."""
    down: int
    quantiser: int
    width: int = 0
    """Samples, without the padding to whole blocks."""
    height: int = 0
    sum: int = 0
    prediction: int = 0
    seen: bool = False

    def mean(self) -> float:
        return self.sum / (8 * self.width * self.height) + 128


@dataclass(slots=True)
class _Decoder:
    """What the segments read so far have said."""

    width: int = 0
    height: int = 0
    restart_interval: int = 0
    adobe_transform: int = -1
    components: list[_Component] = field(default_factory=list)
    dc_steps: dict[int, int] = field(default_factory=dict)
    """First entry of each quantisation table."""
    tables: dict[int, list[int]] = field(default_factory=dict)
    """By class * 16 + number: for each 16-bit window, bits to consume + 256 * what they say."""


def read_jpeg(data: bytes) -> Picture:
    """Decode a whole file.

    Raises:
        UnreadableError: damaged, or of a kind this decoder does not read.
    """
    decoder = _Decoder()
    try:
        _read_segments(decoder, data)
    except (IndexError, KeyError) as error:
        raise UnreadableError("the JPEG is damaged or cut off") from error
    if not decoder.components or not all(component.seen for component in decoder.components):
        raise UnreadableError("the JPEG has no complete picture")
    means = [component.mean() for component in decoder.components]
    return Picture(decoder.width, decoder.height, _to_rgb(means, decoder.adobe_transform))


def _read_segments(decoder: _Decoder, data: bytes) -> None:
    at = 2
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:  # fill bytes, B.1.1.2
            at += 1
        if data[at] != 0xFF:
            raise UnreadableError("the JPEG has something else where a marker should be")
        marker = data[at + 1]
        if marker == _EOI:
            return
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segment = data[at + 4 : end]
        at = end
        if marker == _SOS:
            found = _END_OF_SCAN.search(data, at)
            if found is None:
                raise UnreadableError("the JPEG is cut off")
            _read_scan(decoder, segment, data[at : found.start()])
            at = found.start()
        else:
            _read_segment(decoder, marker, segment)


def _read_segment(decoder: _Decoder, marker: int, segment: bytes) -> None:
    if marker in _SOF_OTHER:
        raise UnreadableError("the JPEG is progressive or rarer still; save it as baseline")
    if marker in _SOF_SEQUENTIAL:
        _read_frame(decoder, segment)
    elif marker == _DHT:
        _read_huffman(decoder, segment)
    elif marker == _DQT:
        _read_quantisers(decoder, segment)
    elif marker == _DRI:
        decoder.restart_interval = int.from_bytes(segment[:2], "big")
    elif marker == _APP14 and segment.startswith(b"Adobe"):
        decoder.adobe_transform = segment[11]


def _read_frame(decoder: _Decoder, segment: bytes) -> None:
    """B.2.2."""
    decoder.height = int.from_bytes(segment[1:3], "big")
    decoder.width = int.from_bytes(segment[3:5], "big")
    check_size(decoder.width, decoder.height)
    if segment[0] != 8 or segment[5] not in {1, 3}:
        raise UnreadableError(f"JPEG with {segment[5]} planes of {segment[0]} bits; not supported")
    decoder.components = [
        _Component(segment[i], segment[i + 1] >> 4, segment[i + 1] & 15, segment[i + 2])
        for i in range(6, 6 + 3 * segment[5], 3)
    ]
    if not all(1 <= c.across <= 4 and 1 <= c.down <= 4 for c in decoder.components):
        raise UnreadableError("the JPEG has impossible sampling factors")
    across, down = _sampling(decoder)
    for component in decoder.components:
        component.width = -(-decoder.width * component.across // across)
        component.height = -(-decoder.height * component.down // down)


def _sampling(decoder: _Decoder) -> tuple[int, int]:
    return max(c.across for c in decoder.components), max(c.down for c in decoder.components)


def _read_quantisers(decoder: _Decoder, segment: bytes) -> None:
    """B.2.4.1; the first entry is that of the DC coefficient."""
    at = 0
    while at < len(segment):
        wide, number = segment[at] >> 4, segment[at] & 15
        size = 2 if wide else 1
        decoder.dc_steps[number] = int.from_bytes(segment[at + 1 : at + 1 + size], "big")
        at += 1 + 64 * size


def _read_huffman(decoder: _Decoder, segment: bytes) -> None:
    """B.2.4.2 and C.2, as one lookup of the next 16 bits; 0 where no code fits."""
    at = 0
    while at < len(segment):
        name, counts = segment[at], segment[at + 1 : at + 17]
        at += 17
        table = [0] * 65536
        start = 0
        for length, count in enumerate(counts, 1):
            for _ in range(count):
                symbol = segment[at]
                at += 1
                if name < 16 and symbol > 15:
                    raise UnreadableError("the JPEG has an impossible Huffman table")
                span = 1 << (16 - length)
                entry = length | symbol << 8 if name < 16 else _ac_entry(length, symbol)
                table[start : start + span] = [entry] * span
                start += span
        if len(table) != 65536:
            raise UnreadableError("the JPEG has an impossible Huffman table")
        decoder.tables[name] = table


def _ac_entry(length: int, symbol: int) -> int:
    """Bits of code and value together, and how many coefficients they cover (F.1.2.2)."""
    run, size = symbol >> 4, symbol & 15
    covered = run + 1 if size or run == 15 else _PAST_THE_BLOCK
    return length + size | covered << 8


def _read_scan(decoder: _Decoder, segment: bytes, entropy_coded: bytes) -> None:
    """B.2.3: one scan, with all components interleaved or with some of them."""
    by_identifier = {c.identifier: c for c in decoder.components}
    chosen: list[tuple[_Component, list[int], list[int]]] = []
    for i in range(1, 1 + 2 * segment[0], 2):
        tables = segment[i + 1]
        chosen.append(
            (
                by_identifier[segment[i]],
                decoder.tables[tables >> 4],
                decoder.tables[16 + (tables & 15)],
            )
        )
    blocks = list(_blocks(decoder, [component for component, _, _ in chosen]))
    interval = decoder.restart_interval or len(blocks)
    intervals = _RESTART.split(entropy_coded) if decoder.restart_interval else [entropy_coded]
    starts = [*range(0, len(blocks), interval), len(blocks)]
    if len(intervals) < len(starts) - 1:
        raise UnreadableError("the JPEG is cut off")
    for (first, last), coded in zip(pairwise(starts), intervals, strict=False):
        for component, _, _ in chosen:
            component.prediction = 0
        _read_interval(chosen, blocks[first:last], coded)
    for component, _, _ in chosen:
        component.sum *= decoder.dc_steps[component.quantiser]
        component.seen = True


def _blocks(decoder: _Decoder, components: list[_Component]) -> Iterator[list[tuple[int, int]]]:
    """Per MCU: (number of the component in the scan, samples of the block inside the picture)."""
    if len(components) == 1:  # not interleaved, A.2.2: the MCU is one block
        plane = components[0]
        for y in range(0, plane.height, 8):
            for x in range(0, plane.width, 8):
                yield [(0, min(8, plane.width - x) * min(8, plane.height - y))]
        return
    across, down = _sampling(decoder)
    for row in range(-(-decoder.height // (8 * down))):
        for column in range(-(-decoder.width // (8 * across))):
            yield [
                (number, max(0, min(8, plane.width - x)) * max(0, min(8, plane.height - y)))
                for number, plane in enumerate(components)
                for y in range(8 * row * plane.down, 8 * (row + 1) * plane.down, 8)
                for x in range(8 * column * plane.across, 8 * (column + 1) * plane.across, 8)
            ]


def _read_interval(
    chosen: list[tuple[_Component, list[int], list[int]]],
    units: list[list[tuple[int, int]]],
    coded: bytes,
) -> None:
    """Huffman-decode one restart interval (F.2.2), adding up the DC coefficients."""
    stream = coded.replace(b"\xff\x00", b"\xff")
    padded = stream + b"\xff\xff\xff\xff"
    # Any 16 bits are then one index and one shift away.
    windows = array(
        "I", (a << 16 | b << 8 | c for a, b, c in zip(padded, padded[1:], padded[2:], strict=False))
    )
    bit = 0
    for unit in units:
        for number, weight in unit:
            component, dc_table, ac_table = chosen[number]
            entry = dc_table[windows[bit >> 3] >> (8 - (bit & 7)) & 0xFFFF]
            if not entry:
                raise UnreadableError("the JPEG has a code that is in none of its tables")
            bit += entry & 0xFF
            size = entry >> 8
            if size:
                value = (windows[bit >> 3] >> (8 - (bit & 7)) & 0xFFFF) >> (16 - size)
                bit += size
                # F.2.2.1 EXTEND: the lower half of the values are the negative ones.
                component.prediction += value if value >> (size - 1) else value - (1 << size) + 1
            component.sum += weight * component.prediction
            covered = 1
            while covered < 64:
                entry = ac_table[windows[bit >> 3] >> (8 - (bit & 7)) & 0xFFFF]
                if not entry:
                    raise UnreadableError("the JPEG has a code that is in none of its tables")
                bit += entry & 0xFF
                covered += entry >> 8
    if bit > 8 * len(stream):
        raise UnreadableError("the JPEG is cut off")


def _to_rgb(means: list[float], adobe_transform: int) -> tuple[int, int, int]:
    """From YCbCr (JFIF) unless an Adobe marker says the planes are RGB. Linear: means suffice."""
    if len(means) == 1:
        red = green = blue = means[0]
    elif adobe_transform == 0:
        red, green, blue = means
    else:
        y, cb, cr = means
        red = y + 1.402 * (cr - 128)
        green = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
        blue = y + 1.772 * (cb - 128)
    return _clamp(red), _clamp(green), _clamp(blue)


def _clamp(value: float) -> int:
    return max(0, min(255, round(value)))
