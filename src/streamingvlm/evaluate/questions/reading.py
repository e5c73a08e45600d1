"""What the readers of benchmarks of questions share: files, options, fields of entries, lengths of videos."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...core.errors import OptionError, SourceError
from ...data.report import Unusable
from ...data.videos import Videos
from ..benchmark import Video
from .replies import is_number, read_text

#: Files whose headers are read at the same time: most of the time is waiting for a disk or a network.
THREADS = 16
#: A question this much behind the end of its video is told as a defect, seconds; less is how files round.
BEYOND = 1.0


class Malformed(Exception):  # noqa: N818 - not an error of the program: it becomes a Defect
    """An entry of the data that cannot be used, and why."""


def load_json(path: Path) -> Any:
    """A JSON file. SourceError if it cannot be read."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path} is not JSON ({error})") from None


def load_list(path: Path) -> list[Any]:
    """A JSON file that holds a list. SourceError if it does not."""
    found = load_json(path)
    if not isinstance(found, list):
        raise SourceError(f"{path} has to hold a list of entries, not {kind(found)}")
    return found


def revision(files: Iterable[Path]) -> str:
    """sha256 of the files, one behind the other in the order of their names; the first 16 digits."""
    found = hashlib.sha256()
    for file in sorted(files, key=lambda path: path.name):
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


def take_options(benchmark: str, given: Mapping[str, str], known: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The value of every option in ``known``: name -> its values, the default first.

    OptionError for another name or value.
    """
    for name, value in given.items():
        if name not in known:
            raise OptionError(f"{benchmark} has no option {name!r}; it has: {', '.join(known) or 'none'}")
        if value not in known[name]:
            raise OptionError(f"{benchmark}: {name}={value} is none of: {', '.join(known[name])}")
    return {name: given.get(name, values[0]) for name, values in known.items()}


def kind(value: Any) -> str:
    """What a JSON value is called."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def a_text(entry: Mapping[str, Any], name: str) -> str:
    """The text in that field; :class:`Malformed` if there is none."""
    value = entry.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Malformed(f"{name!r} has to be a text, not {'empty' if value == '' else kind(value)}")
    return value


def a_number(entry: Mapping[str, Any], name: str) -> float:
    """The number in that field, at least 0; :class:`Malformed` if there is none."""
    value = entry.get(name)
    if not is_number(value) or value < 0:
        raise Malformed(f"{name!r} has to be a number from 0 on, not {repr(value)[:40]}")
    return value


def a_whole_number(entry: Mapping[str, Any], name: str) -> int:
    """The whole number in that field, at least 0; :class:`Malformed` if there is none."""
    value = a_number(entry, name)
    if value != int(value):
        raise Malformed(f"{name!r} has to be a whole number, not {value!r}")
    return int(value)


def a_list(entry: Mapping[str, Any], name: str, of: type | tuple[type, ...]) -> list[Any]:
    """The list in that field, all of one type and at least one; :class:`Malformed` if it is not."""
    value = entry.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(one, of) for one in value):
        raise Malformed(f"{name!r} is not the list that it has to be")
    return value


def numbers(entry: Mapping[str, Any], name: str) -> list[float]:
    """The list of numbers in that field, at least one; :class:`Malformed` if there is none."""
    value = entry.get(name)
    if not isinstance(value, list) or not value or not all(is_number(one) for one in value):
        raise Malformed(f"{name!r} is not the list of numbers that it has to be")
    return value


def an_object(entry: Any) -> dict[str, Any]:
    """The entry, if it is an object; :class:`Malformed` if not."""
    if not isinstance(entry, dict):
        raise Malformed(f"it has to be an object, not {kind(entry)}")
    return entry


def relative(name: str, *prefixes: str) -> str:
    """The name of a video without a folder in front that differs between machines; :class:`Malformed` if it climbs."""
    name = name.removeprefix("./")
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    if name.startswith("/") or ".." in Path(name).parts:
        raise Malformed(f"the video {name!r} lies outside the folder of the videos")
    return name


def lengths(folder: Path, names: Iterable[str]) -> dict[str, float]:
    """Seconds of those videos that are there and say how long they are. SourceError if ``folder`` is none."""
    videos = Videos(folder)
    here = [name for name in dict.fromkeys(names) if (folder / name).is_file()]

    def length(name: str) -> float | None:
        try:
            return videos.header(folder / name).seconds
        except Unusable:  # a file that cannot be read is what the check of the videos tells
            return None

    with ThreadPoolExecutor(THREADS, "video headers") as pool:
        return {name: seconds for name, seconds in zip(here, pool.map(length, here), strict=True) if seconds}


def videos_of(folder: Path, needed: Mapping[str, float]) -> list[Video]:
    """The videos of a benchmark below ``folder``: name -> how long it has to be."""
    return [Video.find(name, folder, seconds) for name, seconds in needed.items()]
