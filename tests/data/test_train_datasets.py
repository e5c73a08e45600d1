"""The public forms are read as they are, and what cannot be used is counted and named."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcade_streams.worlds.games import PONG
from arcade_streams.worlds.record import truth_record
from streamingvlm.core.errors import SourceError
from streamingvlm.data.annotations import annotation_files, lines, parse
from streamingvlm.data.report import NAMED, Reason, Report, Unusable
from streamingvlm.data.videos import Header, Videos
from streamingvlm.data.words import Word
from streamingvlm.train.chunks import ChunkPlan
from streamingvlm.train.collate import ChunkDataset, Collator
from support import media
from support.train_data import clip, conversation, encoding, unknown_codec, words, write_lines

PLAN = ChunkPlan(window=8.0, overlap=4.0)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video root with one film of 30 s."""
    root = tmp_path_factory.mktemp("videos")
    clip(root / "film.mp4")
    return root


def dataset(root: Path, *files: Path, plan: ChunkPlan = PLAN, **more: Any) -> ChunkDataset:
    return ChunkDataset(encoding(), plan, files, root, **more)


def stream(video: str = "film.mp4", seconds: float = 30.0, **more: Any) -> dict[str, Any]:
    return {"video": video, "title": "A game", "content": words(0.0, seconds), **more}


def read(path: Path) -> list[Any]:
    return [line.transcript() for line in lines(path, Report())]


# The forms.


def test_inf_streams_by_word_and_by_segment(tmp_path: Path) -> None:
    path = tmp_path / "games.jsonl"
    write_lines(path, [stream(), {"video": "film.mp4", "content": [[1, 3.0, "over two seconds  now"]]}])
    by_word, by_segment = read(path)
    assert by_word.context == "A game"
    assert by_word.words[:2] == (Word(0.0, 0.4, "w0"), Word(0.4, 0.8, "w1"))
    assert by_segment.words == (
        Word(1.0, 1.5, "over"), Word(1.5, 2.0, "two"), Word(2.0, 2.5, "seconds"), Word(2.5, 3.0, "now"),
    )  # fmt: skip
    assert (by_segment.start, by_segment.end, by_segment.whole) == (0.0, None, False)


def test_inf_streams_train_is_read_by_the_index_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "train_s12w24_with_seeks.jsonl"
    records = [
        conversation("film.mp4", s, s + 8.0, words(s, s + 8.0), previous="gesagt: Ängste", title="T") for s in (0, 4, 8)
    ]
    offsets = write_lines(path, records)
    # The index says which lines there are: here the second one is none of them.
    (tmp_path / "train_s12w24_seeks.jsonl").write_text(json.dumps([offsets[0], offsets[2]]))
    first, second = read(path)
    assert (first.start, first.end, second.start) == (0.0, 8.0, 8.0)
    assert (first.previous, first.context, first.query) == ("gesagt: Ängste", "T", "What happens?")
    assert first.whole


def test_live_whisperx_has_its_index_in_its_last_line(tmp_path: Path) -> None:
    path = tmp_path / "live_whisperx_526k_with_seeks.jsonl"
    # The index is far longer than what is read at once from the end of the file.
    records = [conversation(f"video/youtube/{i}.mp4", 8.25, 20.0, words(8.25, 20.0)) for i in range(9000)]
    offsets = write_lines(path, records)
    with path.open("ab") as file:
        file.write(json.dumps(offsets).encode() + b"\n")
    found = list(lines(path, Report()))
    assert [line.offset for line in found] == offsets
    assert found[8999].transcript().video == "video/youtube/8999.mp4"


def test_lines_without_an_index_are_read_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_bytes(b"\n" + json.dumps(stream()).encode() + b"\n\n" + json.dumps(stream("b.mp4")).encode())
    assert [one.video for one in read(path)] == ["film.mp4", "b.mp4"]


def test_a_recorded_clip_is_read_with_its_truth(tmp_path: Path) -> None:
    clip(tmp_path / "clip.mp4", 10.0, title="players")
    rows = [(0.0, 1.0, "green serves"), (1.0, 2.0, ""), (2.0, 3.0, "green scores ; score 1 to 0")]
    (tmp_path / "clip.jsonl").write_text(json.dumps(truth_record(PONG, "clip.mp4", "players", rows)))
    data = ChunkDataset(encoding(lead=""), ChunkPlan(window=5, overlap=0, min_words=1), [tmp_path])
    (example,) = data
    assert example.true == ("green serves", "", "green scores ; score 1 to 0", "", "")
    assert data.report.skipped == {Reason.FEW_WORDS: 1}


