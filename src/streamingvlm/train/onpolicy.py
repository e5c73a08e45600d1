"""The model watches the training streams by itself: the rollouts of the on-policy stage, made by the engine.

Several streams run in one batch, each with the policy, sampling and positions of inference, and read nothing but their
own words. What a stream says depends on its seed and its number only, not on who shares the batch, so a run that was
stopped goes on as if it had not been.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from ..core.errors import OptionError, OutputError, SourceError
from ..core.events import Chunk, Closed, Commentary, Event
from ..core.policy import StreamingWindow
from ..core.sampling_params import Sampling
from ..data.words import EPS, Transcript
from ..engine.engine import Engine
from ..models.base import Model
from ..runtime.runtime import LONG_PATIENCE, Runtime, Stream
from .collate import ChunkDataset
from .config import TrainConfig
from .examples import TrainingExample
from .rollouts import RolloutRecord, whole_lines
from .scan import Place

#: The keys of a stage that decide what is said.
MADE_WITH = (
    "seed",
    "temperature",
    "repetition_penalty",
    "max_new_tokens",
    "vision",
    "turns",
    "sink",
    "text",
    "fps",
    "max_pixels",
    "instruction",
    "titles",
    "queries",
    "rollout_seconds",
)


class RolloutSegment:
    """A part of a stream that is watched in one go: a source of chunks. ``number`` counts all segments."""

    kind = ""
    live = False

    def __init__(self, number: int, example: TrainingExample, context: str) -> None:
        self.number, self.example, self.context = number, example, context
        self.name = example.clip.path.name

    @property
    def key(self) -> tuple[str, float]:
        """As :attr:`RolloutRecord.key`."""
        return self.example.where, self.example.start

    def __iter__(self) -> Iterator[Chunk]:
        return self.example.chunks()


def segments(chunks: ChunkDataset, seconds: float) -> Iterator[RolloutSegment]:
    """Pieces of ``seconds`` (0: whole streams), made longer so that every chunk is whole in one of them.

    Chunks that begin in the same ``seconds`` of a stream are in the same segment, which begins with these seconds and
    ends with the last of its chunks.
    """
    number = 0
    step = chunks.plan.step
    length = max(round(seconds / step), 1) * step if seconds else math.inf
    for line, group in groupby(chunks.places, key=lambda place: place.line):
        transcript = chunks.transcript(line)
        parts: dict[int, list[Place]] = {}
        for place in group:
            parts.setdefault(int((place.cut.start - transcript.start + EPS) // length), []).append(place)
        for part, places in parts.items():
            start = transcript.start + (part * length if part else 0.0)
            steps = max(round((place.cut.start - start) / step) + place.cut.steps for place in places)
            texts = tuple(transcript.texts(start, steps, step))
            instruction = (transcript.query if chunks.queries else "") or chunks.encoding.instruction
            example = TrainingExample(chunks.encoding, places[0].clip, start, texts, texts, (), instruction, str(line))
            yield RolloutSegment(number, example, _context(chunks, transcript))
            number += 1


def _context(chunks: ChunkDataset, transcript: Transcript) -> str:
    """What is known before a stream: its title, and what a clip's makers say was said before it."""
    title = transcript.context if chunks.titles else ""
    if not transcript.previous:
        return title
    # The text is read again by a session, where it has to fit the sink: it may have some tokens more by then.
    most = chunks.plan.sink // 3
    return chunks.encoding.grammar.tokenizer.decode(chunks.encoding.history(title, [transcript.previous], most, most))


class _SegmentRecorder:
    """A sink that keeps what is said in a segment; ``on_close`` is called with it when its stream has ended."""

    def __init__(
        self, segment: RolloutSegment, on_step: Callable[[], None], on_close: Callable[[_SegmentRecorder], None]
    ) -> None:
        self.segment = segment
        self.said: list[Commentary] = []
        self.whole = False
        self._on_step, self._on_close = on_step, on_close

    def write(self, event: Event) -> None:
        if isinstance(event, Commentary):
            self.said.append(event)
            self._on_step()
        elif isinstance(event, Closed):
            # An interrupt stops a stream without an error.
            self.whole = not event.error and len(self.said) >= len(self.segment.example.true)

    def close(self) -> None:
        self._on_close(self)


