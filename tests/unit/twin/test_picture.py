"""What the stand-in's image service reads, and how it refuses what it cannot."""

import contextlib
import io
import random
import struct
import subprocess
import sys
import zlib
from typing import Any

import pytest
from PIL import Image, ImageOps

from gateway.twin.image import colour_name
from gateway.twin.picture import MAX_PIXELS, UnreadableError, check_size, read_picture


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _scene(width: int, height: int) -> Image.Image:
    ramp = Image.linear_gradient("L").resize((width, height))
    rings = Image.radial_gradient("L").resize((width, height))
    return Image.merge("RGB", (ramp, ImageOps.invert(rings), ImageOps.mirror(ramp.rotate(90))))


def _mean(image: Image.Image) -> tuple[float, ...]:
    pixels = image.convert("RGB").tobytes()
    return tuple(sum(pixels[c::3]) * 3 / len(pixels) for c in range(3))


def _is_close(found: tuple[int, ...], right: tuple[float, ...], tolerance: float) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(found, right, strict=True))


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (16, 16), (200, 131)])
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "LA", "RGBA"])
def test_png_of_every_colour_type(mode: str, size: tuple[int, int]) -> None:
    """
    Size and mean are those of the pixels.
    """
    image = _scene(*size).convert(mode)
    picture = read_picture(_file(image, "PNG"))

    assert (picture.format, picture.width, picture.height) == ("PNG", *size)
    assert _is_close(picture.mean_rgb, _mean(image), 0.51)


def test_transparent_pixels_count_as_white() -> None:
    """
    Half of a red picture is clear: its mean is pink.
    """
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))

    assert read_picture(_file(image, "PNG")).mean_rgb == (255, 128, 128)


@pytest.mark.parametrize("options", [{"subsampling": "4:2:0"}, {"progressive": True}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_is_read_at_its_own_size(mode: str, options: dict[str, Any]) -> None:
    """
    Size and mean are those of the whole picture, though it is decoded at an eighth of its size.
    """
    image = _scene(200, 136).convert(mode)
    data = _file(image, "JPEG", quality=95, **options)
    picture = read_picture(data)

    assert (picture.format, picture.width, picture.height) == ("JPEG", 200, 136)
    with Image.open(io.BytesIO(data)) as decoded:
        assert _is_close(picture.mean_rgb, _mean(decoded), 3)


def _png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "neither PNG nor JPEG"),
        (b"GIF89a", "neither PNG nor JPEG"),
        (_file(Image.new("RGB", (3, 3)), "GIF"), "neither PNG nor JPEG"),
        (_file(_scene(64, 48), "PNG")[:-200], "damaged"),
        (_file(_scene(64, 48), "JPEG")[:-200], "damaged"),
        (_png_of_size(5000, 5000), "more than"),
        (_png_of_size(40_000, 40_000), "more than"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(data: bytes, why: str) -> None:
    """
    Other formats, damage, and files that would unpack to gigabytes.
    """
    with pytest.raises(UnreadableError, match=why):
        read_picture(data)


def test_picture_size_limit() -> None:
    """
    As many pixels as allowed pass, a row more does not.
    """
    check_size(MAX_PIXELS, 1)
    with pytest.raises(UnreadableError):
        check_size(MAX_PIXELS + 1, 1)
    with pytest.raises(UnreadableError):
        check_size(0, 1)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of some damage, and reads on
def test_damaged_pictures_never_crash_the_stand_in() -> None:
    """
    Changed bytes yield a picture or `UnreadableError`, never any other exception.
    """
    dice = random.Random(3)
    for original in (_file(_scene(64, 48), "JPEG"), _file(_scene(20, 20), "PNG")):
        for _ in range(500):
            data = bytearray(original)
            for _ in range(dice.randint(1, 3)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            with contextlib.suppress(UnreadableError):
                read_picture(bytes(data))


def test_without_pillow_the_service_says_what_to_install() -> None:
    """
    A gateway that was installed without the extra `demo` starts all the same, and says so.
    """
    program = """if True:
        import sys
        sys.modules["PIL"] = None  # as if it were not installed
        from gateway.twin.picture import UnreadableError, read_picture
        try:
            read_picture(b"")
        except UnreadableError as error:
            print(error)
    """
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert "pip install 'modelarts-gateway[demo]'" in said.stdout


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((250, 250, 250), "white"), ((10, 10, 10), "black"), ((210, 40, 30), "red")],
)
def test_colours_have_names(rgb: tuple[int, int, int], name: str) -> None:
    """
    The nearest of twelve names.
    """
    assert colour_name(rgb) == name
