"""Faults, durations and forms as they are written."""

import pytest

from gateway.twin.duration import parse_duration
from gateway.twin.faults import FAULT_NAMES, Faults, faults_in_query, parse_faults
from gateway.twin.form import MAX_PARTS, FormError, parse_form
from gateway.twin.iam_faults import IamFault

# Grammar of faults


def test_every_service_fault_can_be_asked_for() -> None:
    """Each known name parses with a fitting value and changes something."""
    values = {
        "delay": "1",
        "first-token": "1",
        "status": "500",
        "code": "APIG.0101",
        "retry-after": "1",
        "size": "1",
        "sse": "1",
        "gap": "1m",
        "slow": "1/1s",
        "cut": "0",
        "reset": "body",
    }
    for name in FAULT_NAMES:
        assert parse_faults({name: values.get(name, "")}) != Faults()
    assert faults_in_query("/x?a=1&twin-cut=0&xtwin-cut=y").cut == 0
    assert faults_in_query("/twin-cut=0?a=1") == Faults()


@pytest.mark.parametrize(
    ("text", "seconds"), [("2", 2), ("500ms", 0.5), ("1.5m", 90), ("0", 0), ("1h", 3600)]
)
def test_durations(text: str, seconds: float) -> None:
    """Numbers are seconds; ms, s, m and h are units."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1", "1d", "1 s", "1s\n", "inf", "1e3", "9999999"])
def test_other_durations_are_refused(text: str) -> None:
    """Nothing else is a duration."""
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


def test_iam_faults_have_distinct_names() -> None:
    """Names are what users type: lower case, with dashes."""
    assert all(fault == fault.lower() and " " not in fault for fault in IamFault)


# Forms


def _body(*parts: tuple[str, bytes], end: bytes = b"--B--\r\n") -> bytes:
    return (
        b"".join(
            f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
            + content
            + b"\r\n"
            for name, content in parts
        )
        + end
    )


def test_form_keeps_every_byte() -> None:
    """Line ends, dashes and near-boundaries in a file stay; preamble and epilogue go."""
    tricky = b"\r\n--b\r\n\r\n--\x00\r\n\n-B--\r\n"
    body = b"preamble\r\n" + _body(("a", tricky), ("b", b"")) + b"epilogue"
    parts = parse_form('multipart/form-data; boundary="B"', body)
    assert [(part.name, part.content) for part in parts] == [("a", tricky), ("b", b"")]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", _body(("a", b"1"))),
        ("multipart/form-data; boundary=", _body(("a", b"1"))),
        ("multipart/form-data; boundary=C", _body(("a", b"1"))),
        ("multipart/form-data; boundary=B", _body(("a", b"1"), end=b"")),
        ("multipart/form-data; boundary=B", b"--B\r\nno head end\r\n--B--"),
        ("multipart/form-data; boundary=B", b"--B\r\nA: b\r\n\r\nx\r\n--B--"),
        ("multipart/form-data; boundary=B", b""),
    ],
)
def test_broken_forms_are_refused(content_type: str, body: bytes) -> None:
    """No boundary, a wrong one, no end, no name: each says so."""
    with pytest.raises(FormError):
        parse_form(content_type, body)


def test_form_limit() -> None:
    """A hundred parts are read, one more is refused."""
    content_type = "multipart/form-data; boundary=B"
    many = [("a", b"1")] * MAX_PARTS
    assert len(parse_form(content_type, _body(*many))) == MAX_PARTS
    with pytest.raises(FormError):
        parse_form(content_type, _body(*many, ("a", b"1")))
