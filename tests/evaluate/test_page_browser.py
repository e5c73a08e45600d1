"""The page in a real browser, opened from the disk."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from streamingvlm.evaluate.page.collect import collect
from streamingvlm.evaluate.page.inputs import read_judged, read_run
from streamingvlm.evaluate.page.page import write_report
from streamingvlm.evaluate.page.score_files import read_scores
from streamingvlm.evaluate.runs import open_contestant
from support.media import write_clip
from support.report_data import NASTY, NASTY_VIDEO, commentary, scores

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no browser at {CHROMIUM}")
WINDOWS = 8


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(ARGUMENTS))
        yield opened
        opened.close()


def make(folder: Path, games: int, windows: int, *, seconds: int = 100, videos: bool = False) -> str:
    """The address of a report in which nothing is whole and texts try to break out."""
    runs, files = commentary(folder, games, windows, seconds=seconds, whole=False, nasty=True)
    asked = [read_scores(path) for path in scores(folder, whole=False, nasty=True)]
    data = collect([read_run(open_contestant(path)) for path in runs], [read_judged(path) for path in files], asked)
    if videos:
        at = folder / "videos" / "football" / "game-01.mp4"
        at.parent.mkdir(parents=True)
        write_clip(at, count=8, fps=1)
    return write_report(data, folder / "out & 1", folder / "videos" if videos else None).as_uri()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make(tmp_path_factory.mktemp("report"), 8, WINDOWS, videos=True)


class Opened:
    """A page that counts what goes wrong on it."""

    def __init__(self, browser: Any, address: str, width: int = 1280, height: int = 900, **more: Any) -> None:
        self.wrong: list[str] = []
        self.context = browser.new_context(viewport={"width": width, "height": height}, **more)
        self.page = self.context.new_page()
        self.page.set_default_timeout(5000)
        self.page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", self._asked)
        self.go(address)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.wrong.append(f"asked for {request.url}")

    def go(self, address: str) -> None:
        self.page.goto("about:blank")
        self.page.goto(address)
        self.page.wait_for_selector("html[data-ready]")

    def shown(self, selector: str) -> int:
        count: int = self.page.locator(f"{selector}:visible").count()
        return count


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Opened]:
    one = Opened(browser, address)
    yield one
    one.context.close()
    assert not one.wrong


def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for something; the page's policy allows no functions of strings, with which the driver would wait."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.02)


def go_to_windows(opened: Opened) -> Any:
    opened.page.click(".views a[data-view=windows]")
    return opened.page


def count_of(page: Any) -> int:
    return int(re.match(r"[\d,]+", page.inner_text("#count"))[0].replace(",", ""))  # type: ignore[index]


def test_every_view_opens(opened: Opened) -> None:
    for view in ("windows", "questions", "items", "about", "results"):
        opened.page.click(f".views a[data-view={view}]")
        assert opened.page.locator("section.view:visible").get_attribute("data-view") == view
    assert "Partial set" in opened.page.inner_text("section.view:visible .banner")


@pytest.mark.parametrize("view", ["results", "windows", "questions", "items", "about"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_nothing_is_wider_than_the_screen(browser: Any, address: str, view: str, width: int, scheme: str) -> None:
    one = Opened(browser, f"{address}#view={view}", width, 800, color_scheme=scheme)
    assert one.page.evaluate("document.documentElement.scrollWidth") <= width
    dark = one.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 17, 22)"
    assert dark == (scheme == "dark")
    one.context.close()
    assert not one.wrong


def test_filters_leave_what_they_name(opened: Opened) -> None:
    page = go_to_windows(opened)
    everything = count_of(page)
    assert everything == 8 * WINDOWS == opened.shown("#list a")
    counts = []
    for name in ("A wins", "Tie", "B wins"):
        page.get_by_label(name, exact=True).click()
        counts.append(count_of(page))
        kind = {"A wins": "a", "Tie": "tie", "B wins": "b"}[name]
        assert opened.shown("#list a") == counts[-1] == opened.shown(f"#list a:has(.key.{kind})")
    assert min(counts) > 0
    assert sum(counts) == everything
    page.get_by_label("All", exact=True).click()
    for name, tag in (("Flips", "flip"), ("Errors", "error"), ("Empty", "tag")):
        page.get_by_label(name, exact=True).click()
        assert (
            0
            < count_of(page)
            == opened.shown(f"#list a:has(.tag.{tag})" if tag != "tag" else "#list a:has(.tag)")
            < everything
        )
        page.get_by_label(name, exact=True).click()
    page.select_option("#sport", "tennis")
    assert count_of(page) == 2 * WINDOWS
    page.click("#clear")
    assert count_of(page) == everything


def test_search_finds_texts_and_marks_them(opened: Opened) -> None:
    page = go_to_windows(opened)
    page.keyboard.press("/")
    page.keyboard.type("TOURNÉS")
    until(lambda: page.inner_text("#count").startswith("1 of"))
    page.wait_for_selector("#texts mark")
    assert page.inner_text("#texts mark >> nth=0") == "tournés"
    page.fill("#q", "no such words anywhere")
    page.wait_for_selector("#empty-list:visible")
    assert opened.shown("#list a") == 0


def test_a_click_shows_texts_and_votes(opened: Opened) -> None:
    page = go_to_windows(opened)
    page.click("#list a >> nth=2")
    panels = page.locator("#texts article")
    assert panels.count() == 3
    for number in range(3):
        assert re.search(r"\d+ words · \d\.\d\d words per second", panels.nth(number).inner_text())
    assert page.locator("#texts .rate rect").count() == 2 * 100, "a bar for each second of both"
    assert page.locator("#votes article").count() == 2
    assert json.loads(page.inner_text("#votes .reply >> nth=0"))["winner"] in ("A", "B", "tie")
    first = page.locator("#votes article >> nth=0").inner_text()
    assert first.index("A") < first.index("B")
    page.click("#votes summary >> nth=0")
    assert "fp_44709d6fcb" in page.inner_text("#votes")


def test_a_failed_call_shows_its_error_and_reply(opened: Opened) -> None:
    page = go_to_windows(opened)
    page.get_by_label("Errors", exact=True).click()
    assert "unparsed: 3 replies in another form" in page.inner_text("#votes")
    assert "both have merits" in page.inner_text("#votes")


def test_a_text_that_is_empty_is_told(opened: Opened) -> None:
    page = go_to_windows(opened)
    page.get_by_label("Empty", exact=True).click()
    assert "(said nothing)" in page.inner_text("#texts .b")
    assert "livecc-7b said nothing: the other one wins, no judge was asked" in page.inner_text("#votes")


def test_the_time_line_moves_and_so_do_keys(opened: Opened) -> None:
    page = go_to_windows(opened)
    place = page.locator("#place")
    page.click("#line rect.w >> nth=3")
    assert place.inner_text() == "4 of 64"
    for key, says in (("ArrowRight", "5"), ("j", "6"), ("ArrowLeft", "5"), ("k", "4")):
        page.keyboard.press(key)
        assert place.inner_text() == f"{says} of 64"
    page.focus("#list a >> nth=3")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('aria-current')") == "true"
    assert place.inner_text() == "5 of 64"
    page.focus("#list a >> nth=9")
    page.keyboard.press("Enter")
    assert place.inner_text() == "10 of 64"
    page.go_back()
    until(lambda: place.inner_text() == "5 of 64")


@pytest.mark.parametrize("form", ["#{}", "#view=windows&w={}"])
@pytest.mark.parametrize("video", [NASTY_VIDEO, "football/game-01.mp4"])
def test_a_permalink_opens_its_window(browser: Any, address: str, form: str, video: str) -> None:
    window = f"{video}:1300-1400"
    one = Opened(browser, address + form.format(quote(window, safe="")))
    assert one.page.inner_text("#w-title") == video
    assert one.page.inner_text("#w-time") == "21:40–23:20"
    address_after = one.page.evaluate("location.href")
    other = Opened(browser, address_after)
    assert other.page.inner_text("#w-title") == video
    assert not one.wrong + other.wrong
    one.context.close()
    other.context.close()


def test_filters_are_part_of_the_address(browser: Any, opened: Opened) -> None:
    page = go_to_windows(opened)
    page.select_option("#pair", "1")
    page.get_by_label("Flips", exact=True).click()
    page.select_option("#sport", "ice hockey")
    count = page.inner_text("#count")
    other = Opened(browser, page.evaluate("location.href"))
    assert other.page.inner_text("#count") == count
    assert "qwen2.5-vl-7b" in other.page.inner_text("#texts .b")
    other.context.close()


def test_texts_stay_texts(opened: Opened) -> None:
    page = opened.page
    start = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
    assert start in NASTY
    go_to_windows(opened)
    page.click("#list a >> nth=0")
    page.fill("#q", "window.hacked")
    page.wait_for_selector("#texts mark")
    assert start in page.inner_text("#texts .a")
    assert page.inner_text("#w-title") == NASTY_VIDEO
    page.click(".views a[data-view=items]")
    page.click("#items-list summary >> nth=0")
    assert start in page.inner_text("#items-list .in")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0


def test_a_script_that_came_in_would_not_run(browser: Any, address: str) -> None:
    one = Opened(browser, address)
    one.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.hacked = 1'}))"
    )
    assert one.page.evaluate("window.hacked") is None
    assert "Content Security Policy" in one.wrong[0]
    one.context.close()


def test_the_video_is_linked_and_others_are_a_bare_line(opened: Opened) -> None:
    page = go_to_windows(opened)
    page.select_option("#game", "football/game-01.mp4")
    until(lambda: page.evaluate("document.getElementById('video').readyState") >= 1)
    assert page.locator("#video").is_visible()
    assert page.get_attribute("#video", "src") == "../videos/football/game-01.mp4"
    page.select_option("#game", NASTY_VIDEO)
    assert not page.locator("#video").is_visible()
    assert "not in the folder" in page.inner_text("#video-note")
    assert opened.shown("#line rect.w") == WINDOWS


def test_items_are_filtered(opened: Opened) -> None:
    page = opened.page
    page.click(".views a[data-view=items]")
    assert page.inner_text("#i-count") == "200 items"
    page.select_option("#i-task", "OCR")
    assert page.inner_text("#i-count") == "36 of 200 items"
    counts = {}
    page.select_option("#i-who", "0")
    for kind in ("right", "wrong", "unparsed"):
        page.select_option("#i-kind", kind)
        counts[kind] = int(page.inner_text("#i-count").split()[0])
        assert opened.shown("#items-list details") == counts[kind]
    assert counts["right"] + counts["wrong"] == 36
    assert counts["unparsed"] == 3
    page.click("#items-list summary >> nth=0")
    assert "I cannot tell." in page.inner_text("#items-list .in")
    page.select_option("#i-task", "")
    page.select_option("#i-kind", "none")
    assert page.inner_text("#i-count") == "1 of 200 items"


def test_an_item_has_a_permalink(browser: Any, address: str) -> None:
    one = Opened(browser, f"{address}#view=items&i=CRR-20")
    assert one.page.locator("#items-list details[open]").get_attribute("data-item") == "CRR-20"
    one.context.close()


def test_a_thousand_windows_are_filtered_within_a_second(browser: Any, tmp_path: Path) -> None:
    one = Opened(browser, f"{make(tmp_path, 25, 40, seconds=20)}#view=windows")
    page = one.page
    assert page.inner_text("#count") == "1,000 windows"
    for act in (
        lambda: page.get_by_label("Flips", exact=True).click(),
        lambda: page.select_option("#sport", "tennis"),
        lambda: page.click("#clear"),
        lambda: page.fill("#q", "window.hacked"),
    ):
        before, started = page.inner_text("#count"), time.monotonic()
        act()
        until(lambda before=before: page.inner_text("#count") != before)
        assert time.monotonic() - started < 1
    assert not one.wrong
    one.context.close()
