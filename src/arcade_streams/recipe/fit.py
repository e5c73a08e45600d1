"""Training of the decoder in stages, with moving averages of the weights and free-running checks on the way."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Container, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from streamingvlm import OptionError, StreamingWindow

from .decoder import Probes, StoryBatch, StoryExample, collate, losses
from .drills import ledger, lines, roll_call, verdict
from .films import FilmPlan, Library, Own
from .free import figures
from .habits import Habits
from .optim import Optimizer
from .record import Recording
from .retell import retold
from .rollout import StoryRollout
from .shape import hold_front
from .stories import Scribe, words
from .texts import example as text_example

#: Seconds of the longest chunks, for windows larger than the usual one.
LONG = 28
#: Drills of a batch, and seconds of a roll call.
LINES, LEDGERS, CALLS, CALL, STORIES, VERDICTS = 40, 9, 8, 12, 8, 24
#: Single pictures of a batch of nothing else, and films of one without words.
GLANCES, SILENTS = 96, 12
#: Seconds after which the state is written to disk.
SAVED = 240.0


@dataclass(frozen=True, slots=True)
class FitStage:
    """Some steps of training.

    ``films`` and ``texts``: chunks with pictures and made-up games in a batch, of all games alike; ``own``: share of
    the films whose history is what the model itself said; ``ends``: share of the others that end with a game which may
    be the last of its match; ``plan.seconds`` and ``text_seconds``: their lengths;
    ``rate``: learning rate at the start and at the end of the stage; ``probed``: how much the probes count;
    ``pictures``: shares of batches of single pictures and of films without words instead; ``drills``: of the others
    those of lines, ledgers, roll calls, made-up games and verdicts; ``long``: share with two films of LONG seconds;
    ``roll``: how many recordings are rolled out, for how many seconds, every how many steps, first after a quarter of
    these.
    """

    steps: int
    films: int
    texts: int
    plan: FilmPlan
    text_seconds: int = 32
    rate: tuple[float, float] = (2e-3, 2e-3)
    probed: float = 1.0
    own: float = 0.0
    ends: float = 0.0
    pictures: tuple[float, float] = (0.0, 0.0)
    drills: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    long: float = 0.0
    roll: tuple[int, int, int] = (0, 0, 0)


@dataclass(slots=True)
class Fit:
    """The state of a training run. ``average`` is the moving average of the weights, which is what is kept.

    ``held``: streams of every game that nothing is learnt from; ``checked``: seconds of each that a check watches;
    ``every``: seconds between two checks; ``hours``: spent in training so far; ``dtype``: of products in training;
    ``compile``: the layers, for training only.
    """

    model: Any
    scribe: Scribe
    library: Library
    held: Sequence[Recording]
    folder: Path
    policy: StreamingWindow
    log: Callable[[str], None] = print
    seed: int = 0
    decay: float = 0.995
    every: float = 900.0
    checked: int = 200
    dtype: torch.dtype = torch.float32
    compile: bool = False
    average: Any = field(init=False)
    probes: Probes = field(init=False)
    optimizer: Optimizer = field(init=False)
    rng: random.Random = field(init=False)
    steps: int = 0
    hours: float = 0.0
    at: tuple[int, int] = (0, 0)
    _deck: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        self.rng = random.Random(self.seed)
        board = self.library.board
        self.probes = Probes(self.model.config.text_config.hidden_size, board.sizes, board.weights, board.shown)
        self.model.model.visual.requires_grad_(False)
        hold_front(self.model)
        self.average = deepcopy(self.model).requires_grad_(False)
        if self.compile:
            # All layers share one body: each counts, and the kinds of batches.
            torch.compiler.config.recompile_limit = 64
            for layer in self.model.model.language_model.layers:
                layer.forward = torch.compile(layer.forward, dynamic=True)
        trained = [pair for pair in self.model.named_parameters() if pair[1].requires_grad]
        self.optimizer = Optimizer.make([*trained, *self.probes.named_parameters()])

    def run(self, stages: Sequence[FitStage]) -> None:
        """Train through the stages, from where the loaded state stands."""
        for number in range(self.at[0], len(stages)):
            self.log(f"stage {number}: {stages[number]}")
            self._stage(number, stages[number])
            self.at = (number + 1, 0)
            if stages[number].films:
                self.check(f"stage {number} done")
            else:
                # Nothing of films has been learnt yet.
                self.save()

    def _stage(self, number: int, stage: FitStage) -> None:
        checked = shown = kept = time.monotonic()
        sums: list[tuple[float, float]] = []
        for done in range(self.at[1], stage.steps):
            # A stage begins with weights from another one: its first words of its own are not worth watching.
            late = done - stage.roll[2] // 4
            if stage.roll[0] and late >= 0 and (late % stage.roll[2] == 0 or not self.library.own):
                self.roll(*stage.roll[:2])
            began = time.monotonic()
            rate = stage.rate[0] + done / stage.steps * (stage.rate[1] - stage.rate[0])
            sums.append(self.step(self.batch(stage), rate * min(1.0, (self.steps + 1) / 100), stage.probed))
            self.at, self.hours = (number, done + 1), self.hours + (time.monotonic() - began) / 3600
            if time.monotonic() - shown > 30:
                said, probed = (sum(part) / len(sums) for part in zip(*sums, strict=True))
                pace = (time.monotonic() - shown) / len(sums)
                self.log(f"{done}/{stage.steps} {pace:.2f} s rate {rate:.1e} words {said:.4f} probes {probed:.4f}")
                sums, shown = [], time.monotonic()
            if time.monotonic() - kept > SAVED:
                self.save()
                kept = time.monotonic()
            if time.monotonic() - checked > self.every:
                self.check(f"step {self.steps}")
                checked = shown = time.monotonic()

    def batch(self, stage: FitStage) -> StoryBatch:
        """A batch of the stage's mixture."""
        plan, films, pad = stage.plan, stage.films, self.model.config.text_config.pad_token_id
        drill = self._drill(stage)
        if drill:
            return collate(drill, pad)
        if self.rng.random() < stage.long:
            plan, films = replace(plan, seconds=LONG), 2
        sink, text, seconds = plan.sink, plan.text, stage.text_seconds
        examples = [text_example(self.rng, self.scribe, self._deal(), sink, text, seconds) for _ in range(stage.texts)]
        for _ in range(films):
            own = bool(self.library.own) and self.rng.random() < stage.own
            other = self.library.verdict if self.rng.random() < stage.ends else self.library.example
            make = self.library.own_example if own else other
            examples.append(make(self.rng, self.scribe, self._deal().game.name, plan))
        return collate(examples, pad)

    def _deal(self) -> Habits:
        """The game of the next example: all games come once, shuffled, before one comes again."""
        if not self._deck:
            self._deck = sorted(self.library.games)
            self.rng.shuffle(self._deck)
        return self.library.habits[self._deck.pop()]

    def _drill(self, stage: FitStage) -> list[StoryExample]:
        """The examples of a drill, or none."""
        rng, scribe, sink, text = self.rng, self.scribe, stage.plan.sink, stage.plan.text
        dice, library = rng.random() - stage.pictures[0], self.library
        if dice < 0:
            return [library.glance(rng, scribe, self._deal().game.name) for _ in range(GLANCES)]
        if dice < stage.pictures[1]:
            return [library.silent(rng, scribe, self._deal().game.name) for _ in range(SILENTS)]
        kinds: list[tuple[int, Callable[[], StoryExample]]] = [
            (LINES, lambda: lines(rng, scribe, self._deal().game)),
            (LEDGERS, lambda: ledger(rng, scribe, self._deal())),
            (CALLS, lambda: roll_call(rng, scribe, self._deal(), sink, text, CALL)),
            (STORIES, lambda: text_example(rng, scribe, self._deal(), sink, text, stage.text_seconds)),
            (VERDICTS, lambda: verdict(rng, scribe, self._deal(), sink, text)),
        ]
        dice = rng.random()
        for share, (count, make) in zip(stage.drills, kinds, strict=True):
            if dice < share:
                return [make() for _ in range(count)]
            dice -= share
        return []

    def step(self, batch: StoryBatch, rate: float, probed: float = 1.0) -> tuple[float, float]:
        """One update; the losses of the words and of the probes, which count ``probed`` times as much."""
        loss = losses(self.model, self.probes, batch, self.dtype)
        self.optimizer.step(loss.words + probed * loss.probes, rate)
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 20))
        with torch.no_grad():
            for kept, new in self._pairs():
                kept.lerp_(new, 1 - decay)
        return loss.words.item(), loss.probes.item()

    def _pairs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for kept, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
            if new.requires_grad:
                yield kept, new

    def roll(self, streams: int, seconds: int) -> None:
        """Let the averaged model watch parts of some recordings by itself and keep what it said.

        As many of every game, one of each at least; shorter recordings are watched whole.
        """
        began, library = time.monotonic(), self.library
        each = max(1, streams // len(library.games))
        numbers = [n for own in library.numbers.values() for n in self.rng.sample(own, min(each, len(own)))]
        seconds = min(seconds, *(len(library.recordings[number]) for number in numbers))
        firsts = [self.rng.randint(0, len(library.recordings[number]) - seconds) for number in numbers]
        recordings = [
            retold(self.rng, library.recordings[number], first) for number, first in zip(numbers, firsts, strict=True)
        ]
        told = [
            [words(recording.game, events) for events in recording.events[:first]]
            for recording, first in zip(recordings, firsts, strict=True)
        ]
        said = self.free(recordings, seconds, told)
        library.own = {
            number: Own(recording, first, before + texts)
            for number, recording, first, before, texts in zip(numbers, recordings, firsts, told, said, strict=True)
        }
        self.log(f"rolled out {len(numbers)} x {seconds} s in {time.monotonic() - began:.0f} s")

    def free(
        self, recordings: Sequence[Recording], seconds: int, told: Sequence[Sequence[str]] | None = None
    ) -> list[list[str]]:
        """What the averaged model says, free running, from where the words ``told`` of each recording end."""
        told = told or [[] for _ in recordings]
        policy, scribe = self.policy, self.scribe
        features, histories = [], []
        for recording, before in zip(recordings, told, strict=True):
            assert recording.features is not None
            features.append(recording.features[len(before) :])
            replies = [scribe.reply(text) for text in before]
            histories.append(scribe.history(recording.context.text, replies, policy.sink, policy.text))
        offsets = [len(before) + float(self.rng.choice((0, 0, 0, 1000, 20_000))) for before in told]
        return StoryRollout(self.average, scribe.grammar, policy, features, histories, offsets).run(seconds)

    def check(self, what: str) -> None:
        """Free-running figures on the held-out streams, by game; the state is written to disk."""
        began = time.monotonic()
        texts = self.free(self.held, min(self.checked, *(len(recording) for recording in self.held)))
        for name, found in figures(self.held, texts).items():
            self.log(f"{what}: {name} {found.line}")
        self.log(f"{what}: checked in {time.monotonic() - began:.0f} s")
        self.save()

    def save(self) -> None:
        """Write everything needed to go on to the run's folder."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "probes": self.probes.state_dict(),
            "muon": self.optimizer.muon.state_dict(),
            "adam": self.optimizer.adam.state_dict(),
            "games": sorted(self.library.games),
            "deck": self._deck,
            "steps": self.steps,
            "hours": self.hours,
            "at": self.at,
            "rng": self.rng.getstate(),
        }
        torch.save(state, self.folder / "state.tmp")
        (self.folder / "state.tmp").replace(self.folder / "state.pt")

    def load(self, path: Path) -> None:
        """Go on from a saved state. OptionError if it is that of other games."""
        state = torch.load(path, weights_only=False)
        if state["games"] != sorted(self.library.games):
            raise OptionError(
                f"{path} is of a run on {', '.join(state['games'])}: give the same games, or a new folder"
            )
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.probes.load_state_dict(state["probes"])
        self.optimizer.muon.load_state_dict(state["muon"])
        self.optimizer.adam.load_state_dict(state["adam"])
        self.steps, self.hours, self.at = state["steps"], state["hours"], state["at"]
        self._deck = state["deck"]
        self.rng.setstate(state["rng"])


#: The stage before which the decoder gets its layers that look names up.
GROWS = 4
#: Parts of the recipe that a run can leave out, to see what they are good for.
PARTS = ("corruption", "on-policy", "overlap")


def stages(
    sink: int, text: int, scale: float = 1.0, without: Container[str] = (), peak: float = 3e-3
) -> list[FitStage]:
    """The recipe of the bundled model; ``scale`` stretches or squeezes it, ``without`` leaves some of PARTS out,
    ``peak`` is the highest learning rate.

    Words come first: copying and counting are learnt in two minutes without pictures, and hardly ever after them. Then
    pictures, one at a time: what one token of one picture in twenty shows is learnt in minutes, and not from films.
    Before stage GROWS the decoder gets layers that look names up, and learns to say what they find.
    """
    short = FilmPlan(seconds=6, sink=sink, text=64, short=0.3)
    middle = FilmPlan(seconds=12, sink=sink, text=text)
    full = FilmPlan(seconds=18, sink=sink, text=text, spoiled=0.4)
    some, words, names = (0.04, 0.07, 0.04, 0.05, 0.03), (0.2, 0.35, 0.15, 0.1, 0.2), (0.2, 0.05, 0.3, 0.05, 0.4)
    seen = (0.1, 0.15)
    recipe = [
        FitStage(150, films=0, texts=0, plan=short, rate=(peak, peak), drills=words),
        FitStage(350, films=0, texts=0, plan=short, rate=(peak, peak), probed=3.0, pictures=(0.8, 0.0), drills=words),
        FitStage(250, films=8, texts=0, plan=short, rate=(peak, peak), probed=3.0, pictures=seen, drills=some),
        FitStage(
            600, films=4, texts=1, plan=middle, rate=(peak, peak), probed=3.0, pictures=seen, long=0.03, drills=some
        ),
        FitStage(150, films=0, texts=0, plan=full, rate=(peak, peak), probed=3.0, pictures=(0.1, 0.0), drills=names),
        FitStage(
            1700, films=4, texts=1, plan=full, rate=(peak, 0.0), own=0.4, ends=0.1, long=0.05, roll=(16, 120, 340),
            pictures=(0.05, 0.12), drills=(0.03, 0.03, 0.03, 0.08, 0.08),
        ),
    ]  # fmt: skip
    return [
        replace(
            stage,
            steps=max(1, round(stage.steps * scale)),
            plan=replace(
                stage.plan,
                spoiled=0.0 if "corruption" in without else stage.plan.spoiled,
                overlapping="overlap" not in without,
            ),
            own=0.0 if "on-policy" in without else stage.own,
            roll=(0, 0, 0) if "on-policy" in without else stage.roll,
        )
        for stage in recipe
    ]
