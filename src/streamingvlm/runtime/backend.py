"""What a runtime asks of whatever makes the words: an engine on this machine, or a model behind an endpoint.

The runtime calls all of it on one thread, and none of it may wait there. A new kind of engine is a class with these
members; nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..core.events import Answer, Commentary, Question, Rebased, StepFailed, StepInput

if TYPE_CHECKING:  # it imports torch
    from ..engine.snapshot import Taken


class Request(Protocol):
    """A step on its way. ``done``: whether it has ended, well or not; it stays as it is from then on.

    ``error``: what ends its stream; ``result``: what is told of the step (None: of a part of one, and until then).
    """

    @property
    def step(self) -> StepInput: ...
    @property
    def done(self) -> bool: ...
    @property
    def error(self) -> BaseException | None: ...
    @property
    def result(self) -> Commentary | StepFailed | None: ...


class StreamSession(Protocol):
    """One stream.

    ``context``: what is known before its video starts; ``version``: of the newest instruction; ``patch_frames``: frames
    of the least part of a step that :meth:`submit` takes (None: steps come whole); ``between_steps``: whether it can be
    saved and copied, as far as the stream knows; ``ready``: whether it takes a step now. Live, what comes while it
    takes none is dropped and counted. ``longest_time``: seconds of the stream that the model can be told (infinity:
    any).
    """

    @property
    def context(self) -> str: ...
    @property
    def time(self) -> float: ...
    @property
    def version(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    @property
    def patch_frames(self) -> int | None: ...
    @property
    def between_steps(self) -> bool: ...
    @property
    def ready(self) -> bool: ...
    @property
    def longest_time(self) -> float: ...

    def prepare(self, item: StepInput, *, encode: bool = False) -> StepInput:
        """What can be done ahead of :meth:`submit`; called by the thread of the source."""
        ...

    def dropped(self, step: StepInput) -> None:
        """``step`` will not be submitted: a newer one has taken its place. Called by the thread of the source."""
        ...

    def submit(self, step: StepInput, *, on_text: Callable[[str], None] | None = None) -> Request | None:
        """Hand in a step, or a part of one; None for a part that is only kept until the rest is there.

        ``on_text`` is called by :meth:`Backend.advance`. Refused steps raise, and then nothing has changed.
        """
        ...

    def instruct(self, text: str) -> int:
        """Replace the standing instruction, from the next step on; the version of the new one (the first is 1)."""
        ...

    def check_instruction(self, text: str) -> None:
        """Raise what :meth:`instruct` would raise."""
        ...

    def check_question(self, question: Question, answer_tokens: int) -> int:
        """Tokens that the model reads of a question and its options (0: nothing is reserved for them).

        CapacityError or OptionError for one that cannot be asked, or that needs answers of more tokens.
        """
        ...

    def shown_time(self, time: float) -> float:
        """What the model is told in place of second ``time`` of the stream."""
        ...

    def rebase(self, shown: float, at: float | None = None) -> Rebased:
        """Tell the model second ``at`` of the stream as ``shown`` from now on."""
        ...

    def take(self, extra: Mapping[str, Any] | None = None) -> Taken:
        """The stream as it is between two steps, to be written in any thread; ``extra``: a JSON value beside it."""
        ...

    def save(self, path: Path) -> None:
        """Write the stream as it is between two steps."""
        ...

    def restore(self, path: Path) -> Path:
        """Take up a saved stream; the file that was read."""
        ...

    def abandon(self) -> None:
        """Give up the step that is under way."""
        ...

    def close(self) -> None:
        """Nothing follows. Never waits; safe to call twice."""
        ...


class AskRequest(Protocol):
    """A question on its way; see :class:`Request`."""

    @property
    def done(self) -> bool: ...
    @property
    def error(self) -> BaseException | None: ...
    @property
    def result(self) -> Answer | None: ...


class Fork(Protocol):
    """What streams are asked by; see :class:`streamingvlm.engine.ask.Fork`. Sessions are those of its own engine."""

    @property
    def closed(self) -> bool: ...
    def widen(self, session: Any) -> None: ...
    def wait(self, question: Question, waited: float) -> float: ...
    def check(self, question: Question, session: Any = None) -> None: ...
    def take(self, session: Any) -> None: ...
    def submit(
        self,
        question: Question,
        step: None = None,
        on_text: Callable[[str], None] | None = None,
        *,
        background: bool = False,
        since: float | None = None,
    ) -> AskRequest: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...


class Backend(Protocol):
    """Makes the words of any number of streams.

    ``slots``: of streams and forks; ``busy``: whether requests are under way that :meth:`advance` brings further;
    ``rest``: seconds for which it has nothing to do though it is busy; ``alarm``: seconds after which it may have,
    though nobody has called ``wake`` (None: it will not).
    """

    @property
    def slots(self) -> int: ...
    @property
    def rest(self) -> float: ...
    @property
    def busy(self) -> bool: ...
    @property
    def alarm(self) -> float | None: ...

    def wake_by(self, wake: Callable[[], None]) -> None:
        """``wake`` is called, by any thread, when there is something to advance; it never waits."""
        ...

    def open(self, *args: Any, **options: Any) -> StreamSession:
        """A stream. Raises what the engine's own ``open`` raises."""
        ...

    def fork(self, session: Any, *, answer_tokens: int) -> Fork:
        """What streams like ``session`` are asked by, for answers of so many tokens. CapacityError: no slot."""
        ...

    def advance(self) -> object:
        """Bring all requests a round further."""
        ...
