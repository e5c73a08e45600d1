"""Files show holes and alerts, and go on where an earlier run was ended, wherever that was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamingvlm.core.errors import OutputError
from streamingvlm.core.events import (
    Alert,
    Answer,
    AnswerDelta,
    Answered,
    Asked,
    Closed,
    Commentary,
    Delta,
    Dropped,
    Event,
    Gap,
    Instructed,
    InstructionUpdated,
    Question,
    Rebased,
    Resumed,
    RuleChanged,
    SourceFormat,
    SourceStatus,
    StepFailed,
    StreamOpened,
)
from streamingvlm.sinks import files
from streamingvlm.sinks.cues import Cue, CueMerger
from streamingvlm.sinks.files import FileOutput
from streamingvlm.sinks.formats import FORMATS, json_line
from streamingvlm.sinks.outputs import open_outputs
from streamingvlm.sinks.records import TYPES
from support.subtitles import parse, said


def alert(time: float, kind: str = "raised") -> Alert:
    return Alert("fall", kind, 1, time - 2, time, probability=0.93, evidence="lies --> there")  # type: ignore[arg-type]


def merge(*events: Event) -> list[Cue]:
    merger = CueMerger()
    return [cue for event in events for cue in merger.add(event)] + list(merger.close())


ANSWER = Answered(1, Answer(Question("who leads?"), 3.0, "green"))
#: Each event of the vocabulary, in an order that can be.
ALL: list[Event] = [
    StreamOpened("door", ""),
    SourceStatus("connecting"),
    SourceFormat(640, 360, "h264", 25.0),
    SourceStatus("running"),
    Delta(0, 1, ""),
    said(0, "a man comes in."),
    Asked(1, "who leads?", 1.0),
    AnswerDelta(1, "gr"),
    ANSWER,
    RuleChanged("fall", "somebody falls"),
    said(1, "he falls"),
    alert(2.0),
    said(2, "and lies"),
    SourceStatus("reconnecting", "timeout", "", 1, 5.0),
    Gap(3, 3603, "timeout"),
    Resumed(3603.0, 12.5),
    StepFailed(3604.0, 3605.0, "server", "the server has failed", retry_in=1.0),
    Rebased(3603.0, 3.0),
    said(3603, "nobody is there"),
    alert(3604.0, "cleared"),
    Instructed(1, "be brief", 3604.0),
    InstructionUpdated(1, "be brief", 3604.0),
    said(3604, "still nobody."),
    StepFailed(3605.0, 3606.0, "timeout", "the endpoint does not answer"),
    Dropped(3),
    Closed(),
]


@pytest.mark.parametrize(
    ("events", "cues"),
    [
        (
            [said(0, "a"), Gap(1, 9, "timeout"), said(9, "b")],
            [(0, 1, "a"), (1, 9, "[no video: timeout]"), (9, 10, "b")],
        ),
        ([Gap(0, 7200, ""), said(7200, "b")], [(0, 7200, "[no video]"), (7200, 7201, "b")]),
        ([said(0, "a"), Gap(0.5, 0.9, "x"), said(1, "b")], [(0, 1, "a"), (1, 2, "b")]),
        ([said(0, "a"), Gap(0.5, 3, "x"), said(2, "b")], [(0, 1, "a"), (1, 3, "[no video: x]")]),
        ([said(0, "a."), alert(1), said(1, "b")], [(0, 1, "a."), (1, 2, "[fall: begins] b")]),
        ([said(0, "a."), alert(1), said(1, "")], [(0, 1, "a."), (1, 2, "[fall: begins]")]),
        ([said(0, "a"), alert(1, "cleared")], [(0, 1, "a"), (1, 3, "[fall: ends]")]),
        ([said(0, "a"), alert(1, "updated")], [(0, 1, "a")]),
        ([said(0, "a"), alert(1), Gap(1, 4, "x")], [(0, 1, "a"), (1, 4, "[fall: begins] [no video: x]")]),
    ],
)
def test_holes_and_alerts_are_cues(events: list[Event], cues: list[tuple[float, float, str]]) -> None:
    assert [(cue.start, cue.end, cue.text) for cue in merge(*events)] == cues


def test_a_long_reason_is_whole_and_readable() -> None:
    cues = merge(Gap(0, 3600, "word " * 40))
    assert (cues[0].start, cues[-1].end) == (0, pytest.approx(3600))
    assert all(len(line) <= 42 for cue in cues for line in cue.text.split("\n"))
    assert " ".join(" ".join(cue.text.split()) for cue in cues) == f"[no video: {' '.join(['word'] * 40)}]"


def test_webvtt_has_notes_that_no_player_takes_for_cues(tmp_path: Path) -> None:
    output = FileOutput(tmp_path / "out.vtt")
    for event in ALL:
        output.write(event)
    output.close()
    text = output.path.read_text()
    parse(text)
    assert "NOTE no video from 00:00:03.000 to 01:00:03.000: timeout\n\n" in text
    assert "NOTE alert fall 1 raised at 00:00:02.000, since 00:00:00.000, yes 0.93: lies -> there\n\n" in text
    assert "NOTE resumed at 01:00:03.000; 12.5 s were not watched\n\n" in text
    assert "00:00:03.000 --> 01:00:03.000\n[no video: timeout]\n\n" in text


def test_json_lines_have_everything_but_deltas(tmp_path: Path) -> None:
    assert {type(event) for event in ALL} == set(TYPES)
    output = FileOutput(tmp_path / "out.jsonl")
    for event in ALL:
        output.write(event)
    output.close()
    assert output.path.read_text().splitlines() == [
        json_line(event) for event in ALL if not isinstance(event, Delta | AnswerDelta)
    ]


@pytest.mark.parametrize(
    ("event", "begins"),
    [
        (StreamOpened("a", ""), False),
        (SourceStatus("running"), False),
        (SourceFormat(2, 2, "h264"), False),
        (Closed("broken"), False),
        (Delta(0, 1, "x"), False),
        (StepFailed(0, 1, "timeout", "late"), False),
        (said(0, ""), True),
        (Gap(0, 1, "x"), True),
        (alert(1), True),
        (ANSWER, True),
        (Resumed(0, 1), True),
    ],
)
def test_when_a_file_is_overwritten(tmp_path: Path, event: Event, begins: bool) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("precious")
    output = FileOutput(path)
    output.write(event)
    output.close()
    assert (path.read_text() != "precious") == begins


def test_what_was_told_before_the_first_step_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("precious")
    output = FileOutput(path)
    for event in ALL[:6]:
        output.write(event)
    kinds = [json.loads(line)["type"] for line in path.read_text().splitlines()]
    assert kinds == ["stream.opened", "source.status", "source.format", "source.status", "commentary.done"]


def test_a_dead_camera_is_in_the_file_at_once_if_none_is_lost(tmp_path: Path) -> None:
    output = FileOutput(tmp_path / "out.jsonl")
    output.write(StreamOpened("door", ""))
    output.write(SourceStatus("reconnecting", "refused", "", 1, 1.0))
    assert [json.loads(line)["type"] for line in output.path.read_text().splitlines()] == [
        "stream.opened",
        "source.status",
    ]


def steps() -> list[Event]:
    """A minute with words, silence, a hole and an alert, each event with an id of its own."""
    events: list[Event] = []
    for second in range(60):
        if second == 20:
            events.append(Gap(20, 25, "stalled"))
        if not 20 <= second < 25:
            text = "" if second % 7 == 0 else f"word{second} caf\xe9" + ("." if second % 4 == 0 else "")
            events.append(said(second, text))
        if second == 30:
            events.append(alert(31))
    return [_with_id(event, index) for index, event in enumerate(events)]


def _with_id(event: Event, index: int) -> Event:
    return replace(event, id=f"e-{index}", wall=1000.0 + index)


def words_of(path: Path) -> list[str]:
    if path.suffix == ".jsonl":
        records = [json.loads(line) for line in path.read_text().splitlines()]
        return " ".join(record.get("text", record["type"]) for record in records).split()
    return " ".join(cue.text for cue in parse(path.read_text(), srt=path.suffix == ".srt")).split()


@pytest.mark.parametrize("suffix", FORMATS)
@settings(max_examples=40, deadline=None)
@given(part=st.floats(0, 1), zeros=st.sampled_from([0, 0, 5000]), window=st.sampled_from([16, 300, 1 << 16]))
def test_a_file_that_was_cut_anywhere_is_continued(
    suffix: str, part: float, zeros: int, window: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Told everything again, it ends as one that was never cut: each word once, in order."""
    path = tmp_path_factory.mktemp("out") / f"out{suffix}"
    whole = FileOutput(path)
    for event in steps():
        whole.write(event)
    whole.close()
    content, words = path.read_bytes(), [*words_of(path), "new."]
    path.write_bytes(content[: int(len(content) * part)] + b"\0" * zeros)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "TAIL", window)
        output = FileOutput(path, resume=True)
    assert output.done_until <= 60
    for event in [*steps(), said(60, "new.")]:
        output.write(event)
    output.close()
    assert words_of(path) == words


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_new_is_written_behind_what_is_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    first = FileOutput(path)
    for event in (said(0, "a."), said(1, "b."), said(2, "open")):
        first.write(event)
    before = path.read_bytes()
    second = FileOutput(path, resume=True)
    assert second.done_until == (3 if suffix == ".jsonl" else 2)
    assert path.read_bytes() == before, "nothing is changed by opening"
    for event in (said(1, "never"), Resumed(2.0, 0.5), said(2, "open"), Gap(3, 5, "x"), said(5, "d.")):
        second.write(event)
    second.close()
    assert path.read_bytes().startswith(before)
    text = " ".join(words_of(path))
    assert "never" not in text
    assert text.count("open") == 1
    assert text.index("b.") < text.index("open") < text.index("d.")


