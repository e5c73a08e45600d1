"""Named ways to run a benchmark: frames, pixels, prompt, sampling and windows, so that a figure says how it was made.

- ``paper``: what the paper states of its own runs (section 4), and of its baseline for endpoints.
- ``official``: what the benchmark's own reference run does.
- ``ours``: what the checkpoint likes best; an endpoint gets the same frames, words and prompt as a local model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..core.errors import OptionError
from ..core.sampling_params import Sampling

#: How a reply to a question is had: the likeliest of its choices, or as the model writes it.
Answers = Literal["likelihood", "generate"]
#: What a commentator is asked for, in words of our own: the published brief asks for the same.
BROADCAST = (
    "You are the commentator of a live sports broadcast. Say what happens as it happens, as a professional would on "
    "air: short, lively, accurate. Speak of nothing that cannot be seen."
)
#: The paper's sampling (facts of its public code).
PAPER_SAMPLING = Sampling(temperature=0.9, repetition_penalty=1.05, max_new_tokens=20)
PAPER_POLICY = "streaming:vision=16,turns=16,sink=512,text=512"
#: The paper's bound for a frame: 768 tokens of 28 x 28 pixels.
PAPER_PIXELS = 768 * 28 * 28


@dataclass(frozen=True, slots=True)
class Preset:
    """How streams are watched.

    ``fps``: frames a second; ``step``: seconds; ``max_pixels``, ``sampling``, ``instruction``: None: the checkpoint's;
    ``policy``: unless another one is asked for; ``human_words``: whether the human words before the start are given.
    """

    name: str
    fps: float = 2.0
    step: float = 1.0
    max_pixels: int | None = None
    policy: str = "streaming"
    sampling: Sampling | None = None
    instruction: str | None = None
    human_words: bool = False

    def json(self) -> dict[str, Any]:
        """As it is written into results."""
        sampling = None if self.sampling is None else repr(self.sampling)
        return {
            "fps": self.fps,
            "step": self.step,
            "max_pixels": self.max_pixels,
            "sampling": sampling,
            "instruction": self.instruction,
            "human_words": self.human_words,
        }


@dataclass(frozen=True, slots=True)
class OfflinePreset:
    """How a question is asked offline: at most ``max_frames`` frames at ``fps`` a second, spread evenly if there are
    more; ``max_pixels``: of a frame (None: the checkpoint's); ``answers``: how the reply is had."""

    name: str
    fps: float
    max_frames: int
    max_pixels: int | None = None
    answers: Answers = "likelihood"

    def json(self) -> dict[str, Any]:
        """As it is written into results."""
        return {
            "fps": self.fps,
            "max_frames": self.max_frames,
            "max_pixels": self.max_pixels,
            "answers": self.answers,
        }


_PAPER = Preset("paper", 2.0, 1.0, PAPER_PIXELS, PAPER_POLICY, PAPER_SAMPLING, instruction=BROADCAST, human_words=True)
#: Of benchmarks of commentary: by name, "" for any other.
COMMENTARY: Mapping[str, Mapping[str, Preset]] = {
    "paper": {"": _PAPER},
    "official": {
        # The released scripts of both run the public code's rules on the public checkpoint.
        name: Preset("official", 2.0, 1.0, PAPER_PIXELS, "public-code", PAPER_SAMPLING, BROADCAST, human_words=True)
        for name in ("inf-streams", "livesports")
    },
    "ours": {"": Preset("ours")},
}
#: Of benchmarks of questions that are watched as streams.
QUESTIONS: Mapping[str, Mapping[str, Preset]] = {
    "paper": {"": Preset("paper", 2.0, 1.0, PAPER_PIXELS, PAPER_POLICY, PAPER_SAMPLING)},
    "ours": {"": Preset("ours")},
}
#: Of benchmarks of questions that are asked offline.
OFFLINE: Mapping[str, Mapping[str, OfflinePreset]] = {
    "paper": {
        "ovo": OfflinePreset("paper", 2.0, 480),
        "videomme": OfflinePreset("paper", 1.0, 768),
        "longvideobench": OfflinePreset("paper", 1.0, 768),
        "mvbench": OfflinePreset("paper", 8.0, 64),
    },
    "official": {
        "ovo": OfflinePreset("official", 1.0, 64, answers="generate"),
        "streamingbench": OfflinePreset("official", 1.0, 360, 360 * 420, answers="generate"),
    },
    "ours": {"": OfflinePreset("ours", 1.0, 64)},
}


def find_preset(table: Mapping[str, Mapping[str, Any]], name: str, benchmark: str) -> Any:
    """The preset of a table for a benchmark. OptionError if nothing is known to be run so."""
    by_benchmark = table.get(name)
    if by_benchmark is None:
        raise OptionError(f"unknown preset {name!r}; known here: {', '.join(table)}")
    found = by_benchmark.get(benchmark, by_benchmark.get(""))
    if found is None:
        others = ", ".join(key for key, value in table.items() if benchmark in value or "" in value)
        raise OptionError(f"no preset {name!r} is known of {benchmark}; known: {others}")
    return found
