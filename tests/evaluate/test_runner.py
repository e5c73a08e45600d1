"""Any task is run: many streams in one batch, taken up again after whatever ended the run."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from streamingvlm import cli
from streamingvlm.core import plugins
from streamingvlm.core.errors import OptionError, OutputError
from streamingvlm.core.events import Commentary
from streamingvlm.core.sampling_params import Sampling
from streamingvlm.evaluate import runner
from streamingvlm.evaluate.checkpoint import fingerprint_of
from streamingvlm.evaluate.record import Record
from streamingvlm.evaluate.runner import TaskRunner
from streamingvlm.evaluate.task import TimedQuestion, open_task
from support import tiny
from support.tasks import NoiseExample

POLICY = "streaming:vision=3,turns=3,sink=160,text=8"


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.model(sampling=Sampling(temperature=0.9, max_new_tokens=5))


def texts(records: list[Record]) -> list[list[str]]:
    return [[row["text"] for row in record.rows] for record in records]


def test_an_interrupted_run_goes_on_where_it_was(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SNAPSHOT_EVERY", 0.0)
    monkeypatch.setattr(runner, "SNAPSHOT_SHARE", 1e9)
    both = [NoiseExample(1), NoiseExample(2)]
    whole = TaskRunner(model, POLICY, tmp_path / "whole", "f").run(both, 9)
    assert [len(rows) for rows in texts(whole)] == [9, 9]
    assert not list((tmp_path / "whole").glob("*.state"))

    def stop(done: float) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    task_runner = TaskRunner(model, POLICY, tmp_path / "parts", "f")
    with pytest.raises(KeyboardInterrupt):
        task_runner.run(both, 9, stop)
    assert len(list((tmp_path / "parts").glob("*.state"))) == 2
    seen: list[float] = []
    again = task_runner.run(both, 9, seen.append)
    assert seen[0] == 10.0, "four seconds had snapshots, the fifth is said anew"
    assert texts(again) == texts(whole)
    assert any(text for rows in texts(whole) for text in rows)
    assert not list((tmp_path / "parts").glob("*.state"))
    # What is done is taken up without a step.
    monkeypatch.setattr(runner, "Engine", None)
    assert texts(task_runner.run(both, 9)) == texts(whole)
    assert texts(task_runner.run(both, 4)) == [rows[:4] for rows in texts(whole)]


def test_ctrl_c_marks_no_stream_as_ended(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupt comes to the thread that waits, while the engine's own works on."""
    monkeypatch.setattr(runner, "SNAPSHOT_EVERY", 0.0)
    monkeypatch.setattr(runner, "SNAPSHOT_SHARE", 1e9)
    both = [NoiseExample(1), NoiseExample(2)]
    whole = TaskRunner(model, POLICY, tmp_path / "whole", "f").run(both, 6)
    begun = threading.Event()

    def interrupted(_: object) -> Any:
        assert begun.wait(30)
        raise KeyboardInterrupt

    parts = TaskRunner(model, POLICY, tmp_path / "parts", "f")

    def slow(done: float) -> None:
        if done >= 6:
            begun.set()
            time.sleep(0.3)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "next_ended", interrupted)
        with pytest.raises(KeyboardInterrupt):
            parts.run(both, 6, slow)
    assert len(list((tmp_path / "parts").glob("*.state"))) == 2
    assert texts(parts.run(both, 6)) == texts(whole)


