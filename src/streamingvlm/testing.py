"""Doubles for tests of programs that are built on this package: a model without weights and a source without video.

Both go through the real engine, cache and runtime, so that a test sees what a checkpoint would show, but for the text::

    model = ScriptedModel(lambda start, end, frames: f"at {start:g} s")
    with Runtime(Engine(model)) as runtime:
        runtime.start(ScriptedSource(8), sinks=[...]).wait()
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .cache.batch import Batch, Segment
from .cache.kv_pool import KVShape
from .cache.rope import Rope
from .core.events import Chunk
from .core.grammar import Grammar, Marks
from .core.sampling_params import Sampling
from .kernels.plain import PlainKernels
from .models.base import Deepstack, StreamDefaults, Vision
from .models.patches import Patcher, Patches

#: What is said of the step from ``start`` to ``end`` seconds, given how many temporal patches it shows.
Script = Callable[[float, float, int], str]

MARKS = Marks(turn_start=0x3000, turn_end=0x3001, vision_start=0x3002, vision_end=0x3003, vision_pad=0x3004)
#: Score of the token that comes next; all others have 0.
CERTAIN = 30.0
_TIME = re.compile(r"Time=([\d.]+)-([\d.]+)s")


class CharacterTokenizer:
    """A token is a character; one beyond U+2FFF is a question mark."""

    def encode(self, text: str) -> list[int]:
        """See :class:`streamingvlm.core.grammar.Tokenizer`."""
        return [ord(character) if ord(character) < 0x3000 else ord("?") for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        """See :class:`streamingvlm.core.grammar.Tokenizer`."""
        return "".join(chr(token) for token in ids if token < 0x3000)


class ScriptedModel:
    """A :class:`~streamingvlm.models.base.Model` that says what ``script`` writes.

    It reads the times of a step out of the tokens that it is fed. A frame is one token, whatever its size. To a turn
    without times, a question, it says what ``answer`` makes of the turn's text (default: nothing).
    ``prefill_seconds`` and ``decode_seconds``: how long every prefill and every token take at least.
    """

    name = "scripted"
    parameters = 0
    weights = ""
    fingerprint = "scripted"
    use_reference_layers = False
    tokens_per_second: float | None = 1.0
    vocabulary = 0x3005
    end_tokens = frozenset({MARKS.turn_end})
    kv_shape = KVShape(1, 1, 2, torch.float32, torch.device("cpu"))
    rope = Rope(torch.zeros(1), torch.zeros(1, dtype=torch.long))
    kernels = PlainKernels()

    def __init__(
        self,
        script: Script,
        *,
        prefill_seconds: float = 0.0,
        decode_seconds: float = 0.0,
        answer: Callable[[str], str] = lambda _: "",
    ) -> None:
        self.script, self.answer = script, answer
        self.prefill_seconds, self.decode_seconds = prefill_seconds, decode_seconds
        self.grammar = Grammar(CharacterTokenizer(), MARKS, system="", opening="", closing="")
        self.patcher = _OneTokenPatcher(patch=1, merge=1, temporal=2, min_pixels=1, max_pixels=1)
        policy = {"vision": 16, "turns": 16, "sink": 512, "text": 512}
        sampling = Sampling(temperature=0.0, repetition_penalty=1.0, max_new_tokens=200)
        self.defaults = StreamDefaults(sampling, policy)
        #: Slot -> the tokens of its reply that have not been said yet.
        self._left: dict[int, list[int]] = {}

    def check_reference_layers(self) -> None:
        """See :meth:`Model.check_reference_layers`: there are none, and none are needed."""

    def embed(self, tokens: Tensor) -> Tensor:
        """See :meth:`Model.embed`: a token is its own embedding."""
        return tokens[:, None].double()

    def encode(self, patches: Sequence[Patches]) -> list[Vision]:
        """See :meth:`Model.encode`."""
        return [Vision(torch.full((part.merged[0], 1), MARKS.vision_pad, dtype=torch.float64)) for part in patches]

    def forward(self, embeds: Tensor, batch: Batch, deepstack: Deepstack | None = None) -> Tensor:  # noqa: ARG002
        """See :meth:`Model.forward`: the hidden state of a segment is the token that comes next."""
        time.sleep(self.decode_seconds if batch.single else self.prefill_seconds)
        keys = torch.zeros(len(embeds), 1, 2)
        batch.store(0, keys, keys)
        out = batch.take_ends(embeds).clone()
        for row, segment in enumerate(batch.segments):
            tokens = embeds[segment.first : segment.last, 0].long().tolist()
            if len(tokens) > 1 and segment.at is None:
                self._left[segment.slot] = self._reply(tokens)
            out[row, 0] = self._next(segment.slot, None if segment.at is None else segment.at - _first(batch, segment))
        batch.finish()
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """See :meth:`Model.logits`."""
        scores = torch.zeros(len(hidden), self.vocabulary)
        return scores.scatter_(1, hidden.long(), CERTAIN)

    def _next(self, slot: int, ahead: int | None) -> int:
        """The next token of a reply; ``ahead``: where an option is weighed, the one so many tokens behind it."""
        left = self._left.get(slot, [])
        if ahead is not None:
            return left[ahead] if ahead < len(left) else MARKS.turn_end
        return left.pop(0) if left else MARKS.turn_end

    def _reply(self, tokens: Sequence[int]) -> list[int]:
        shown = CharacterTokenizer().decode(tokens)
        times = _TIME.findall(shown)
        if not times:
            return [*CharacterTokenizer().encode(self.answer(shown)), MARKS.turn_end]
        start, end = map(float, times[-1])
        text = self.script(start, end, sum(token == MARKS.vision_pad for token in tokens))
        return [*CharacterTokenizer().encode(text), MARKS.turn_end]


def _first(batch: Batch, segment: Segment) -> int:
    """The first row that a forward pass writes of those whose place in the slot of ``segment`` is given."""
    return min(one.at for one in batch.segments if one.slot == segment.slot and one.at is not None)


class _OneTokenPatcher(Patcher):
    """Every temporal patch is one token."""

    def __call__(self, chunk: Chunk) -> Patches:
        count = self.patches(len(chunk.frames))
        return Patches(torch.zeros(count, 3 * self.temporal), (count, 1, 1), (count, 1, 1))


class ScriptedSource:
    """``count`` steps of ``step`` seconds with ``frames`` black frames each.

    ``error`` is raised behind the last of them; ``stuck``: before step number ``stuck`` the source waits for ever, as a
    camera does that has died.
    """

    context = ""
    kind = ""

    def __init__(
        self,
        count: int,
        *,
        name: str = "scripted",
        step: float = 1.0,
        frames: int = 2,
        error: Exception | None = None,
        stuck: int | None = None,
    ) -> None:
        self.name, self.live = name, False
        self.count, self.step, self.frames, self.error, self.stuck = count, step, frames, error, stuck
        #: Steps that were asked for.
        self.made = 0

    def __iter__(self) -> Iterator[Chunk]:
        for index in range(self.count):
            while index == self.stuck:
                time.sleep(3600)
            self.made += 1
            start = index * self.step
            times = tuple(start + self.step * i / self.frames for i in range(self.frames))
            yield Chunk(np.zeros((self.frames, 4, 4, 3), np.uint8), times, start, start + self.step)
        if self.error is not None:
            raise self.error
