"""The page as a file: what is in it, what is not, and that no text can become markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.errors import OutputError
from streamingvlm.evaluate.page.collect import collect
from streamingvlm.evaluate.page.data import ReportData
from streamingvlm.evaluate.page.inputs import read_judged, read_run
from streamingvlm.evaluate.page.page import FIGURES, PAGE, TABLES, render, safe_json, title_of, write_report
from streamingvlm.evaluate.page.score_files import read_scores
from streamingvlm.evaluate.runs import open_contestant
from support.report_data import NASTY, NASTY_VIDEO, commentary, scores


def made(path: Path, pairs: int = 2, with_scores: bool = True, **more: Any) -> ReportData:
    runs, files = commentary(path, games=3, windows=2, **more)
    read = [read_run(open_contestant(one)) for one in runs[: pairs + 1]]
    asked = [read_scores(one) for one in scores(path, **more)] if with_scores else []
    return collect(read, [read_judged(one) for one in files[:pairs]], asked)


class Tags(HTMLParser):
    """Elements, and the text of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self.lasttag = ""

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and self.scripts:
            self.scripts[-1] += data


def data_of(page: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Tags(page).scripts[0])
    return found


@pytest.mark.parametrize(
    ("value", "back"),
    [
        (NASTY, NASTY.replace("\u202e", "")),
        ("<!--<script>", "<!--<script>"),
        ("a\u2028b\u2029c & d", "a\u2028b\u2029c & d"),
        ("half \ud83c", "half \ud83c"),
        ([float("nan"), 1.5, float("inf")], [None, 1.5, None]),
    ],
)
def test_data_are_safe_in_a_script_element(value: Any, back: Any) -> None:
    text = safe_json({"x": value})
    assert not re.search("[<>&\u2028\u2029]", text)
    text.encode()
    assert json.loads(text) == {"x": back}


def test_the_page_is_one_file_without_addresses(tmp_path: Path) -> None:
    tags = Tags(render(made(tmp_path)))
    assert [attributes.get("src") for tag, attributes in tags.found if tag in ("script", "img", "iframe", "video")] == [
        None
    ] * 3
    links = [str(attributes.get("href")) for tag, attributes in tags.found if tag in ("a", "link")]
    assert all(link.startswith(("#", "data:image/svg+xml,")) for link in links)
    assert not [tag for tag, attributes in tags.found if any(name.startswith("on") for name in attributes)]


def test_the_policy_names_the_one_script(tmp_path: Path) -> None:
    tags = Tags(render(made(tmp_path)))
    policy = next(attributes["content"] for tag, attributes in tags.found if attributes.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(tags.scripts[1].encode()).digest()).decode()
    assert policy is not None
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    data = made(tmp_path, nasty=True)
    assert data.commentary is not None
    labels = [replace(label, policy=NASTY, preset=NASTY) for label in data.commentary.contestants]
    data = replace(data, commentary=replace(data.commentary, contestants=labels), different=[NASTY])
    whole, plain = Tags(render(data)), Tags(render(made(tmp_path / "plain")))
    count = [sum(tag == "script" for tag, _ in tags.found) for tags in (whole, plain)]
    assert count == [2, 2]
    assert not [tag for tag, _ in whole.found if tag in ("img", "iframe", "object")]
    steps = [step for text in data_of(render(data))["texts"][0].values() for step in text["steps"]]
    assert NASTY.replace("\u202e", "") in [step[2] for step in steps]


def test_what_the_script_reads(tmp_path: Path) -> None:
    tree = data_of(render(made(tmp_path)))
    assert (len(tree["windows"]), len(tree["pairs"]), tree["judges"]) == (6, 2, 1)
    first = tree["pairs"][0]["verdicts"][0]
    votes = first["votes"]
    assert [vote["order"] for vote in votes] == ["ab", "ba"]
    assert votes[0]["call"]["reply"] in ('{"winner": "A"}', '{"winner": "B"}', '{"winner": "tie"}')
    assert "request" not in votes[0]["call"], "its texts are in the page once"
    assert [one["w"] for one in tree["pairs"][0]["verdicts"]] == sorted(
        one["w"] for one in tree["pairs"][0]["verdicts"]
    )
    assert len(tree["questions"][0]["items"]) == 200


@pytest.mark.parametrize(
    ("pairs", "more", "headline"),
    [(1, {}, True), (2, {}, False), (1, {"whole": False}, False)],
)
def test_one_complete_pair_has_a_headline(tmp_path: Path, pairs: int, more: dict[str, Any], headline: bool) -> None:
    page = render(made(tmp_path, pairs, with_scores=False, **more))
    assert ('class="panel hero"' in page) == headline
    assert ('class="banner partial"' in page) == bool(more)


def test_a_judge_that_was_not_calibrated_has_no_headline(tmp_path: Path) -> None:
    data = made(tmp_path, 1, with_scores=False)
    assert data.commentary is not None
    pair = replace(data.commentary.pairs[0], calibrated=False, uncalibrated="was not calibrated")
    page = render(replace(data, commentary=replace(data.commentary, pairs=[pair])))
    assert 'class="panel hero"' not in page
    assert "Judge not calibrated" in page


def test_rows_say_how_they_were_made(tmp_path: Path) -> None:
    page = render(made(tmp_path))
    for told in ("public-code", "stream</span>", "offline</span>", "preset official", "best constant answer", "blind"):
        assert told in page


def test_a_report_of_scores_alone(tmp_path: Path) -> None:
    tmp_path.joinpath("in").mkdir()
    page = render(collect([], [], [read_scores(one) for one in scores(tmp_path / "in")]))
    assert 'data-view="results"' not in page
    assert 'data-view="items"' in page


def test_three_files_and_links_of_videos_that_are_there(tmp_path: Path) -> None:
    data = made(tmp_path / "in", nasty=True)
    videos = tmp_path / "videos"
    (videos / "football").mkdir(parents=True)
    (videos / "football" / "game-01.mp4").write_bytes(b"x")
    there = videos / NASTY_VIDEO
    there.parent.mkdir(parents=True)
    there.write_bytes(b"x")
    page = write_report(data, tmp_path / "out", videos)
    assert sorted(one.name for one in page.parent.iterdir()) == sorted((PAGE, TABLES, FIGURES))
    tree = data_of(page.read_text())
    assert tree["videos"]["football/game-01.mp4"] == "../videos/football/game-01.mp4"
    assert re.fullmatch(r"[\w./%~-]+", tree["videos"][NASTY_VIDEO]), (
        "signs that mean something in an address are quoted"
    )
    assert len(tree["videos"]) == 2
    assert tree["wanted"]
    assert title_of(data) == "inf-streams, ovo"


def test_a_video_outside_of_the_folder_is_not_linked(tmp_path: Path) -> None:
    data = made(tmp_path / "in")
    (tmp_path / "videos").mkdir()
    (tmp_path / "secret.mp4").write_bytes(b"x")
    assert data.commentary is not None
    keys = ("../secret.mp4", str(tmp_path / "secret.mp4"))
    windows = [replace(one, video=key) for one, key in zip(data.commentary.windows, keys, strict=False)]
    pairs = [replace(pair, verdicts=[]) for pair in data.commentary.pairs]
    data = replace(data, commentary=replace(data.commentary, windows=windows, texts={}, pairs=pairs))
    assert data_of(write_report(data, tmp_path / "out", tmp_path / "videos").read_text())["videos"] == {}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_report(made(tmp_path / "in"), tmp_path / "file")
