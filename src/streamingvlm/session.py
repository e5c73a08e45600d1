"""One stream: its timeline, its place in the pool, its way of sampling. No tensors here; the engine runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from .errors import CapacityError, StreamingVLMError
from .events import Chunk, Commentary
from .models.base import Prepared
from .policy import CachePolicy, Sizes
from .prompt import Grammar
from .rope import FloatArray, positions
from .sampling import Sampling
from .spans import Kind, Span, Timeline, newly_archived
from .turn import Feed, Opened

if TYPE_CHECKING:
    from .engine import Engine
    from .jobs import Trace
    from .models.patches import Patcher, Patches

#: Ids that are reserved for the standing instruction, and as many again for one that replaces it.
INSTRUCTION_BUDGET = 256


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What was asked for when the session was opened; see :meth:`Engine.open`."""

    policy: CachePolicy
    sampling: Sampling
    context: str = ""
    instruction: str = ""
    seed: int = 0
    stream: int = 0
    fps: float = 2.0
    step: float = 1.0


class Session:
    """The public face of one stream. Made by :meth:`Engine.open`; ``with`` gives its slot back.

    A session and the sessions beside it share the model; all state of the stream is in here and in its slot.
    """

    def __init__(self, engine: Engine, options: StreamOptions, patcher: Patcher) -> None:
        self.options = options
        self.patcher = patcher
        #: Most frames of one chunk.
        self.most_frames = round(options.step * options.fps + 0.5)
        self.timeline = Timeline()
        self.turn = 0
        self.sampled = 0
        #: Seconds: where the last chunk ended, where the first one began.
        self.time = self.first = 0.0
        self.closed = False
        self._engine = engine
        self._grammar: Grammar = engine.model.grammar
        #: Position of every row, (3, rows) float32.
        self.positions: FloatArray = np.zeros((3, 0), np.float32)
        #: Largest position that was ever used; -1 before the first.
        self.last_position = -1.0
        #: Positions of the ids that had no row when the policy was last applied, (3, n) float32.
        self._pending_positions: FloatArray = self.positions
        #: Rows of the history block whose states are computed anew in the coming step.
        self.renewed = range(0)
        self._opened: Opened | None = None
        #: Parts of the coming step, for a policy that feeds nothing ahead.
        self._held: list[Chunk] = []
        #: Turn -> what its video block shows, for a policy that recomputes: of the blocks that stay.
        self.retained: dict[int, Patches] = {}
        #: What the last step showed, for a policy that counts frames.
        self.shown: Chunk | None = None
        #: An instruction for the coming turn.
        self.wish = ""
        self._preamble = self._make_preamble()
        self.capacity = options.policy.capacity(self._sizes())
        self.slot = engine.admit(self.capacity)

    # The stream as its user sees it.

    def step(
        self, chunk: Chunk, *, on_text: Callable[[str], None] | None = None, trace: Trace | None = None
    ) -> Commentary:
        """Watch one chunk and say what happens in it.

        ``on_text`` receives new words as they come; ``trace`` is filled with what a test wants to see. Raises
        ValueError for a chunk that does not follow the last one, :class:`CapacityError` for frames or steps larger
        than the session was opened for.
        """
        return self._engine.wait(self._engine.submit(self, chunk, on_text=on_text, trace=trace))

    def feed(self, part: Chunk) -> None:
        """Show a part of the coming step ahead, so that only the rest is left to do when its last frame is there.

        ``part``: whole temporal patches (:attr:`part` frames each) with ``last`` false; its start and end are the
        step's. The step is ended by :meth:`step` with the frames that are left. What is said is the same. The step
        before must have ended. Raises what :meth:`step` raises.
        """
        self._engine.feed(self, part)

    @property
    def part(self) -> int:
        """Frames of one temporal patch: the least that :meth:`feed` takes."""
        return self.patcher.temporal

    def prepare(self, chunk: Chunk, *, encode: bool = False) -> Chunk:
        """``chunk`` with its patches, ready for the device: what a thread may do ahead of :meth:`step`.

        With ``encode`` the vision tower sees them as well, beside whatever the engine does meanwhile (on a GPU in a
        stream of its own). That is for one stream: of several it would be one call each in place of one for all. A
        policy that counts frames needs those of the step before, so nothing is done ahead for it.
        """
        if self.options.policy.frames is not None:
            return chunk
        began = time.perf_counter()
        patches = self.patcher(chunk)
        if self._engine.model.kv_shape.device.type == "cuda":
            patches = replace(patches, pixels=patches.pixels.pin_memory())
        prepared = Prepared(patches, time.perf_counter() - began)
        if encode and not self.options.policy.recompute:
            prepared = self._engine.encode_ahead(prepared)
        return replace(chunk, prepared=prepared)

    def run(self, source: Iterable[Chunk]) -> Iterator[Commentary]:
        """Watch a source to its end."""
        for chunk in source:
            yield self.step(chunk)

    def instruct(self, text: str) -> None:
        """Replace the standing instruction, from the next step on."""
        self._check_budget("instruction", text, INSTRUCTION_BUDGET)
        self.wish = text

    @property
    def bytes_per_stream(self) -> int:
        """Bytes of cache that this stream may use."""
        return self.capacity * self._engine.model.kv_shape.bytes_per_row

    @property
    def rows(self) -> dict[str, int]:
        """Ids in the stream's text by kind, those that have no row yet included."""
        return {str(kind): count for kind, count in self.timeline.rows_by_kind.items()}

    def close(self) -> None:
        """Give the slot back. Safe to call twice."""
        if not self.closed:
            self.closed = True
            self._engine.dismiss(self)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # Bookkeeping, called by the engine.

    def check(self, chunk: Chunk) -> None:
        """Whether ``chunk`` may come next."""
        if self.closed:
            raise StreamingVLMError("this session is closed; open another one")
        if chunk.start < self.time - 1e-6:
            raise ValueError(f"a chunk from {chunk.start:.3f} s cannot follow one that ended at {self.time:.3f} s")
        shown = 0
        if self._opened is not None:
            shown = self._opened.frames
            if abs(chunk.start - self._opened.start) > 1e-6:
                raise ValueError(f"the step from {self._opened.start:.3f} s has begun; its other frames come next")
        if not chunk.last and len(chunk.frames) % self.part:
            raise ValueError(f"a part of a step has whole temporal patches: a multiple of {self.part} frames")
        left = self.options.policy.seconds_left(chunk.start - (self.first if self.turn else chunk.start))
        if left is not None and chunk.end - chunk.start > left + 1e-6:
            raise CapacityError(
                f"the cache is full at {chunk.start:g} s: full attention was opened for so many seconds of video; "
                "open it for more (full:seconds=N) or use the streaming policy, which has no end"
            )
        if shown + len(chunk.frames) > self.most_frames:
            raise CapacityError(
                f"{shown + len(chunk.frames)} frames in one step; the session was opened for {self.options.fps:g} "
                f"frames per second and steps of {self.options.step:g} s"
            )

    def look(self, chunk: Chunk) -> Chunk:
        """What the coming step shows: ``chunk``, or the newest frames up to its end where the policy counts frames.

        A video block has one size: earlier frames are stretched to that of the newest.
        """
        most = self.options.policy.frames
        if most is None:
            return chunk
        frames, times = chunk.frames[-most:], chunk.times[-most:]
        whole = len(frames) == len(chunk.frames)
        earlier = most - len(frames)
        if earlier and self.shown is not None:
            height, width = frames.shape[1:3]
            frames = np.concatenate([self.patcher.stretch(self.shown.frames[-earlier:], height, width), frames])
            times = (*self.shown.times[-earlier:], *times)
            whole = False
        return replace(chunk, frames=frames, times=times, start=chunk.start if whole else times[0])

    def evict(self, chunk: Chunk) -> tuple[list[int], FloatArray]:
        """Apply the policy: rows that stay and their positions from now on."""
        policy = self.options.policy
        plan = policy.plan(self.timeline.spans, chunk.end, self.options.step)
        self.renewed = newly_archived(self.timeline.spans, plan) if policy.history == "renewed" else range(0)
        rows = self.timeline.rearrange(plan)
        if policy.recompute:
            self.timeline.forget()
            rows = []
        per_second = self._engine.model.tokens_per_second
        if policy.positions == "append":
            self.positions = self.positions[:, rows]
            self._pending_positions = positions(self.timeline.pending_spans(), per_second, self.last_position + 1)
        else:
            numbered = positions(self.timeline.spans, per_second)
            self.positions, self._pending_positions = np.split(numbered, [self.timeline.cached], axis=1)
        return rows, self.positions

    def again(self) -> Feed | None:
        """The words that have moved into the history block, to be read once more there; once in a step."""
        rows, self.renewed = self.renewed, range(0)
        if not rows:
            return None
        tokens, numbers = self.timeline.tokens[rows.start : rows.stop], self.positions[:, rows.start : rows.stop]
        return Feed(tokens, np.zeros(len(rows), np.bool_), numbers, [], rows.start)

    @property
    def opened(self) -> Opened | None:
        """The turn that is being shown, if a part of it was."""
        return self._opened

    @property
    def between_steps(self) -> bool:
        """Whether no part of the coming step has been shown."""
        return self._opened is None and not self._held

    def hold(self, part: Chunk) -> None:
        """Keep a part until its step is whole."""
        self.check(replace(part, last=False))
        self._held.append(part)

    def whole(self, chunk: Chunk) -> Chunk:
        """``chunk`` with the parts before it that were only kept."""
        if not self._held:
            return chunk
        parts = [*self._held, chunk]
        if len({part.frames.shape[1:] for part in parts}) > 1:
            raise ValueError("the frames of one step must be of one size")
        times = tuple(time for part in parts for time in part.times)
        frames = np.concatenate([part.frames for part in parts])
        return replace(chunk, frames=frames, times=times, prepared=None)

    def show(self, chunk: Chunk, patches: Patches) -> Feed:
        """Append the turn of ``chunk``, which shows ``patches``, or more frames to the turn; what has to be fed now.

        That is what is pending and the new turn; all that stays and the new turn if the policy recomputes. Of a turn
        whose last frames are still to come it is all up to its last pad: what stands behind depends on them.
        """
        shown = self.look(chunk)
        if self._opened is None:
            self._opened = self._open(shown)
        opened = self._opened
        opened.add(shown, patches, self.patcher.times(shown.times))
        spans: list[Span] = [] if opened.at else list(self._preamble)
        if opened.at and self.timeline.spans[opened.at - 1].kind is Kind.COMMENTARY:
            spans.append(self._grammar.separator(self.turn - 1))
        spans += self._grammar.turn(
            self.turn,
            opened.start,
            shown.end,
            opened.grid,
            patch_seconds=self._patch_seconds(),
            times=opened.times,
            query=self._query() if chunk.last else "",
        )
        self.timeline.replace_from(opened.at, spans)
        assert len(self.timeline) + self.options.sampling.max_new_tokens + 1 <= self.capacity, "capacity is a bound"
        if self.options.policy.frames is not None:
            self.shown = shown
        fed = opened.feed(spans, self._engine.model.tokens_per_second, chunk.last)
        return Feed(*fed, self._to_encode([*opened.before, *spans], patches))

    def _open(self, shown: Chunk) -> Opened:
        """Begin the turn of a step, behind what the policy left."""
        numbers = self._pending_positions
        if numbers.shape[1]:
            first = float(numbers[:, -1].max()) + 1
        elif self.options.policy.positions == "append":
            first = self.last_position + 1
        else:
            first = float(self.positions[:, -1].max()) + 1 if self.positions.shape[1] else 0.0
        return Opened(self.timeline.pending_spans(), numbers, len(self.timeline.spans), first, shown.start)

    def _to_encode(self, spans: list[Span], patches: Patches) -> list[Patches]:
        """What the video blocks that are fed show; for a policy that recomputes also those of earlier steps."""
        if not self.options.policy.recompute:
            return [patches]
        known = {**self.retained, self.turn: patches}
        self.retained = {span.turn: known[span.turn] for span in spans if span.kind is Kind.VISION}
        return list(self.retained.values())

    def fed(self, numbers: FloatArray) -> None:
        """The ids at positions ``numbers`` (3, n) have rows now."""
        self.positions = np.concatenate([self.positions, numbers], axis=1)
        self.last_position = float(numbers[:, -1].max())
        self.timeline.commit(numbers.shape[1])

    def next_position(self) -> FloatArray:
        """Position (3, 1) of the next id behind everything that has a row."""
        return np.full((3, 1), self.last_position + 1, np.float32)

    def write(self, chunk: Chunk, tokens: list[int]) -> None:
        """The reply is ``tokens`` so far."""
        span = self._grammar.commentary(self.turn, chunk.start, chunk.end, tokens)
        if len(tokens) == 1:
            self.timeline.append(span)
        else:
            self.timeline.replace_last(span)

    def end_turn(self, chunk: Chunk, tokens: list[int]) -> None:
        """The reply is complete; a reply that was cut gets the end of turn it lacks."""
        end = self._grammar.marks.turn_end
        if tokens[-1] != end:
            self.write(chunk, [*tokens, end])
        if self.turn == 0:
            self.first = chunk.start
        self.turn += 1
        self.time = chunk.end
        self._opened, self._held = None, []

    def _patch_seconds(self) -> float:
        """Seconds along the time axis of one temporal patch; the public code takes 2 / 2 whatever the rate."""
        return 1.0 if self.options.policy.faithful else self.patcher.temporal / self.options.fps

    def _query(self) -> str:
        """The question that goes into the coming turn, behind the video, as the public code's first turn has it."""
        if self.options.policy.faithful and self.turn == 0:
            return self.options.instruction
        text, self.wish = self.wish, ""
        return text

    def _make_preamble(self) -> list[Span]:
        options = self.options
        budget = options.policy.context_budget()
        if budget is not None:
            self._check_budget("context", options.context, budget)
        self._check_budget("instruction", options.instruction, INSTRUCTION_BUDGET)
        standing = "" if options.policy.faithful else options.instruction
        return self._grammar.preamble(options.context, standing)

    def _check_budget(self, what: str, text: str, budget: int) -> None:
        count = len(self._grammar.tokenizer.encode(text)) if text else 0
        if count > budget:
            raise CapacityError(f"the {what} has {count} tokens; at most {budget} fit")

    def _sizes(self) -> Sizes:
        markup = sum(len(span) for span in self._preamble if span.kind in (Kind.SYSTEM, Kind.MARKUP))
        history = sum(len(span) for span in self._preamble if span.kind is Kind.HISTORY)
        most = self.options.policy.frames or self.most_frames
        return Sizes(
            step=self.options.step,
            preamble=markup,
            history=history,
            instruction=INSTRUCTION_BUDGET,
            turn=self._grammar.turn_overhead(self.patcher.patches(most)),
            vision=self.patcher.most_tokens(most),
            reply=self.options.sampling.max_new_tokens + 1,
        )
