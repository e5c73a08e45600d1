"""Who comments games: a local model in a streaming cache, a model behind an endpoint, or a text that never changes.

Each writes a record for every game, as :class:`streamingvlm.evaluate.generate.Speaker` says.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ..core.errors import EndpointError, SourceError, StreamingVLMError
from ..core.events import Chunk, Commentary
from ..engine.endpoint import Endpoint
from ..engine.remote import RemoteOptions, RemoteSession
from ..sinks.files import write_whole
from .benchmark import Window
from .checkpoint import Checkpoint
from .commentary.examples import EPS, GameExample, go_on, open_video
from .features import Features
from .generate import WINDOWS
from .presets import Preset
from .record import Record, Row
from .runner import TaskRunner, raise_first

Progress = Callable[[float], None]


def stream_options(preset: Preset, seed: int) -> dict[str, Any]:
    """How a preset's streams are opened, as :meth:`Engine.open` takes it; what it leaves open is the checkpoint's."""
    options: dict[str, Any] = {"fps": preset.fps, "step": preset.step, "seed": seed}
    given = {"sampling": preset.sampling, "instruction": preset.instruction, "max_pixels": preset.max_pixels}
    return options | {key: value for key, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class LocalSpeaker:
    """A checkpoint under a policy. ``at_once``: games in one batch; ``features``: where to keep what the tower sees."""

    checkpoint: Checkpoint
    policy: str
    preset: Preset
    at_once: int
    seed: int = 0
    features: Path | None = None

    def comment(self, games: Sequence[GameExample], folder: Path, done: Progress) -> None:
        """Watch all games, ``at_once`` at a time."""
        kept = Features.of(self.checkpoint.model, self.features) if self.features else None
        runner = TaskRunner(
            self.checkpoint.model,
            self.policy,
            folder,
            self.checkpoint.fingerprint,
            features=kept,
            options=stream_options(self.preset, self.seed),
            at_once=self.at_once,
            real_time=None,
        )
        if games:
            runner.run(games, math.ceil(max(game.end for game in games)), done)


@dataclass(frozen=True, slots=True)
class ConstantSpeaker:
    """Says ``text`` in every window of ``windows``, whatever is shown."""

    text: str
    windows: Sequence[Window]

    def comment(self, games: Sequence[GameExample], folder: Path, done: Progress) -> None:
        """Write all records."""
        for number, game in enumerate(games, 1):
            record = Record(folder / f"{game.name}.jsonl", {**game.settings, "constant": self.text, "by": WINDOWS})
            record.begin(0.0)
            for window in _windows_of(self.windows, game):
                record.add(Commentary(window.start, window.end, self.text))
            record.end()
            record.close(done=True)
            done(number)


@dataclass(frozen=True, slots=True)
class RemoteSpeaker:
    """A model behind an endpoint. ``options``: what it is shown; ``workers``: games at once.

    ``windows``: describe each of these in one call, with nothing of what was said before, as the paper's baseline does
    (None: go through the game by the preset's steps, as a local model does).
    """

    endpoint: Endpoint
    options: RemoteOptions
    preset: Preset
    workers: int = 8
    windows: Sequence[Window] | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def comment(self, games: Sequence[GameExample], folder: Path, done: Progress) -> None:
        """Comment all games. Raises the first error when all others have gone as far as they can."""
        waiting: SimpleQueue[GameExample] = SimpleQueue()
        ended: SimpleQueue[BaseException | None] = SimpleQueue()
        for game in games:
            waiting.put(game)

        def work() -> None:
            while not waiting.empty() and not self._stop.is_set():
                try:
                    game = waiting.get_nowait()
                except Empty:
                    return
                try:
                    self._windows(game, folder) if self.windows is not None else self._steps(game, folder)
                    ended.put(None)
                except BaseException as error:
                    ended.put(error)  # raised by whoever waits

        self._stop.clear()
        # Daemons: an interrupt does not wait for calls under way, which may take minutes to time out.
        for _ in range(min(self.workers, len(games))):
            threading.Thread(target=work, daemon=True).start()
        errors: list[StreamingVLMError] = []
        try:
            for number in range(1, len(games) + 1):
                error = ended.get()
                if error is not None and not isinstance(error, StreamingVLMError):
                    raise error
                errors += [error] if error is not None else []
                done(number - len(errors))
        except BaseException:
            self._stop.set()  # no further call is begun
            raise
        raise_first(errors)

    def _session(self, game: GameExample, state: Mapping[str, Any] | None = None) -> RemoteSession:
        # The games' frames are sampled already: each counts, also one that is shown a little early.
        options = replace(self.options, fps=None, context=game.context)
        return RemoteSession(self.endpoint, options, state=state)

    def _record(self, game: GameExample, folder: Path) -> Record:
        settings = {**game.settings, "endpoint": self.endpoint.model, "options": repr(self.options)}
        by_window = {"by": WINDOWS} if self.windows is not None else {}
        record = Record(folder / f"{game.name}.jsonl", settings | by_window)
        record.load()
        return record

    def _windows(self, game: GameExample, folder: Path) -> None:
        """A call for every window of a game that has none yet."""
        record = self._record(game, folder)
        if record.ended:
            return
        record.begin(math.inf)
        seen = {(row["start"], row["end"]) for row in (*record.rows, *record.errors)}
        try:
            for window in _windows_of(self.windows or (), game):
                if (window.start, window.end) in seen:
                    continue
                if self._stop.is_set():
                    return
                try:
                    record.add(self._describe(game, window))
                except EndpointError as error:
                    _declined(record, window.start, window.end, error)
                record.sync()
            record.end()
        finally:
            record.close(done=False)

    def _describe(self, game: GameExample, window: Window) -> Commentary:
        seconds = window.end - window.start
        # A window that is shorter than the time between two pictures shows its first.
        frames = replace(self.preset, fps=max(self.options.fps or self.preset.fps, 1 / seconds), step=seconds)
        shown = next(iter(open_video(str(game.game.video.path), frames, window.start, window.end, game.blind)), None)
        if shown is None:
            raise SourceError(f"{game.game.video.key} shows nothing from {window.start:g} s to {window.end:g} s")
        with self._session(game) as session:
            return session.step(replace(shown, start=window.start, end=window.end))

    def _steps(self, game: GameExample, folder: Path) -> None:
        """Step by step through a game, from where its record ends."""
        record = self._record(game, folder)
        if record.ended:
            return
        state, row = _read_state(record)
        record.begin(state["time"] if state else 0.0)
        if row is not None:
            record.put(row)
        try:
            with self._session(game, state) as session:
                for chunk in self._chunks(game, session):
                    if self._stop.is_set():
                        return
                    self._step(record, session, chunk)
            record.end()
        finally:
            record.close(done=record.ended)

    def _step(self, record: Record, session: RemoteSession, chunk: Chunk) -> None:
        """A step of a game: its words, or that the model declines."""
        try:
            row = record.row(session.step(chunk))
        except EndpointError as error:
            row = _declined(record, chunk.start, chunk.end, error, write=False)
            session.see(chunk)
        # First the state, with the row in it: whatever comes between the two, no step is asked twice.
        told = {"state": session.state(), "row": row}
        write_whole(record.snapshot, json.dumps(told, ensure_ascii=False))
        record.put(row)
        record.sync()

    def _chunks(self, game: GameExample, session: RemoteSession) -> Iterator[Chunk]:
        """The steps to come; what a restored session has to see again is shown to it first."""
        known, lost = session.time, session.state()["frames_from"]
        if lost is None:
            yield from game.source(game.end, known)
            return
        steps = int((lost - game.start) / self.preset.step + 1e-6)
        first = game.start + steps * self.preset.step
        for chunk in go_on(str(game.game.video.path), self.preset, first, game.end, game.blind):
            if chunk.end <= known + 1e-6:
                since = [place for place, time in enumerate(chunk.times) if time >= lost - 1e-6]
                if since:
                    times = tuple(chunk.times[place] for place in since)
                    session.see(replace(chunk, frames=chunk.frames[since], times=times))
            else:
                yield chunk


def _read_state(record: Record) -> tuple[Mapping[str, Any] | None, Row | None]:
    """The session's state behind the last step of a record, and that step where the record does not have it yet.

    (None, None) to begin anew.
    """
    try:
        told = json.loads(record.snapshot.read_text(encoding="utf-8"))
        state, row = told["state"], told["row"]
        known = max((one["end"] for one in (*record.rows, *record.errors)), default=row["start"])
        if state["time"] <= known + EPS:
            return state, None
        return (state, row) if abs(row["start"] - known) < EPS else (None, None)
    except (OSError, ValueError, KeyError, TypeError):
        return None, None


def _declined(record: Record, start: float, end: float, error: EndpointError, write: bool = True) -> Row:
    """Write down that the model has no words for a stretch: asking again changes nothing. Other errors are raised."""
    if error.kind != "no_text":
        raise error
    row = {"start": start, "end": end, "error": str(error)}
    if write:
        record.put(row)
    return row


def _windows_of(windows: Sequence[Window], game: GameExample) -> list[Window]:
    return [window for window in windows if window.game == game.game.name]
