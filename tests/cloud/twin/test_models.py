"""Its models: iris, image and echo."""

import gzip
import hashlib
import io
import json
from typing import Any

import aiohttp
import pytest
from PIL import Image
from yarl import URL

from gateway.twin import ECHO_ID, IMAGE_ID, IRIS_ID, Twin
from gateway.twin.iris import classify, flowers
from tests.cloud.twin.given import predict, send, token_of

FLOWER = {"sepal_length": 3, "sepal_width": 1, "petal_length": 2.2, "petal_width": 4}


# The services


def test_flowers_are_fishers() -> None:
    """150 flowers, 50 of a kind, with the two rows that other copies have wrong."""
    rows = flowers()
    assert len(rows) == 150
    assert [sum(s == name for _, s in rows) for name in ("setosa", "versicolor", "virginica")] == [
        50
    ] * 3
    assert rows[34] == ((4.9, 3.1, 1.5, 0.2), "setosa")
    assert rows[37] == ((4.9, 3.6, 1.4, 0.1), "setosa")
    # Means of the third and fourth feature as Fisher prints them, table 2.
    sums = [
        round(sum(p[2] for p, s in rows if s == name) / 50, 3) for name in ("setosa", "virginica")
    ]
    assert sums == [1.462, 5.552]


def test_iris_model_knows_its_flowers() -> None:
    """Five neighbours name 145 of the 150 right when each may count itself: it classifies."""
    assert sum(classify(point) == species for point, species in flowers()) == 145
    assert classify((5.1, 3.5, 1.4, 0.2)) == "setosa"
    assert classify((5.9, 2.8, 4.3, 1.3)) == "versicolor"
    assert classify((6.7, 3.1, 5.6, 2.3)) == "virginica"


async def test_iris_answers_the_manuals_json(http: aiohttp.ClientSession, twin: Twin) -> None:
    """One result per input, with the inputs and `predictresult`; the uuid comes back."""
    uuid = "10eb0091-887f-4839-9929-cbc884f1e20e"
    setosa = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
    body = {"meta": {"uuid": uuid}, "data": {"req_data": [FLOWER, setosa]}}
    answer = await predict(http, twin, IRIS_ID, json=body)
    assert answer.status == 200
    assert answer.headers["Server"] == "ModelArts"
    assert answer.headers["X-Request-Id"]
    assert answer.json["meta"] == {"uuid": uuid}
    first, second = answer.json["data"]["resp_data"]
    assert first == {**FLOWER, "predictresult": "versicolor"}
    assert second == {**setosa, "predictresult": "setosa"}


@pytest.mark.parametrize("meta", [{}, {"meta": {}}, {"meta": ""}, {"meta": {"uuid": ""}}])
async def test_uuid_is_blank_when_none_was_sent(
    http: aiohttp.ClientSession, twin: Twin, meta: dict[str, Any]
) -> None:
    """`meta` may be blank or missing."""
    body = {**meta, "data": {"req_data": [FLOWER]}}
    assert (await predict(http, twin, IRIS_ID, json=body)).json["meta"] == {"uuid": ""}


@pytest.mark.parametrize(
    ("given", "results"),
    [([5.1, 3.5, 1.4, 0.2], 1), (FLOWER, 1), ([FLOWER, FLOWER], 2), ([[1, 2, 3, 4]], 1)],
)
async def test_iris_answers_the_python_example_too(
    http: aiohttp.ClientSession, twin: Twin, given: Any, results: int
) -> None:
    """`{"input": …}` takes four numbers, a flower, or several; no `Content-Type` is needed."""
    answer = await predict(http, twin, IRIS_ID, data=json.dumps({"input": given}))
    assert answer.status == 200
    assert len(answer.json["data"]["resp_data"]) == results


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"data":[]}',
        b'{"data":{"req_data":[]}}',
        b'{"data":{"req_data":[7]}}',
        b'{"data":{"req_data":[{"sepal_length":1}]}}',
        b'{"input":[]}',
        b'{"input":[1,2,3]}',
        b'{"input":[1,2,3,true]}',
        b'{"input":[1,2,3,NaN]}',
        b'{"input":[1,2,3,"4"]}',
        b'{"input":[1,2,3,1' + b"0" * 400 + b"]}",
        b"[" * 100_000,
    ],
)
async def test_iris_refuses_other_bodies_in_the_vendors_shape(
    http: aiohttp.ClientSession, twin: Twin, body: bytes
) -> None:
    """400 `MR.0105` from the model, never a 500."""
    answer = await predict(http, twin, IRIS_ID, data=body)
    assert answer.status == 400
    assert set(answer.json) == {"error_code", "error_msg", "request_id"}
    assert answer.json["error_code"] == "MR.0105"
    assert answer.headers["Server"] == "ModelArts"


