"""What a journal keeps, whatever happens to the process, the disk or the folder."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

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
    Timing,
)
from streamingvlm.runtime import journal as journals
from streamingvlm.runtime.journal import Journal, files_of, line_of, read_journal, record_in
from streamingvlm.runtime.pipeline import Numbering
from streamingvlm.sinks.records import TYPES, event_of, record_of

EVENTS: list[Event] = [
    StepFailed(1.0, 2.0, "timeout", "no answer within 30 s", 12.0, 1),
    StreamOpened("match.mp4", "Ann : Bea"),
    SourceStatus("reconnecting", "stalled", "no frame for 10 s", 3, 5.0),
    SourceFormat(1280, 720, "hevc", 25.0),
    Gap(3.0, 9.5, "stalled"),
    Instructed(2, "less, please", 3.0),
    InstructionUpdated(2, "less, please", None),
    Commentary(
        1.0, 2.0, "Goal \N{SOCCER BALL}\u2028!", (1, 2), "length", Timing(decode=0.2, lag=0.3), {"text": 4}, 90, 2,
        (InstructionUpdated(3, "more", 1.0),), 1.7e9,
    ),
    StepFailed(2.0, 3.0, "timeout", "no reply in 5 s", 1, 2.0, 3),
    Asked(4, "who leads?", 2.0),
    Answered(4, Answer(Question("who leads?"), 2.0, "Ann", (5,), "stop", (-0.1, -2.0))),
    Answered(5, None, "cancelled"),
    RuleChanged("goal", "a goal"),
    RuleChanged("goal", "says: goal; off_after=2", {"name": "goal", "says": "goal", "off_after": 2}),
    Alert("goal", "raised", 1, 1.0, 2.0, "yes", 0.9, "Goal"),
    Resumed(3.0, 1.5, 0.5),
    Rebased(100.0, 0.0),
    Dropped(3),
    StepFailed(3.0, 4.0, "rate_limit", "too many requests", 2, 4.0, 3),
    Closed("unplugged"),
]  # fmt: skip


def commentary(second: int) -> Commentary:
    return Commentary(second, second + 1.0, f"second {second}")


def fill(journal: Journal, count: int, numbering: Numbering) -> list[Event]:
    events = [numbering.stamp(commentary(second)) for second in range(count)]
    for event in events:
        journal.write(event)
    return events


@pytest.fixture
def numbering() -> Numbering:
    return Numbering("ab12")


def ids(events: Any) -> list[str]:
    return [event.id for event in events]


# Records.


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_a_record_becomes_its_event_again(event: Event, numbering: Numbering) -> None:
    record = json.loads(json.dumps(record_of(numbering.stamp(event))))
    again = event_of(record)
    assert again is not None
    assert type(again) is type(event)
    left_out = {"work"}
    assert {k: v for k, v in record_of(again).items() if k not in left_out} == {
        k: v for k, v in record.items() if k not in left_out
    }
    if isinstance(event, Commentary):
        assert (again.text, again.wall_start, again.timing.lag) == (event.text, 1.7e9, 0.3)  # type: ignore[union-attr]


def test_all_types_but_deltas_are_tried() -> None:
    assert {type(event) for event in EVENTS} == set(TYPES) - {Delta, AnswerDelta}


@pytest.mark.parametrize(
    "record",
    [
        {"type": "commentary.done"},
        {"type": "stream.gap", "start": 1.0, "end": 2.0},
        {"type": "stream.closed", "wall": "yesterday"},
        {"type": "commentary.done", "start": 0, "end": 1, "text": "", "instructions": [3]},
        {"type": "answer.done", "number": 1, "answer": {"what": 1}},
    ],
)
def test_what_is_no_record_is_said(record: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no record"):
        event_of(record)


def test_a_type_that_came_later_is_passed_over() -> None:
    assert event_of({"type": "stream.danced"}) is None


# Writing and reading back.


def test_all_but_deltas_are_kept_at_once(tmp_path: Path, numbering: Numbering) -> None:
    with Journal(tmp_path / "a" / "b") as journal:
        for event in [*EVENTS, Delta(0, 1, "x"), AnswerDelta(1, "x")]:
            journal.write(numbering.stamp(event))
            (file,) = files_of(journal.folder)
            lines = file.read_bytes().splitlines()
        assert len(lines) == len(EVENTS)
        assert [type(event) for event in journal.read()] == [type(event) for event in EVENTS]
        assert (journal.epoch, journal.number) == ("ab12", len(EVENTS))
    for number, line in enumerate(lines, 1):
        record = json.loads(line)
        assert record["id"] == f"ab12-{number}"
        assert record_in(line) == {key: value for key, value in record.items() if key != "crc"}


def test_it_goes_on_where_it_was_left(tmp_path: Path, numbering: Numbering) -> None:
    with Journal(tmp_path) as journal:
        first = fill(journal, 3, numbering)
    with Journal(tmp_path) as journal:
        assert (journal.epoch, journal.number) == ("ab12", 3)
        second = fill(journal, 2, numbering)
        assert ids(journal.read()) == ids([*first, *second])
        assert ids(journal.after(2)) == ids([*first, *second])[2:]
        assert journal.after(5) == []


def test_files_are_ended_and_the_oldest_removed(tmp_path: Path, numbering: Numbering) -> None:
    with Journal(tmp_path, file_bytes=1000, total_bytes=5000) as journal:
        events = fill(journal, 100, numbering)
        files = files_of(tmp_path)
        assert [file.name for file in files][-1] > "events-00000010.jsonl"
        assert sum(file.stat().st_size for file in files) <= 5000 + 300
        left = ids(journal.read())
        assert left == ids(events)[-len(left) :]
        assert len(left) >= 10
        assert ids(journal.after(97)) == ids(events)[97:]
        assert len(ids(journal.after(0))) == len(left)
    with Journal(tmp_path) as journal:
        assert journal.number == 100


def test_old_files_go_one_at_a_time(tmp_path: Path, numbering: Numbering) -> None:
    """A clock that jumps must not take everything."""
    with Journal(tmp_path, file_bytes=1000, total_seconds=100.0) as journal:
        fill(journal, 20, numbering)
        before = files_of(tmp_path)
        for file in before:
            os.utime(file, (0, 0))
        while files_of(tmp_path)[-1] == before[-1]:
            fill(journal, 1, numbering)
        assert files_of(tmp_path)[:-1] == before[1:], "one was begun and one removed"


def test_a_file_is_ended_when_a_day_has_passed(tmp_path: Path, numbering: Numbering) -> None:
    with Journal(tmp_path, file_seconds=0.05) as journal:
        fill(journal, 1, numbering)
        time.sleep(0.06)
        fill(journal, 1, numbering)
        assert len(files_of(tmp_path)) == 2
        assert len(list(journal.read())) == 2


def test_since_and_until(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbering: Numbering) -> None:
    with Journal(tmp_path) as journal:
        for second in range(6):
            monkeypatch.setattr(time, "time", lambda moment=second: 1.8e9 + moment)
            journal.write(numbering.stamp(commentary(second)))
        monkeypatch.undo()
        os.utime(files_of(tmp_path)[0], (1.8e9 + 5, 1.8e9 + 5))
        for since, until, numbers in (
            (None, None, range(6)),
            (1.8e9 + 2, None, range(2, 6)),
            (None, 1.8e9 + 2, range(2)),
            (1.8e9 + 1, 1.8e9 + 3, range(1, 3)),
            (1.8e9 + 60, None, ()),
        ):
            assert [event.start for event in journal.read(since, until)] == list(numbers)  # type: ignore[union-attr]
            assert list(read_journal(tmp_path, since, until)) == list(journal.read(since, until))


def test_it_is_sent_to_the_disk_by_the_second_and_not_on_the_writers_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbering: Numbering
) -> None:
    threads: list[str] = []
    go = threading.Event()

    def slow(handle: int) -> None:  # noqa: ARG001
        threads.append(threading.current_thread().name)
        go.wait(5)

    monkeypatch.setattr(journals, "SYNC", 0.02)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    journal = Journal(tmp_path)
    monkeypatch.setattr(os, "fsync", slow)
    fill(journal, 1, numbering)
    until = time.monotonic() + 5
    while not threads and time.monotonic() < until:
        time.sleep(0.01)
    began = time.perf_counter()
    fill(journal, 50, numbering)
    assert time.perf_counter() - began < 0.5, "a slow disk keeps nobody waiting"
    assert not journal.wait_closed(0.05)
    go.set()
    assert journal.wait_closed(5)
    assert set(threads) == {"streamingvlm-journal"}


def test_a_disk_that_cannot_be_reached_is_told_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbering: Numbering, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[int] = []

    def fails(_: int) -> None:
        tries.append(1)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(journals, "SYNC", 0.01)
    with Journal(tmp_path) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fails)
            fill(journal, 2, numbering)
            until = time.monotonic() + 5
            while len(tries) < 3 and time.monotonic() < until:
                time.sleep(0.01)
        assert len(tries) >= 3
        assert journal.sync()
    told = [record.getMessage() for record in caplog.records]
    assert told == [f"cannot send {tmp_path} to the disk (Input/output error); it is tried again every second"]


# What a crash leaves.


def test_no_handle_left_is_like_a_disk_that_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbering: Numbering
) -> None:
    tries: list[int] = []

    def fails(_: int) -> int:
        tries.append(1)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(journals, "SYNC", 0.01)
    with Journal(tmp_path) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(os, "dup", fails)
            fill(journal, 2, numbering)
            until = time.monotonic() + 5
            while len(tries) < 3 and time.monotonic() < until:
                time.sleep(0.01)
            assert not journal.sync()
        assert len(tries) >= 3
        assert journal.sync()


def test_a_last_file_that_is_removed_is_made_again_behind_the_others(tmp_path: Path, numbering: Numbering) -> None:
    with Journal(tmp_path, file_bytes=500) as journal:
        fill(journal, 10, numbering)
        files_of(tmp_path)[-1].unlink()
        fill(journal, 10, numbering)
        told = [int(number) for _, _, number in (one.partition("-") for one in ids(journal.read()))]
        assert told == sorted(told)
        assert told[-1] == 20
        assert [number for number in told if number <= 4] == [1, 2, 3, 4]


@pytest.mark.parametrize("cut", [1, 5, 20, 60])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, numbering: Numbering, cut: int) -> None:
    with Journal(tmp_path) as journal:
        fill(journal, 3, numbering)
    (file,) = files_of(tmp_path)
    file.write_bytes(file.read_bytes()[:-cut])
    with Journal(tmp_path) as journal:
        assert journal.number == 2
        numbering.next = 3
        fill(journal, 1, numbering)
        assert ids(journal.read()) == ["ab12-1", "ab12-2", "ab12-3"]
        assert journal.damaged == 0


def test_every_truncation_leaves_whole_events(tmp_path: Path, numbering: Numbering) -> None:
    with Journal(tmp_path) as journal:
        fill(journal, 3, numbering)
    (file,) = files_of(tmp_path)
    whole = file.read_bytes()
    for size in range(0, len(whole), 17):
        file.write_bytes(whole[:size])
        with Journal(tmp_path) as journal:
            assert journal.number == whole[:size].count(b"\n") == len(list(journal.read()))


def test_a_line_with_a_flipped_bit_is_passed_over_and_its_number_not_given_again(
    tmp_path: Path, numbering: Numbering
) -> None:
    with Journal(tmp_path) as journal:
        fill(journal, 4, numbering)
    (file,) = files_of(tmp_path)
    whole = file.read_bytes()
    random_ = random.Random(0)
    for _ in range(60):
        broken = bytearray(whole)
        at = random_.randrange(len(whole))
        broken[at] ^= 1 << random_.randrange(8)
        if b"\n" in (whole[at : at + 1], bytes(broken[at : at + 1])):
            continue  # two lines become one, or one two
        file.write_bytes(broken)
        with Journal(tmp_path) as journal:
            left = ids(journal.read())
            assert len(left) == 3
            assert journal.damaged == 1
            assert journal.number == 4


def test_other_rubbish_behind_the_end_is_no_event(tmp_path: Path, numbering: Numbering) -> None:
    with Journal(tmp_path) as journal:
        fill(journal, 2, numbering)
    (file,) = files_of(tmp_path)
    with file.open("ab") as tail:
        tail.write(bytes(300))
    with Journal(tmp_path) as journal:
        assert journal.number == 2
        assert len(list(journal.read())) == 2
    assert b"\0" not in file.read_bytes()


# Disks and folders.


def test_two_programs_do_not_share_a_folder(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    code = (
        "import sys; from pathlib import Path; from streamingvlm.runtime.journal import Journal\n"
        "from streamingvlm.core.errors import OutputError\n"
        "try: Journal(Path(sys.argv[1]))\nexcept OutputError as error: print(error)"
    )
    other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert other.stdout == f"{tmp_path} is in use by another program; end that one, or name another folder\n"
    with pytest.raises(OutputError, match="in use"):
        Journal(tmp_path)
    journal.wait_closed()
    with Journal(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_one_line_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "x", Path("/proc/x")):
        with pytest.raises(OutputError, match=r"cannot (make|write)") as error:
            Journal(folder)
        assert str(folder) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.fixture
def broken_disk(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """While the list has words, every second write fails by half, every other one wholly; locks are not touched."""
    why: list[str] = []
    write, turns = os.write, [0]

    def failing(handle: int, data: bytes) -> int:
        if not why or b"crc" not in data:
            return write(handle, data)
        turns[0] += 1
        if turns[0] % 2:
            return write(handle, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, why[0])

    monkeypatch.setattr(os, "write", failing)
    return why


def test_a_full_disk_is_told_once_and_what_is_missing_when_it_works_again(
    tmp_path: Path, numbering: Numbering, broken_disk: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with Journal(tmp_path) as journal:
        first = fill(journal, 2, numbering)
        broken_disk.append("No space left on device")
        fill(journal, 5, numbering)
        assert (journal.lost, journal.behind) == (5, 5)
        broken_disk.clear()
        last = fill(journal, 2, numbering)
        events = list(journal.read())
        assert ids(events) == [*ids(first), "", *ids(last)]
        assert events[2] == Dropped(5)
        assert (journal.lost, journal.behind, journal.damaged) == (5, 0, 0)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "cannot write" in told[0]
    assert "No space left on device" in told[0]
    assert "5 events are missing" in told[1]
    assert json.loads((tmp_path / "lock").read_bytes())["lost"] is False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """The real thing: the system itself refuses a part of a line."""
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_journal import fill, Numbering
from streamingvlm.runtime.journal import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
with Journal(Path({str(tmp_path)!r})) as journal:
    numbering = Numbering("ab12")
    fill(journal, 20, numbering)
    assert journal.lost >= 10, journal.lost
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    fill(journal, 1, numbering)
    assert journal.damaged == 0
    print(journal.lost, *(event.id or event.count for event in journal.read()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lost, *told = done.stdout.split()
    kept = 20 - int(lost)
    assert told == [*(f"ab12-{number}" for number in range(1, kept + 1)), lost, "ab12-21"]


def test_a_folder_that_is_removed_is_made_again(
    tmp_path: Path, numbering: Numbering, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "state"
    with Journal(folder) as journal:
        fill(journal, 2, numbering)
        shutil.rmtree(folder)
        later = fill(journal, 2, numbering)
        assert ids(journal.read()) == ids(later)
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder} was removed while it was written; what follows is kept in a new one"
    ]


def test_a_file_that_somebody_has_emptied_gets_no_hole(tmp_path: Path, numbering: Numbering) -> None:
    with Journal(tmp_path) as journal:
        fill(journal, 2, numbering)
        os.truncate(files_of(tmp_path)[0], 0)
        fill(journal, 2, numbering)
        assert ids(journal.read()) == ["ab12-3", "ab12-4"]
        assert journal.damaged == 0


def test_a_new_file_that_cannot_be_made_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbering: Numbering
) -> None:
    with Journal(tmp_path, file_bytes=500) as journal:
        fill(journal, 1, numbering)
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError(errno.EMFILE, "Too many open files")))
            fill(journal, 10, numbering)
        assert journal.lost == 0
        assert len(files_of(tmp_path)) == 1
        fill(journal, 1, numbering)
        assert len(files_of(tmp_path)) == 2
        assert len(list(journal.read())) == 12


def test_a_closed_journal_takes_nothing_and_says_so(tmp_path: Path, numbering: Numbering) -> None:
    journal = Journal(tmp_path)
    fill(journal, 1, numbering)
    assert journal.wait_closed(5)
    fill(journal, 1, numbering)
    assert journal.lost == 1


def test_a_line_is_whole_json() -> None:
    line = line_of({"type": "stream.closed", "error": '"}\n'})
    assert line.count(b"\n") == 1
    assert json.loads(line)["error"] == '"}\n'
    assert record_in(line[:-1]) == {"type": "stream.closed", "error": '"}\n'}
    assert record_in(b"") is None
