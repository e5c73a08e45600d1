"""Questions to streams that run: they are asked in a spare slot, and the streams do not notice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..core.errors import StreamingVLMError
from ..core.events import Answer, Question
from .pipeline import Pipeline

#: What became of a batch of questions, in their order: the answer, or why there is none.
Replies = Sequence[Answer | StreamingVLMError]


class Asker(Protocol):
    """Asks the stream of a pipeline on the engine's thread. Rules are built on it."""

    def weigh(self, pipeline: Pipeline, questions: Sequence[Question], done: Callable[[Replies], None]) -> None:
        """Ask all ``questions`` of the stream as it stands at its next moment between two steps, on one copy of it.

        Questions of people come first. ``done`` is called on the engine's thread, in any case, once. Never waits.
        """
        ...