def test_a_folder_stands_for_its_annotations_without_their_indexes(tmp_path: Path) -> None:
    for name in ("b_with_seeks.jsonl", "b_seeks.jsonl", "a.jsonl"):
        (tmp_path / name).write_text("[]")
    assert [file.name for file in annotation_files([tmp_path])] == ["a.jsonl", "b_with_seeks.jsonl"]
    for wrong in (tmp_path / "none.jsonl", tmp_path / "none"):
        with pytest.raises(SourceError, match="no annotations there"):
            annotation_files([wrong])


def test_questions_are_noted_and_left_out(tmp_path: Path, videos: Path) -> None:
    record = conversation("film.mp4", 0.0, 8.0, words(0.0, 8.0))
    record[1]["content"][0]["qa_stream"] = [[1.0, 2.0, "Who?", "They."]]
    write_lines(tmp_path / "a.jsonl", [record])
    data = dataset(videos, tmp_path / "a.jsonl")
    assert len(data) == 1
    assert data.report.notes == {"questions and answers, which are not used": 1}


def test_words_outside_their_clip_are_noted(tmp_path: Path, videos: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [conversation("film.mp4", 4.0, 8.0, words(2.0, 10.0, 0.5))])
    data = dataset(videos, tmp_path / "a.jsonl")
    assert data[0].true == ("w4 w5", "w6 w7", "w8 w9", "w10 w11")
    assert data.report.notes == {"words outside the times of their clip, which are not used": 8}


# Where the videos are.


def test_a_published_clip_begins_where_its_name_says(tmp_path: Path) -> None:
    (tmp_path / "Livecc_sft").mkdir()
    clip(tmp_path / "Livecc_sft" / "-7q_x_8.25-20.00_2.0fps.mp4", 11.75)
    write_lines(
        tmp_path / "a.jsonl",
        [
            # As LiveCC publishes it, on the clock of the whole video.
            conversation("video/youtube/-7q_x.mp4", 8.25, 20.0, words(8.25, 20.0)),
            # The same clip by name, on the clock of the whole video and on its own.
            conversation("Livecc_sft/-7q_x_8.25-20.00_2.0fps.mp4", 8.25, 19.9, words(8.25, 19.9)),
            conversation("Livecc_sft/-7q_x_8.25-20.00_2.0fps.mp4", 0.0, 11.0, words(0.0, 11.0)),
            conversation("video/youtube/-7q_x.mp4", 9.0, 20.0, words(9.0, 20.0)),
        ],
    )
    data = dataset(tmp_path, tmp_path / "a.jsonl")
    assert [(one.start, one.clip.offset) for one in data] == [(8.25, 8.25), (8.25, 8.25), (0.0, 0.0)]
    assert data.report.skipped == {Reason.MISSING: 1}
    # The first frames are those of the file's first second, shown at the time that the words are told.
    first = next(iter(data[0].chunks()))
    assert (first.start, first.end, first.times) == (8.25, 9.25, (8.25, 8.65))
    assert [media.index_of(frame) for frame in first.frames] == [0, 2]
    # 11.75 s are twelve steps, the last of them as far as there are frames.
    assert data[0].seconds == 12.0
    batch = Collator()([data[0]])
    assert batch["video_grid_thw"][:, 0].tolist() == [1] * 12
    assert batch["input_ids"].shape[1] == data[0].length


def test_videos_are_looked_for_under_the_root_and_beside_the_file(tmp_path: Path, videos: Path) -> None:
    clip(tmp_path / "beside.mp4", 8.0)
    write_lines(
        tmp_path / "a.jsonl", [stream("beside.mp4", 8.0), stream(str(videos / "film.mp4"), 8.0), stream(seconds=9.0)]
    )
    assert [one.clip.path.name for one in dataset(videos, tmp_path / "a.jsonl", plan=ChunkPlan(8, 0))][:2] == [
        "beside.mp4", "film.mp4",
    ]  # fmt: skip
    with pytest.raises(SourceError, match="is not a folder"):
        Videos(tmp_path / "nowhere")


