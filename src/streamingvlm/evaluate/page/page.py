"""Makes the page: one file with its tables, charts, texts, style and script, which opens from the disk.

What models, judges and data say is only ever text: the template escapes it, the script sets it as text, and the data
are JSON in a script element in which no ``<`` stands. The page's own policy allows no script but the one whose digest
it names, and no address but those of videos.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ...sinks.files import make_folder, write_whole
from ..judging.votes import Vote
from .charts import NARROW, Estimate, bounds, fifths, forest, levels, percent, share_bar
from .data import CommentaryReport, Label, PairRow, Questions, Rate, ReportData, Text
from .scores_view import score_table, unparsed
from .tables import markdown, report_json

#: Names of the files of a report.
PAGE, TABLES, FIGURES = "report.html", "tables.md", "report.json"
TEMPLATES = Path(__file__).parent / "templates"
#: What could end a script element, or is not allowed in one.
_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
#: Marks that turn the direction of all that follows.
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")
#: Fields of a call that a page shows; the request stands there as the texts.
_CALL = (
    "reply",
    "replies",
    "model",
    "fingerprint",
    "sent",
    "usage",
    "asks",
    "tries",
    "finish_reason",
    "seconds",
    "cached",
)


def write_report(data: ReportData, folder: Path, videos: Path | None = None) -> Path:
    """Write the page, the tables and the figures into ``folder``; returns the page's path.

    ``videos``: the folder that the names of videos start from; the page links those that are there. OutputError for a
    folder that cannot be written.
    """
    make_folder(folder)
    title = title_of(data)
    write_whole(folder / TABLES, markdown(data, title))
    write_whole(folder / FIGURES, json.dumps(report_json(data), indent=1, ensure_ascii=True, default=str) + "\n")
    write_whole(folder / PAGE, render(data, _links(data, folder, videos), wanted=videos is not None))
    return folder / PAGE


def title_of(data: ReportData) -> str:
    """The benchmarks that the report is of."""
    names: list[str] = []
    if data.commentary is not None:
        names += [str(pair.settings.get("task", "")) for pair in data.commentary.pairs]
        names += [label.task for label in data.commentary.contestants]
    names += [part.task for part in data.questions]
    return ", ".join(dict.fromkeys(name.partition("?")[0] for name in names if name)) or "Evaluation"


def render(data: ReportData, links: Mapping[str, str] | None = None, *, wanted: bool = False) -> str:
    """The page as text. ``links``: addresses of videos by key; ``wanted``: whether links were asked for."""
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
            script=Markup(script),
            script_hash=Markup(digest),
            payload=Markup(safe_json(payload(data, links or {}, wanted))),
            version=version("streamingvlm"),
            **_values(data),
        )
    )


def safe_json(value: Any) -> str:
    """JSON that may stand in a script element, whatever its texts say; marks that turn text round are left out."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:  # JSON has no infinity, and no "not a number"
        text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", _DIRECTION.sub("", text))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, bounds=bounds, share=_share, share_of=_share_of, number=_number)
    return environment


def _share(rate: Rate) -> str:
    return "–" if rate.value is None else f"{rate.value:.0f}%"


def _share_of(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}%" if 0 < value < 9.95 else f"{value:.0f}%"


def _number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


# What the template shows


def _values(data: ReportData) -> dict[str, Any]:
    commentary = data.commentary
    tables = [score_table(part) for part in data.questions]
    has_items = any(file.items for part in data.questions for file in part.files)
    values: dict[str, Any] = {
        "title": title_of(data),
        "subtitle": _subtitle(data),
        "views": _views(data, has_items),
        "partial": data.partial,
        "different": data.different,
        "uncalibrated": data.uncalibrated,
        "commentary": commentary,
        "headline": None,
        "questions": tables,
        "has_items": has_items,
        "about": _about(data),
    }
    if commentary is not None:
        values |= _charts(commentary) | {
            "contestants": [_contestant(commentary, label) for label in commentary.contestants]
        }
        if len(commentary.pairs) == 1 and not (data.partial or data.different or data.uncalibrated):
            values["headline"] = _headline(commentary.pairs[0])
    return values


def _subtitle(data: ReportData) -> str:
    revisions = {label.revision for label in _labels(data) if label.revision}
    if data.commentary is not None:
        revisions |= {str(pair.settings["revision"]) for pair in data.commentary.pairs if pair.settings.get("revision")}
    return f"data {', '.join(sorted(revisions))}" if revisions else ""


def _labels(data: ReportData) -> list[Label]:
    labels = list(data.commentary.contestants) if data.commentary is not None else []
    return labels + [file.label for part in data.questions for file in part.files]


