"""The `image` model: describes the pictures in form field `images`. Pure."""

import hashlib
import math

from gateway.twin.form import FormError, is_form, parse_form
from gateway.twin.model import Call, ModelError
from gateway.twin.picture import UnreadableError, read_picture
from gateway.twin.reply import MODELARTS, Reply, json_body

_COLOURS = {
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "white": (255, 255, 255),
    "red": (220, 30, 30),
    "orange": (255, 150, 20),
    "yellow": (245, 235, 40),
    "green": (40, 160, 60),
    "cyan": (40, 210, 220),
    "blue": (40, 70, 210),
    "purple": (140, 50, 170),
    "pink": (250, 150, 190),
    "brown": (120, 75, 40),
}


def colour_name(rgb: tuple[int, int, int]) -> str:
    """The nearest of twelve names."""
    return min(_COLOURS, key=lambda name: math.dist(_COLOURS[name], rgb))


def answer(call: Call) -> Reply:
    """Return one result for each file in field `images`.

    Raises:
        ModelError: no form, no such field, or a file that is no readable PNG or JPEG.
    """
    if not is_form(call.content_type):
        raise ModelError("this model takes a form with a file in field `images`")
    try:
        uploads = [
            part.content
            for part in parse_form(call.content_type, call.body)
            if part.name == "images"
        ]
        if not uploads:
            raise ModelError("the form has no field `images`")
        results = [_look_at(upload) for upload in uploads]
    except (FormError, UnreadableError) as error:
        raise ModelError(str(error)) from error
    return Reply(200, json_body({"meta": {"uuid": ""}, "data": {"resp_data": results}}), MODELARTS)


def _look_at(upload: bytes) -> dict[str, object]:
    picture = read_picture(upload)
    return {
        "format": picture.format,
        "width": picture.width,
        "height": picture.height,
        "label": colour_name(picture.mean_rgb),
        "mean_rgb": picture.mean_rgb,
        "bytes": len(upload),
        "sha256": hashlib.sha256(upload).hexdigest(),
    }
