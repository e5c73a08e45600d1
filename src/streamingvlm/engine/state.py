"""A stream as a value: everything that a step changes, apart from the rows of its slot. No tensors of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..core.events import Chunk, InstructionUpdated
from ..core.positions import FloatArray
from ..core.timeline import Timeline
from .open_turn import OpenTurn

if TYPE_CHECKING:
    from ..models.patches import Patches


def no_positions() -> FloatArray:
    """Positions (3, 0) float32."""
    return np.zeros((3, 0), np.float32)


@dataclass(slots=True)
class StreamState:
    """Where a stream stands.

    ``timeline``: its text. ``turn``: steps that have ended; ``sampled``: ids that were sampled so far. ``time`` and
    ``first``: seconds, where the last step ended and where the first one began. ``positions``: (3, rows) float32, one
    of every row; ``last_position``: the largest that was ever used (-1 before the first). ``version``: of the newest
    instruction; ``instructions``: those that the model has not been told yet.
    """

    timeline: Timeline = field(default_factory=Timeline)
    turn: int = 0
    sampled: int = 0
    time: float = 0.0
    first: float = 0.0
    positions: FloatArray = field(default_factory=no_positions)
    last_position: float = -1.0
    #: Positions of the ids that had no row when the policy was last applied, (3, n) float32.
    pending_positions: FloatArray = field(default_factory=no_positions)
    #: The turn that is being shown, if a part of it was.
    opened: OpenTurn | None = None
    #: Parts of the coming step, for a policy that feeds nothing ahead.
    held: tuple[Chunk, ...] = ()
    #: Turn -> what its video block shows, for a policy that recomputes: of the blocks that stay.
    retained: Mapping[int, Patches] = field(default_factory=dict)
    #: What the last step showed, for a policy that counts frames.
    shown: Chunk | None = None
    version: int = 0
    instructions: tuple[InstructionUpdated, ...] = ()

    @property
    def between_steps(self) -> bool:
        """Whether no part of the coming step has been shown."""
        return self.opened is None and not self.held

    def before_step(self) -> StreamState:
        """A copy, without parts of the coming step: what happens to one of the two does not reach the other."""
        assert self.opened is None, "a turn that is being shown is shared"
        return replace(self, timeline=Timeline(list(self.timeline.spans), self.timeline.cached), held=())

    def forget(self) -> None:
        """Say that no id has a row: all are fed anew."""
        self.timeline.forget()
        self.positions = no_positions()

    def instruct(self, text: str) -> int:
        """Another instruction, from the next step on; its version."""
        self.version += 1
        earlier = tuple(replace(one, start=None) for one in self.instructions)
        self.instructions = (*earlier, InstructionUpdated(self.version, text, None))
        return self.version

    def tell(self, start: float) -> tuple[InstructionUpdated, ...]:
        """The instructions that were waiting: the last goes with the step from ``start``, the rest came to nothing."""
        if not self.instructions:
            return ()
        *over, last = self.instructions
        self.instructions = ()
        return (*over, replace(last, start=start))

    def with_instructions_of(self, later: StreamState) -> StreamState:
        """This state, but for instructions that came since: they are not undone with a step that failed."""
        new = tuple(one for one in later.instructions if one.version > self.version)
        return replace(self, version=later.version, instructions=(*self.instructions, *new))
