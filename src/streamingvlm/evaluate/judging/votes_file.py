"""Votes on disk: one line of settings, one of the windows to be judged, then a line for every vote.

Lines are appended as votes come in, each with one write, so that a run that is killed leaves whole lines and at most
one that is cut; it is taken up from there. Settings say all that a vote depends on: votes of other settings are not
added to a file, nor are files of different ones pooled.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from ...core.errors import OutputError, SourceError
from ...sinks.files import json_text, make_folder, write_whole
from .votes import Choice, Order, Vote

#: What two files must agree in for their votes to be of one kind: the judge.
JUDGE = ("judge", "host", "prompt", "parameters")
#: What they must agree in besides to be of the same comparison.
COMPARISON = ("task", "revision", "a", "b")
#: What is only told, and may differ when a file is gone on with.
TOLD = frozenset({"accepted", "windows"})
#: A vote's place: what there is one vote of.
Slot = tuple[str, str, int]

_FIELDS = frozenset(field.name for field in fields(Vote))


@dataclass(frozen=True, slots=True)
class Place:
    """A window to be judged: of which video and group it is, seconds on the video's clock."""

    window: str
    video: str
    group: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Judged:
    """A votes file, or several pooled.

    ``settings``: ``task``, ``revision`` (of the data), ``a`` and ``b`` (name, and digest of the texts), ``judge`` and
    ``host``, ``prompt`` (name and digest), ``parameters``, ``repeats``, ``accepted`` (what the endpoint takes).
    ``places``: every window of the data that was to be judged; ``votes``: one for each slot, errors where no vote came.
    """

    settings: Mapping[str, Any]
    places: Sequence[Place]
    votes: Sequence[Vote]

    @property
    def expected(self) -> int:
        """Votes that a whole run has."""
        return len(self.places) * 2 * int(self.settings["repeats"])

    @property
    def judged(self) -> int:
        """Votes that there are; errors are none."""
        return sum(vote.choice is not None for vote in self.votes)


def slot(vote: Vote) -> Slot:
    """The place of a vote."""
    return vote.window, vote.order, vote.repeat


class VotesFile:
    """A votes file that is added to, by one process at a time.

    A new one is begun with ``settings`` and ``places``, one that is there is taken up: ``votes`` has what is in it.
    Raises SourceError for a file of other settings, OutputError for one that cannot be written or is in use.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], places: Sequence[Place]) -> None:
        self.path = path
        make_folder(path.parent)
        if not path.exists() or not path.stat().st_size:
            rows = {"windows": [list(asdict(place).values()) for place in places]}
            write_whole(path, json_text({"settings": dict(settings)}) + "\n" + json_text(rows) + "\n")
        self._file = _locked(path)
        try:
            found = read_votes(path)
            _same_run(path, found, settings, places)
            _drop_cut_line(self._file)
        except BaseException:
            self.close()
            raise
        self.votes = {slot(vote): vote for vote in found.votes}

    def add(self, vote: Vote) -> None:
        """Write a vote; it is on disk when this returns."""
        write_line(self._file, self.path, asdict(vote))
        self.votes[slot(vote)] = vote

    def close(self) -> None:
        """Let another process have the file."""
        os.close(self._file)


def read_votes(path: Path) -> Judged:
    """The votes in a file. An error is replaced by the vote that came later; a last line that was cut is left out.

    SourceError for anything that is no votes file.
    """
    lines = _whole_lines(path)
    try:
        settings, rows = lines[0]["settings"], lines[1]["windows"]
        int(settings["repeats"])
        places = [Place(*row) for row in rows]
        votes = [_vote(line) for line in lines[2:]]
    except (IndexError, KeyError, TypeError, ValueError):
        raise SourceError(
            f"{path} is no file of votes: it begins with settings and windows, then a line a vote"
        ) from None
    return Judged(settings, places, _one_each(votes, path))


def pool(paths: Sequence[Path]) -> Judged:
    """The votes of several files of one comparison, judged in parts or again. A vote that is in two files counts once.

    SourceError for files of different judges, prompts, parameters, data or contestants, and where two files hold
    different votes for one place.
    """
    if not paths:
        raise SourceError("there is no file of votes to pool")
    parts = [read_votes(path) for path in paths]
    first = parts[0]
    for path, part in zip(paths[1:], parts[1:], strict=True):
        differs = differences(first.settings, part.settings, (*JUDGE, *COMPARISON, "repeats"))
        if differs:
            raise SourceError(f"votes of {paths[0]} and {path} cannot be pooled: {differs}")
    places = {place.window: place for part in parts for place in part.places}
    votes = [vote for part in parts for vote in part.votes]
    return Judged(first.settings, list(places.values()), _one_each(votes, "the files"))


def differences(one: Mapping[str, Any], other: Mapping[str, Any], names: Iterable[str]) -> str:
    """In what two settings differ, in words ("" if in nothing)."""
    different = [name for name in names if _json(one.get(name)) != _json(other.get(name))]
    return "; ".join(f"{name} is {json_text(one.get(name))} and {json_text(other.get(name))}" for name in different)


def write_line(file: int, path: Path, row: Mapping[str, Any]) -> None:
    """Append a line with a single write. OutputError if that cannot be."""
    left = memoryview((json_text(row) + "\n").encode("utf-8", "replace"))
    try:
        while left:
            left = left[os.write(file, left) :]
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error})") from None


def open_appending(path: Path) -> int:
    """A descriptor for :func:`write_line`."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror or error})") from None


def _locked(path: Path) -> int:
    file = open_appending(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if isinstance(error, BlockingIOError):
            raise OutputError(f"another process is judging into {path}; wait for it, or choose another file") from None
        raise OutputError(f"cannot lock {path} ({error.strerror})") from None
    return file


def _drop_cut_line(file: int) -> None:
    """Cut the file behind its last whole line."""
    end = os.fstat(file).st_size
    kept = os.pread(file, end, 0).rfind(b"\n") + 1
    if kept != end:
        os.ftruncate(file, kept)


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise SourceError(f"cannot read {path} ({error.strerror})") from None
    found = []
    for number, line in enumerate(text.split("\n")[:-1], 1):  # behind the last line end is nothing, or a cut line
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise SourceError(f"{path}, line {number}: not a line that judging writes")
        found.append(row)
    return found


def _one_each(votes: Sequence[Vote], where: object) -> list[Vote]:
    """One vote for each slot: a vote before an error. SourceError for two votes that differ."""
    kept: dict[Slot, Vote] = {}
    for vote in votes:
        before = kept.get(slot(vote))
        if before is None or before.choice is None:
            kept[slot(vote)] = vote
        elif vote.choice not in (None, before.choice):
            raise SourceError(
                f"{where}: window {vote.window}, order {vote.order}, repeat {vote.repeat} has two different votes"
            )
    return list(kept.values())


def _same_run(path: Path, found: Judged, settings: Mapping[str, Any], places: Sequence[Place]) -> None:
    names = dict.fromkeys([*found.settings, *settings])
    differs = differences(found.settings, settings, [name for name in names if name not in TOLD])
    if not differs and {place.window for place in found.places} != {place.window for place in places}:
        differs = f"it has {len(found.places)} windows, the data {len(places)} or others"
    if differs:
        raise SourceError(
            f"{path} holds other votes ({differs}); choose another file: what was judged is not paid twice"
        )


def _vote(line: Mapping[str, Any]) -> Vote:
    vote = Vote(**{name: value for name, value in line.items() if name in _FIELDS})
    if vote.choice not in (*get_args(Choice), None) or vote.order not in get_args(Order):
        raise ValueError
    return vote


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
