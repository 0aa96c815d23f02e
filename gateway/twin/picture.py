"""Reads PNG and JPEG files for the image model, with Pillow from the extra `demo`."""

import io
import math
import struct
from dataclasses import dataclass

MAX_PIXELS = 16_000_000
"""Larger ones are refused: a small file may unpack to gigabytes. A telephone's has 12 million."""

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error)
"""What Pillow raises for files that are damaged."""


class UnreadableError(Exception):
    """The bytes are not a picture that can be read; the text says why, for the caller."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What the image model looks at."""

    format: str
    """`PNG` or `JPEG`."""
    width: int
    height: int
    mean_rgb: tuple[int, int, int]
    """Mean of all pixels, 0 to 255 each; transparent ones count as lying on white."""


def read_picture(data: bytes) -> Picture:
    """Return what a PNG or JPEG file shows.

    Raises:
        UnreadableError: it is damaged, too large or of another format, or Pillow is not installed.
    """
    try:
        from PIL import Image, ImageStat, UnidentifiedImageError
    except ImportError as error:
        raise UnreadableError(
            "this stand-in cannot read pictures, because Pillow is not installed; install the "
            "extra `demo`: pip install 'modelarts-gateway[demo]'"
        ) from error
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            width, height = image.size
            check_size(width, height)
            # JPEG: decoded at an eighth of its size, which has the same mean.
            image.draft("RGB", (max(1, width // 8), max(1, height // 8)))
            pixels = image.convert("RGBA")
            white = Image.new("RGBA", pixels.size, "white")
            white.alpha_composite(pixels)
            red, green, blue, _ = (math.floor(mean + 0.5) for mean in ImageStat.Stat(white).mean)
            return Picture(str(image.format), width, height, (red, green, blue))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableError(f"the picture has more than {MAX_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise UnreadableError("the file is neither PNG nor JPEG, or its head is damaged") from error
    except _DAMAGE as error:
        raise UnreadableError(f"the picture is damaged: {error}") from error


def check_size(width: int, height: int) -> None:
    """Raise `UnreadableError` for an empty or an overlarge picture."""
    if not width or not height:
        raise UnreadableError("the picture has no pixels")
    if width * height > MAX_PIXELS:
        raise UnreadableError(f"{width}x{height} is more than {MAX_PIXELS} pixels")
