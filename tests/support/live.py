"""A live source that is watched in a thread of its own, and what has come of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from streamingvlm.core.events import Gap, Notice, SourceFormat, SourceStatus, StepInput
from streamingvlm.sources.live import LiveHub
from streamingvlm.sources.live_options import LiveOptions

from . import timecode

#: Patience for tests: everything is tried again at once.
SHORT = LiveOptions(
    no_frame=1.0,
    first_frame=5.0,
    name_lookup=1.0,
    io_timeout=0.5,
    ladder=((0.2, 1000),),
    jitter=0.0,
    refused_wait=0.2,
    healthy=5.0,
)


class Watched:
    """``source`` as it goes on; a context that closes it. ``items``: everything that came, each with its moment.

    ``keep``: with all pixels; else one of every frame, so that memory stays as it is.

    ``error``: what has ended it. ``ages``: of the last frame of every step when it was taken, for pictures of
    :mod:`support.timecode`.
    """

    def __init__(self, source: Any, *, keep: bool = True) -> None:
        self.source, self.keep = source, keep
        self.items: list[tuple[float, StepInput | Notice]] = []
        self.ages: list[float] = []
        self.error: BaseException | None = None
        self.paused = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="test-watch", daemon=True)

    @property
    def steps(self) -> list[StepInput]:
        return [item for _, item in list(self.items) if isinstance(item, StepInput)]

    @property
    def notices(self) -> list[Notice]:
        return [item for _, item in list(self.items) if not isinstance(item, StepInput)]

    @property
    def statuses(self) -> list[SourceStatus]:
        return [item for item in self.notices if isinstance(item, SourceStatus)]

    @property
    def formats(self) -> list[SourceFormat]:
        return [item for item in self.notices if isinstance(item, SourceFormat)]

    @property
    def gaps(self) -> list[Gap]:
        return [item for item in self.notices if isinstance(item, Gap)]

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def wait(self, condition: Callable[[], bool], timeout: float = 8.0) -> float:
        """Until ``condition``; how many seconds that took. Fails with all that came."""
        began = time.monotonic()
        with self._changed:
            met = self._changed.wait_for(lambda: condition() or self.ended, timeout)
        assert met, f"nothing of the kind within {timeout:g} s; there were {self.told()}"
        assert condition(), f"it has ended ({self.error!r}); there were {self.told()}"
        return time.monotonic() - began

    def wait_steps(self, count: int, timeout: float = 8.0) -> float:
        """Until ``count`` more steps have come."""
        goal = len(self.steps) + count
        return self.wait(lambda: len(self.steps) >= goal, timeout)

    def wait_status(self, state: str, code: str | None = None, timeout: float = 8.0) -> float:
        """Until this status has come, counted from now on."""
        first = len(self.items)

        def met() -> bool:
            new = [item for _, item in self.items[first:] if isinstance(item, SourceStatus)]
            return any(one.state == state and code in (None, one.code) for one in new)

        return self.wait(met, timeout)

    def wait_end(self, timeout: float = 8.0) -> None:
        """Until it has ended by itself."""
        self._thread.join(timeout)
        assert self.ended, f"it has not ended within {timeout:g} s; there were {self.told()}"

    def close(self) -> float:
        """Let it go; how many seconds that took, with the end of whoever iterates."""
        began = time.monotonic()
        self.paused.clear()
        self.source.close()
        self._thread.join(10)
        assert self.ended, "whoever iterates was not let go"
        return time.monotonic() - began

    def told(self) -> str:
        """Everything that came, as text."""
        lines = [
            f"step {item.chunk.start:g}" if isinstance(item, StepInput) else repr(item) for _, item in list(self.items)
        ]
        return "\n".join([*lines, repr(self.error)])

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            for item in self.source:
                with self._changed:
                    if isinstance(item, StepInput):
                        self.ages.append(timecode.age(item.chunk.frames[-1]))
                    self.items.append((time.monotonic(), item if self.keep else _small(item)))
                    self._changed.notify_all()
                while self.paused.is_set():
                    time.sleep(0.01)
        except BaseException as error:
            self.error = error
        with self._changed:
            self._changed.notify_all()


def _small(item: StepInput | Notice) -> StepInput | Notice:
    if not isinstance(item, StepInput):
        return item
    return replace(item, chunk=replace(item.chunk, frames=item.chunk.frames[:, :1, :1].copy()))


def watch(
    locator: str,
    *,
    live: LiveOptions = SHORT,
    fps: float = 10.0,
    step: float = 0.5,
    duration: float | None = None,
    keep: bool = True,
    **more: Any,
) -> Watched:
    """Open a live source for a test; ``more`` goes to :class:`LiveHub`, or replaces options of ``live``."""
    names = LiveOptions.__dataclass_fields__
    live = replace(live, **{name: more.pop(name) for name in list(more) if name in names})
    return Watched(LiveHub(locator, live=live, **more).subscribe(fps=fps, step=step, duration=duration), keep=keep)
