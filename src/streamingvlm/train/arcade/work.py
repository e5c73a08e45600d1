"""The steps that make the bundled model, each leaving its result in the run's folder for the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from ...models import BUNDLED
from ...models.checkpoint import HFTokenizer
from ...policy import StreamingWindow
from ...prompt import Grammar, Marks
from .data import HELD, play, prepare
from .export import STREAMING, export
from .films import Library
from .fit import Fit, stages
from .shape import Shape, config, new_model
from .stories import Scribe
from .tokens import SPECIAL, arcade_corpus, build, save
from .vision import pretrain

STEPS = ("tokenizer", "vision", "data", "decoder", "export")

#: Training streams: seeds of the tower's frames and of the decoder's recordings.
VISION_SEEDS, STREAM_SEEDS = 0, 1000


@dataclass(frozen=True, slots=True)
class Settings:
    """What made the bundled weights."""

    folder: Path = Path("runs/arcade")
    assets: Path = BUNDLED
    seed: int = 0
    vocabulary: int = 1400
    vision_streams: int = 30
    vision_seconds: int = 240
    vision_minutes: float = 12.0
    streams: int = 36
    seconds: int = 600
    held: int = 4
    scale: float = 1.0


class Work:
    """Runs the steps."""

    def __init__(self, settings: Settings, log: Callable[[str], None] = print) -> None:
        self.settings, self.log = settings, log
        settings.folder.mkdir(parents=True, exist_ok=True)

    @cached_property
    def special(self) -> dict[str, int]:
        """Ids of the markup."""
        return {name: self.vocabulary.convert_tokens_to_ids(name) for name in SPECIAL}

    @cached_property
    def vocabulary(self) -> Any:
        """The tokenizer of this run."""
        return AutoTokenizer.from_pretrained(self.settings.folder / "tokenizer")

    @cached_property
    def grammar(self) -> Grammar:
        """The grammar of inference, with this run's tokenizer."""
        names = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
        marks = Marks(*(self.special[name] for name in names))
        return Grammar(HFTokenizer(self.vocabulary), marks, system=STREAMING["system"])

    def model(self, tower: bool = True) -> Any:
        """A new model, with the pretrained tower."""
        model = new_model(config(Shape(), len(self.vocabulary), self.special), self.settings.seed)
        if tower:
            model.model.visual.load_state_dict(torch.load(self.settings.folder / "tower.pt"))
        return model

    def tokenizer(self) -> None:
        """Train the tokenizer."""
        corpus, words = arcade_corpus(self.settings.seed)
        save(build(corpus, words, self.settings.vocabulary), self.settings.folder / "tokenizer")

    def vision(self) -> None:
        """Pretrain the vision tower."""
        s = self.settings
        seeds = range(VISION_SEEDS, VISION_SEEDS + s.vision_streams)
        model = self.model(tower=False)
        recordings = list(play(seeds, s.vision_seconds))
        pretrain(model, recordings, minutes=s.vision_minutes, seed=s.seed, log=self.log)
        torch.save(model.model.visual.state_dict(), s.folder / "tower.pt")

    def data(self) -> None:
        """Record streams and keep what the tower sees."""
        self._recordings()

    def _recordings(self) -> tuple[list[Any], list[Any]]:
        s = self.settings
        model, folder = self.model(), s.folder / "features"
        train = prepare(model, range(STREAM_SEEDS, STREAM_SEEDS + s.streams), s.seconds, folder, self.log)
        return train, prepare(model, range(HELD, HELD + s.held), s.seconds, folder, self.log)

    def fit(self) -> Fit:
        """The decoder's training, at its beginning or where ``state.pt`` left it."""
        train, held = self._recordings()
        policy = StreamingWindow(**{key: STREAMING[key] for key in ("vision", "turns", "sink", "text")})
        s = self.settings
        fit = Fit(self.model(), Scribe(self.grammar), Library(train), held, s.folder, policy, self.log, s.seed)
        if (s.folder / "state.pt").exists():
            fit.load(s.folder / "state.pt")
        return fit

    def decoder(self) -> None:
        """Train the decoder; goes on where it was stopped."""
        self.fit().run(stages(STREAMING["sink"], STREAMING["text"], self.settings.scale))

    def export(self) -> None:
        """Write the averaged weights as a checkpoint folder."""
        model = self.model()
        model.load_state_dict(torch.load(self.settings.folder / "state.pt", weights_only=False)["average"])
        export(model, self.vocabulary, self.settings.assets)
