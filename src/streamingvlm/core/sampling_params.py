"""How replies are sampled."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.errors import OptionError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a reply is sampled.

    ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 switch those filters off; ``repetition_penalty`` is
    applied once to every distinct token in the stream's text (1: off); ``max_new_tokens`` bounds a reply.
    With ``forced`` every reply has exactly that many tokens: an end of turn is sampled like any other token and not
    obeyed (for benchmarks, which want the same work whatever the text).
    """

    temperature: float = 0.9
    top_k: int = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.05
    max_new_tokens: int = 20
    forced: bool = False

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise OptionError(f"temperature must be 0 (greedy) or more, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.top_k < 0 or self.max_new_tokens < 1 or not self.repetition_penalty > 0:
            raise OptionError("top_k must be 0 or more, max_new_tokens 1 or more, repetition_penalty above 0")
