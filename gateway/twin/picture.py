"""What every image decoder of the twin yields, and how it refuses. Pure."""

from dataclasses import dataclass

MAX_PIXELS = 16_000_000
"""Larger ones are refused: a small file may unpack to gigabytes. A telephone's has 12 million."""


class UnreadableError(Exception):
    """The bytes are not a picture the decoder can read; the text says why, for the caller."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What the image model looks at."""

    width: int
    height: int
    mean_rgb: tuple[int, int, int]
    """Mean of all pixels, 0 to 255 each; transparent ones count as lying on white."""


def check_size(width: int, height: int) -> None:
    """Raise `UnreadableError` for an empty or an overlarge picture."""
    if not width or not height:
        raise UnreadableError("the picture has no pixels")
    if width * height > MAX_PIXELS:
        raise UnreadableError(f"{width}x{height} is more than {MAX_PIXELS} pixels")