@pytest.mark.parametrize("broken", ["cut", "flipped", "missing", "killed"])
def test_a_run_goes_on_from_whichever_snapshot_is_whole(
    model: Any, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SNAPSHOT_EVERY", 0.0)
    monkeypatch.setattr(runner, "SNAPSHOT_SHARE", 1e9)
    one = [NoiseExample(1)]
    (whole,) = texts(TaskRunner(model, POLICY, tmp_path / "whole", "f").run(one, 7))

    def stop(done: float) -> None:
        if done >= 5:
            raise KeyboardInterrupt

    task_runner = TaskRunner(model, POLICY, tmp_path / "parts", "f")
    with pytest.raises(KeyboardInterrupt):
        task_runner.run(one, 7, stop)
    (state,) = (tmp_path / "parts").glob("*.state")
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    if broken == "missing":
        state.unlink()
    elif broken == "killed":
        (tmp_path / "parts" / f"{state.name}.part").write_bytes(content[:100])
    else:
        state.write_bytes(content if broken == "flipped" else content[:-1])
    seen: list[float] = []
    with contextlib.nullcontext() if broken == "killed" else pytest.warns(UserWarning, match="goes on from the one"):
        (again,) = texts(task_runner.run(one, 7, seen.append))
    assert again == whole
    assert seen[0] == (5.0 if broken == "killed" else 4.0)
    assert [path.suffix for path in (tmp_path / "parts").iterdir()] == [".jsonl"]


def test_a_record_is_whole_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jsonl"
    record = Record(path, {"policy": "p"})
    record.begin(0.0)
    for second in range(5):
        record.add(Commentary(second, second + 1, f"caf\xe9 {second}\u2028\x85\ud800"))
    record.sync()
    record.close(done=False)
    before = path.read_bytes()
    assert before.count(b"\n") == 6
    for cut in range(len(before)):
        path.write_bytes(before[:cut])
        again = Record(path, {"policy": "p"})
        again.load()
        lines = before[:cut].count(b"\n")
        assert len(again.rows) in (max(lines - 1, 0), lines), "a line that is whole but for its end counts"
    path.write_bytes(before)
    again = Record(path, {"policy": "p"})
    again.load()
    assert [row["text"] for row in again.rows][3] == "caf\xe9 3\u2028\x85\ud800"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            with pytest.raises(OutputError, match=r"cannot write .*x\.jsonl \(No space left on device\)"):
                again.begin(5.0)
        assert path.read_bytes() == before, "the words are not given up for others that cannot be written"


def descriptor_of(path: Path) -> int:
    """The number of this process's open file of that path."""
    return next(int(link.name) for link in Path("/proc/self/fd").iterdir() if link.resolve() == path.resolve())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_record_on_a_full_disk_is_one_line(tmp_path: Path) -> None:
    record = Record(tmp_path / "x.jsonl", {"policy": "p"})
    record.begin(0.0)
    with Path("/dev/full").open("w") as full:
        os.dup2(full.fileno(), descriptor_of(record.path))
    with pytest.raises(OutputError, match="No space left"):
        record.add(Commentary(0.0, 1.0, "a"))
    with contextlib.suppress(OutputError):
        record.close(done=False)


def test_words_do_not_depend_on_company(model: Any, tmp_path: Path) -> None:
    both = [NoiseExample(1), NoiseExample(2)]
    together = TaskRunner(model, POLICY, tmp_path / "a", "f").run(both, 5)
    alone = TaskRunner(model, POLICY, tmp_path / "b", "f").run(both[1:], 5)
    assert texts(together)[1] == texts(alone)[0]


def test_only_words_of_the_same_settings_are_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    row = json.dumps({"start": 0.0, "end": 1.0, "text": "a"})
    path.write_text(json.dumps({"policy": "p"}) + "\n" + row + "\n" + row[:9])
    record = Record(path, {"policy": "p"})
    record.load()
    assert record.seconds == 1.0
    other = Record(path, {"policy": "q"})
    other.load()
    assert other.rows == []
    path.write_text("")
    record.load()
    assert record.rows == []


def test_words_stay_those_of_a_checkpoint_whose_story_is_told_anew(tmp_path: Path) -> None:
    for name, text in (("config.json", "{}"), ("training.json", '{"notes": "a"}'), ("model.safetensors", "w")):
        (tmp_path / name).write_text(text)
    before = fingerprint_of(tmp_path)
    (tmp_path / "training.json").write_text('{"notes": "b"}')
    assert fingerprint_of(tmp_path) == before
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert fingerprint_of(tmp_path) != before


def test_a_video_that_ends_is_not_watched_again(model: Any, tmp_path: Path) -> None:
    short, long = NoiseExample(1, length=3), NoiseExample(2)
    task_runner = TaskRunner(model, POLICY, tmp_path, "f")
    first = task_runner.run([short, long], 5)
    assert [(record.seconds, record.ended) for record in first] == [(3.0, True), (5.0, False)]
    again = task_runner.run([short, long], 5)
    assert texts(again) == texts(first)
    assert [record.ended for record in again] == [True, False]
    assert (short.played, long.played) == ([(1, 0)], [(2, 0)])
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jsonl", ".jsonl"]


def test_questions_are_answered_at_their_time_and_change_nothing(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SNAPSHOT_EVERY", 0.0)
    monkeypatch.setattr(runner, "SNAPSHOT_SHARE", 1e9)
    questions = (
        TimedQuestion(0.0, "who?"),
        TimedQuestion(2.5, "what?"),
        TimedQuestion(2.5, "where?"),
        TimedQuestion(99.0, "late?"),
    )
    plain = TaskRunner(model, POLICY, tmp_path / "plain", "f").run([NoiseExample(1)], 5)
    (asked,) = TaskRunner(model, POLICY, tmp_path / "asked", "f").run([NoiseExample(1, questions=questions)], 5)
    assert texts([asked]) == texts(plain)
    assert [(one["asked"], one["question"]) for one in asked.answers] == [(q.time, q.text) for q in questions[:3]]
    assert asked.answers[1]["answer"] != asked.answers[2]["answer"], "they are told apart"

    def stop(done: float) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    parts = TaskRunner(model, POLICY, tmp_path / "parts", "f")
    with pytest.raises(KeyboardInterrupt):
        parts.run([NoiseExample(1, questions=questions)], 5, stop)
    (again,) = parts.run([NoiseExample(1, questions=questions)], 5)
    assert (again.rows[-1]["text"], again.answers) == (asked.rows[-1]["text"], asked.answers)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["noise-1.jsonl"]
    # Words with other questions are other words.
    (other,) = parts.run([NoiseExample(1)], 5)
    assert other.answers == []


def test_a_question_over_its_budget_is_one_line(model: Any, tmp_path: Path) -> None:
    long = NoiseExample(1, questions=(TimedQuestion(1.5, "why " * 500),))
    with pytest.raises(OptionError, match=r"^noise-1, question at 1\.5 s: [^\n]*$"):
        TaskRunner(model, POLICY, tmp_path, "f").run([long], 3)


KILLED = """
import sys
from pathlib import Path
from streamingvlm.core.sampling_params import Sampling
from streamingvlm.evaluate import runner
from support import tiny
from support.tasks import NoiseExample

runner.SNAPSHOT_EVERY, runner.SNAPSHOT_SHARE = 0.0, 1e9
model = tiny.model(sampling=Sampling(temperature=0.9, max_new_tokens=5))
runner.TaskRunner(model, sys.argv[1], Path(sys.argv[2]), "f").run(
    [NoiseExample(1), NoiseExample(2)], 500, lambda done: print(done, flush=True)
)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on(model: Any, tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    arguments = [sys.executable, "-c", KILLED, POLICY, str(tmp_path / "killed")]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})
    assert process.stdout is not None
    for line in process.stdout:
        if float(line) >= 16:
            break
    process.kill()
    process.wait()
    process.stdout.close()
    both = [NoiseExample(1), NoiseExample(2)]
    seen: list[float] = []
    again = TaskRunner(model, POLICY, tmp_path / "killed", "f").run(both, 40, seen.append)
    assert seen[0] >= 16, "it goes on from snapshots"
    assert texts(again) == texts(TaskRunner(model, POLICY, tmp_path / "whole", "f").run(both, 40))


def register(monkeypatch: pytest.MonkeyPatch, *entries: EntryPoint) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda *, group: [one for one in entries if one.group == group])


def test_a_registered_task_is_run_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register(monkeypatch, EntryPoint("noise", "support.tasks:NoiseTask.open", "streamingvlm.tasks"))
    target, words = tmp_path / "out.json", tmp_path / "words"
    arguments = ["eval", "run", "noise?streams=2&seconds=3", "--words", str(words), "--json", str(target)]
    assert cli.main([*arguments, "--device", "cpu"]) == 0
    found = json.loads(target.read_text())
    assert f"{found['characters']} characters" in capsys.readouterr().out
    assert {"task", "model", "checkpoint", "policy", "device", "versions", "date"} <= set(found)
    assert len(list(words.rglob("*.jsonl"))) == 2


def test_a_task_that_is_not_there_or_broken_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    register(
        monkeypatch,
        EntryPoint("noise", "support.tasks:NoiseTask.open", "streamingvlm.tasks"),
        EntryPoint("gone", "no.such.module:task", "streamingvlm.tasks"),
    )
    with pytest.raises(OptionError, match=r"^unknown task 'x'; known: gone, noise$"):
        open_task("x")
    with pytest.raises(OptionError, match=r"^'gone' .* cannot be loaded: ModuleNotFoundError: [^\n]*$"):
        open_task("gone")
    with pytest.raises(OptionError, match="an option twice"):
        open_task("noise?seconds=1&seconds=2")


def test_streams_run_a_few_at_a_time_with_the_same_words(model: Any, tmp_path: Path) -> None:
    examples = [NoiseExample(stream, length=2 + stream) for stream in range(4)]
    together = TaskRunner(model, POLICY, tmp_path / "all", "f").run(examples, 6)
    two = TaskRunner(model, POLICY, tmp_path / "two", "f", at_once=2).run(examples, 6)
    assert texts(two) == texts(together)
    assert [len(rows) for rows in texts(two)] == [2, 3, 4, 5]


ASKED = [
    TimedQuestion(2.0, "who leads?", id="a", own_turn=True, max_new_tokens=4),
    TimedQuestion(2.0, "and now?", id="b", own_turn=True, options=("A", "B"), prefix="it is "),
    TimedQuestion(3.5, "who leads?", id="c", own_turn=True, options=("A", "B")),
    TimedQuestion(4.0, "what?", id="d", own_turn=True, poll="is it time?", until=6.0, max_new_tokens=4),
]


def test_answers_are_the_same_however_often_a_run_is_cut(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SNAPSHOT_EVERY", 0.0)
    monkeypatch.setattr(runner, "SNAPSHOT_SHARE", 1e9)
    quiet = TaskRunner(model, POLICY, tmp_path / "quiet", "f").run([NoiseExample(1)], 8)
    answers = Sampling(temperature=0.0, max_new_tokens=8)
    one = [NoiseExample(1, questions=ASKED)]
    (whole,) = TaskRunner(model, POLICY, tmp_path / "whole", "f", answers=answers).run(one, 8)
    assert texts([whole]) == texts(quiet), "the stream does not see its questions"
    assert [(row["id"], row["asked"]) for row in whole.answers if row["id"] != "d"] == [("a", 2), ("b", 2), ("c", 4)]
    assert all(len(row["logprobs"]) == 2 for row in whole.answers if row["id"] in "bc")

    def stop_at(second: float) -> Callable[[float], None]:
        def stop(done: float) -> None:
            if done == second:
                raise KeyboardInterrupt

        return stop

    parts = TaskRunner(model, POLICY, tmp_path / "parts", "f", answers=answers)
    for second in (1, 2, 4, 5):
        with contextlib.suppress(KeyboardInterrupt):
            parts.run(one, 8, stop_at(second))
    (again,) = parts.run(one, 8)
    assert (texts([again]), again.answers) == (texts([whole]), whole.answers)


def test_a_question_is_asked_at_the_first_poll_that_says_yes(model: Any, tmp_path: Path) -> None:
    polled = [
        TimedQuestion(2.0, "what?", id="d", own_turn=True, poll=text, until=5.0) for text in ("now?", "or now?", "?")
    ]
    said = []
    for number, question in enumerate(polled):
        (record,) = TaskRunner(model, POLICY, tmp_path / f"{number}", "f").run(
            [NoiseExample(1, questions=[question])], 8
        )
        said.append([row["asked"] for row in record.answers])
    assert all(len(asked) <= 1 and all(2 <= time <= 5 for time in asked) for asked in said)
