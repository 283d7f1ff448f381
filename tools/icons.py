"""Make the studio's icons as pictures from static/icon.svg: `.venv/bin/python tools/icons.py`."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

STATIC = Path(__file__).parent.parent / "src" / "clearhead" / "studio" / "static"
# name -> (pixels, share that the drawing fills, because a mask may cut off the rim)
ICONS = {"icon-192": (192, 1.0), "icon-512": (512, 1.0), "icon-maskable": (512, 0.72)}


def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium here: install chromium, then run this again")
    drawing = (STATIC / "icon.svg").read_text()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name, (pixels, share) in ICONS.items():
            page = browser.new_page(viewport={"width": pixels, "height": pixels})
            inset = pixels * (1 - share) / 2
            ground = "background:#faf8f4" if share < 1 else ""
            drawn = drawing.replace("<svg ", f'<svg style="display:block;width:{pixels * share}px" ', 1)
            page.set_content(f'<body style="margin:0;padding:{inset}px;{ground}">{drawn}')
            page.screenshot(path=STATIC / f"{name}.png", omit_background=share == 1)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