def _views(data: ReportData, has_items: bool) -> list[dict[str, Any]]:
    views: list[dict[str, Any]] = []
    if data.commentary is not None:
        views.append({"id": "results", "name": "Commentary" if data.questions else "Results", "count": None})
        if data.commentary.pairs:
            views.append({"id": "windows", "name": "Windows", "count": len(data.commentary.windows)})
    if data.questions:
        views.append({"id": "questions", "name": "Questions", "count": None})
        if has_items:
            views.append({"id": "items", "name": "Items", "count": sum(len(_items(part)) for part in data.questions)})
    views.append({"id": "about", "name": "Settings", "count": None})
    return views


def _headline(pair: PairRow) -> dict[str, Any]:
    rate, verdict = pair.figures.rate, ""
    if rate.low is not None and rate.high is not None:
        better = pair.a if rate.low > 50 else pair.b if rate.high < 50 else None
        verdict = f"{better} is better" if better else "no clear difference"
    return {"a": pair.a, "b": pair.b, "judge": pair.judge, "figures": pair.figures, "verdict": verdict}


def _charts(commentary: CommentaryReport) -> dict[str, Any]:
    pairs = commentary.pairs
    away = [abs(rate.value - 50) for pair in pairs for rate in pair.figures.fifths if rate.value is not None]
    reach = max([20.0, *away])
    rows = [Estimate(pair.a, f"vs {pair.b}", pair.figures.rate, pair.figures.controlled) for pair in pairs]
    return {
        "forest": forest(rows, "Win rate of A, percent") if rows else "",
        "forest_narrow": forest(rows, "Win rate of A, percent", NARROW) if rows else "",
        "bars": [share_bar(pair.figures.wins_a, pair.figures.ties, pair.figures.wins_b) for pair in pairs],
        "sparks": [fifths([rate.value for rate in pair.figures.fifths], reach) for pair in pairs],
        "groups": [_rates(pair.figures.groups, "") for pair in pairs],
        "fifths": [_rates(pair.figures.fifths, "Fifth ") for pair in pairs],
        "measured": _measured_rows(commentary),
        "any_group": any(pair.figures.groups or pair.figures.fifths for pair in pairs),
    }


def _measured_rows(commentary: CommentaryReport) -> list[dict[str, Any]]:
    """Of every contestant; last the human words of the windows that the first one has."""
    rows = [_measured(name, tree) for name, tree in commentary.measured.items()]
    first = next(iter(commentary.measured.values()), None)
    if first is not None:
        nothing = {"silent": None, "lag": None, "names": None, "numbers": None}
        human, parts = first["reference"]["all"], first["reference"]["fifths"]
        again = {"again": _percent_of(human["repeated_lines"]), "spark": _again(parts)}
        rows.append({"name": "human words", **human, **nothing, **again, "reference": True})
    return rows


