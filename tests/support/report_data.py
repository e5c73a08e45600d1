"""Runs, votes and scores as their writers leave them on disk: small, made by rule, the same every time."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from streamingvlm.evaluate.commentary.inf_streams import METADATA, WINDOW_FILES, InfStreams
from streamingvlm.evaluate.judging.calibration import STORED
from streamingvlm.evaluate.judging.prompts import PROMPTS
from streamingvlm.evaluate.judging.votes import Choice, Order, Vote
from streamingvlm.evaluate.judging.votes_file import JUDGE, Judged, Place
from streamingvlm.evaluate.page.data import Baseline, Label, ScoreFile
from streamingvlm.evaluate.page.score_files import write_scores
from streamingvlm.evaluate.questions.items import Average, Item, Part, Score
from streamingvlm.evaluate.runs import digest
from streamingvlm.sinks.files import json_text

REVISION = "5f0c3a9b1d7e2264"
SPORTS = ("basketball", "football", "ice hockey", "tennis")
#: What would run as a script, end an element or turn the page's text round, if a page took it for markup.
NASTY = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> & \"quotes\" {{ 7 * 7 }} "
    "\u2028 \u202e tournés \U0001f3c0 <!-- <script> ]]> 得点"
)
#: A video's name that is a path with signs that addresses and markup use.
NASTY_VIDEO = "basketball/<img src=x onerror='window.hacked=1'> 100% #1 & \"two\"?.mp4"
LINES = (
    "And they bring it up slowly, looking for the switch on the left side.",
    "Good pressure from the back line, nothing easy here.",
    "Oh, what a pass!",
    "That is the third time tonight that he has gone to his left from there.",
    "The keeper sees it late and gets a hand to it.",
    "Twelve seconds left on the clock, they want the last shot.",
    "He drives, he kicks it out, and it is good!",
    "They will not like that call on the bench.",
    "A quick restart, and suddenly there is room on the far side.",
    "It is a long way back from two down, but they have done it before.",
)


def about(name: str, **more: Any) -> dict[str, Any]:
    """A ``run.json``."""
    return {
        "task": "inf-streams",
        "revision": REVISION,
        "name": name,
        "mode": "stream",
        "preset": "paper",
        "settings": {"policy": "streaming", "temperature": 0.9, "seed": 42, "max_pixels": 401408},
        "found": 12,
        "expected": 12,
        "origin": {"version": "0.1.0", "machine": "NVIDIA H100", "date": "2026-11-28"},
    } | more


def write_run(folder: Path, name: str, said: Mapping[str, Sequence[tuple[float, str]]], **more: Any) -> Path:
    """A run's folder. ``said``: by video, the end of each second and what was said in it."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(about(name, **more)))
    lines = []
    for video, steps in said.items():
        items = [{"response": text + " ...", "start_time": end - 1, "end_time": end} for end, text in steps]
        lines.append(json_text({"video": video, "chunk_start": 0, "chunk_end": int(steps[-1][0]), "items": items}))
    (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_data(
    folder: Path, human: Mapping[str, Sequence[tuple[float, str]]], starts: Sequence[int], seconds: int
) -> str:
    """The benchmark's data of these human words; returns their revision."""
    games, windows = [], []
    for number, (video, steps) in enumerate(human.items()):
        words = [[end - 1, end, text] for end, text in steps if text]
        told = {"video": video, "title": f"Round {number + 1}: Reds against Blues"}
        games.append(told | {"content": words})
        for start in starts:
            windows.append(told | {"content": [word for word in words if start < word[1] <= start + seconds]})
    folder.mkdir(parents=True)
    for name, rows in ((METADATA, games), (WINDOW_FILES[0], windows)):
        (folder / name).write_text("".join(json_text(row) + "\n" for row in rows), encoding="utf-8")
    return InfStreams(folder).revision


def speech(seconds: range, seed: int, density: float) -> list[tuple[float, str]]:
    """What a commentator says, second by second."""
    chance, steps, words = random.Random(seed), [], list[str]()
    for second in seconds:
        if not words and chance.random() < density:
            words = chance.choice(LINES).split()
        count = chance.choice((2, 3, 3, 4)) if words else 0
        steps.append((float(second + 1), " ".join(words[:count])))
        words = words[count:]
    return steps


def text_in(steps: Sequence[tuple[float, str]], start: float, end: float) -> str:
    """The text of a window."""
    return " ".join(text for at, text in steps if start < at <= end and text)


def vote(place: Place, order: Order, choice: Choice | None, texts: tuple[str, str, str], **more: Any) -> Vote:
    """A vote as the judge writes it. ``texts``: reference, a, b."""
    reference, a, b = texts
    first, second = (a, b) if order == "ab" else (b, a)
    request = PROMPTS["inf-streams/1"].messages(reference, first, second)
    letter = "tie" if choice == "tie" else "A" if choice == order[0] else "B"
    reply = json.dumps({"winner": letter}) if choice else "I would say that both have merits."
    call = {
        "request": request,
        "sent": {"temperature": 0.0, "seed": 42},
        "model": "judge-2026-10-01",
        "fingerprint": "fp_44709d6fcb",
        "usage": {"prompt_tokens": 812, "completion_tokens": 9},
        "reply": reply,
        "replies": [reply],
        "finish_reason": "stop",
        "asks": 1 if choice else 3,
        "tries": 1,
        "seconds": 0.8,
        "cached": False,
    }
    error = "" if choice else "unparsed: 3 replies in another form (the last ended with stop)"
    fields = {
        "key": f"{place.window}-{order}",
        "error": error,
        "call": call,
        "words_a": len(a.split()),
        "words_b": len(b.split()),
    }
    return Vote(place.window, place.video, place.group, place.start, place.end, order, 0, choice, **(fields | more))


def settings(a: str, b: str, **more: Any) -> dict[str, Any]:
    """The first line of a votes file."""
    return {
        "task": "inf-streams",
        "revision": REVISION,
        "a": {"name": a, "digest": "00"},
        "b": {"name": b, "digest": "11"},
        "judge": "judge-large",
        "host": "localhost",
        "prompt": PROMPTS["inf-streams/1"].version,
        "parameters": {"temperature": 0.0, "seed": 42, "reply": "json_schema"},
        "repeats": 1,
    } | more


def write_votes(path: Path, judged: Judged) -> Path:
    """A votes file."""
    rows = [{"settings": dict(judged.settings)}, {"windows": [list(asdict(place).values()) for place in judged.places]}]
    path.write_text("".join(json_text(row) + "\n" for row in [*rows, *map(asdict, judged.votes)]), encoding="utf-8")
    return path


def commentary(
    folder: Path, games: int = 12, windows: int = 8, *, seconds: int = 100, whole: bool = True, nasty: bool = False
) -> tuple[list[Path], list[Path]]:
    """Three runs and the votes on two pairs of them: ties, flips, empty texts, and errors unless ``whole``.

    The data that they are of are in ``folder / "data"``.
    """
    videos = [f"{SPORTS[number % 4]}/game-{number:02d}.mp4" for number in range(games)]
    if nasty:
        videos[0] = NASTY_VIDEO
    span = range(1000, 1000 + seconds * windows)
    names = ("streamingvlm-7b", "livecc-7b", "qwen2.5-vl-7b")
    said = {
        name: {video: speech(span, 31 * place + number, density) for number, video in enumerate(videos)}
        for place, (name, density) in enumerate(zip(names, (0.5, 0.3, 0.8), strict=True))
    }
    for name in names[1:]:
        said[name][videos[-1]] = [(end, "" if end <= 1000 + seconds else text) for end, text in said[name][videos[-1]]]
    if nasty:
        said[names[0]][videos[0]][0] = (1001.0, NASTY)
    human = {video: speech(span, 1000 + number, 0.6) for number, video in enumerate(videos)}
    for steps in human.values():  # windows of the data go from their first word to their last
        for start in span[::seconds]:
            for second in (start, start + seconds - 1):
                steps[second - 1000] = (second + 1.0, steps[second - 1000][1] or "so")
    revision = {"revision": write_data(folder / "data", human, span[::seconds], seconds)}
    others = {"mode": "offline", "settings": {"policy": "full"}}
    runs = [
        write_run(folder / names[0], names[0], said[names[0]], **revision),
        write_run(folder / names[1], names[1], said[names[1]], settings={"policy": "public-code"}, **revision),
        write_run(folder / names[2], names[2], said[names[2]], **others, **revision),
    ]
    places = [
        Place(
            f"{video}:{start}-{start + seconds}", video, video.partition("/")[0], float(start), float(start + seconds)
        )
        for video in videos
        for start in span[::seconds]
    ]
    identity = {name: settings("", "")[name] for name in JUDGE}
    (folder / STORED).write_text(json.dumps({digest(identity): {"version": 1, "passed": True, "failed": []}}))
    files = []
    for other, strength in ((names[1], 0.72), (names[2], 0.56)):
        votes = list(_votes(places, human, said[names[0]], said[other], strength, whole=whole))
        files.append(
            write_votes(folder / f"{other}.jsonl", Judged(settings(names[0], other, **revision), places, votes))
        )
    return runs, files


def _votes(places: Sequence[Place], human: Any, one: Any, other: Any, strength: float, *, whole: bool) -> Any:
    chance = random.Random(int(strength * 100))
    for number, place in enumerate(places):
        reference, a, b = (text_in(said[place.video], place.start, place.end) for said in (human, one, other))
        for order in ("ab", "ba"):
            if not a or not b:
                yield vote(place, order, "a" if a else "b", (reference, a, b), empty="b" if a else "a", call={}, key="")
                continue
            draw = chance.random()
            liked: Choice = (
                "tie" if draw < 0.08 else "a" if draw < 0.08 + 0.92 * (strength + 0.1 * (order == "ab")) else "b"
            )
            yield vote(
                place, order, None if not whole and number % 37 == 5 and order == "ba" else liked, (reference, a, b)
            )


TASKS = (
    ("EPM", "backward", 40),
    ("HLD", "backward", 30),
    ("OCR", "realtime", 36),
    ("ACR", "realtime", 28),
    ("SSR", "forward", 44),
    ("CRR", "forward", 22),
)


def items(nasty: bool = False) -> list[Item]:
    """Questions of six tasks."""
    found = []
    for task, group, count in TASKS:
        for number in range(count):
            question = (
                NASTY if nasty and not found else f"What does the player in the red shirt do next ({task} {number})?"
            )
            options = ("passes to the left", "shoots", "falls", "leaves the field")
            answer = "ABCD"[(number * 7 + len(task)) % 4]
            video = f"videos/clip & {number % 9}.mp4"
            found.append(
                Item(f"{task}-{number}", video, task, group, 12.5 * number + 3, question, answer, "", options=options)
            )
    return found


def scores(folder: Path, *, whole: bool = True, nasty: bool = False) -> list[Path]:
    """Two contestants on the same questions, stream and offline."""
    paths = []
    for name, mode, policy, skill in (
        ("streamingvlm-7b", "stream", "streaming", 0.62),
        ("qwen2.5-vl-7b", "offline", "full", 0.5),
    ):
        label = about(name, task="ovo", mode=mode, settings={"policy": policy}, revision="9a1c", preset="official")
        paths.append(folder / f"{name}-ovo.json")
        write_scores(paths[-1], score_file(name, label, skill, whole=whole, nasty=nasty), label)
    return paths


def score_file(
    name: str, label: Mapping[str, Any], skill: float, *, whole: bool = True, nasty: bool = False
) -> ScoreFile:
    """Replies that are right as often as ``skill`` says; every eleventh holds no answer."""
    chance, asked = random.Random(name), items(nasty)
    replies: dict[str, str | None] = {}
    for number, item in enumerate(asked):
        wrong = "ABCD".replace(item.answer, "")
        replies[item.id] = (
            "I cannot tell." if number % 11 == 3 else item.answer if chance.random() < skill else chance.choice(wrong)
        )
    if nasty:
        replies[asked[0].id] = NASTY
    if not whole:
        del replies[asked[-1].id]
    parsed = {item: text if text in tuple("ABCD") else None for item, text in replies.items()}
    right = {item.id: float(parsed[item.id] == item.answer) for item in asked if item.id in replies}
    made = [score(parser, asked, right, parsed, whole=whole) for parser in ("official", "strict")]
    base = [Baseline(f"always {letter}", constant(asked, letter)) for letter in "ABCD"]
    base += [Baseline("majority of each task", constant(asked, None)), Baseline("blind", constant(asked, "B"))]
    return ScoreFile("ovo", Label.of(label), made, base, asked, replies, {"official": parsed, "strict": parsed})


def constant(asked: Sequence[Item], letter: str | None) -> Score:
    """What one letter is worth, or (None) the best letter of each task."""
    best = {}
    for task, _, _ in TASKS:
        answers = [item.answer for item in asked if item.task == task]
        best[task] = letter or max("ABCD", key=answers.count)
    return score("official", asked, {item.id: float(item.answer == best[item.task]) for item in asked}, {}, whole=True)


def score(
    parser: str, asked: Sequence[Item], right: Mapping[str, float], parsed: Mapping[str, str | None], *, whole: bool
) -> Score:
    """A score, as the metrics make it."""
    parts = []
    for task, group, _ in TASKS:
        mine = [item.id for item in asked if item.task == task and item.id in right]
        unparsed = sum(parsed.get(item, "") is None for item in mine)
        parts.append(Part(task, group, len(mine), len(mine), sum(right[item] for item in mine), unparsed))
    groups = [
        [part.accuracy or 0 for part in parts if part.group == group] for group in ("backward", "realtime", "forward")
    ]
    means = [sum(values) / len(values) for values in groups]
    averages = [
        Average(
            "total" if whole else "total of a partial set",
            "mean of the categories, each the mean of its tasks",
            sum(means) / 3,
            whole,
        )
    ]
    averages += [
        Average(group, "mean of its tasks' accuracies", value)
        for group, value in zip(("backward", "realtime", "forward"), means, strict=True)
    ]
    return Score(parser, parts, averages, right, len(asked), len(right), whole)
