"""Commentary and stream questions of ``eval generate``: parts, resumption, company, missing and broken videos."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.errors import OptionError, OutputError, SourceError
from streamingvlm.evaluate import jobs
from streamingvlm.evaluate.commentary.inf_streams import InfStreams
from streamingvlm.evaluate.generate import merge_run
from streamingvlm.evaluate.jobs import Job
from streamingvlm.evaluate.questions.items import Form
from streamingvlm.evaluate.record import Record
from streamingvlm.evaluate.shards import Shard
from support.generate_tools import (
    NAMES,
    POLICY,
    SECONDS,
    START,
    ask,
    comment,
    item,
    predictions,
    rows,
    say,
    tiny_model,
    use_tiny,
    write_clip,
    write_games,
)

#: What a kill may leave at the end of a file.
CUT = (b"", b'{"sta', b'{"start": 2.0, "end": 3.0, "text": "\xf0\x9f')


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(autouse=True)
def _tiny(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny(monkeypatch, model)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_games(tmp_path_factory.mktemp("games"))


@pytest.fixture(scope="module")
def whole(model: Any, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken run."""
    out = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        use_tiny(patch, model)
        assert say(comment(data, out)).found == len(NAMES)
    return out


def test_two_videos_of_one_name_stay_apart(whole: Path) -> None:
    files = sorted((whole / "streams").glob("*.jsonl"))
    assert len(files) == len(NAMES)
    assert not list((whole / "streams").glob("*.state"))
    said = {line["video"]: line["items"] for line in rows(whole / "predictions.jsonl")}
    assert list(said) == list(NAMES)
    assert said["soccer/final.mp4"] != said["tennis/final.mp4"]
    for items in said.values():
        assert [one["end_time"] for one in items] == [float(end) for end in range(START + 1, SECONDS + 1)]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_kill_leaves_is_gone_on_from(data: Path, whole: Path, seed: int, tmp_path: Path) -> None:
    """The folder as it is at some moment of a run is what ``kill -9`` leaves, but for a line that is cut."""
    left, chance = tmp_path / "left", random.Random(seed)
    moment = chance.uniform(1, 20)

    def tell(done: float) -> None:
        if done >= moment and not left.exists():
            shutil.copytree(tmp_path / "run", left)

    say(comment(data, tmp_path / "run", streams=chance.choice([1, 2, 3])), tell=tell)
    for record in (left / "streams").glob("*.jsonl"):
        content = record.read_bytes()
        record.write_bytes(content + chance.choice(CUT))
    assert predictions(tmp_path / "run") == predictions(whole)
    assert not (left / "predictions.jsonl").exists()
    assert say(comment(data, left)).found == len(NAMES)
    assert predictions(left) == predictions(whole)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_parts_in_any_order_are_one_run(data: Path, whole: Path, order: Sequence[int], tmp_path: Path) -> None:
    found = [say(comment(data, tmp_path, streams=number), f"{number}/3").found for number in order]
    assert found == sorted(found)
    assert found[-1] == len(NAMES)
    assert predictions(tmp_path) == predictions(whole)
    before = (tmp_path / "run.json").read_bytes()
    for _ in range(2):
        assert merge_run(InfStreams(data, start=str(START)), tmp_path) == (3, 3)
    assert predictions(tmp_path) == predictions(whole)
    assert (tmp_path / "run.json").read_bytes() == before


def test_a_game_that_is_added_moves_no_other_to_another_part() -> None:
    few = {name: [number for number in range(1, 6) if Shard(number, 5).has(name)] for name in NAMES}
    assert all(len(numbers) == 1 for numbers in few.values())
    assert {name: Shard.parse("2/5").has(name) for name in NAMES} == {name: few[name] == [2] for name in NAMES}


