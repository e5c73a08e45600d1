"""What a checkpoint's config says that it knows, and the refusal of other video."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.errors import ModelError
from streamingvlm.core.events import Chunk
from streamingvlm.models.base import LONGEST_TIME
from streamingvlm.models.checkpoint import stream_defaults
from streamingvlm.models.hub import BUNDLED
from streamingvlm.models.knows import check_source, example_source, read_known_kinds


@dataclass
class Video:
    kind: str
    name: str = "a.mp4"
    context: str = ""
    live: bool = False
    chunks: list[Chunk] = field(default_factory=list)

    def __iter__(self) -> Any:
        return iter(self.chunks)


def folder_that_says(folder: Path, streaming: Any) -> Path:
    (folder / "generation_config.json").write_text(json.dumps({"streaming": streaming}))
    return folder


def test_a_checkpoint_that_names_what_it_knows_refuses_other_video(tmp_path: Path) -> None:
    folder_that_says(tmp_path, {"knows": ["arcade:pong", "kitchen"], "example_source": "kitchen:1"})
    assert stream_defaults(tmp_path).knows == read_known_kinds(tmp_path) == ("arcade:pong", "kitchen")
    assert example_source(tmp_path) == "kitchen:1"
    check_source(tmp_path, "m", Video("kitchen"))
    for kind in ("", "arcade:tennis", "kitchen:2"):
        with pytest.raises(ModelError, match=r"^m knows only arcade:pong, kitchen \(and .*not a\.mp4"):
            check_source(tmp_path, "m", Video(kind))


@pytest.mark.parametrize("streaming", [None, {}, {"knows": None}, {"knows": []}])
def test_one_that_names_nothing_may_be_shown_anything(streaming: Any, tmp_path: Path) -> None:
    folder_that_says(tmp_path, streaming)
    assert stream_defaults(tmp_path).knows == ()
    assert example_source(tmp_path) is None
    check_source(tmp_path, "m", Video(""))
    check_source(tmp_path / "none", "m", Video(""))


@pytest.mark.parametrize("wrong", ["arcade:pong", [1], [""], {"a": 1}, True])
def test_what_cannot_be_meant_is_one_line(wrong: Any, tmp_path: Path) -> None:
    folder_that_says(tmp_path, {"knows": wrong})
    for read in (stream_defaults, read_known_kinds):
        with pytest.raises(ModelError, match=r"generation_config\.json: knows must be a list of kinds"):
            read(tmp_path)
    folder_that_says(tmp_path, {"example_source": 7})
    with pytest.raises(ModelError, match="example_source must be a text"):
        example_source(tmp_path)


def test_a_checkpoint_says_which_time_stamps_it_knows(tmp_path: Path) -> None:
    assert stream_defaults(folder_that_says(tmp_path, {"longest_time": 7200})).longest_time == 7200.0
    for nothing in (None, {}, {"longest_time": None}):
        assert stream_defaults(folder_that_says(tmp_path, nothing)).longest_time == LONGEST_TIME
    assert 10**5.5 - 1000 < stream_defaults(BUNDLED).longest_time < 10**5.5  # as arcade_streams.recipe draws times


@pytest.mark.parametrize("wrong", ["7200", 59, -1, True, [7200], float("inf")])
def test_time_stamps_that_no_checkpoint_knows_are_refused(wrong: Any, tmp_path: Path) -> None:
    folder_that_says(tmp_path, {"longest_time": wrong})
    with pytest.raises(ModelError, match=r"longest_time must be a number of 60 or more, not"):
        stream_defaults(tmp_path)
