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
class TimedQuestion:
    """Asked at ``time`` (seconds on the stream's clock); the commentary goes on without it.

    ``id``: what its answer is told apart by; ``own_turn``: asked in a turn of its own behind the reply to the step that
    ends at ``time`` or later, in place of in the turn of the step that shows ``time``. The other fields are those of
    :class:`streamingvlm.core.events.Question`; ``max_new_tokens`` 0: as many as a reply of the stream.

    ``poll``: from ``time`` on this is asked with every step, Yes or No, by likelihood; at the first Yes the question
    itself is asked. Behind ``until`` (None: the end) nothing is asked any more.
    """

    time: float
    text: str
    id: str = ""
    own_turn: bool = False
    options: tuple[str, ...] = ()
    prefix: str = ""
    as_commentary: bool = False
    max_new_tokens: int = 0
    poll: str = ""
    until: float | None = None


class TaskExample(Protocol):
    """One stream of a task, watched from its start.

    ``name``: what its files are called, different for every example; ``video``: what its frames are called: examples
    that show the same frames share it, others must not; ``context``: what is known beforehand; ``previous``: what was
    said before it begins, by steps; ``start``: where that is, seconds on its clock; ``stream``: its number, from which
    its random numbers follow; ``settings``: JSON that says which example it is: words that were recorded with other
    settings are not taken up. ``questions``: in the order of their times.
    """

    @property
    def name(self) -> str: ...
    @property
    def video(self) -> str: ...
    @property
    def context(self) -> str: ...
    @property
    def previous(self) -> Sequence[str]: ...
    @property
    def start(self) -> float: ...
    @property
    def stream(self) -> int: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def questions(self) -> Sequence[TimedQuestion]: ...

    def source(self, seconds: float, start: float = 0.0) -> Source:
        """The video from ``start`` to ``seconds``; nothing where it ends before ``start``."""
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
