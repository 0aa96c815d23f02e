"""Takes the pictures of the status page: `python -m tests.browser.picture`.

Four minutes of live traffic, so that the plots have something to show; light and dark, on a wide
screen and on a phone.
"""

import io
import tempfile
import time
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser

from tests.browser.scene import chromium, live_demo
from tests.support.demo import ROOT

FOLDER = ROOT / "deploy"
_LOOK_S = 240
_COLOURS = 200
_SCREENS: dict[str, tuple[int, Literal["light", "dark"]]] = {
    "status-page.png": (1280, "light"),
    "status-page-dark.png": (1280, "dark"),
    "status-page-phone.png": (390, "light"),
    "status-page-phone-dark.png": (390, "dark"),
}


def main() -> None:
    """Write the pictures, with few enough colours to be small."""
    with (
        tempfile.TemporaryDirectory() as folder,
        chromium() as browser,
        live_demo(Path(folder)) as demo,
    ):
        time.sleep(_LOOK_S)
        for name, (width, colours) in _SCREENS.items():
            taken = _taken(browser, f"{demo.admin_url}/status", width, colours)
            shot = Image.open(io.BytesIO(taken)).convert("RGB")
            shot.quantize(_COLOURS).save(FOLDER / name, optimize=True)


def _taken(browser: Browser, url: str, width: int, colours: Literal["light", "dark"]) -> bytes:
    page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=colours)
    try:
        page.goto(url)
        page.wait_for_selector("#requests-rows th")
        page.wait_for_timeout(5000)  # three polls: figures of now, not of a mark
        last = page.locator("#errors" if width > 1000 else "#identities").bounding_box()
        assert last is not None
        height = last["y"] + last["height"] + 16
        return page.screenshot(
            full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height}
        )
    finally:
        page.close()


if __name__ == "__main__":
    main()
