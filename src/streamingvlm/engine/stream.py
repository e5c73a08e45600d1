"""An open stream inside an engine: its planner, its state, and the slot that its rows are in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..cache.kv_pool import Evicted
from .options import StreamOptions
from .planner import StepPlanner
from .state import StreamState


@dataclass(frozen=True, slots=True)
class Before:
    """A stream as it was before the step under way: its state, and the rows that the step has taken since."""

    state: StreamState
    evicted: Evicted | None = None


@dataclass(slots=True, eq=False, repr=False)
class OpenStream:
    """One stream of an engine. ``before``: what a step that fails goes back to (None between two steps)."""

    planner: StepPlanner
    slot: int
    state: StreamState = field(default_factory=StreamState)
    before: Before | None = None
    closed: bool = False

    @property
    def options(self) -> StreamOptions:
        """What the stream was opened with."""
        return self.planner.options

    @property
    def rows(self) -> dict[str, int]:
        """Tokens in the stream's text by kind, those that have no row yet included."""
        return {str(kind): count for kind, count in self.state.timeline.rows_by_kind.items()}

    def keep(self, evicted: Evicted) -> None:
        """Keep the rows that the step under way takes from the slot, until it has ended."""
        assert self.before is not None, "a step begins with what it may go back to"
        self.before = replace(self.before, evicted=evicted)
