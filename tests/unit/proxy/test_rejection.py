"""What an error body says, and whether it means the token."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Layer
from gateway.proxy.rejection import is_token_rejection, layer_of, vendor_code

REJECTED_401 = {
    "APIG.0301", "APIG.0307", "ModelArts.0201", "ModelArts.0202", "ModelArts.0203",
    "ModelArts.0204", "ModelArts.4127", "ModelArts.4201",
}  # fmt: skip
OTHERS = {
    "", "MR.0105", "APIG.0201", "APIG.0302", "APIG.0303", "APIG.0304", "APIG.0305", "APIG.0306",
    "APIG.0308", "ModelArts.0205", "ModelArts.0206", "ModelArts.0207", "ModelArts.0210",
    "ModelArts.0212", "ModelArts.4119", "apig.0301", "APIG.03010",
}  # fmt: skip


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 429, 500, 503])
def test_status_and_code_decide_together(status: int) -> None:
    """The table, in full: no code decides alone."""
    expected = {401: REJECTED_401, 403: {"ModelArts.0203"}}.get(status, set())

    assert {
        code
        for code in REJECTED_401 | OTHERS
        if is_token_rejection(status, code, server=b"", keystone=False)
    } == expected


@pytest.mark.parametrize(
    ("status", "code", "server", "expected"),
    [
        (401, "", b"", True),
        (401, "", b"Apache", True),
        (401, "", b"ModelArts", False),
        (401, "MR.0105", b"", False),
        (401, "APIG.0301", b"ModelArts", True),
        (403, "", b"", False),
        (400, "", b"", False),
    ],
)
def test_a_keystone_challenge_decides_where_there_is_no_code(
    status: int, code: str, server: bytes, expected: bool
) -> None:
    """Unless the model itself has answered."""
    assert is_token_rejection(status, code, server=server, keystone=True) is expected


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error_code":"A"}', "A"),
        (b'{"errorCode":"A"}', "A"),
        (b'{"code":"A"}', "A"),
        (b' \r\n\t{"error_code":"A"}\n', "A"),
        (b'{"error":{"code":"A"}}', "A"),
        (b'{"x":1,"error":{"message":"m","error_code":"A"}}', "A"),
        (b'{"error_code":"A","error":{"code":"B"}}', "A"),
        (b'{"error_code":"A","code":"B"}', "A"),
        (b'{"error":{"code":401}}', ""),
        (b'{"code":401}', ""),
        (b'{"a":{"b":{"code":"A"}}}', ""),
        (b'[{"code":"A"}]', ""),
        (b'{"error_code":"A"', ""),
        (b'{"error_code":"\xff"}', ""),
        (b"", ""),
        (b"A", ""),
        (b"{" * 10_000, ""),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, ""),
    ],
)
def test_where_the_code_is_looked_for(body: bytes, code: str) -> None:
    """On top or one level below, a string, in a whole JSON object; else there is none."""
    assert vendor_code(body) == code


@given(st.binary(max_size=200))
def test_any_octets_have_a_code_or_none(body: bytes) -> None:
    """Whatever a service sends, nothing is raised."""
    assert isinstance(vendor_code(body), str)
    assert isinstance(vendor_code(b"{" + body + b"}"), str)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["error_code", "code", "error", "x"]), inner, max_size=3)
    ),
)


@given(st.dictionaries(st.sampled_from(["error_code", "code", "error", "x"]), _JSON))
def test_any_document_has_a_code_or_none(document: object) -> None:
    """Of whatever shape it is."""
    assert isinstance(vendor_code(json.dumps(document).encode()), str)


@given(st.dictionaries(st.sampled_from(["error_code", "code", "error", "x"]), _JSON), st.data())
def test_half_a_document_has_no_code(document: object, data: st.DataObject) -> None:
    """What was cut off, at whatever octet, decides nothing; white space around it counts not."""
    body = json.dumps(document).encode()
    cut = data.draw(st.integers(0, len(body) - 1))

    assert vendor_code(body[:cut]) == ""
    assert vendor_code(b" \r\n" + body + b"\t") == vendor_code(body)


@given(st.integers(200, 599), st.text(max_size=20) | st.sampled_from(sorted(REJECTED_401 | OTHERS)),
       st.binary(max_size=10), st.booleans())  # fmt: skip
def test_only_401_and_403_speak_of_our_token(
    status: int, code: str, server: bytes, keystone: bool
) -> None:
    """Whatever else an answer says, with another status the token is not touched."""
    rejected = is_token_rejection(status, code, server=server, keystone=keystone)

    assert not rejected or status in {401, 403}
    assert (
        not rejected or code in REJECTED_401 or (keystone and not code and server != b"ModelArts")
    )


@pytest.mark.parametrize(
    ("code", "layer"),
    [
        ("APIG.0301", Layer.APIG),
        ("ModelArts.4206", Layer.MODELARTS),
        ("MR.0105", Layer.MODEL),
        ("", Layer.MODEL),
        ("APIGX", Layer.MODEL),
        ("XAPIG.1", Layer.MODEL),
    ],
)
def test_layers(code: str, layer: Layer) -> None:
    """The prefix of the code tells who has answered."""
    assert layer_of(code) is layer
