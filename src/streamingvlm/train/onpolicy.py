"""The model watches the training streams by itself: the rollouts of the on-policy stage, made by the engine.

Several streams run in one batch, each with the policy, sampling and positions of inference, and read nothing but their
own words. What a stream says depends on its seed and its number only, not on who shares the batch, so a run that was
stopped goes on as if it had not been.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from ..core.errors import OptionError, OutputError, SourceError
from ..core.events import Chunk, Commentary
from ..core.policy import StreamingWindow
from ..core.sampling_params import Sampling
from ..data.words import EPS, Stream
from ..engine.engine import Engine
from ..engine.session import Session
from ..models.base import Model
from ..runtime.clock import fast
from .collate import ChunkDataset
from .config import Stage
from .examples import Example
from .rollouts import Said, whole_lines
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


class Piece:
    """A part of a stream that is watched in one go: a source of chunks. ``number`` counts all pieces."""

    kind = ""
    live = False

    def __init__(self, number: int, example: Example, context: str) -> None:
        self.number, self.example, self.context = number, example, context
        self.name = example.clip.path.name

    @property
    def key(self) -> tuple[str, float]:
        """As :attr:`Said.key`."""
        return self.example.where, self.example.start

    def __iter__(self) -> Iterator[Chunk]:
        return self.example.chunks()


def pieces(chunks: ChunkDataset, seconds: float) -> Iterator[Piece]:
    """Pieces of ``seconds`` (0: whole streams), made longer so that every chunk is whole in one of them.

    Chunks that begin in the same ``seconds`` of a stream are in the same piece, which begins with these seconds and
    ends with the last of its chunks.
    """
    number = 0
    step = chunks.plan.step
    length = max(round(seconds / step), 1) * step if seconds else math.inf
    for line, group in groupby(chunks.places, key=lambda place: place.line):
        stream = chunks.stream(line)
        parts: dict[int, list[Place]] = {}
        for place in group:
            parts.setdefault(int((place.cut.start - stream.start + EPS) // length), []).append(place)
        for part, places in parts.items():
            start = stream.start + (part * length if part else 0.0)
            steps = max(round((place.cut.start - start) / step) + place.cut.steps for place in places)
            texts = tuple(stream.texts(start, steps, step))
            instruction = (stream.query if chunks.queries else "") or chunks.encoding.instruction
            example = Example(chunks.encoding, places[0].clip, start, texts, texts, (), instruction, str(line))
            yield Piece(number, example, _context(chunks, stream))
            number += 1


def _context(chunks: ChunkDataset, stream: Stream) -> str:
    """What is known before a stream: its title, and what a clip's makers say was said before it."""
    title = stream.context if chunks.titles else ""
    if not stream.previous:
        return title
    # The text is read again by a session, where it has to fit the sink: it may have some ids more by then.
    most = chunks.plan.sink // 3
    return chunks.encoding.grammar.tokenizer.decode(chunks.encoding.history(title, [stream.previous], most, most))


@dataclass(slots=True)
class _Lane:
    """One of the streams that run together."""

    piece: Piece
    session: Session
    frames: Generator[Chunk, None, None]
    said: list[Commentary] = field(default_factory=list)

    def close(self) -> None:
        self.frames.close()
        self.session.close()


class Rollout:
    """Watches the pieces that ``path`` lacks and appends what was said, piece by piece.

    ``part`` K of N: every N-th piece, so that N processes with a device each share the work, each with a file of its
    own. ``failed``: pieces whose frames could not be read, with the reason; they are tried again by the next run.
    Raises :class:`OptionError` if the file was made with other settings.
    """

    def __init__(self, stage: Stage, model: Model, chunks: ChunkDataset, path: Path, part: tuple[int, int] = (0, 1)):
        self.stage, self.model, self.path = stage, model, path
        self.sampling = Sampling(
            temperature=stage.temperature,
            repetition_penalty=stage.repetition_penalty,
            max_new_tokens=stage.max_new_tokens,
        )
        self.made = {"model": stage.model or "bundled", **{key: getattr(stage, key) for key in MADE_WITH}}
        self.failed: list[str] = []
        done = self._read()
        share = [piece for piece in pieces(chunks, stage.rollout_seconds) if piece.number % part[1] == part[0]]
        self.todo = [piece for piece in share if piece.key not in done]
        self.total = sum(len(piece.example.true) for piece in share)
        self.done = self.total - sum(len(piece.example.true) for piece in self.todo)

    def run(self, on_step: Callable[[int], None]) -> None:
        """Watch them all; ``on_step`` is told how many steps are done. What is finished is on the disk at once."""
        engine = Engine(self.model, slots=self.stage.rollout_streams)
        waiting = iter(self.todo)
        lanes: list[_Lane] = []
        try:
            while True:
                while len(lanes) < self.stage.rollout_streams and (piece := next(waiting, None)):
                    lanes.append(self._open(engine, piece))
                if not lanes:
                    return
                lanes = self._step(engine, lanes)
                on_step(self.done)
        finally:
            for lane in lanes:
                lane.close()

    def _open(self, engine: Engine, piece: Piece) -> _Lane:
        stage = self.stage
        session = engine.open(
            policy=StreamingWindow(vision=stage.vision, turns=stage.turns, sink=stage.sink, text=stage.text),
            context=piece.context,
            instruction=piece.example.instruction,
            seed=stage.seed,
            stream=piece.number,
            sampling=self.sampling,
            fps=stage.fps,
            max_pixels=stage.pixel_budget,
        )
        return _Lane(piece, session, iter(fast(piece, session.prepare)))

    def _step(self, engine: Engine, lanes: list[_Lane]) -> list[_Lane]:
        """One step of every stream; those that go on."""
        jobs, over = [], []
        for lane in lanes:
            try:
                chunk = next(lane.frames, None)
            except SourceError as error:
                self.failed.append(str(error))
                over.append(lane)
                continue
            if chunk is None:
                self._write(lane)
                over.append(lane)
            else:
                jobs.append((lane, engine.submit(lane.session, chunk)))
        for lane, job in jobs:
            lane.said.append(engine.wait(job))
            self.done += 1
        for lane in over:
            lane.close()
        return [lane for lane, _ in jobs]

    def _write(self, lane: _Lane) -> None:
        said = Said(
            line=lane.piece.example.where,
            video=lane.piece.name,
            start=lane.piece.example.start,
            step=lane.piece.example.encoding.step,
            said=tuple(words.text for words in lane.said),
            cut=sum(words.finish_reason != "stop" for words in lane.said),
            made=self.made,
        )
        with self.path.open("a", encoding="utf-8") as file:
            file.write(said.to_line())
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> set[tuple[str, float]]:
        """The pieces that are there; a half written last line is cut off."""
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
