"""Reads `multipart/form-data` as it comes from curl, requests, Postman and browsers. Pure.

Any order of parts and any media type of a part: `requests` users label files
`multipart/form-data`, which a MIME library takes for a nested form. Source: RFC 7578.
"""

from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser

MAX_PARTS = 100


class FormError(Exception):
    """The body is not the form that its `Content-Type` promises; the text says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a form, its content byte for byte."""

    name: str
    content: bytes


def is_form(content_type: str) -> bool:
    """Tell whether a `Content-Type` field announces a form with files."""
    return content_type.partition(";")[0].strip().lower() == "multipart/form-data"


def parse_form(content_type: str, body: bytes) -> list[Part]:
    """Split `body` at the boundary that `content_type` names.

    Raises:
        FormError: no boundary, no end, a part without a name, or more than `MAX_PARTS`.
    """
    field = Message()
    field["Content-Type"] = content_type
    boundary = field.get_param("boundary")
    if not isinstance(boundary, str) or not boundary:
        raise FormError("the form's Content-Type names no boundary")
    delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
    sections = (b"\r\n" + body).split(delimiter, MAX_PARTS + 1)
    if len(sections) == 1:
        raise FormError("the form's boundary does not occur in it")
    parts: list[Part] = []
    for section in sections[1:]:  # what stands before the first boundary is no part
        if section.startswith(b"--"):
            return parts
        head, separator, content = section.partition(b"\r\n\r\n")
        if not separator:
            raise FormError("a part of the form has no end of header fields")
        fields = BytesHeaderParser().parsebytes(head.lstrip(b" \t\r\n") + b"\r\n\r\n")
        name = fields.get_param("name", header="content-disposition")
        if not isinstance(name, str):
            raise FormError("a part of the form has no name")
        parts.append(Part(name, content))
    raise FormError("the form has no end")
