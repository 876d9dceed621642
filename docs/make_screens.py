"""Screenshots of the explorer for README and docs: `python docs/make_screens.py`. Needs Chromium on the path.

English for a laptop, Chinese for a projector, and Chinese on a phone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tinyflamingo.explorer.build import build_page  # noqa: E402

FIGURES = ROOT / "docs" / "figures"
SHOTS = {  # name: (language, width, height)
    "explorer.png": ("en", 1280, 1200),
    "explorer_zh.png": ("zh", 1920, 1080),
    "explorer_phone.png": ("zh", 500, 1400),
}
SECONDS = 20  # of the page's own clock, in which it computes


def main() -> None:
    """Write all pictures."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("make_screens: Chromium is not on the path: install it (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "explorer.html"
        page.write_bytes(build_page())
        for name, (language, width, height) in SHOTS.items():
            options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
            options += [f"--window-size={width},{height}", f"--screenshot={FIGURES / name}"]
            options += [f"--virtual-time-budget={1000 * SECONDS}"]
            subprocess.run([browser, *options, f"{page.as_uri()}#lang={language}"], check=True, capture_output=True)


if __name__ == "__main__":
    main()
