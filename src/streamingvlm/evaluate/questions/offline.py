"""Questions asked offline: frames of [start, time], one prompt, no stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...core.errors import SourceError
from ...core.events import Chunk, Question
from ...engine.endpoint import Endpoint
from ...engine.engine import Engine
from ...engine.remote import RemoteOptions, RemoteSession
from ...models.base import Model
from ...models.load import load_model
from ...models.patches import Patcher
from ...sources import images
from ...sources.open import open_recording
from ..presets import Answers, OfflinePreset
from .examples import PREFIX, REPLY_TOKENS, reply_of
from .items import Form, Item, Reply

#: Frames that are held as they were decoded; those before are resized already.
HELD = 16

Progress = Callable[[float], None]


class Answerer(Protocol):
    """Answers one item. ``shown``: the frames (None: the question alone)."""

    def answer(self, item: Item, shown: Chunk | None) -> Reply: ...


def sample(locator: str, start: float, end: float, preset: OfflinePreset, patcher: Patcher | None = None) -> Chunk:
    """The frames of [``start``, ``end``] seconds as a preset samples them: at its rate, or evenly as many as it allows.

    ``patcher``: resizes them as the model will (None: they stay as they are); n frames of one size, uint8. SourceError
    for a video that ends before ``start``, or whose end is asked for and not known.
    """
    if not math.isfinite(end):
        raise SourceError(f"{locator} is not there or does not tell how long it is: its whole length cannot be shown")
    seconds = max(end - start, 1e-3)
    # A folder has no more pictures than its rate; asked for more it would show each several times.
    fps = min(preset.fps, images.RATE) if Path(locator).is_dir() else preset.fps
    count = max(min(math.floor(seconds * fps + 1e-6), preset.max_frames), 1)
    rate = count / seconds
    frames: list[NDArray[np.uint8]] = []
    times: list[float] = []
    for chunk in open_recording(locator, fps=rate, step=min(HELD, count) / rate, start=start, duration=seconds):
        own = chunk.frames
        if patcher is not None:
            budget = patcher.with_budget(preset.max_pixels)
            own = budget.stretch(own, *budget.size(*own.shape[1:3]))
        frames.append(own)
        times += chunk.times
    if not frames:
        raise SourceError(f"{locator} shows nothing between {start:g} s and {end:g} s")
    shape = frames[-1].shape[1:]
    same = [one for one in frames if one.shape[1:] == shape]
    if len(same) < len(frames):
        raise SourceError(f"{locator} changes its size between {start:g} s and {end:g} s")
    shown = np.concatenate(frames)[:count]
    since = np.clip(np.array(times[:count]) - start, 0.0, seconds)
    return Chunk(shown, tuple(since.tolist()), 0.0, seconds)


@dataclass(frozen=True, slots=True)
class LocalAnswerer:
    """A checkpoint. ``answers``: by likelihood where an item has choices, or generated."""

    engine: Engine
    answers: Answers
    max_pixels: int | None = None

    @property
    def patcher(self) -> Patcher:
        """What resizes frames."""
        return self.engine.model.patcher

    def answer(self, item: Item, shown: Chunk | None) -> Reply:
        """See :class:`Answerer`."""
        weighed = self.answers == "likelihood" and bool(item.choices)
        options = tuple(f" {choice}" for choice in item.choices) if weighed else ()
        asked = Question(item.prompt, options, PREFIX if weighed else "", max_new_tokens=REPLY_TOKENS)
        answer = self.engine.ask_once(asked, shown, max_pixels=self.max_pixels)
        return reply_of(item, answer.text.strip(), answer.logprobs)


@dataclass(frozen=True, slots=True)
class RemoteAnswerer:
    """A model behind an endpoint; replies are generated."""

    endpoint: Endpoint
    options: RemoteOptions

    def answer(self, item: Item, shown: Chunk | None) -> Reply:
        """See :class:`Answerer`."""
        with RemoteSession(self.endpoint, replace(self.options, fps=None)) as session:
            if shown is not None:
                session.see(shown)
            return Reply(item.id, session.ask(item.prompt))


@dataclass(frozen=True, slots=True)
class ConstantAnswerer:
    """Replies ``text`` to every item."""

    text: str

    def answer(self, item: Item, shown: Chunk | None) -> Reply:  # noqa: ARG002
        """See :class:`Answerer`."""
        return Reply(item.id, self.text, item.time if item.form is Form.PROACTIVE else None)


def local(model: Model, preset: OfflinePreset) -> LocalAnswerer:
    """A checkpoint as a preset asks it, in an engine of its own."""
    return LocalAnswerer(Engine(model), preset.answers, preset.max_pixels)


@dataclass(frozen=True, slots=True)
class FramesAnswerer:
    """Answers questions about frames that somebody else has sampled, one at a time."""

    engine: Engine

    def answer(
        self,
        frames: NDArray[np.uint8],
        times: Sequence[float],
        prompt: str,
        *,
        choices: Sequence[str],
        max_new_tokens: int,
    ) -> str:
        """``frames``: (n, height, width, 3) uint8 RGB at ``times`` (n seconds); ``choices``: weighed by likelihood, the
        likeliest is the reply (none: it is generated, greedy)."""
        step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1.0
        begin = times[0]
        shown = Chunk(frames, tuple(time - begin for time in times), 0.0, times[-1] - begin + max(step, 1e-3))
        options = tuple(f" {choice}" for choice in choices)
        asked = Question(prompt, options, PREFIX if options else "", max_new_tokens=max_new_tokens)
        return self.engine.ask_once(asked, shown).text.strip()


def open_answerer(pretrained: str | None, device: str | None) -> FramesAnswerer:
    """A checkpoint (None: the bundled model) that answers questions about frames. ModelError if it cannot be loaded."""
    return FramesAnswerer(Engine(load_model(pretrained, device=device)))
