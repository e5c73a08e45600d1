"""A stream as a value: everything that a step changes, apart from the rows of its slot. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.events import Chunk, InstructionUpdated
from ..core.positions import FloatArray
from ..core.timeline import Timeline
from .open_turn import OpenTurn
from .options import INSTRUCTIONS

if TYPE_CHECKING:
    from ..models.patches import Patches


#: Columns by which the array of positions has more room than it holds: tokens of a reply are added one by one.
SPARE = 256


def no_positions() -> FloatArray:
    """Positions (3, 0) float32."""
    return np.zeros((3, 0), np.float32)


@dataclass(slots=True, eq=False)
class StreamState:
    """Where a stream stands.

    ``timeline``: its text. ``turn``: steps that have ended; ``sampled``: tokens that were sampled so far. ``time`` and
    ``first``: seconds, where the last step ended and where the first one began. ``positions``: (3, rows) float32, one
    of every row; ``last_position``: the largest that was ever used (-1 before the first). ``version``: of the newest
    instruction; ``instructions``: those that the model has not been told yet. ``time_offset``: seconds that the time
    stamps shown to the model are behind the stream's own time; see :meth:`shown_time`.
    """

    timeline: Timeline = field(default_factory=Timeline)
    turn: int = 0
    sampled: int = 0
    time: float = 0.0
    first: float = 0.0
    positions: FloatArray = field(default_factory=no_positions)
    last_position: float = -1.0
    #: Positions of the tokens that had no row when the policy was last applied, (3, n) float32.
    pending_positions: FloatArray = field(default_factory=no_positions)
    #: The turn that is being shown, if a part of it was.
    opened: OpenTurn | None = None
    #: Parts of the coming step, for a policy that prefills nothing ahead.
    stashed: tuple[Chunk, ...] = ()
    #: Turn -> what its video block shows, for a policy that recomputes: of the blocks that stay.
    retained: Mapping[int, Patches] = field(default_factory=dict)
    #: What the last step showed, for a policy that counts frames.
    shown: Chunk | None = None
    version: int = 0
    instructions: tuple[InstructionUpdated, ...] = ()
    time_offset: float = 0.0
    #: What ``positions`` is the front of, (3, more) float32; each state has its own.
    _room: FloatArray = field(default_factory=no_positions, compare=False, repr=False)

    @property
    def between_steps(self) -> bool:
        """Whether no part of the coming step has been shown."""
        return self.opened is None and not self.stashed

    def before_step(self) -> StreamState:
        """A copy, without parts of the coming step: what happens to one of the two does not reach the other."""
        assert self.opened is None, "a turn that is being shown is shared"
        timeline = Timeline(list(self.timeline.spans), self.timeline.cached)
        return replace(self, timeline=timeline, stashed=(), _room=no_positions())

    def forget(self) -> None:
        """Say that no token has a row: all are prefilled anew."""
        self.timeline.forget()
        self.positions = no_positions()

    @property
    def next_position(self) -> FloatArray:
        """Position (3, 1) float32 of the next token behind everything that has a row."""
        return np.full((3, 1), self.last_position + 1, np.float32)

    def mark_cached(self, numbers: FloatArray) -> None:
        """The tokens at positions ``numbers`` (3, n) have rows now."""
        held = self.positions.shape[1]
        count = held + numbers.shape[1]
        if self.positions.base is not self._room or count > self._room.shape[1]:
            self._room = np.empty((3, count + SPARE), np.float32)
            self._room[:, :held] = self.positions
        self._room[:, held:count] = numbers
        self.positions = self._room[:, :count]
        self.last_position = float(numbers[:, -1].max())
        self.timeline.commit(numbers.shape[1])

    def __eq__(self, other: object) -> bool:
        """Whether the two are the same stream, to the last bit."""
        if not isinstance(other, StreamState):
            return NotImplemented
        return all(
            _same(getattr(self, field.name), getattr(other, field.name)) for field in fields(self) if field.compare
        )

    __hash__ = None  # type: ignore[assignment]

    def shown_time(self, time: float) -> float:
        """What the model is told in place of second ``time``: the stamp of it.

        Only stamps are written with it. Spans, events and policies have the stream's own time throughout.
        """
        # What a rebased stream shows again of earlier frames may stand before its new zero.
        return max(0.0, time - self.time_offset) if self.time_offset else time

    def instruct(self, text: str) -> int:
        """Another instruction, from the next step on; its version. At most ``INSTRUCTIONS`` wait to be told."""
        self.version += 1
        self.instructions = (*self.instructions, InstructionUpdated(self.version, text, None))[-INSTRUCTIONS:]
        return self.version

    def take_instructions(self, start: float) -> tuple[InstructionUpdated, ...]:
        """The instructions that were waiting: the last goes with the step from ``start``, the rest came to nothing."""
        if not self.instructions:
            return ()
        *over, last = self.instructions
        self.instructions = ()
        return (*over, replace(last, start=start))

    def with_instructions_of(self, later: StreamState) -> StreamState:
        """This state, but for instructions that came since: they are not undone with a step that failed."""
        new = tuple(one for one in later.instructions if one.version > self.version)
        return replace(self, version=later.version, instructions=(*self.instructions, *new)[-INSTRUCTIONS:])


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal, arrays, patches and what holds them included."""
    if is_dataclass(one) and not isinstance(one, type):
        pairs = ((getattr(one, part.name), getattr(other, part.name, None)) for part in fields(one))
        return type(one) is type(other) and all(_same(*pair) for pair in pairs)
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(_same, one, other))
    if hasattr(one, "shape"):
        return hasattr(other, "shape") and np.array_equal(np.asarray(one), np.asarray(other))
    return bool(one == other)
