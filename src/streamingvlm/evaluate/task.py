"""What is evaluated: a task gives examples, and scores what a model says of them.

Another package registers a task as an entry point of the group ``streamingvlm.tasks``: a callable that gets the options
behind the task's name (``NAME?key=value&...``) as a mapping of texts and returns a :class:`Task`; OptionError for
options that cannot be meant. ``streamingvlm eval run NAME`` runs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl

from ..core.errors import OptionError
from ..core.events import Source
from ..core.plugins import load, registered
from .record import Record


@dataclass(frozen=True, slots=True)
class Question:
    """Asked in the step that shows ``time`` (seconds from the stream's start); the commentary goes on without it."""

    time: float
    text: str


class TaskExample(Protocol):
    """One stream of a task, watched from its start.

    ``name``: what its files are called, different for every example; ``video``: what its frames are called: examples
    that show the same frames share it, others must not; ``context``: what is known beforehand; ``stream``: its number,
    from which its random numbers follow; ``settings``: JSON that says which example it is: words that were recorded
    with other settings are not taken up.
    """

    @property
    def name(self) -> str: ...
    @property
    def video(self) -> str: ...
    @property
    def context(self) -> str: ...
    @property
    def stream(self) -> int: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def questions(self) -> Sequence[Question]: ...

    def source(self, seconds: float, start: float = 0.0) -> Source:
        """The video from ``start`` to ``seconds``, 2 frames in steps of 1 s; nothing where it ends before ``start``."""
        ...


class Task(Protocol):
    """Examples of which up to ``seconds`` each are watched, and what is made of what was said of them."""

    @property
    def name(self) -> str: ...
    @property
    def seconds(self) -> int: ...
    @property
    def examples(self) -> Sequence[TaskExample]: ...

    def score(self, records: Sequence[Record]) -> Mapping[str, Any]:
        """Metrics, as JSON, of what was said: one record for each example, in their order.

        :mod:`streamingvlm.evaluate.bootstrap` gives intervals.
        """
        ...

    def report(self, metrics: Mapping[str, Any]) -> str:
        """The metrics as a person reads them."""
        ...


def open_task(locator: str) -> Task:
    """The registered task of ``NAME?key=value&...``. OptionError if there is no such task or option."""
    name, _, query = locator.partition("?")
    known = registered("tasks")
    if name not in known:
        raise OptionError(f"unknown task {name!r}; known: {', '.join(known) or 'none, no package has registered any'}")
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if len(options) < len(pairs):
        raise OptionError(f"{locator!r} has an option twice")
    task: Task = load(known[name], OptionError)(options)
    return task
