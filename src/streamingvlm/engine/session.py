"""One stream: how it was opened, where it stands, what of its next turn has to be fed. The engine runs it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import CapacityError, OptionError, SessionError
from ..core.events import Chunk, Commentary, InstructionUpdated
from ..core.grammar import LONGEST_STREAM, Grammar
from ..core.policy import CachePolicy, Recompute, ReuseStates, Sizes
from ..core.positions import FloatArray, positions
from ..core.sampling_params import Sampling
from ..core.spans import Kind, Span
from ..core.timeline import newly_archived
from ..models.base import Model, Prepared
from .open_turn import OpenTurn, PrefillInput
from .state import StreamState

if TYPE_CHECKING:
    from ..cache.kv_pool import Evicted
    from ..models.patches import Patcher, Patches
    from .engine import Engine
    from .request import Trace

#: Ids that are reserved for the standing instruction, and as many again for one that replaces it.
INSTRUCTION_BUDGET = 256
ONE_SIZE = "the frames of one step must be of one size"


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

    @property
    def newest_frames(self) -> int | None:
        """How many of the newest frames a step shows (None: those of its chunk)."""
        feeding = self.policy.feeding
        return feeding.frames if isinstance(feeding, Recompute) else None

    @property
    def recomputes(self) -> bool:
        """Whether every step prefills all that stays."""
        return isinstance(self.policy.feeding, Recompute)

    @property
    def rearchives(self) -> bool:
        """Whether text that moves into the history is prefilled once more there."""
        feeding = self.policy.feeding
        return isinstance(feeding, ReuseStates) and feeding.rearchive


@dataclass(frozen=True, slots=True)
class Before:
    """A stream as it was before the step under way: its state, and the rows that the step has taken since."""

    state: StreamState
    evicted: Evicted | None = None


class Session:
    """The public face of one stream. Made by :meth:`Engine.open`; ``with`` gives its slot back.

    A session and the sessions beside it share the model; all state of the stream is in :attr:`state` and in its slot.
    Like its engine it is for one thread; only :meth:`prepare` may be called from another one.
    """

    def __init__(self, engine: Engine, options: StreamOptions, patcher: Patcher) -> None:
        self.options = options
        self.patcher = patcher
        #: Most frames of one chunk.
        self.max_frames = round(options.step * options.fps + 0.5)
        self.state = StreamState()
        #: What a step that fails goes back to; None between two steps.
        self.before: Before | None = None
        self.closed = False
        self._engine = engine
        self._grammar: Grammar = options.policy.grammar(engine.model.grammar)
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
        than the session was opened for; then the stream stands as before the call. What is raised while the step is
        under way, also by ``on_text``, is raised here: then the stream stands as before the step, parts that were fed
        of it are to be fed again, and no other stream is touched.
        """
        return self._engine.wait(self._engine.submit(self, chunk, on_text=on_text, trace=trace))

    def feed(self, part: Chunk) -> None:
        """Show a part of the coming step ahead, so that only the rest is left to do when its last frame is there.

        ``part``: whole temporal patches (:attr:`part` frames each) with ``last`` false; its start and end are the
        step's. The step is ended by :meth:`step` with the frames that are left. What is said is the same. The step
        before must have ended. Raises what :meth:`step` raises.
        """
        self._engine.feed(self, part)

    def abandon(self) -> None:
        """Give up the step that parts were fed of: the stream stands as before it. Nothing if there is none."""
        self._engine.abandon(self)

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
        if self.options.newest_frames is not None:
            return chunk
        began = time.perf_counter()
        patches = self.patcher(chunk)
        if self._engine.model.kv_shape.device.type == "cuda":
            patches = replace(patches, pixels=patches.pixels.pin_memory())
        prepared = Prepared(patches, time.perf_counter() - began)
        if encode and not self.options.recomputes:
            prepared = self._engine.encode_ahead(prepared)
        return replace(chunk, prepared=prepared)

    def run(self, source: Iterable[Chunk]) -> Iterator[Commentary]:
        """Watch a source to its end."""
        for chunk in source:
            yield self.step(chunk)

    def instruct(self, text: str) -> int:
        """Replace the standing instruction, from the next step on; the version of the new one (the first is 1).

        The model is told the newest one. Every one is in :attr:`Commentary.instructions` of that step. Raises
        :class:`OptionError` for what is no text or has no words, :class:`CapacityError` for a text over its budget.
        """
        self._engine.check_thread()
        if self.closed:
            raise SessionError("this session is closed; open another one")
        if not text.strip():
            raise OptionError("an instruction needs words; to open a stream without one, give instruction=''")
        self._check_budget("instruction", text, INSTRUCTION_BUDGET)
        return self.state.instruct(text)

    @property
    def time(self) -> float:
        """Seconds: where the last step ended."""
        return self.state.time

    @property
    def turn(self) -> int:
        """Steps that have ended."""
        return self.state.turn

    @property
    def model(self) -> Model:
        """The model that the stream runs on."""
        return self._engine.model

    @property
    def bytes_per_stream(self) -> int:
        """Bytes of cache that this stream may use."""
        return self.capacity * self._engine.model.kv_shape.bytes_per_row

    @property
    def rows(self) -> dict[str, int]:
        """Ids in the stream's text by kind, those that have no row yet included."""
        return {str(kind): count for kind, count in self.state.timeline.rows_by_kind.items()}

    def close(self) -> None:
        """Give the slot back; a step that is under way ends with an error. Safe to call twice."""
        if not self.closed:
            self._engine.dismiss(self)
            self.closed = True

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # Bookkeeping, called by the engine.

    def check(self, chunk: Chunk) -> None:
        """Whether ``chunk`` may come next."""
        state = self.state
        if self.closed:
            raise SessionError("this session is closed; open another one")
        if chunk.start < state.time - 1e-6:
            raise ValueError(f"a chunk from {chunk.start:.3f} s cannot follow one that ended at {state.time:.3f} s")
        if max(chunk.end, chunk.times[-1]) > LONGEST_STREAM:
            raise CapacityError(f"a stream has at most {LONGEST_STREAM:g} s; a chunk ends at {chunk.end:g} s")
        shown, begun = 0, None
        if state.opened is not None:
            shown, begun = state.opened.frames, state.opened.start
        elif state.held:
            shown, begun = sum(len(part.frames) for part in state.held), state.held[0].start
        if begun is not None and abs(chunk.start - begun) > 1e-6:
            raise ValueError(f"the step from {begun:.3f} s has begun; its other frames come next")
        if not chunk.last and len(chunk.frames) % self.part:
            raise ValueError(f"a part of a step has whole temporal patches: a multiple of {self.part} frames")
        left = self.options.policy.seconds_left(chunk.start - (state.first if state.turn else chunk.start))
        if left is not None and chunk.end - chunk.start > left + 1e-6:
            raise CapacityError(
                f"the cache is full at {chunk.start:g} s: full attention was opened for so many seconds of video; "
                "open it for more (full:seconds=N) or use the streaming policy, which has no end"
            )
        if shown + len(chunk.frames) > self.max_frames:
            raise CapacityError(
                f"{shown + len(chunk.frames)} frames in one step; the session was opened for {self.options.fps:g} "
                f"frames per second and steps of {self.options.step:g} s"
            )
        if state.held and state.held[0].frames.shape[1:] != chunk.frames.shape[1:]:
            raise ValueError(ONE_SIZE)

    def check_prepared(self, prepared: Prepared, frames: int) -> None:
        """Whether what was made elsewhere is whole, and of ``frames`` frames."""
        patches, vision = prepared.patches, prepared.vision
        if patches.merged[0] != self.patcher.patches(frames):
            raise ValueError(f"{patches.merged[0]} temporal patches are not those of {frames} frames")
        count = math.prod(patches.merged)
        # What has been encoded may come without its pixels.
        made, wanted = (
            (len(patches.pixels), count * self.patcher.merge**2) if vision is None else (len(vision.embeds), count)
        )
        if made != wanted:
            raise ValueError("the patches do not fill their grid; prepare a chunk with the session that it is for")

    def check_patches(self, patches: Patches, frames: int) -> None:
        """Whether ``patches`` are such as this session has room for where it is shown ``frames`` frames."""
        count, height, width = patches.merged
        if count * height * width + 2 > self.patcher.max_tokens(frames):
            raise CapacityError(
                f"{count} x {height * width} ids for {frames} frames; the session was opened for at most "
                f"{self.patcher.max_tokens(frames) - 2}: prepare a chunk with the session that it is for"
            )
        opened = self.state.opened
        if opened is not None and opened.patches[0].merged[1:] != (height, width):
            raise ValueError(ONE_SIZE)

    def look(self, chunk: Chunk) -> Chunk:
        """What the coming step shows: ``chunk``, or the newest frames up to its end where the policy counts frames.

        A video block has one size: earlier frames are stretched to that of the newest.
        """
        most, before = self.options.newest_frames, self.state.shown
        if most is None:
            return chunk
        frames, times = chunk.frames[-most:], chunk.times[-most:]
        whole = len(frames) == len(chunk.frames)
        earlier = most - len(frames)
        if earlier and before is not None:
            height, width = frames.shape[1:3]
            frames = np.concatenate([self.patcher.stretch(before.frames[-earlier:], height, width), frames])
            times = (*before.times[-earlier:], *times)
            whole = False
        return replace(chunk, frames=frames, times=times, start=chunk.start if whole else times[0])

    def evict(self, chunk: Chunk) -> tuple[list[int], FloatArray, range]:
        """Apply the policy: rows that stay, their positions from now on, and those of them to be read once more."""
        policy, state = self.options.policy, self.state
        plan = policy.plan(state.timeline.spans, chunk.end, self.options.step)
        renewed = newly_archived(state.timeline.spans, plan) if self.options.rearchives else range(0)
        rows = state.timeline.rearrange(plan)
        if self.options.recomputes:
            state.timeline.forget()
            rows = []
        per_second = self._engine.model.tokens_per_second
        if policy.positions == "append":
            state.positions = state.positions[:, rows]
            spans = state.timeline.pending_spans()
            state.pending_positions = positions(spans, per_second, state.last_position + 1)
        else:
            numbered = positions(state.timeline.spans, per_second)
            state.positions, state.pending_positions = np.split(numbered, [state.timeline.cached], axis=1)
        return rows, state.positions, renewed

    def keep(self, evicted: Evicted) -> None:
        """Keep the rows that the step under way takes from the slot, until it has ended."""
        assert self.before is not None, "a step begins with what it may go back to"
        self.before = replace(self.before, evicted=evicted)

    def again(self, rows: range) -> PrefillInput | None:
        """The words that have moved into the history block, to be read once more there."""
        if not rows:
            return None
        tokens = self.state.timeline.tokens[rows.start : rows.stop]
        numbers = self.state.positions[:, rows.start : rows.stop]
        return PrefillInput(tokens, np.zeros(len(rows), np.bool_), numbers, [], rows.start)

    def hold(self, part: Chunk) -> None:
        """Keep a part until its step is whole."""
        self.check(part)
        self.state.held = (*self.state.held, part)

    def whole(self, chunk: Chunk) -> Chunk:
        """``chunk`` with the parts before it that were only kept; it has been checked."""
        if not self.state.held:
            return chunk
        parts = [*self.state.held, chunk]
        times = tuple(time for part in parts for time in part.times)
        frames = np.concatenate([part.frames for part in parts])
        return replace(chunk, frames=frames, times=times, prepared=None)

    def show(self, chunk: Chunk, patches: Patches) -> tuple[PrefillInput, tuple[InstructionUpdated, ...]]:
        """Append the turn of ``chunk``, which shows ``patches``, or more frames to the turn; what has to be fed now.

        That is what is pending and the new turn; all that stays and the new turn if the policy recomputes. Of a turn
        whose last frames are still to come it is all up to its last pad: what stands behind depends on them. With it
        come the instructions that the model is told.
        """
        state, shown = self.state, self.look(chunk)
        if state.opened is None:
            state.opened = self._open(shown)
        opened = state.opened
        opened.add(shown, patches, self.patcher.times(shown.times))
        spans: list[Span] = [] if opened.at else list(self._preamble)
        if opened.at and state.timeline.spans[opened.at - 1].kind is Kind.COMMENTARY:
            spans.append(self._grammar.separator(state.turn - 1))
        query, told = self._query(chunk) if chunk.last else ("", ())
        spans += self._grammar.turn(
            state.turn,
            opened.start,
            shown.end,
            opened.grid,
            patch_seconds=self._patch_seconds(),
            times=opened.times,
            query=query,
        )
        state.timeline.replace_from(opened.at, spans)
        assert len(state.timeline) + self.options.sampling.max_new_tokens + 1 <= self.capacity, "capacity is a bound"
        if self.options.newest_frames is not None:
            state.shown = shown
        fed = opened.feed(spans, self._engine.model.tokens_per_second, chunk.last)
        return PrefillInput(*fed, self._to_encode([*opened.before, *spans], patches)), told

    def _open(self, shown: Chunk) -> OpenTurn:
        """Begin the turn of a step, behind what the policy left."""
        state = self.state
        numbers = state.pending_positions
        if numbers.shape[1]:
            first = float(numbers[:, -1].max()) + 1
        elif self.options.policy.positions == "append":
            first = state.last_position + 1
        else:
            first = float(state.positions[:, -1].max()) + 1 if state.positions.shape[1] else 0.0
        return OpenTurn(state.timeline.pending_spans(), numbers, len(state.timeline.spans), first, shown.start)

    def _to_encode(self, spans: list[Span], patches: Patches) -> list[Patches]:
        """What the video blocks that are fed show; for a policy that recomputes also those of earlier steps."""
        if not self.options.recomputes:
            return [patches]
        known = {**self.state.retained, self.state.turn: patches}
        retained = {span.turn: known[span.turn] for span in spans if span.kind is Kind.VISION}
        self.state.retained = retained
        return list(retained.values())

    def fed(self, numbers: FloatArray) -> None:
        """The ids at positions ``numbers`` (3, n) have rows now."""
        state = self.state
        state.positions = np.concatenate([state.positions, numbers], axis=1)
        state.last_position = float(numbers[:, -1].max())
        state.timeline.commit(numbers.shape[1])

    def next_position(self) -> FloatArray:
        """Position (3, 1) of the next id behind everything that has a row."""
        return np.full((3, 1), self.state.last_position + 1, np.float32)

    def write(self, chunk: Chunk, tokens: list[int]) -> None:
        """The reply is ``tokens`` so far."""
        span = self._grammar.commentary(self.state.turn, chunk.start, chunk.end, tokens)
        if len(tokens) == 1:
            self.state.timeline.append(span)
        else:
            self.state.timeline.replace_last(span)

    def end_turn(self, chunk: Chunk, tokens: list[int]) -> None:
        """The reply is complete; a reply that was cut gets the end of turn it lacks."""
        state, end = self.state, self._grammar.marks.turn_end
        if tokens[-1] != end:
            self.write(chunk, [*tokens, end])
        if state.turn == 0:
            state.first = chunk.start
        state.turn += 1
        state.time = chunk.end
        state.opened, state.held = None, ()

    def _patch_seconds(self) -> float:
        """Seconds that one temporal patch covers."""
        return self.patcher.temporal / self.options.fps

    def _query(self, chunk: Chunk) -> tuple[str, tuple[InstructionUpdated, ...]]:
        """What goes into the coming turn behind the video, and the instructions that are told with that.

        The public code's first turn has the instruction that the stream was opened with.
        """
        if self._grammar.instruction_in_first_turn and self.state.turn == 0:
            return self.options.instruction, ()
        told = self.state.tell(chunk.start)
        return (told[-1].text if told else ""), told

    def _make_preamble(self) -> list[Span]:
        options = self.options
        self._check_budget("context", options.context, options.policy.context_budget())
        self._check_budget("instruction", options.instruction, INSTRUCTION_BUDGET)
        return self._grammar.preamble(options.context, options.instruction)

    def _check_budget(self, what: str, text: str, budget: int | None) -> None:
        """Whether ``text`` is text, and has at most ``budget`` ids (None: as many as it has)."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise OptionError(f"the {what} is not text in Unicode: {text!r}") from None
        count = len(self._grammar.tokenizer.encode(text)) if text else 0
        if budget is not None and count > budget:
            raise CapacityError(f"the {what} has {count} tokens; at most {budget} fit")

    def _sizes(self) -> Sizes:
        markup = sum(len(span) for span in self._preamble if span.kind in (Kind.SYSTEM, Kind.MARKUP))
        history = sum(len(span) for span in self._preamble if span.kind is Kind.HISTORY)
        most = self.options.newest_frames or self.max_frames
        return Sizes(
            step=self.options.step,
            preamble=markup,
            history=history,
            instruction=INSTRUCTION_BUDGET,
            turn=self._grammar.turn_overhead(self.patcher.patches(most)),
            vision=self.patcher.max_tokens(most),
            reply=self.options.sampling.max_new_tokens + 1,
        )
