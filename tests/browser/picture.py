"""Takes the README's picture of the status page: `python -m tests.browser.picture`.

Three minutes of live traffic, so that the plots have something to show.
"""

import io
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser.scene import chromium, live_demo
from tests.support.demo import ROOT

PICTURE = ROOT / "deploy" / "status-page.png"
_LOOK_S = 180
_COLOURS = 200


def main() -> None:
    """Write the picture, with few enough colours to be small."""
    with (
        tempfile.TemporaryDirectory() as folder,
        chromium() as browser,
        live_demo(Path(folder)) as demo,
    ):
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(f"{demo.admin_url}/status")
        page.wait_for_timeout(_LOOK_S * 1000)
        last = page.locator("#errors").bounding_box()
        assert last is not None
        height = last["y"] + last["height"] + 16
        taken = page.screenshot(
            full_page=True, clip={"x": 0, "y": 0, "width": 1280, "height": height}
        )
    shot = Image.open(io.BytesIO(taken)).convert("RGB")
    PICTURE.parent.mkdir(exist_ok=True)
    shot.quantize(_COLOURS).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