def _measured(name: str, tree: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of a contestant that need no judge."""
    names, streams = tree["mentions"], tree["streams"]
    windows = {**tree["windows"]["all"], "fifths": tree["windows"]["fifths"]}
    steps = streams["all"] if streams is not None else {}
    bare = {kind: _percent_of(names[kind]["share"]) for kind in ("names", "numbers")}
    row = {"name": name, **windows, "silent": _percent_of(steps.get("silent_share")), "lag": steps.get("lag_p95")}
    return (
        {"reference": False}
        | row
        | bare
        | {"again": _percent_of(windows["repeated_lines"]), "spark": _again(windows["fifths"])}
    )


def _again(parts: Sequence[Mapping[str, Any]] | None) -> Markup:
    shares = [_percent_of(part["repeated_lines"]) for part in parts or ()]
    return levels(shares, "Repeated sentences by fifth of the game, percent")


def _percent_of(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _rates(rates: Sequence[Rate], before: str) -> Markup:
    rows = [Estimate(before + rate.name, f"{rate.n} votes", rate) for rate in rates]
    return forest(rows, "Win rate of A, percent", NARROW) if rows else Markup("<p class='soft small'>not known</p>")


def _contestant(commentary: CommentaryReport, label: Label) -> dict[str, Any]:
    texts = commentary.texts.get(label.name, {})
    lengths = {window: len(text.text.split()) for window, text in texts.items()}
    seconds = sum(one.end - one.start for one in commentary.windows if one.id in texts)
    words = sum(lengths.values())
    origin = [str(label.origin[name]) for name in ("date", "version", "machine") if label.origin.get(name)]
    return {
        "label": label,
        "texts": len(texts),
        "spoken": sum(count > 0 for count in lengths.values()),
        "words": words / len(texts) if texts else None,
        "rate": words / seconds if seconds else None,
        "origin": ", ".join(origin) or "–",
    }


def _about(data: ReportData) -> list[dict[str, str]]:
    rows = []
    for label in {(label.name, label.task): label for label in _labels(data)}.values():
        known = {name: getattr(label, name) for name in ("task", "revision", "mode", "preset", "settings", "origin")}
        rows.append({"name": label.name, "kind": "contestant", "text": _pretty(known)})
    if data.commentary is not None:
        for pair in data.commentary.pairs:
            rows.append({"name": f"{pair.a} vs {pair.b}", "kind": "votes", "text": _pretty(pair.settings)})
    return rows


def _pretty(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


# What the script shows


def payload(data: ReportData, links: Mapping[str, str], wanted: bool) -> dict[str, Any]:
    """Windows, texts, votes and items, as ``report.js`` reads them."""
    commentary = data.commentary
    tree: dict[str, Any] = {"videos": dict(links), "wanted": wanted, "pairs": [], "questions": []}
    if commentary is not None:
        index = {window.id: number for number, window in enumerate(commentary.windows)}
        names = [label.name for label in commentary.contestants]
        tree["contestants"] = [{"name": name} for name in names]
        tree["windows"] = [
            {
                "id": one.id,
                "video": one.video,
                "group": one.group,
                "title": one.title,
                "start": one.start,
                "end": one.end,
            }
            | ({} if one.reference is None else {"ref": one.reference})
            for one in commentary.windows
        ]
        tree["texts"] = [
            {index[window]: _text(text) for window, text in commentary.texts.get(name, {}).items()} for name in names
        ]
        tree["pairs"] = [_pair(pair, index, names) for pair in commentary.pairs]
        tree["judges"] = len({(pair.judge, str(pair.settings.get("prompt"))) for pair in commentary.pairs})
    tree["questions"] = [_questions(part) for part in data.questions]
    return tree


def _text(text: Text) -> dict[str, Any]:
    """With its steps, or without any: never the same words twice."""
    steps = [[round(step.start, 2), round(step.end, 2), step.text] for step in text.steps]
    whole = not steps or " ".join(step.text for step in text.steps) != text.text
    return {"steps": steps} | ({"text": text.text} if whole else {})


def _pair(pair: PairRow, index: Mapping[str, int], names: Sequence[str]) -> dict[str, Any]:
    verdicts: list[dict[str, Any]] = [
        {
            "w": index[one.window],
            "winner": one.winner,
            "flip": one.flip,
            "error": one.error,
            "empty": one.empty,
            "votes": [_vote(vote) for vote in one.votes],
        }
        for one in pair.verdicts
    ]
    verdicts.sort(key=lambda one: one["w"])
    return {"a": names.index(pair.a), "b": names.index(pair.b), "judge": pair.judge, "verdicts": verdicts}


def _vote(vote: Vote) -> dict[str, Any]:
    call = {name: vote.call[name] for name in _CALL if name in vote.call}
    if call.get("replies") == [call.get("reply")]:
        del call["replies"]
    return {
        "order": vote.order,
        "repeat": vote.repeat,
        "choice": vote.choice,
        "empty": vote.empty,
        "error": vote.error,
        "key": vote.key,
        "call": call,
    }


def _items(part: Questions) -> dict[str, dict[str, Any]]:
    return {
        item.id: {
            "id": item.id,
            "video": item.video,
            "task": item.task,
            "group": item.group,
            "time": item.time,
            "question": item.question,
            "options": list(item.options),
            "answer": item.answer,
        }
        for file in part.files
        for item in file.items
    }


def _questions(part: Questions) -> dict[str, Any]:
    files = []
    for file in part.files:
        score = file.score("official") or (file.scores[0] if file.scores else None)
        files.append(
            {
                "name": file.label.name,
                "replies": dict(file.replies),
                "right": dict(score.right) if score else {},
                "unparsed": unparsed(file),
                "parsed": {parser: dict(answers) for parser, answers in file.parsed.items()},
            }
        )
    return {"task": part.task, "items": list(_items(part).values()), "files": files}


def _links(data: ReportData, folder: Path, videos: Path | None) -> dict[str, str]:
    """Addresses, from the page, of the videos that are there."""
    if videos is None:
        return {}
    keys = {window.video for window in data.commentary.windows} if data.commentary is not None else set()
    keys |= {item.video for part in data.questions for file in part.files for item in file.items}
    found = {}
    for key in sorted(keys):
        pure = PurePosixPath(key)
        if pure.is_absolute() or ".." in pure.parts:
            continue  # a name from the data may not lead out of the folder
        path = videos / pure
        if path.is_file():
            found[key] = quote(os.path.relpath(path.resolve(), folder.resolve()).replace(os.sep, "/"))
    return found
