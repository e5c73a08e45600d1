"""A task of made-up video: noise whose frames follow from the stream's number and the second."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from streamingvlm.core.events import Chunk
from streamingvlm.evaluate.record import Record
from streamingvlm.evaluate.task import TimedQuestion

from . import streams


@dataclass
class NoiseVideo:
    """Whole seconds of noise from ``first`` to before ``last``, each read in a millisecond."""

    stream: int
    first: int
    last: int
    played: list[tuple[int, int]]
    name: str = "noise"
    context: str = ""
    kind: str = "noise"
    live: bool = False

    def __iter__(self) -> Iterator[Chunk]:
        self.played.append((self.stream, self.first))
        return (
            replace(streams.chunk(second, seed=self.stream), read_seconds=0.001)
            for second in range(self.first, self.last)
        )


@dataclass(frozen=True)
class NoiseExample:
    """``length``: seconds after which the video ends; ``played``: (stream, second) of every time that it is begun."""

    stream: int
    length: int = 1000
    questions: Sequence[TimedQuestion] = ()
    played: list[tuple[int, int]] = field(default_factory=list, compare=False)

    @property
    def name(self) -> str:
        return f"noise-{self.stream}"

    @property
    def video(self) -> str:
        return self.name

    @property
    def context(self) -> str:
        return f"noise number {self.stream}"

    @property
    def previous(self) -> Sequence[str]:
        return ()

    @property
    def start(self) -> float:
        return 0.0

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"noise": self.stream}

    def source(self, seconds: float, start: float = 0.0) -> NoiseVideo:
        return NoiseVideo(self.stream, int(start), min(int(seconds), self.length), self.played)


@dataclass(frozen=True)
class NoiseTask:
    """How many characters are said; its options: ``streams`` and ``seconds``."""

    examples: Sequence[NoiseExample]
    seconds: int
    name: str = "noise"

    @classmethod
    def open(cls, options: Mapping[str, str]) -> NoiseTask:
        return cls([NoiseExample(stream) for stream in range(int(options["streams"]))], int(options["seconds"]))

    def score(self, records: Sequence[Record]) -> Mapping[str, Any]:
        return {"characters": sum(len(row["text"]) for record in records for row in record.rows)}

    def report(self, metrics: Mapping[str, Any]) -> str:
        return f"{metrics['characters']} characters"
