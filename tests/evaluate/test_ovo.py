"""OVO-Bench from a file in its published form to its scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.errors import OptionError, SourceError
from streamingvlm.evaluate.benchmark import QuestionBenchmark
from streamingvlm.evaluate.questions import ovo
from streamingvlm.evaluate.questions.items import Form, Item, Reply
from streamingvlm.evaluate.questions.ovo import ForwardDelay, OVOBench
from streamingvlm.evaluate.questions.replies import Replies
from support import question_data
from support.question_data import ovo_choice, ovo_entries, ovo_results, ovo_truth, write_json, write_ovo


@pytest.fixture
def bench(tmp_path: Path) -> OVOBench:
    write_ovo(tmp_path)
    return OVOBench(tmp_path)


def item(bench: OVOBench, id: str) -> Item:
    return next(one for one in bench.items if one.id == id)


def changed(number: int, **fields: Any) -> list[dict[str, Any]]:
    entries = ovo_entries()
    entries[number] = {**entries[number], **fields}
    return entries


def test_the_items_of_the_twelve_tasks(bench: OVOBench) -> None:
    assert isinstance(bench, QuestionBenchmark)
    assert [one.id for one in bench.items][8:14] == ["8", "20_0", "20_1", "20_2", "21_0", "21_1"]
    assert {count.part: count.found for count in bench.counts} == dict.fromkeys(ovo.PUBLISHED, 1) | {
        "REC": 3,
        "SSR": 4,
        "CRR": 5,
    }
    assert not any(count.complete for count in bench.counts)
    assert sum(ovo.PUBLISHED.values()) == 3035
    assert bench.defects == []
    assert len(bench.revision) == 16


def test_a_choice_a_count_a_step_and_a_clue(bench: OVOBench) -> None:
    choice = item(bench, "0")
    assert (choice.task, choice.group, choice.answer, choice.time) == ("EPM", "backward", "B", 12)
    assert choice.options == ("red", "green", "blue", "none")
    assert choice.prompt.splitlines()[:3] == ["What is 0?", "A. red", "B. green"]
    assert choice.video == "YouTube_Games/a&index=0.mp4"
    count = item(bench, "20_0")
    assert (count.form, count.answer, count.time, count.about["realtime"]) == (Form.COUNT, "0", 4, 3.2)
    assert "clapping hands" in count.prompt
    step = item(bench, "21_2")
    assert (step.form, step.answer, step.group) == (Form.YES_NO, "No", "forward")
    assert '"take the lid"' in step.prompt
    clue = item(bench, "22_2")
    assert (clue.answer, clue.start, clue.about["clue_time"]) == ("Yes", 0.0, 30)
    assert clue.prompt.startswith("Who opens the door?")


@pytest.mark.parametrize(
    ("realtime", "seconds", "time", "defects"),
    [
        (12, None, 12.0, 0),
        (12.01, None, 13.0, 0),
        (12.0, None, 12.0, 0),
        (0.03, None, 1.0, 1),  # before any full second is over
        (3.5, 4.0, 4.0, 0),
        (3.9, 3.6, 3.6, 0),  # rounded up, then capped: within the rounding of a file
        (12, 3.0, 3.0, 1),  # far behind the end
    ],
)
def test_times(tmp_path: Path, realtime: float, seconds: float | None, time: float, defects: int) -> None:
    write_ovo(tmp_path, [ovo_choice(1, "EPM", realtime=realtime, video="a.mp4")], {"a.mp4": seconds} if seconds else {})
    videos = tmp_path / "videos"
    videos.mkdir(exist_ok=True)
    bench = OVOBench(tmp_path / ovo.FILE, videos)
    assert bench.items[0].time == pytest.approx(time, abs=0.05)
    assert len(bench.defects) == defects
    assert bench.videos[0].path == videos / "a.mp4"
    assert bench.videos[0].seconds == realtime


def test_a_video_that_cannot_be_read_is_left_to_the_check(tmp_path: Path) -> None:
    write_ovo(tmp_path, [ovo_choice(1, "EPM", video="a.mp4")])
    (tmp_path / "a.mp4").touch()
    assert OVOBench(tmp_path, tmp_path).items[0].time == 12
    with pytest.raises(SourceError, match="is not a folder"):
        OVOBench(tmp_path, tmp_path / "none")


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (7, "entry 12: cannot be used, it is left out: it has to be an object, not a number"),
        ({"id": 1}, "1: cannot be used, it is left out: 'task' has to be a text, not null"),
        (ovo_choice(50, "XYZ"), "50: cannot be used, it is left out: 'XYZ' is none of the tasks"),
        ({**ovo_choice(50, "EPM"), "id": None}, "None: cannot be used, it is left out: it has no id"),
        (ovo_choice(50, "EPM", gt=4), "50: cannot be used, it is left out: 'gt' is 4, counted from 0, of 4 options"),
        (ovo_choice(50, "EPM", gt=-1), "'gt' has to be a number from 0 on, not -1"),
        (ovo_choice(50, "EPM", gt=True), "'gt' has to be a number"),
        (ovo_choice(50, "EPM", gt=0.5), "'gt' has to be a whole number"),
        (ovo_choice(50, "EPM", options=[]), "'options' is not the list"),
        (ovo_choice(50, "EPM", options=["a", 1]), "'options' is not the list"),
        (ovo_choice(50, "EPM", realtime="12"), "'realtime' has to be a number from 0 on, not '12'"),
        (ovo_choice(50, "EPM", realtime=float("nan")), "'realtime' has to be a number from 0 on, not nan"),
        (ovo_choice(50, "EPM", question=" "), "'question' has to be a text"),
        (ovo_choice(50, "EPM", video="../../etc/passwd"), "lies outside the folder of the videos"),
        (ovo_choice(50, "EPM", video="/etc/passwd"), "lies outside the folder of the videos"),
        ({**ovo_entries()[9], "id": 50, "end_times": [1, 10**400]}, "'end_times' is not the list of numbers"),
        ({**ovo_entries()[10], "id": 50, "end_time": "7"}, "'end_time' is not the list of numbers"),
        ({**ovo_entries()[9], "id": 50, "test_info": []}, "'test_info' is not the list"),
        ({**ovo_entries()[9], "id": 50, "test_info": [{"realtime": 1, "count": 0}, {}]}, "'count' has to be a number"),
        ({**ovo_entries()[10], "id": 50, "test_info": [{"realtime": 1, "type": 0}]}, "'step' has to be a text"),
        ({**ovo_entries()[11], "id": 50, "test_info": [{"realtime": 1, "type": 2}]}, r"'type' has to be 0 \(No\) or 1"),
        ({**ovo_entries()[11], "id": 50, "clue_time": None}, "'clue_time' has to be a number"),
        (ovo_choice(3, "EPM"), "3: this id is there twice: only the first is used"),
    ],
)
def test_an_entry_that_cannot_be_used_is_a_defect(tmp_path: Path, entry: Any, complaint: str) -> None:
    write_ovo(tmp_path, [*ovo_entries(), entry])
    bench = OVOBench(tmp_path)
    assert len(bench.items) == 21
    (defect,) = bench.defects
    with pytest.raises(AssertionError, match=complaint):
        raise AssertionError(f"{defect.item}: {defect.what}")


@pytest.mark.parametrize(
    ("number", "fields", "id", "what"),
    [
        (0, {"options": ["a", "b", "b"]}, "0", "options B and C are the same words, and B is right"),
        (9, {"end_times": [1, 2, 3]}, "20_0", "counts 0, but 3 have ended by 3.2 s"),
        (10, {"end_time": [9, 15]}, "21_3", "says Yes, but the step is from 5 to 9 s, and it is 10 s"),
        (11, {"clue_time": 24}, "22_1", "says No, but the clue comes at 24 s, and it is 25 s"),
    ],
)
def test_known_defects_are_computed(tmp_path: Path, number: int, fields: dict[str, Any], id: str, what: str) -> None:
    write_ovo(tmp_path, changed(number, **fields))
    bench = OVOBench(tmp_path)
    assert (bench.defects[0].item, bench.defects[0].what) == (id, what)
    right = Replies({one.id: Reply(one.id, one.answer) for one in bench.items})
    score = bench.score(right, "strict", without_defects=True)
    assert len(score.right) == 21 - len({defect.item for defect in bench.defects})


def test_a_task_whose_answer_is_always_the_same_words_is_told(tmp_path: Path) -> None:
    options = [["a", "Unable to answer", "b"], ["Unable to answer", "c"]]
    write_ovo(tmp_path, [ovo_choice(n, "HLD", gt=1 - n, options=options[n]) for n in range(2)])
    (defect,) = OVOBench(tmp_path).defects
    assert defect.item == "task HLD"
    assert defect.what.startswith('the right answer of all 2 items is "Unable to answer"')


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '[{"id": 1}]', "[" * 100_000])
def test_a_file_without_entries_is_one_error(tmp_path: Path, text: str) -> None:
    (tmp_path / ovo.FILE).write_text(text)
    with pytest.raises(SourceError, match=ovo.FILE):
        OVOBench(tmp_path)
    with pytest.raises(SourceError, match="cannot read"):
        OVOBench(tmp_path / "none")


def test_it_has_no_options(tmp_path: Path) -> None:
    write_ovo(tmp_path)
    with pytest.raises(OptionError, match="ovo has no option 'context'; it has: none"):
        OVOBench(tmp_path, None, context="60")


CHOICE, COUNT = ("B", Form.CHOICE), ("12", Form.COUNT)
YES, NO = ("Yes", Form.YES_NO), ("No", Form.YES_NO)


@pytest.mark.parametrize(
    ("asked", "text", "mark"),
    [
        (CHOICE, "B", (1, True)),
        (CHOICE, "(B) green", (1, True)),
        (CHOICE, "Both", (1, True)),  # contained, whatever it stands for
        (CHOICE, "b", (0, False)),
        (CHOICE, "A or B", (1, True)),
        (CHOICE, "", (0, False)),
        (CHOICE, None, (0, False)),
        (COUNT, "12", (1, True)),
        (COUNT, "1 or 2", (1, True)),  # all digits, joined
        (COUNT, "twelve", (0, False)),
        (COUNT, "012", (0, True)),
        (YES, "Yes", (1, True)),
        (YES, "yes", (0, False)),
        (YES, "Y", (1, True)),
        (YES, "Y.", (0, False)),
        (YES, "No. Yes", (1, True)),
        (NO, "N", (1, True)),
        (NO, "Not yet", (1, True)),  # No is contained in Not
        (NO, "None", (1, True)),
        (NO, "Y", (0, True)),
        (NO, None, (0, False)),
    ],
)
def test_the_official_rule(asked: tuple[str, Form], text: str | None, mark: tuple[float, bool]) -> None:
    answer, form = asked
    options = ("a", "b", "c", "d") if form is Form.CHOICE else ()
    one = Item("1", "v", "T", "G", 1.0, "?", answer, "?", form, options)
    assert ovo.official(one, Reply("1", text)) == mark


def test_replies_in_every_published_form(bench: OVOBench, tmp_path: Path) -> None:
    told = ovo_results(ovo_entries(), ovo_truth)
    whole = write_json(tmp_path / "whole.json", told)
    plain = write_json(tmp_path / "plain.json", [entry for entries in told.values() for entry in entries])
    for group, entries in told.items():
        write_json(
            tmp_path / "folder" / f"{group}.json", {"backward": [], "realtime": [], "forward": [], group: entries}
        )
    for path in (whole, plain, tmp_path / "folder"):
        replies = bench.replies(path)
        assert len(replies) == 21
        assert replies.notes == []
        assert replies["22_2"] == Reply("22_2", "Yes")
        score = bench.score(replies, "official")
        assert [part.accuracy for part in score.parts] == [100.0] * 12
        assert {one.value for one in score.averages} == {100.0}
        assert (score.found, score.expected, score.complete) == (21, 3035, False)
        assert not any(one.headline for one in score.averages)
    (tmp_path / "ours.jsonl").write_text('{"id": "0", "reply": "B"}\n{"id": "999", "reply": "B"}\n')
    score = bench.score(bench.replies(tmp_path / "ours.jsonl"), "strict")
    assert (score.found, score.unknown, score.parts[0].accuracy, score.parts[1].accuracy) == (1, 1, 100.0, None)


def test_lists_instead_of_texts_are_joined_and_told(bench: OVOBench, tmp_path: Path) -> None:
    told = ovo_results(ovo_entries(), lambda asked: [ovo_truth(asked)])
    replies = bench.replies(write_json(tmp_path / "r.json", told))
    assert replies["0"].text == "B"
    assert replies.notes == ["21 replies are lists of texts; their texts were joined"]
    assert bench.score(replies, "official").notes == tuple(replies.notes)


def test_a_later_entry_under_the_id_of_an_earlier_one_with_the_same_question(tmp_path: Path) -> None:
    same = {"question": "Again?", "video": "a.mp4"}
    entries = [ovo_choice(1, "EPM", 0, **same), ovo_choice(2, "EPM", 3, **same), ovo_choice(3, "EPM")]
    write_ovo(tmp_path, entries)
    told = ovo_results(entries, ovo_truth)
    told["backward"][1]["id"] = 1
    told["backward"].append(told["backward"][2])
    replies = OVOBench(tmp_path).replies(write_json(tmp_path / "r.json", told))
    assert {id: reply.text for id, reply in replies.items()} == {"1": "A", "2": "D", "3": "B"}
    assert sorted(replies.notes) == [
        "1 replies are there twice, with the same words; they count once",
        "1 replies bear the id of another entry with the same question; they were given to theirs",
    ]


def test_another_truth_in_the_results_is_told(bench: OVOBench, tmp_path: Path) -> None:
    told = ovo_results(ovo_entries(), ovo_truth)
    told["backward"][0]["ground_truth"] = "D"
    replies = bench.replies(write_json(tmp_path / "r.json", told))
    assert replies.notes == ["1 replies stand beside another truth than the data has; they are scored by the data"]


@pytest.mark.parametrize(
    ("told", "complaint"),
    [
        ({"model": "x"}, "is no results file"),
        ({"backward": [], "forward": 7}, "is no results file"),
        ("text", "is no results file"),
        ([1], "entry 0 has no id"),
        ([{"response": "A"}], "entry 0 has no id"),
        ([{"id": 0, "response": 7}], "the reply to item 0 has to be a text or null, not a number"),
        ([{"id": 0, "response": ["A", 7]}], "the reply to item 0 has to be a text or null, not a list"),
        ([{"id": 0, "response": "A"}, {"id": 0, "response": "B"}], "item '0' has a reply already"),
    ],
)
def test_results_that_cannot_be_read(bench: OVOBench, tmp_path: Path, told: Any, complaint: str) -> None:
    with pytest.raises(SourceError, match=complaint):
        bench.replies(write_json(tmp_path / "r.json", told))


def test_a_folder_without_results(bench: OVOBench, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no results"):
        bench.replies(tmp_path / "empty")


def test_the_official_averages_pool_queries_and_others_entries(tmp_path: Path) -> None:
    second = {**ovo_entries()[9], "id": 30, "test_info": [{"realtime": 20, "count": 3}]}
    write_ovo(tmp_path, [*ovo_entries(), second])
    bench = OVOBench(tmp_path)
    replies = Replies({one.id: Reply(one.id, "3" if one.task == "REC" else one.answer) for one in bench.items})
    score = bench.score(replies, "official")
    values = {one.name.removesuffix(" of a partial set"): one.value for one in score.averages}
    assert values["backward"] == values["realtime"] == values["backward and realtime"] == 100.0
    assert values["forward"] == pytest.approx((50 + 100 + 100) / 3)  # two of four queries
    assert values["total"] == pytest.approx((200 + 250 / 3) / 3)
    assert values["REC per entry"] == pytest.approx((100 / 3 + 100) / 2)
    assert values["forward per entry"] == pytest.approx((200 / 3 + 100 + 100) / 3)


@pytest.mark.parametrize(
    ("said", "delay"),
    [
        ("NNYYY", ForwardDelay(1, 0, 0, 1, 1.0, 1.0)),
        ("NNNYN", ForwardDelay(1, 0, 0, 0, 6.0, 1.0)),
        ("NYYYY", ForwardDelay(1, 1, 0, 0, None, None)),
        ("NNNNN", ForwardDelay(1, 0, 1, 0, None, None)),
        ("NN", ForwardDelay(0, 0, 0, 0, None, None)),
    ],
)
def test_when_a_model_says_that_it_can_answer(bench: OVOBench, said: str, delay: ForwardDelay) -> None:
    replies = {f"22_{n}": Reply(f"22_{n}", letter) for n, letter in enumerate(said)}
    assert bench.forward_delay(replies) == bench.forward_delay(replies, "official") == delay


def test_the_revision_is_that_of_the_bytes(tmp_path: Path) -> None:
    write_ovo(tmp_path / "a")
    write_ovo(tmp_path / "b")
    entries = json.loads((tmp_path / "a" / ovo.FILE).read_text())
    question_data.write_json(tmp_path / "c" / ovo.FILE, entries[:-1])
    a, b, c = (OVOBench(tmp_path / name).revision for name in "abc")
    assert a == b != c