def test_only_the_end_of_a_long_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.srt"
    first = FileOutput(path)
    for second in range(5000):
        first.write(said(second, "word."))
    first.close()
    monkeypatch.setattr(files, "TAIL", 1000)
    output = FileOutput(path, resume=True)
    output.write(said(5000, "more."))
    assert path.read_text().endswith("5001\n01:23:20,000 --> 01:23:21,000\nmore.\n\n")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.vtt", "precious"),
        ("a.srt", "precious"),
        ("a.jsonl", "precious"),
        ("a.jsonl", '{"of": "another kind"}\n'),
        ("a.jsonl", '{"type": "commentary.done"}\n'),
        ("a.jsonl", '{"type": "commentary.done", broken}\n'),
    ],
)
def test_a_file_of_another_kind_is_not_continued(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(OutputError, match=r"cannot be continued"):
        open_outputs([path], resume=True)
    assert path.read_text() == content


@pytest.mark.parametrize("suffix", FORMATS)
def test_resuming_without_a_file_begins_one(tmp_path: Path, suffix: str) -> None:
    (output,) = open_outputs([tmp_path / f"out{suffix}"], resume=True)
    output.write(said(0, "a."))
    output.close()
    assert words_of(output.path) == ["a."]


def test_a_commentary_is_what_the_others_know(tmp_path: Path) -> None:
    """A run that was continued with a step that ends within what is there keeps its cues apart."""
    path = tmp_path / "out.vtt"
    first = FileOutput(path)
    first.write(Commentary(0, 4, "a."))
    first.close()
    second = FileOutput(path, resume=True)
    second.write(Commentary(3, 5, "b."))
    second.close()
    assert parse(path.read_text()) == [Cue(0, 4, "a."), Cue(4, 5, "b.")]
