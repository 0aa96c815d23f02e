"""The picture of the dashboard: it draws what it was given."""

import math
import re
from xml.etree import ElementTree as ET

import pytest

from tests.programs.watch.__main__ import SHOWN, drawn
from tests.programs.watch.picture import Line, Plot, picture
from tests.programs.watch.shift import LIMIT_S, Shift

SVG = "{http://www.w3.org/2000/svg}"


def heights(drawing: ET.Element, tag: str) -> list[list[float]]:
    """Vertical places, from the top, of the points of every coloured line or area."""
    shapes = [one for one in drawing.iter(SVG + tag) if one.get("fill")]
    points = [shape.get("d") or shape.get("points") or "" for shape in shapes]
    return [[float(y) for y in re.findall(r"[\d.]+,([\d.]+)", each)] for each in points]


def test_lines_are_cut_where_nothing_is() -> None:
    """A gap is no line to 0; the axis ends at a round number in the panel's unit."""
    line = Line("<slow>", [(0.0, 0.003), (1.0, math.nan), (2.0, 0.0), (3.0, 0.0036)])
    text = picture([Plot("Overhead", "s", [line])], seconds=3, caption="a & b")
    drawing = ET.fromstring(text)

    [drawn_at] = heights(drawing, "path")
    zero, highest = max(drawn_at), min(drawn_at)

    assert re.search(r"M[\d.,]+M", text), "it is not cut"
    assert drawn_at == [pytest.approx(zero - (zero - highest) * 30 / 36, abs=0.1), zero, highest]
    assert {"4 ms", "2 ms", "0", "<slow>", "a & b"} <= {
        one.text for one in drawing.iter(SVG + "text")
    }


def test_stacked_lines_add_up() -> None:
    """The second begins where the first ends; what is missing counts as nothing."""
    one, other = Line("a", [(0.0, 1.0), (1.0, 2.0)]), Line("b", [(1.0, 2.0)])
    plot = Plot("Errors", "reqps", [one, other], stacked=True)
    drawing = ET.fromstring(picture([plot], seconds=1, caption=""))
    lower, upper = heights(drawing, "polygon")

    assert upper[:2] == [lower[0], min(upper)]
    assert upper[2:] == [lower[1], lower[0]]
    assert "4/s" in {text.text for text in drawing.iter(SVG + "text")}


@pytest.mark.timeout(3 * LIMIT_S)
def test_a_shift_can_be_drawn(shift: Shift) -> None:
    """Every chosen panel is there and has something in it."""
    drawing = ET.fromstring(drawn(shift))
    panels = list(drawing.iter(SVG + "g"))

    assert [panel.findtext(f"{SVG}text[@class='title']") for panel in panels] == list(SHOWN)
    for panel in panels:
        assert heights(panel, "path") or heights(panel, "polygon")
