"""A film that several runs have written plays in a real browser, from beginning to end and where one seeks."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamingvlm.core.events import Chunk, Commentary, StepInput
from streamingvlm.sinks import lettering
from streamingvlm.sinks.burned import BurnedOutput
from support.fonts import only

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = Path("/usr/bin/chromium")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no browser at {CHROMIUM}"),
    pytest.mark.slow,
]
PAGE = "<body style='margin: 0; background: black'><video muted src='out.mp4' width=480 height=360></video></body>"
PLAY = """async () => {
    const video = document.querySelector("video")
    const seen = []
    const look = (_, frame) => { seen.push(frame.mediaTime); video.requestVideoFrameCallback(look) }
    video.requestVideoFrameCallback(look)
    video.playbackRate = 4
    const done = new Promise((end, fail) => { video.onended = end; video.onerror = () => fail(video.error.message) })
    await video.play()
    await done
    return [video.currentTime, seen]
}"""
SEEK = """async (to) => {
    const video = document.querySelector("video")
    const done = new Promise((end, fail) => { video.onseeked = end; video.onerror = () => fail(video.error.message) })
    video.currentTime = to
    await done
    await new Promise((shown) => requestAnimationFrame(() => requestAnimationFrame(shown)))
    return video.currentTime
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


def write(path: Path, begin: int, end: int, shade: int) -> None:
    output = BurnedOutput(path, resume=True, patient=True)
    for second in range(begin, end):
        frames = np.full((2, 360, 480, 3), shade, np.uint8)
        output.see(StepInput(Chunk(frames, (second, second + 0.5), second, second + 1)))
        output.write(Commentary(second, second + 1, f"word{second}."))
    output.close()
    assert output.wait(60)


def shade(page: Any) -> float:
    from PIL import Image

    with Image.open(io.BytesIO(page.screenshot())) as picture:
        return float(np.asarray(picture.convert("L"))[100:200, 100:300].mean())


@pytest.mark.parametrize("kill", [False, True])
def test_a_film_of_three_runs_plays(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: bool) -> None:
    monkeypatch.setattr(lettering, "Fonts", only())
    path = tmp_path / "out.mp4"
    for begin, end, grey in ((100, 106, 60), (106, 112, 120), (120, 128, 200)):  # 8 s are missing
        write(path, begin, end, grey)
        if kill:
            with path.open("ab") as file:
                file.write(b"\0\0\1\0moof" + bytes(100))
    if kill:
        write(path, 128, 129, 200)  # mends it
    (tmp_path / "page.html").write_text(PAGE)
    page = browser.new_page(viewport={"width": 480, "height": 360})
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_function("document.querySelector('video').readyState >= 2")
    ended, seen = page.evaluate(PLAY)
    assert 27.4 < ended < 29.1
    assert sum(time >= 20 for time in seen) > 4, "frames of the last run"
    for second, grey in ((1.2, 60), (7.2, 120), (15.0, 120), (21.2, 200), (2.2, 60)):
        assert page.evaluate(SEEK, second) == pytest.approx(second, abs=0.01)
        assert shade(page) == pytest.approx(grey, abs=6)
    page.close()
