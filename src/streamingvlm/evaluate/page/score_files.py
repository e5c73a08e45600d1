"""The file that ``eval score`` writes and ``eval report`` reads: one contestant on one benchmark of questions.

One JSON object::

    {"format": "streamingvlm.scores.1", "task": "ovo", "contestant": {run.json},
     "scores": [Score, ...], "baselines": [{"name": "majority", "score": Score}, ...],
     "items": [Item, ...], "replies": {"item id": "raw reply" or null},
     "parsed": {"official": {"item id": "A" or null}},
     "intervals": {"official": {"task or average": {"value", "low", "high"}}}}

The last four may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ...core.errors import SourceError
from ...sinks.files import json_text, make_folder, write_whole
from ..bootstrap import Interval
from ..questions.items import Average, Form, Item, Part, Score
from .data import Baseline, Label, ScoreFile

FORMAT = "streamingvlm.scores.1"
#: Fields of an item that a page shows; prompts are long and in the run.
ITEM_FIELDS = ("id", "video", "task", "group", "time", "question", "answer", "form", "options", "start")


def write_scores(path: Path, file: ScoreFile, about: Mapping[str, Any]) -> None:
    """Write what a contestant's replies are worth; ``about``: its ``run.json``. OutputError if that cannot be done."""
    value = {
        "format": FORMAT,
        "task": file.task,
        "contestant": dict(about),
        "scores": [asdict(score) for score in file.scores],
        "baselines": [{"name": baseline.name, "score": asdict(baseline.score)} for baseline in file.baselines],
        "items": [{name: getattr(item, name) for name in ITEM_FIELDS} for item in file.items],
        "replies": dict(file.replies),
        "parsed": {parser: dict(answers) for parser, answers in file.parsed.items()},
        "intervals": {
            parser: {name: bounds.json() for name, bounds in found.items()} for parser, found in file.intervals.items()
        },
    }
    make_folder(path.parent)
    write_whole(path, json_text(value) + "\n")


def read_scores(path: Path) -> ScoreFile:
    """What :func:`write_scores` wrote. SourceError for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file; `eval score --json FILE` writes scores") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read as scores ({error})") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise SourceError(f"{path} does not hold scores: a JSON object with the format {FORMAT} is needed")
    try:
        return _file(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SourceError(f"{path} is not what `eval score` writes ({type(error).__name__}: {error})") from None


def _file(value: Mapping[str, Any]) -> ScoreFile:
    about = value["contestant"]
    return ScoreFile(
        task=str(value["task"]),
        label=Label.of({"name": about} if isinstance(about, str) else about),
        scores=[_score(score) for score in value["scores"]],
        baselines=[Baseline(str(one["name"]), _score(one["score"])) for one in value.get("baselines", [])],
        items=[_item(item) for item in value.get("items", [])],
        replies={str(key): None if text is None else str(text) for key, text in value.get("replies", {}).items()},
        parsed={str(parser): dict(answers) for parser, answers in value.get("parsed", {}).items()},
        intervals={
            str(parser): {str(name): Interval(**bounds) for name, bounds in found.items()}
            for parser, found in value.get("intervals", {}).items()
        },
    )


#: Fields of a score that are read by their own rules.
_READ = frozenset({"parts", "averages", "right"})


def _score(value: Mapping[str, Any]) -> Score:
    return Score(
        parts=[Part(**_known(Part, part)) for part in value["parts"]],
        averages=[Average(**_known(Average, average)) for average in value["averages"]],
        right={str(key): float(right) for key, right in value["right"].items()},
        **{name: _frozen(part) for name, part in _known(Score, value).items() if name not in _READ},
    )


def _item(value: Mapping[str, Any]) -> Item:
    about = {**_known(Item, value), "prompt": "", "options": tuple(map(str, value.get("options", ())))}
    return Item(**{**about, "form": Form(about.get("form", Form.CHOICE))})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _known(kind: type, value: Mapping[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    return {name: field for name, field in value.items() if name in names}