@pytest.mark.parametrize("change", [{"streams": 1}, {"limit": 1}])
def test_words_do_not_depend_on_company(data: Path, whole: Path, change: Any, tmp_path: Path) -> None:
    say(comment(data, tmp_path, **change))
    wanted = predictions(whole).splitlines()
    assert predictions(tmp_path).splitlines() == wanted[: change.get("limit", len(wanted))]


def test_another_seed_says_other_words(data: Path, whole: Path, tmp_path: Path) -> None:
    say(comment(data, tmp_path, seed=1))
    assert predictions(tmp_path) != predictions(whole)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"policy": "streaming:vision=4,turns=4,sink=200,text=8"}, "policy"),
        ({"preset": "paper"}, "preset 'ours', here 'paper'"),
        ({"seed": 3}, "settings.seed 0, here 3"),
        ({"words": "human"}, "settings.human_words False, here True"),
        ({"model": "other"}, "settings.checkpoint 'f-tiny', here 'f-other'"),
        ({"blind": True}, "settings.blind False, here True"),
        ({"limit": 2}, "settings.limit None, here 2"),
        ({"task": "inf-streams?start=3"}, "locator"),
        ({"constant": "x", "model": None, "policy": None}, "settings.constant None, here 'x'"),
    ],
)
def test_a_folder_of_another_run_is_refused(data: Path, whole: Path, change: dict[str, Any], named: str) -> None:
    with pytest.raises(OutputError, match="is of another run") as error:
        say(comment(data, whole, **change))
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_of_other_data_is_refused(data: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    with (tmp_path / "data" / "eval_all_metadata.jsonl").open("a") as file:
        file.write(json.dumps({"video": "x.mp4", "content": [[0, 1, "a"]]}) + "\n")
    with pytest.raises(OutputError, match=r"revision '[0-9a-f]{16}', here '[0-9a-f]{16}'"):
        say(comment(tmp_path / "data", whole))
    limited = comment(data, tmp_path / "limited", limit=1)
    say(limited)
    with pytest.raises(OutputError, match="limit 1, here None"):
        say(replace(limited, limit=None))


def test_missing_videos_are_told_before_a_model_loads(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / NAMES[1]).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "Checkpoint", None)
        with pytest.raises(OptionError, match=r"1 videos of inf-streams.* are missing \(tennis/final.mp4\)"):
            say(comment(tmp_path / "data", tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert say(comment(tmp_path / "data", tmp_path / "first", limit=1)).found == 1, "the missing one is the second"
    outcome = say(comment(tmp_path / "data", tmp_path / "out", allow_missing=True))
    assert (outcome.found, outcome.expected) == (2, 3)
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (about["found"], about["expected"]) == (2, 3)


def test_a_broken_video_stops_no_other(data: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / NAMES[0]).write_bytes(b"no video")
    job = comment(tmp_path / "data", tmp_path / "out", streams=1)
    for _ in range(2):
        with pytest.raises(SourceError, match=r"final\.mp4") as error:
            say(job)
        assert "\n" not in str(error.value)
        assert predictions(tmp_path / "out").splitlines() == predictions(whole).splitlines()[1:]
    # Mended, it is watched as if it had never been broken.
    shutil.copy(data / NAMES[0], tmp_path / "data" / NAMES[0])
    assert say(job).found == 3
    assert predictions(tmp_path / "out") == predictions(whole)


def test_a_video_that_breaks_off_is_kept_and_does_not_count(
    data: Path, whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(data, tmp_path / "data")
    write_clip(tmp_path / "data" / NAMES[0], 5)
    job = comment(tmp_path / "data", tmp_path / "out")
    assert (say(job).found, say(job).expected) == (2, 3)
    first, *others = rows(tmp_path / "out" / "predictions.jsonl")
    assert others == rows(whole / "predictions.jsonl")[1:]
    assert [one["end_time"] for one in first["items"]] == [3.0, 4.0, 5.0]
    assert "ends at 5 s; its data ask for 9 s" in caplog.text
    # It is gone on from behind its last second as well.
    write_clip(tmp_path / "data" / NAMES[1], 1.5)
    with pytest.raises(SourceError, match="ends before 2 s"):
        say(comment(tmp_path / "data", tmp_path / "other"))
    assert len(rows(tmp_path / "other" / "predictions.jsonl")) == 2


@pytest.mark.parametrize("seconds", [SECONDS, 5.0])
def test_a_kill_behind_the_last_second_is_gone_on_from(data: Path, seconds: float, tmp_path: Path) -> None:
    """The words and their snapshot are there, but not that the stream has ended."""
    shutil.copytree(data, tmp_path / "data")
    write_clip(tmp_path / "data" / NAMES[0], seconds)
    left = tmp_path / "left"

    def tell(done: float) -> None:
        # The snapshot follows the words: the next one's beginning shows that the first is complete.
        if done > seconds - START and not left.exists():
            shutil.copytree(tmp_path / "run", left)

    say(comment(tmp_path / "data", tmp_path / "run", streams=3), tell=tell)
    one = Record.read(next((tmp_path / "run" / "streams").glob("soccer*.jsonl")))
    assert one is not None
    cut = left / "streams" / one.path.name
    # As if it had been killed right there.
    lines = one.path.read_text().splitlines(keepends=True)
    cut.write_text("".join(line for line in lines if '"ended"' not in line))
    assert say(comment(tmp_path / "data", left)).expected == 3
    assert predictions(left) == predictions(tmp_path / "run")


def test_a_video_that_another_process_writes_is_left_to_it(data: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    record = Record.read(next((tmp_path / "run" / "streams").glob("golf*.jsonl")))
    assert record is not None
    record.begin(4.0)  # here: a second file of this process, which is as good as another one
    with pytest.raises(OutputError, match="being written by another process"):
        say(comment(data, tmp_path / "run"))
    record.close(done=False)
    assert say(comment(data, tmp_path / "run")).found == 3
    assert predictions(tmp_path / "run") == predictions(whole)


def test_flags_that_have_no_part_are_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="--answers has no part"):
        say(comment(data, tmp_path, answers="generate"))
    with pytest.raises(OptionError, match="--mode stream"):
        say(comment(data, tmp_path, mode="offline"))
    asked = ask(monkeypatch, data, [item("q", 3.0, NAMES[0])], tmp_path / "q")
    for change, named in (({"words": "human"}, "--words"), ({"blind": True}, "--mode offline")):
        with pytest.raises(OptionError, match=named):
            say(replace(asked, **change))
    with pytest.raises(OptionError, match="--keep-vision has no part"):
        say(replace(asked, mode="offline", policy=None, features=tmp_path))


@pytest.mark.parametrize("preset", ["paper", "official", "ours"])
def test_presets_go_into_the_record_of_the_run(data: Path, preset: str, tmp_path: Path) -> None:
    say(comment(data, tmp_path, preset=preset, policy=None, limit=1))
    about = json.loads((tmp_path / "run.json").read_text())
    assert (about["preset"], about["settings"]["human_words"]) == (preset, preset != "ours")
    wanted = "PublicCode" if preset == "official" else "StreamingWindow"
    assert wanted in about["settings"]["policy"]
    assert len(rows(tmp_path / "predictions.jsonl")[0]["items"]) == SECONDS - START


def test_kept_vision_changes_no_word(data: Path, tmp_path: Path) -> None:
    reuse = "streaming:vision=3,turns=3,sink=200,text=8,history_kv=reuse"
    plain = comment(data, tmp_path / "plain", policy=reuse)
    say(plain)
    for out in ("first", "second"):
        say(replace(plain, out=tmp_path / out, features=tmp_path / "seen"))
        assert predictions(tmp_path / out) == predictions(tmp_path / "plain")


# --- questions of a stream ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number, name in enumerate(("a.mp4", "b.mp4")):
        write_clip(folder / name, 6, 7 * number)
    return folder


QUESTIONS = [
    item("early", 0.03),
    item("one", 2.0),
    item("same", 2.0, options=("yes", "no", "who knows")),
    item("free", 2.5, form=Form.COUNT, options=()),
    item("end", 6.0),
    item("beyond", 40.0),
    item("other", 3.0, "b.mp4"),
]


def replies(out: Path) -> dict[str, Any]:
    return {row["id"]: row for row in rows(out / "predictions.jsonl")}


@pytest.mark.parametrize(
    "policy",
    [POLICY, "sliding-recompute:vision=3,turns=3,sink=200,text=8", "recent-frames:frames=4", "full:seconds=20"],
)
def test_answers_do_not_depend_on_other_questions(
    clips: Path, policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = say(ask(monkeypatch, clips, QUESTIONS, tmp_path / "all", policy=policy))
    assert (outcome.found, outcome.expected) == (len(QUESTIONS), len(QUESTIONS))
    together = replies(tmp_path / "all")
    for one in QUESTIONS:
        if one.choices:
            assert list(together[one.id]["probabilities"]) == list(one.choices)
            assert sum(together[one.id]["probabilities"].values()) == pytest.approx(1)
    for id in ("early", "same", "free", "beyond"):
        only = [one for one in QUESTIONS if one.id == id]
        say(ask(monkeypatch, clips, only, tmp_path / id, policy=policy))
        assert replies(tmp_path / id) == {id: together[id]}
    # What is asked behind the end is asked of all that there was.
    late = [replace(one, id="beyond") for one in QUESTIONS if one.id == "beyond"]
    say(ask(monkeypatch, clips, [replace(late[0], time=6.0)], tmp_path / "at", policy=policy))
    assert replies(tmp_path / "at") == {"beyond": together["beyond"]}


@pytest.mark.parametrize("seed", range(3))
def test_questions_are_resumed_too(clips: Path, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance, left = random.Random(seed), tmp_path / "left"
    moment = chance.uniform(1, 11)

    def tell(done: float) -> None:
        if done >= moment and not left.exists():
            shutil.copytree(tmp_path / "run", left)

    polled = item("poll", 2.0, form=Form.PROACTIVE, options=(), until=5.0)
    job = ask(monkeypatch, clips, [*QUESTIONS, polled], tmp_path / "run")
    say(job, tell=tell)
    for record in (left / "streams").glob("*.jsonl"):
        content = record.read_bytes()
        record.write_bytes(content + chance.choice(CUT))
    assert say(replace(job, out=left)).found == len(QUESTIONS) + 1
    assert predictions(left) == predictions(tmp_path / "run")


def test_a_poll_ends_with_the_video(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    polls = [
        item("none", 1.0, form=Form.PROACTIVE, options=(), until=60.0, prompt="Now?"),
        item("late", 50.0, form=Form.PROACTIVE, options=(), until=60.0, prompt="Now?"),
    ]
    outcome = say(ask(monkeypatch, clips, polls, tmp_path))
    assert outcome.found == 2, "an item that was polled in vain has replied nothing"
    assert replies(tmp_path)["late"] == {"id": "late", "reply": ""}


def test_many_questions_of_one_second(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [item(f"q{number}", 3.0 + number % 2, question=f"Is it {number}?") for number in range(30)]
    say(ask(monkeypatch, clips, many, tmp_path))
    assert list(replies(tmp_path)) == [one.id for one in many]


def test_a_question_that_is_too_long_is_one_line(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = item("long", 2.0, prompt="x" * 5000)
    with pytest.raises(OptionError, match=r"question at .* tokens; at most 2048 fit"):
        say(ask(monkeypatch, clips, [long, item("other", 3.0, "b.mp4")], tmp_path))
    assert list(replies(tmp_path)) == ["other"]


def test_a_job_shows_no_key() -> None:
    assert "secret" not in repr(Job("t", Path(), None, Path(), key="secret"))
