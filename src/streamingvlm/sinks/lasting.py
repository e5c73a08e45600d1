"""Outputs of live streams: a disk that is full for an hour takes words from a file, and no camera from its watcher."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from ..core.errors import OutputError
from ..core.events import AnswerDelta, Delta, Dropped, Event, FrameSink, StepInput
from .limits import OUTPUT_RETRY_SECONDS
from .outputs import Output

_LOG = logging.getLogger(__name__)


class LastingOutput:
    """A sink that writes ``output``; when that fails it is told once in the log, and nobody is raised anything.

    ``reopen`` makes the output anew, which then continues what is there; that is tried every ``OUTPUT_RETRY_SECONDS``
    by ``clock``, seconds. ``lost`` counts the events that came meanwhile, without deltas.
    """

    def __init__(
        self, output: Output, reopen: Callable[[], Output], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path, self.lost = output.path, 0
        #: What is written now (None: it failed, and is not open again).
        self.output: Output | None = output
        self._reopen, self._clock = reopen, clock
        self._retry_at = 0.0
        self._untold = 0  # events lost since the last one that was written
        self._works = True

    @property
    def loss(self) -> str:
        """A line on what is missing ("": nothing)."""
        return f"{self.path} lacks {self.lost} events" if self.lost else ""

    def write(self, event: Event) -> None:
        """See :meth:`Sink.write`. Behind a loss comes :class:`Dropped` first."""
        counts = not isinstance(event, Delta | AnswerDelta)
        if not self._try(lambda output: self._write(output, event)):
            self.lost += counts
            self._untold += counts
        elif counts and not self._works:
            self._works = True
            _LOG.warning("%s is written again; it lacks %d events", self.path, self.lost)

    def see(self, step: StepInput) -> None:
        """See :meth:`FrameSink.see`."""
        self._try(lambda output: output.see(step) if isinstance(output, FrameSink) else None)

    def close(self) -> None:
        """See :meth:`Sink.close`."""
        if self.output is not None:
            self._try(lambda output: output.close())

    def wait(self, seconds: float) -> bool:
        """Behind :meth:`close`: until it is done; whether it is, within ``seconds``."""
        wait = getattr(self.output, "wait", None)
        try:
            return wait is None or bool(wait(seconds))
        except OutputError as error:
            self._fail(error)
            return True

    def _write(self, output: Output, event: Event) -> None:
        if self._untold:
            output.write(Dropped(self._untold))
            self._untold = 0
        output.write(event)

    def _try(self, act: Callable[[Output], object]) -> bool:
        """Do something with the output; whether that went well."""
        try:
            if self.output is None:
                if self._clock() < self._retry_at:
                    return False
                self.output = self._reopen()
            act(self.output)
        except OutputError as error:
            self._fail(error)
            return False
        return True

    def _fail(self, error: OutputError) -> None:
        output, self.output = self.output, None
        self._retry_at = self._clock() + OUTPUT_RETRY_SECONDS
        if self._works:
            self._works = False
            _LOG.warning("%s; the stream goes on, and this is tried again", error)
        if output is not None:
            with suppress(OutputError):  # told already
                output.close()
