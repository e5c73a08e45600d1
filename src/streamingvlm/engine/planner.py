"""One stream's steps as bookkeeping: what is evicted, what a turn shows, what has to be prefilled. No tensors.

A planner holds what is fixed while a stream is open. What changes is the :class:`StreamState` that each
method is given.
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import CapacityError, OptionError
from ..core.events import Chunk, InstructionUpdated, Question, StepInput
from ..core.grammar import LONGEST_STREAM
from ..core.policy import Sizes
from ..core.positions import FloatArray, positions
from ..core.sampling_params import Sampling
from ..core.spans import PREAMBLE, Kind, Role, Span
from ..core.timeline import IntArray, newly_archived
from ..models.base import Model, Prepared
from .open_turn import OpenTurn, PrefillInput
from .options import INSTRUCTION_BUDGET, StreamOptions
from .state import StreamState, no_positions

if TYPE_CHECKING:
    from ..models.patches import Patcher, Patches

ONE_SIZE = "the frames of one step must be of one size"


class StepPlanner:
    """Plans the steps of one stream.

    ``capacity``: most rows that the stream can ever hold; ``max_frames``: most frames of one chunk. Raises
    :class:`CapacityError` for a context or an instruction over its budget, :class:`OptionError` for what is no text.
    """

    def __init__(self, model: Model, options: StreamOptions, patcher: Patcher) -> None:
        self.options = options
        self.patcher = patcher
        self.grammar = options.policy.grammar(model.grammar)
        self.tokens_per_second = model.tokens_per_second
        self.max_frames = round(options.step * options.fps + 0.5)
        self.check_budget("context", options.context, options.policy.context_budget())
        self.check_budget("instruction", options.instruction, INSTRUCTION_BUDGET)
        self._preamble = self.grammar.preamble(self._history(), options.instruction)
        self.capacity = options.policy.capacity(self._sizes())

    def _history(self) -> list[int]:
        """Tokens of the history block when the stream opens: its context, and what was said before."""
        context = self.options.context
        for text in self.options.previous:
            self.check_budget("previous text", text, None)
        replies = [
            self.grammar.commentary(PREAMBLE, 0.0, 0.0, self.grammar.reply(text)) for text in self.options.previous
        ]
        return self.options.policy.history(self.grammar.tokenizer.encode(context) if context else [], replies)

    def for_questions(self, question_tokens: int, sampling: Sampling) -> StepPlanner:
        """The same for a fork that is asked questions of at most so many tokens."""
        other = copy(self)
        other.options = replace(self.options, sampling=sampling)
        other.capacity = self.capacity + question_tokens + sampling.max_new_tokens + 1
        return other

    # Whether something may come.

    def check_budget(self, what: str, text: str, budget: int | None) -> None:
        """Whether ``text`` is text, and has at most ``budget`` tokens (None: as many as it has)."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise OptionError(f"the {what} is not text in Unicode: {text!r}") from None
        count = len(self.grammar.tokenizer.encode(text)) if text else 0
        if budget is not None and count > budget:
            raise CapacityError(f"the {what} has {count} tokens; at most {budget} fit")

    def check_question(self, question: Question, question_tokens: int, answer_tokens: int) -> int:
        """Tokens that the model reads of ``question`` and its options.

        OptionError for one that cannot be asked; CapacityError for more than ``question_tokens`` with markup, or for
        answers of more than ``answer_tokens``.
        """
        if question.max_new_tokens > answer_tokens and not question.options:
            raise CapacityError(f"an answer of {question.max_new_tokens} tokens; at most {answer_tokens} fit")
        for text in (question.text, question.prefix, *question.options):
            self.check_budget("question", text, None)
        tokens = self.question_tokens(question)
        if tokens > question_tokens:
            raise CapacityError(f"the question has {tokens} tokens; at most {question_tokens} fit")
        if len(question.options) != len(set(question.options)) or not all(question.options):
            raise OptionError("the options of a question are different texts, none of them empty")
        options = [len(option) for option in self.option_tokens(question)]
        if max(options, default=0) > answer_tokens:
            raise CapacityError(f"an option of {max(options)} tokens; at most {answer_tokens} fit")
        return tokens + sum(options)

    def check(self, state: StreamState, step: StepInput) -> None:
        """Whether ``step`` may come next."""
        chunk = step.chunk
        if chunk.start < state.time - 1e-6:
            raise ValueError(f"a chunk from {chunk.start:.3f} s cannot follow one that ended at {state.time:.3f} s")
        if state.shown_time(max(chunk.end, chunk.times[-1])) > LONGEST_STREAM:
            raise CapacityError(
                f"a stream has at most {LONGEST_STREAM:g} s without a rebase; a chunk ends at {chunk.end:g} s"
            )
        shown = self._check_parts(state, step)
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

    def _check_parts(self, state: StreamState, step: StepInput) -> int:
        """Whether ``step`` goes with the parts of it that have come; how many frames these have."""
        chunk, shown, begun = step.chunk, 0, None
        if state.opened is not None:
            shown, begun = state.opened.frames, state.opened.start
        elif state.stashed:
            shown, begun = sum(len(part.frames) for part in state.stashed), state.stashed[0].start
            if state.stashed[0].frames.shape[1:] != chunk.frames.shape[1:]:
                raise ValueError(ONE_SIZE)
        if begun is not None and abs(chunk.start - begun) > 1e-6:
            raise ValueError(f"the step from {begun:.3f} s has begun; its other frames come next")
        if not step.last and len(chunk.frames) % self.patcher.temporal:
            raise ValueError(
                f"a part of a step has whole temporal patches: a multiple of {self.patcher.temporal} frames"
            )
        return shown

    def check_prepared(self, prepared: Prepared, frames: int) -> None:
        """Whether what was made elsewhere is whole, and of ``frames`` frames."""
        patches, vision = prepared.patches, prepared.vision
        if patches.merged[0] != self.patcher.patches(frames):
            raise ValueError(f"{patches.merged[0]} temporal patches are not those of {frames} frames")
        # What has been encoded may come without its pixels.
        whole = self.patcher.fills(patches) if vision is None else len(vision.embeds) == math.prod(patches.merged)
        if not whole:
            raise ValueError("the patches do not fill their grid; prepare a chunk with the session that it is for")

    def check_patches(self, state: StreamState, patches: Patches, frames: int) -> None:
        """Whether ``patches`` are such as the stream has room for where it is shown ``frames`` frames."""
        count, height, width = patches.merged
        if count * height * width + 2 > self.patcher.max_tokens(frames):
            raise CapacityError(
                f"{count} x {height * width} tokens for {frames} frames; the session was opened for at most "
                f"{self.patcher.max_tokens(frames) - 2}: prepare a chunk with the session that it is for"
            )
        if state.opened is not None and state.opened.patches[0].merged[1:] != (height, width):
            raise ValueError(ONE_SIZE)

    # A step, in the order in which it goes.

    def merge_parts(self, state: StreamState, step: StepInput) -> StepInput:
        """``step`` with the parts before it that were only stashed; it has been checked."""
        if not state.stashed:
            return step
        parts = [*state.stashed, step.chunk]
        times = tuple(time for part in parts for time in part.times)
        frames = np.concatenate([part.frames for part in parts])
        return replace(step, chunk=replace(step.chunk, frames=frames, times=times), prepared=None)

    def select_frames(self, state: StreamState, chunk: Chunk) -> Chunk:
        """What the coming step shows: ``chunk``, or the newest frames up to its end where the policy counts frames.

        A video block has one size: earlier frames are stretched to that of the newest.
        """
        most, before = self.options.newest_frames, state.shown
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

    def evict(self, state: StreamState, chunk: Chunk) -> tuple[IntArray, FloatArray, range]:
        """Apply the policy: rows that stay, their positions from now on, those to be prefilled once more.

        The rows are (n,) int64, the positions (3, n).
        """
        policy = self.options.policy
        plan = policy.plan(state.timeline.spans, chunk.end, self.options.step)
        rewritten = newly_archived(state.timeline.spans, plan) if self.options.rearchives else range(0)
        rows = state.timeline.rearrange(plan)
        if self.options.recomputes:
            state.timeline.forget()
            rows = rows[:0]
        if policy.positions == "append":
            state.positions = state.positions[:, rows]
            spans = state.timeline.pending_spans()
            state.pending_positions = positions(spans, self.tokens_per_second, state.last_position + 1)
        else:
            numbered = positions(state.timeline.spans, self.tokens_per_second)
            state.positions, state.pending_positions = np.split(numbered, [state.timeline.cached], axis=1)
        return rows, state.positions, rewritten

    def rearchive_input(self, state: StreamState, rows: range) -> PrefillInput | None:
        """The text that has moved into the history block, to be prefilled once more there."""
        if not rows:
            return None
        tokens = state.timeline.tokens_at(rows)
        numbers = state.positions[:, rows.start : rows.stop]
        return PrefillInput(tokens, np.zeros(len(rows), np.bool_), numbers, [], rows.start)

    def build_turn(
        self, state: StreamState, step: StepInput, patches: Patches, question: Question | None = None
    ) -> tuple[PrefillInput, tuple[InstructionUpdated, ...]]:
        """Append the turn of ``step``, which shows ``patches``, or more frames to it; what has to be prefilled now.

        That is what is pending and the new turn; all that stays and the new turn if the policy recomputes. Of a turn
        whose last frames are still to come it is all up to its last pad: what stands behind depends on them. With it
        come the instructions that the model is told; in their place stands the ``question``, if there is one.
        """
        shown = self.select_frames(state, step.chunk)
        if state.opened is None:
            state.opened = self._open(state, shown)
        opened = state.opened
        opened.add(shown, patches, self.patcher.times(shown.times))
        spans: list[Span] = [] if opened.at else list(self._preamble)
        if opened.at and state.timeline.spans[opened.at - 1].kind is Kind.COMMENTARY:
            spans.append(self.grammar.separator(state.turn - 1))
        query = ""
        told: tuple[InstructionUpdated, ...] = ()
        if question is not None:
            query = question.text
        elif step.last:
            query, told = self._query(state, step.chunk)
        spans += self._turn(state, opened, shown.end, query)
        if question is not None:
            spans += self._prefix(state, question)
        state.timeline.replace_from(opened.at, spans)
        assert len(state.timeline) + self.options.sampling.max_new_tokens + 1 <= self.capacity, "capacity is a bound"
        if self.options.newest_frames is not None:
            state.shown = replace(shown, read_seconds=0.0)
        fed = opened.take_unfed(spans, self.tokens_per_second, step.last)
        return PrefillInput(*fed, self._to_encode(state, [*opened.before, *spans], patches)), told

    def _turn(self, state: StreamState, opened: OpenTurn, end: float, query: str) -> list[Span]:
        """The spans of an open turn that ends at ``end``: stamps in the time that the model is told, the spans' own
        times in that of the stream."""
        spans = self.grammar.turn(
            state.turn,
            state.shown_time(opened.start),
            state.shown_time(end),
            opened.grid,
            patch_seconds=self.patcher.temporal / self.options.fps,
            times=[state.shown_time(time) for time in opened.times],
            query=query,
        )
        if not state.time_offset:
            return spans
        timed = (Kind.TIME, Kind.VISION)
        return [replace(span, start=opened.start, end=end) if span.kind in timed else span for span in spans]

    def build_question(self, state: StreamState, question: Question) -> PrefillInput:
        """Append a turn that shows nothing and asks ``question``; what has to be prefilled: what is pending and it."""
        spans: list[Span] = [] if state.timeline.spans else list(self._preamble)
        if state.timeline.spans and state.timeline.spans[-1].kind is Kind.COMMENTARY:
            spans.append(self.grammar.separator(state.turn - 1))
        spans += [self.grammar.header(Role.USER, state.turn), self.grammar.query(question.text, state.turn)]
        spans += [self.grammar.footer(Role.USER, state.turn), self.grammar.header(Role.ASSISTANT, state.turn)]
        spans += self._prefix(state, question)
        state.timeline.append(*spans)
        tokens = state.timeline.tokens_at(range(state.timeline.cached, len(state.timeline)))
        assert len(state.timeline) + self.options.sampling.max_new_tokens + 1 <= self.capacity, "capacity is a bound"
        numbers = positions(state.timeline.pending_spans(), self.tokens_per_second, state.last_position + 1)
        return PrefillInput(tokens, np.zeros(len(tokens), np.bool_), numbers, [])

    def _prefix(self, state: StreamState, question: Question) -> list[Span]:
        """What the reply to a question begins with."""
        if not question.prefix:
            return []
        return [Span(Kind.QUERY, Role.ASSISTANT, tuple(self.grammar.tokenizer.encode(question.prefix)), state.turn)]

    def question_tokens(self, question: Question) -> int:
        """Tokens of a question with its markup and prefix, in a turn of its own; in a step's turn they are fewer."""
        marks = self.grammar.separator(0), self.grammar.header(Role.USER), self.grammar.footer(Role.USER)
        texts = len(self.grammar.query(question.text)) + len(self.grammar.tokenizer.encode(question.prefix))
        return texts + sum(map(len, (*marks, self.grammar.header(Role.ASSISTANT))))

    def option_tokens(self, question: Question) -> list[tuple[int, ...]]:
        """The tokens of each option of a question, as they would follow."""
        if question.as_commentary:
            return [self.grammar.reply(option) for option in question.options]
        return [tuple(self.grammar.tokenizer.encode(option)) for option in question.options]

    def _open(self, state: StreamState, shown: Chunk) -> OpenTurn:
        """Begin the turn of a step, behind what the policy left."""
        numbers = state.pending_positions
        if numbers.shape[1]:
            first = float(numbers[:, -1].max()) + 1
        elif self.options.policy.positions == "append":
            first = state.last_position + 1
        else:
            first = float(state.positions[:, -1].max()) + 1 if state.positions.shape[1] else 0.0
        return OpenTurn(state.timeline.pending_spans(), numbers, len(state.timeline.spans), first, shown.start)

    def _to_encode(self, state: StreamState, spans: list[Span], patches: Patches) -> list[Patches]:
        """What the video blocks that are fed show; for a policy that recomputes also those of earlier steps."""
        if not self.options.recomputes:
            return [patches]
        known = {**state.retained, state.turn: patches}
        retained = {span.turn: known[span.turn] for span in spans if span.kind is Kind.VISION}
        state.retained = retained
        return list(retained.values())

    def _query(self, state: StreamState, chunk: Chunk) -> tuple[str, tuple[InstructionUpdated, ...]]:
        """What goes into the coming turn behind the video, and the instructions that are told with that.

        The public code's first turn has the instruction that the stream was opened with.
        """
        if self.grammar.instruction_in_first_turn and state.turn == 0:
            return self.options.instruction, ()
        told = state.take_instructions(chunk.start)
        return (told[-1].text if told else ""), told

    def set_reply(self, state: StreamState, span: tuple[float, float], tokens: list[int]) -> None:
        """The reply about the seconds of ``span`` is ``tokens`` so far."""
        reply = self.grammar.commentary(state.turn, *span, tokens)
        if len(tokens) == 1:
            state.timeline.append(reply)
        else:
            state.timeline.replace_last(reply)

    def end_turn(self, state: StreamState, span: tuple[float, float], tokens: list[int]) -> None:
        """The reply is complete; one that did not end by itself gets the end of turn that it lacks."""
        end = self.grammar.marks.turn_end
        if tokens[-1] != end:
            self.set_reply(state, span, [*tokens, end])
        if state.turn == 0:
            state.first = span[0]
        state.turn += 1
        state.time = span[1]
        state.opened, state.stashed, state.pending_positions = None, (), no_positions()

    def _sizes(self) -> Sizes:
        markup = sum(len(span) for span in self._preamble if span.kind in (Kind.SYSTEM, Kind.MARKUP))
        history = sum(len(span) for span in self._preamble if span.kind is Kind.HISTORY)
        most = self.options.newest_frames or self.max_frames
        return Sizes(
            step=self.options.step,
            preamble=markup,
            history=history,
            instruction=INSTRUCTION_BUDGET,
            turn=self.grammar.turn_overhead(self.patcher.patches(most)),
            vision=self.patcher.max_tokens(most),
            reply=self.options.sampling.max_new_tokens + 1,
        )
