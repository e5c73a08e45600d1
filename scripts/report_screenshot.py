"""Draws a report of ``eval report`` in a real browser: ``python scripts/report_screenshot.py REPORT PICTURE``."""

from __future__ import annotations

import argparse
from pathlib import Path

from playwright.sync_api import sync_playwright

#: Where Debian puts it, and what lets it run without a network.
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
WIDTH, HEIGHT = 1280, 1000


def main() -> int:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="the folder that eval report has written")
    parser.add_argument("picture", type=Path, help="a .png file")
    parser.add_argument("--tab", default="Windows", help="which part of the page")
    parser.add_argument("--dark", action="store_true", help="as a browser shows it that prefers dark pages")
    options = parser.parse_args()
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        scheme = "dark" if options.dark else "light"
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)
        page.goto((options.report / "report.html").resolve().as_uri())
        page.get_by_role("tab", name=options.tab).or_(page.get_by_role("link", name=options.tab)).first.click()
        page.wait_for_timeout(2500)
        page.screenshot(path=options.picture)
        browser.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