def test_headers_are_remembered_until_the_file_changes(
    tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, film = tmp_path / "headers.json", videos / "film.mp4"
    first = Videos(videos, cache)
    assert first.header(film) == Header(48, 64, pytest.approx(30.0))
    first.save()
    monkeypatch.setattr("streamingvlm.data.videos.open_container", lambda path: pytest.fail(f"{path} opened again"))
    again = Videos(videos, cache)
    assert again.header(film) == first.header(film)
    stat = film.stat()
    os.utime(film, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(pytest.fail.Exception, match="opened again"):
        Videos(videos, cache).header(film)
    cache.write_text("[1]")
    with pytest.raises(SourceError, match="is not a cache"):
        Videos(videos, cache)


# What is left out.


def test_every_reason_is_counted_and_named(tmp_path: Path, videos: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video")
    media.write_audio(tmp_path / "sound.mp4")
    clip(tmp_path / "short.mp4", 3.0)
    good = stream()
    path = tmp_path / "a.jsonl"
    write_lines(
        path,
        [
            good,
            b"{not json", b"17", b'"text"', b"[]", b"{}", b'{"video": 3, "content": []}',
            b'{"video": "film.mp4", "content": [[0, 1]]}', b'{"video": "film.mp4", "content": [["a", "b", "c"]]}',
            b'\xff\xfe{"video": 1}', b"[" * 100_000, b'[{"content": []}, {"content": []}]',
            stream("gone.mp4"), stream("x\0.mp4"), stream("y" * 999), stream("empty.mp4"),
            stream("text.mp4"), stream("sound.mp4"),
            good, conversation("film.mp4", 4.0, 12.0, words(4, 12)), conversation("film.mp4", 4.0, 12.0, words(4, 12)),
            conversation("film.mp4", 0.0, 21.0, words(0, 21)),
            stream("short.mp4", 3.0),
            conversation("film.mp4", 28.0, 36.0, words(28, 36)),
            conversation("film.mp4", 1.0, 9.0, []),
            {**good, "content": [[0, 9, "a"], [1, 2, "b"]]}, {**good, "content": [[None, None, "a"]]},
            {**good, "content": [[float("nan"), -1, "a"]]}, {**good, "content": [[1e30, 10**400, "a"]]},
            conversation("film.mp4", 9.0, 9.0, []),
        ],
    )  # fmt: skip
    data = dataset(videos, path, plan=ChunkPlan(8.0, 4.0, longest=20.0))
    assert dict(data.report.skipped) == {
        Reason.MALFORMED: 11, Reason.MISSING: 3, Reason.EMPTY: 1, Reason.UNREADABLE: 2, Reason.DUPLICATE: 2,
        Reason.TOO_LONG: 1, Reason.TOO_SHORT: 1, Reason.BEYOND: 1, Reason.FEW_WORDS: 1, Reason.TIMES: 5,
    }  # fmt: skip
    assert data.report.lines == 30
    assert data.report.repaired == {}, "lines that are left out are not counted as repaired"
    assert (data.report.streams, data.report.chunks, len(data)) == (2, 7, 7)
    assert data.report.seconds == 7 * 8.0
    told = data.report.to_json()
    assert json.loads(json.dumps(told)) == told
    assert told["skipped"]["malformed line"]["count"] == 11
    assert len(told["skipped"]["malformed line"]["examples"]) == NAMED
    shown = str(data.report)
    assert "left out: 2 x duplicate" in shown
    assert "and 6 more" in shown
    assert "gone.mp4" in shown


def test_videos_that_break_the_decoder_or_the_resize_are_counted(tmp_path: Path, videos: Path) -> None:
    unknown_codec(tmp_path / "codec.mp4")
    media.write_clip(tmp_path / "column.mp4", codec="mpeg4", width=2, height=1000, count=90)
    media.write_clip(tmp_path / "line.mov", codec="png", pix_fmt="rgb24", width=300, height=1, count=90)
    media.spoil(clip(tmp_path / "noise.mp4"), 0.0, 1.0)
    media.cut(clip(tmp_path / "half.mp4"), 0.5)
    names = ["codec.mp4", "column.mp4", "line.mov", "noise.mp4", "half.mp4", "film.mp4"]
    write_lines(tmp_path / "a.jsonl", [stream(name, 8.0) for name in names])
    data = dataset(videos, tmp_path / "a.jsonl")
    assert data.report.skipped[Reason.UNREADABLE] == 5
    assert {one.clip.path.name for one in data} == {"film.mp4"}
    named = " ".join(data.report.named[Reason.UNREADABLE])
    assert all(name in named for name in names[:5])


def test_a_length_that_cannot_be_meant_is_none(videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import streamingvlm.data.videos as room

    opened = room.open_container

    class Told:
        def __init__(self, stream: Any, duration: int) -> None:
            self.codec_context, self.time_base, self.duration = stream.codec_context, stream.time_base, duration

    for duration in (-5, 1 << 62):

        def odd(path: Path, duration: int = duration) -> Any:
            container, stream = opened(path)
            return container, Told(stream, duration)

        monkeypatch.setattr(room, "open_container", odd)
        assert Videos(videos).header(videos / "film.mp4").seconds is None


def test_windows_with_few_words_and_words_beyond_the_video_are_named(tmp_path: Path, videos: Path) -> None:
    # Silent from 8 to 16 s, and told for 8 s more than the video lasts.
    content = [word for word in words(0.0, 38.0) if not 8.0 < word[1] <= 16.0]
    write_lines(tmp_path / "a.jsonl", [{"video": "film.mp4", "content": content}])
    data = dataset(videos, tmp_path / "a.jsonl")
    assert [one.start for one in data] == [0.0, 16.0, 20.0]
    assert dict(data.report.skipped) == {Reason.FEW_WORDS: 3, Reason.BEYOND: 1}
    assert data.report.named[Reason.BEYOND] == ["a.jsonl, byte 0: words to 38 s of film.mp4, which ends at 30 s"]


JUNK = st.sampled_from([None, True, -1, 1e30, 10**400, "", "\ud800", "x\0", [], [[]], {}, [1, 2, 3], "film.mp4"])


def _leaves(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    return [path, *(found for key, part in inner for found in _leaves(part, (*path, key)))]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_line_is_a_crash(data: st.DataObject) -> None:
    """Any part of a good line in any form, replaced by anything."""
    good = data.draw(st.sampled_from([stream(seconds=2.0), conversation("film.mp4", 0.0, 2.0, words(0, 2), title="T")]))
    record = json.loads(json.dumps(good))
    *path, last = (None, *data.draw(st.sampled_from(_leaves(record)[1:])))
    holder = record
    for key in path[1:]:
        holder = holder[key]
    holder[last] = data.draw(JUNK)
    with contextlib.suppress(Unusable):
        told = parse(json.dumps(record).encode())
        told.texts(0.0, 3, 1.0)
        assert all(a.end <= b.end for a, b in itertools.pairwise(told.words))


def test_an_index_of_another_file_is_reported(tmp_path: Path, videos: Path) -> None:
    path, index = tmp_path / "a_with_seeks.jsonl", tmp_path / "a_seeks.jsonl"
    offsets = write_lines(path, [stream(seconds=8.0), stream(seconds=12.0)])
    index.write_text(json.dumps([*offsets, offsets[1] + 3, 10**9]))
    data = dataset(videos, path)
    assert data.report.skipped[Reason.SEEK_INDEX] == 2
    assert data.report.streams == 2
    # An index that is none is one entry of the report; the lines are there without it.
    for broken in ("{", "[1, -2]", '["a"]', "null"):
        index.write_text(broken)
        data = dataset(videos, path)
        assert data.report.skipped[Reason.SEEK_INDEX] == 1
        assert data.report.streams == 2


def test_words_that_overlap_a_little_keep_their_order() -> None:
    told = parse(json.dumps({"video": "a", "content": [[0, 2.0, "one"], [1.5, 1.8, "two"]]}).encode())
    assert told.words == (Word(0.0, 2.0, "one"), Word(1.5, 2.0, "two"))
    with pytest.raises(Unusable, match=r"^1 of 2 words lost.*'two' at 0\.5-0\.9 s$"):
        parse(json.dumps({"video": "a", "content": [[0, 2.0, "one"], [0.5, 0.9, "two"]]}).encode())


def test_a_file_that_changes_under_a_run_is_one_clear_line(tmp_path: Path, videos: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_lines(path, [stream()])
    data = dataset(videos, path)
    path.write_text("{}")
    with pytest.raises(SourceError, match="have changed"):
        data[0]


def test_a_line_says_where_it_is(tmp_path: Path, videos: Path) -> None:
    path = tmp_path / "a.jsonl"
    _, second = write_lines(path, [stream(), b'{"video": "film.mp4"}'])
    data = dataset(videos, path)
    assert data[0].where == "a.jsonl, byte 0"
    assert data.report.named[Reason.MALFORMED] == [f"a.jsonl, byte {second}: lacks 'content'"]
