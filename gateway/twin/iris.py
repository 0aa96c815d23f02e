"""The `iris` model: the species of a flower, by its five nearest neighbours. Pure.

`iris.csv` holds the 150 flowers of R. A. Fisher, "The use of multiple measurements in taxonomic
problems" (1936), as printed there; the copy at UCI differs from it in two rows.
"""

import csv
import json
import math
from collections import Counter
from functools import cache
from heapq import nsmallest
from importlib.resources import files
from typing import Any

from gateway.twin.form import is_form
from gateway.twin.model import Call, ModelError
from gateway.twin.reply import MODELARTS, Reply, json_body

FEATURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
_NEIGHBOURS = 5

Point = tuple[float, ...]


@cache
def flowers() -> tuple[tuple[Point, str], ...]:
    """Measurements in cm, in the order of `FEATURES`, and species; read once."""
    text = files("gateway.twin").joinpath("iris.csv").read_text(encoding="ascii")
    return tuple(
        (tuple(float(row[name]) for name in FEATURES), row["species"])
        for row in csv.DictReader(text.splitlines())
    )


def classify(point: Point) -> str:
    """Species of most of the nearest flowers; among equals, of the nearest one."""
    near = nsmallest(_NEIGHBOURS, flowers(), key=lambda flower: math.dist(flower[0], point))
    return Counter(species for _, species in near).most_common(1)[0][0]


def answer(call: Call) -> Reply:
    """Answer the manual's `{"meta": …, "data": {"req_data": […]}}` and its `{"input": …}`.

    Raises:
        ModelError: the body is neither.
    """
    if is_form(call.content_type):
        raise ModelError("this model takes JSON; send files to the image service")
    try:
        content = json.loads(call.body)
    except (ValueError, RecursionError) as error:
        raise ModelError("the body is not JSON") from error
    if not isinstance(content, dict):
        raise ModelError("the body is not a JSON object")
    results = []
    for flower in _inputs(content):
        point = _point(flower)
        inputs = dict(zip(FEATURES, point, strict=True))
        results.append({**inputs, "predictresult": classify(point)})
    return Reply(
        200,
        json_body({"meta": {"uuid": _uuid(content)}, "data": {"resp_data": results}}),
        MODELARTS,
    )


def _inputs(content: dict[str, Any]) -> list[Any]:
    if "input" in content:
        given = content["input"]
        many = isinstance(given, list) and any(isinstance(each, (list, dict)) for each in given)
        flowers_given = given if many else [given]
    else:
        data = content.get("data")
        flowers_given = data.get("req_data") if isinstance(data, dict) else None
    if not isinstance(flowers_given, list) or not flowers_given:
        raise ModelError('expected {"data": {"req_data": [{…}]}} or {"input": […]}')
    return flowers_given


def _point(flower: Any) -> Point:
    values: list[Any] = []
    if isinstance(flower, dict):
        values = [flower.get(name) for name in FEATURES]
    elif isinstance(flower, list):
        values = flower
    if len(values) != len(FEATURES) or not all(_is_measurement(value) for value in values):
        raise ModelError("each input needs four numbers: " + ", ".join(FEATURES))
    return tuple(values)


def _is_measurement(value: Any) -> bool:
    # bool is an int to Python, 10**400 is no float, NaN has no neighbours.
    return type(value) in {int, float} and -1e6 <= value <= 1e6


def _uuid(content: dict[str, Any]) -> str:
    meta = content.get("meta")
    uuid = meta.get("uuid") if isinstance(meta, dict) else None
    return uuid if isinstance(uuid, str) else ""