async def test_models_answer_post_only(http: aiohttp.ClientSession, twin: Twin) -> None:
    """`iris` and `image` say 405 to other methods; `echo` takes any."""
    for service, status in ((IRIS_ID, 405), (IMAGE_ID, 405), (ECHO_ID, 200)):
        assert (await predict(http, twin, service, method="GET")).status == status


def _form(content: bytes, content_type: str = "image/png", field: str = "images") -> Any:
    form = aiohttp.FormData()
    form.add_field("before", "1")
    form.add_field(field, content, filename="test.png", content_type=content_type)
    form.add_field("after", "2")
    return form


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


async def test_iris_refuses_files_and_says_where_to_send_them(
    http: aiohttp.ClientSession, twin: Twin
) -> None:
    """A form at `iris` is `MR.0105` with a hint."""
    answer = await predict(http, twin, IRIS_ID, data=_form(b"x"))
    assert (answer.status, answer.json["error_code"]) == (400, "MR.0105")
    assert "image service" in answer.json["error_msg"]


@pytest.mark.parametrize("content_type", ["image/png", "multipart/form-data", "x/y"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
async def test_image_looks_at_the_file_whatever_its_part_is_called(
    http: aiohttp.ClientSession, twin: Twin, content_type: str, kind: str
) -> None:
    """Format, size, colour and hash are those of the file sent, between other parts."""
    content = _file(Image.new("RGB", (30, 20), (40, 70, 210)), kind)
    answer = await predict(http, twin, IMAGE_ID, data=_form(content, content_type))
    assert answer.status == 200
    [result] = answer.json["data"]["resp_data"]
    assert (result["format"], result["width"], result["height"]) == (kind, 30, 20)
    assert result["label"] == "blue"
    assert all(abs(a - b) <= 2 for a, b in zip(result["mean_rgb"], (40, 70, 210), strict=True))
    assert result["bytes"] == len(content)
    assert result["sha256"] == hashlib.sha256(content).hexdigest()


async def test_image_refuses_what_is_no_picture(http: aiohttp.ClientSession, twin: Twin) -> None:
    """No form, no such field, no PNG or JPEG, a damaged one: all `MR.0105`."""
    png = _file(Image.new("RGB", (3, 3)), "PNG")
    for data in (b"{}", _form(png, field="image"), _form(b"GIF89a"), _form(png[:-20])):
        answer = await predict(http, twin, IMAGE_ID, data=data)
        assert (answer.status, answer.json["error_code"]) == (400, "MR.0105")


async def test_echo_tells_what_arrived_but_not_the_token(
    http: aiohttp.ClientSession, twin: Twin
) -> None:
    """Method, raw target, all fields in order, body length and hash, of the bytes on the wire."""
    token = await token_of(http, twin)
    body = gzip.compress(b"abc")
    answer = await send(
        http,
        "PATCH",
        URL(twin.service_url(ECHO_ID) + "/%7Ea%2f/..;b?q=%41&r", encoded=True),
        headers=[
            ("X-Auth-Token", token),
            ("X-Two", "1"),
            ("X-Two", "2"),
            ("Content-Encoding", "gzip"),
        ],
        data=body,
    )
    seen = answer.json
    assert seen["method"] == "PATCH"
    assert seen["target"] == f"/v1/infers/{ECHO_ID}/%7Ea%2f/..;b?q=%41&r"
    fields = [tuple(field) for field in seen["headers"]]
    assert [f for f in fields if f[0].lower() == "x-two"] == [("X-Two", "1"), ("X-Two", "2")]
    print_of_token = "sha256:" + hashlib.sha256(token.encode()).hexdigest()[:16]
    assert ("X-Auth-Token", print_of_token) in fields
    assert token not in answer.body.decode()
    assert seen["body"] == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
