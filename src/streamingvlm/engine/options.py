"""What a stream is opened with."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.policy import CachePolicy, Recompute, ReuseStates
from ..core.sampling_params import Sampling

#: Tokens that are reserved for the standing instruction, and as many again for one that replaces it.
INSTRUCTION_BUDGET = 256
#: Tokens that are reserved for a question with its markup and prefix, as a rule.
QUESTION_TOKENS = 512
#: Instructions that wait for the next step: of more the oldest, which came to nothing anyway, are not told.
INSTRUCTIONS = 64


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What was asked for when the stream was opened; see :meth:`Engine.open`."""

    policy: CachePolicy
    sampling: Sampling
    context: str = ""
    instruction: str = ""
    seed: int = 0
    stream: int = 0
    previous: tuple[str, ...] = ()
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
