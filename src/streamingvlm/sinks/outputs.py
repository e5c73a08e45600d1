"""Which output a path stands for. One more kind is a class with the members of :class:`Output` and one line here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from ..core.errors import OutputError
from ..core.events import Event
from .burned import BurnedOutput
from .files import FileOutput
from .formats import FORMATS


class Output(Protocol):
    """A sink with a file. Making one checks that it can be written and changes nothing."""

    path: Path

    def write(self, event: Event) -> None: ...
    def close(self) -> None: ...


#: Suffix -> what makes the output, of its path, whether an earlier run is continued, and whether it may be waited for.
OUTPUTS: dict[str, Callable[[Path, bool, bool], Output]] = {
    **dict.fromkeys(FORMATS, lambda path, resume, _: FileOutput(path, resume=resume)),
    ".mp4": lambda path, resume, patient: BurnedOutput(path, resume=resume, patient=patient),
}


def open_outputs(
    paths: Iterable[Path], inputs: Iterable[str] = (), *, resume: bool = False, patient: bool = False
) -> list[Output]:
    """Check all of them before any is touched.

    ``inputs``: what is read, and so may not be written. ``resume``: files that are there are continued. ``patient``:
    the stream waits for an encoder that is slow, as one that is not live can; otherwise that leaves frames out.
    OutputError.
    """
    outputs: list[Output] = []
    for path in paths:
        if any(_same(path, other.path) for other in outputs):
            raise OutputError(f"{path} is named twice as an output")
        if any(_same(path, Path(read)) for read in inputs):
            raise OutputError(f"{path} is the video that is watched; choose another name for what is said")
        if path.suffix.lower() not in OUTPUTS:
            raise OutputError(f"cannot write {path}: its name must end in one of {', '.join(OUTPUTS)}")
        outputs.append(OUTPUTS[path.suffix.lower()](path, resume, patient))
    return outputs


def wait_for(sinks: Iterable[object], seconds: float) -> list[object]:
    """Behind the end of their streams: until the sinks with threads of their own are done, ``seconds`` in all.

    Those that are not done then. Raises OutputError if one of them could not write.
    """
    until, late = time.monotonic() + seconds, []
    for sink in sinks:
        wait = getattr(sink, "wait", None)
        if wait is not None and not wait(max(until - time.monotonic(), 0.0)):
            late.append(sink)
    return late


def _same(one: Path, other: Path) -> bool:
    """Whether two names are of one file, there or not."""
    try:
        if os.path.realpath(one) == os.path.realpath(other):
            return True
        return one.is_file() and other.is_file() and os.path.samefile(one, other)
    except (OSError, ValueError):
        return False  # whoever opens it will tell