class RolloutRunner:
    """Watches the segments that ``path`` lacks and appends what was said, segment by segment.

    ``part`` K of N: every N-th segment, so that N processes with a device each share the work, each with a file of its
    own. ``failed``: segments whose frames could not be read, with the reason; they are tried again by the next run.
    Raises :class:`OptionError` if the file was made with other settings.
    """

    def __init__(
        self, stage: TrainConfig, model: Model, chunks: ChunkDataset, path: Path, part: tuple[int, int] = (0, 1)
    ):
        self.stage, self.model, self.path = stage, model, path
        self.sampling = Sampling(
            temperature=stage.temperature,
            repetition_penalty=stage.repetition_penalty,
            max_new_tokens=stage.max_new_tokens,
        )
        self.made = {"model": stage.model or "bundled", **{key: getattr(stage, key) for key in MADE_WITH}}
        self.failed: list[str] = []
        done = self._read()
        share = [segment for segment in segments(chunks, stage.rollout_seconds) if segment.number % part[1] == part[0]]
        self.todo = [segment for segment in share if segment.key not in done]
        self.total = sum(len(segment.example.true) for segment in share)
        self.done = self.total - sum(len(segment.example.true) for segment in self.todo)

    def run(self, on_step: Callable[[int], None]) -> None:
        """Watch them all; ``on_step`` is told how many steps are done. What is finished is on the disk at once."""
        free = threading.Semaphore(self.stage.rollout_streams)
        streams: list[Stream] = []

        def stepped() -> None:
            self.done += 1
            on_step(self.done)

        def ended(one: _SegmentRecorder) -> None:
            try:
                if one.whole:
                    self._write(one)
            finally:
                free.release()

        with Runtime(Engine(self.model, slots=self.stage.rollout_streams), patience=LONG_PATIENCE) as runtime:
            for segment in self.todo:
                free.acquire()
                streams = self._settle(streams)
                sink = _SegmentRecorder(segment, stepped, ended)
                streams.append(runtime.start(segment, sinks=[sink], **self._options(segment)))
            for stream in streams:
                stream.wait_ended()
            self._settle(streams)

    def _settle(self, streams: list[Stream]) -> list[Stream]:
        """Those that go on; frames that could not be read are noted, any other error is raised."""
        for stream in streams:
            if stream.ended and isinstance(stream.error, SourceError):
                self.failed.append(str(stream.error))
            elif stream.ended:
                stream.wait()
        return [stream for stream in streams if not stream.ended]

    def _options(self, segment: RolloutSegment) -> dict[str, Any]:
        stage = self.stage
        return {
            "policy": StreamingWindow(vision=stage.vision, turns=stage.turns, sink=stage.sink, text=stage.text),
            "context": segment.context,
            "instruction": segment.example.instruction,
            "seed": stage.seed,
            "stream": segment.number,
            "sampling": self.sampling,
            "fps": stage.fps,
            "max_pixels": stage.pixel_budget,
        }

    def _write(self, one: _SegmentRecorder) -> None:
        said = RolloutRecord(
            line=one.segment.example.where,
            video=one.segment.name,
            start=one.segment.example.start,
            step=one.segment.example.encoding.step,
            said=tuple(words.text for words in one.said),
            cut=sum(words.finish_reason != "stop" for words in one.said),
            made=self.made,
        )
        with self.path.open("a", encoding="utf-8") as file:
            file.write(said.to_line())
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> set[tuple[str, float]]:
        """The segments that are there; a half written last line is cut off."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                return set()
            found = list(whole_lines(self.path))
            text = self.path.read_bytes()
            self.path.write_bytes(text[: text.rfind(b"\n") + 1])
        except OSError as error:
            raise OutputError(f"cannot write {self.path} ({error.strerror or error})") from error
        if any(said.made != self.made for said in found):
            raise OptionError(f"{self.path} was made with another model or other settings; remove it, or name another")
        return {said.key for said in found}
