"""Events as JSON: one vocabulary for ``--json``, ``.jsonl`` files, the journal and webhooks.

A record has ``type`` (see :data:`TYPES`), ``id``, ``wall`` (UTC, ISO 8601) and the fields of its event.
:func:`event_of` makes an event of a record again.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ..core.events import (
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
    Told,
)

#: Event -> the name of its type. Readers pass over names that they do not know.
TYPES: dict[type[Told], str] = {
    StreamOpened: "stream.opened",
    SourceStatus: "source.status",
    SourceFormat: "source.format",
    Gap: "stream.gap",
    Resumed: "stream.resumed",
    Rebased: "stream.rebased",
    Dropped: "stream.dropped",
    Closed: "stream.closed",
    Delta: "commentary.delta",
    Commentary: "commentary.done",
    StepFailed: "commentary.failed",
    Instructed: "instruction.created",
    InstructionUpdated: "instruction.updated",
    Asked: "answer.created",
    AnswerDelta: "answer.delta",
    Answered: "answer.done",
    RuleChanged: "rule.changed",
    Alert: "rule.alert",
}
#: The other way round.
_CLASSES: dict[str, type[Told]] = {name: kind for kind, name in TYPES.items()}
#: Of these every field of the envelope and the text; nothing else is bulky or of use outside the process.
_LEFT_OUT = frozenset({"tokens", "timing", "capacity", "instructions", "question"})


def record_of(event: Event) -> dict[str, Any]:
    """``event`` as a JSON object; times in seconds, rounded to microseconds."""
    record: dict[str, Any] = {"type": TYPES[type(event)]}
    if event.id:
        record["id"] = event.id
    if event.wall:
        record["wall"] = utc(event.wall)
    record |= {key: value for key, value in _plain(event).items() if key not in ("id", "wall")}
    if isinstance(event, RuleChanged) and event.spec is None:
        record.pop("spec")
    if isinstance(event, Commentary):
        record |= {"lag": round(event.timing.lag, 6), "work": round(event.timing.work, 6)}
        if event.wall_start is not None:
            record["wall_start"] = utc(event.wall_start)
        else:
            record.pop("wall_start", None)
        if event.instructions:
            record["instructions"] = [
                {"version": one.version, "text": one.text, "start": one.start} for one in event.instructions
            ]
    return record


def utc(moment: float) -> str:
    """Seconds since 1970 as ISO 8601 with milliseconds and ``Z``."""
    stamp = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    return re.sub(r"\+00:00$", "Z", stamp.isoformat(timespec="milliseconds"))


def moment_of(stamp: str) -> float:
    """What :func:`utc` made of a moment. ValueError for anything else."""
    return datetime.datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def event_of(record: Mapping[str, Any]) -> Event | None:
    """The event of a record; what the record left out has its default. None for a type that this version does not know.

    Of the timing of a step only its lag comes back, and of an answer not the question: that is in the event before.
    Raises ValueError for what :func:`record_of` did not make.
    """
    kind = _CLASSES.get(str(record.get("type")))
    if kind is None:
        return None
    try:
        values = {one.name: record[one.name] for one in fields(kind) if one.name in record}
        values |= {name: moment_of(values[name]) for name in ("wall", "wall_start") if name in values}
        if kind is Commentary:
            values["timing"] = Timing(lag=float(record.get("lag", 0.0)))
            values["instructions"] = tuple(InstructionUpdated(**one) for one in record.get("instructions", ()))
        if kind is Answered and record.get("answer") is not None:
            answer = dict(record["answer"])
            values["answer"] = Answer(Question(""), **answer | {"logprobs": tuple(answer.get("logprobs", ()))})
        return kind(**values)  # type: ignore[return-value]
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"no record of an event: {error}") from None


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value) if one.name not in _LEFT_OUT}
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return round(value, 6) if isinstance(value, float) else value
