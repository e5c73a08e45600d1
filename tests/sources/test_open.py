"""Schemes of other packages, and what a file says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core import plugins
from streamingvlm.core.errors import SourceError
from streamingvlm.core.events import Chunk
from streamingvlm.sources.file import kind_comment, kind_in_comment
from streamingvlm.sources.open import open_source
from support import media


@dataclass
class Empty:
    """A source without a chunk that knows how it was opened."""

    name: str
    options: dict[str, Any]
    context: str = ""
    kind: str = "empty"
    live: bool = False

    def __iter__(self) -> Iterator[Chunk]:
        return iter(())


def open_empty(locator: str, **options: Any) -> Empty:
    return Empty(locator, options)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "streamingvlm.sources"
    entries = [
        EntryPoint("empty", f"{__name__}:open_empty", group),
        EntryPoint("broken", "no.such.module:opener", group),
        EntryPoint("file", "no.such.module:opener", group),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda *, group: entries if group == "streamingvlm.sources" else [])


def test_a_registered_scheme_is_opened_with_every_option() -> None:
    source = open_source("empty:7?a=b", fps=4.0, step=2.0, start=1.0, duration=3.0, video_stream=1)
    assert isinstance(source, Empty)
    assert source.name == "empty:7?a=b"
    assert source.options == {"fps": 4.0, "step": 2.0, "start": 1.0, "duration": 3.0, "video_stream": 1}


def test_a_broken_package_is_one_line_and_leaves_the_others_alone(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"^'broken' \(no\.such\.module:opener, .*ModuleNotFoundError[^\n]*$"):
        open_source("broken:x")
    assert open_source("empty:x").name == "empty:x"
    clip = media.write_clip(tmp_path / "a.mp4", count=5)
    assert open_source(f"file://{clip}").name == "a.mp4", "a built-in scheme cannot be taken over"


def test_an_unknown_scheme_names_those_that_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for locator in ("gopher:x", "gopher://x"):
        with pytest.raises(SourceError, match=r"gopher: .*\(known: file, .*rtsp, .*, broken, empty, or a path\)$"):
            open_source(locator)
    monkeypatch.chdir(tmp_path)
    media.write_clip(tmp_path / "gopher:x.mp4", count=5)
    assert open_source("gopher:x.mp4").name == "gopher:x.mp4", "a file may have a colon in its name"


@pytest.mark.parametrize(
    ("comment", "kind"),
    [
        (kind_comment("arcade:pong", "seed=7"), "arcade:pong"),
        ("streamingvlm arcade:boxing seed=7", "arcade:boxing"),
        (kind_comment("kitchen"), "kitchen"),
        ("streamingvlm ", ""),
        ("", ""),
        ("made with streamingvlm arcade:pong", ""),
    ],
)
def test_a_recording_says_what_kind_it_is_of(comment: str, kind: str, tmp_path: Path) -> None:
    assert kind_in_comment(comment) == kind
    assert open_source(str(media.write_clip(tmp_path / "a.mp4", count=5, comment=comment))).kind == kind


@pytest.mark.parametrize(
    "locator",
    ["rtsp:/joe:hunter22@cam/1", "rtps://joe:hunter22@cam/1", " rtsp://joe:hunter22@cam/1", "joe:hunter22/x@cam/1"],
)
def test_a_url_that_was_mistyped_shows_no_password(locator: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(locator)
    assert "hunter22" not in str(caught.value)
    with pytest.raises(SourceError) as caught:
        open_source(locator, user="ann", password="other")
    assert "hunter22" not in str(caught.value)
