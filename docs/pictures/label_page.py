"""Pictures of the labelling page, in Debian's Chromium: ``python docs/pictures/label_page.py CUTOUTS...``.

Writes docs/images/label.png (desktop) and label-phone.png. Needs the extra ``label``,
playwright, and a Chromium.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent.parent / "images"


def main(cutouts: list[str]) -> None:
    """Serve the page for `cutouts`, answer a few questions, and photograph it."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "transientnet", "label", *cutouts, "-o", f"{folder}/my.csv"]
        server = subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True)
        try:
            assert server.stderr is not None
            lines = (re.search(r"Open (http://\S+)", line) for line in server.stderr)
            address = next(found[1] for found in lines if found)
            photograph(address)
        finally:
            server.terminate()
            server.wait()


def photograph(address: str) -> None:
    """Desktop and phone."""
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1100, "height": 760})
        page.goto(f"{address}?labeller=ana")
        page.wait_for_selector("#facts dd")
        for key in "rbrrb":
            page.keyboard.press(key)
            page.wait_for_timeout(300)
        page.screenshot(path=IMAGES / "label.png")
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(500)
        page.screenshot(path=IMAGES / "label-phone.png")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
