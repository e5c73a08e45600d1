"""The steps that make the bundled model, each leaving its result in the run's folder for the next."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from streamingvlm import OptionError, StreamingWindow
from streamingvlm.core.grammar import Grammar, Marks
from streamingvlm.models.base import window_options
from streamingvlm.models.checkpoint import HFTokenizer
from streamingvlm.models.hub import BUNDLED

from ..worlds.games import GAMES, find_game
from .data import HELD, play, prepare
from .decoder import StoryBatch, collate
from .drills import lines, roll_call
from .export import STREAMING, export
from .films import FilmPlan, Library
from .fit import CALL, GROWS, LONG, PARTS, Fit, stages
from .lookup import look_up
from .record import Recording
from .shape import FRONT, ModelShape, config, grown, new_model
from .stories import Scribe
from .tokens import SPECIAL, arcade_corpus, build, save
from .vision import pretrain

STEPS = ("tokenizer", "vision", "data", "decoder", "export")

#: Training streams: seeds of the tower's frames and of the decoder's recordings.
VISION_SEEDS, STREAM_SEEDS = 0, 1000

#: Rounds of batches on which is read what heads that look names up have to compare.
SAMPLES = 3

#: The least of what a run needs: the tower is measured on a stream of its own, the longest chunks fit into a stream.
MIN_ROWS = {"vision_streams": 2, "vision_seconds": 1, "streams": 1, "seconds": LONG, "held": 1, "check_seconds": 1}


@dataclass(frozen=True, slots=True)
class RecipeConfig:
    """What a run is made of; what each is stands in the help of the command line. OptionError for what cannot be."""

    folder: Annotated[Path, "where the run keeps its files"] = Path("runs/arcade")
    features: Annotated[str, "where what the tower sees is kept, if not in that folder"] = ""
    out: Annotated[Path, "where the model goes"] = BUNDLED
    games: Annotated[tuple[str, ...], "games that the model learns, joined by commas"] = tuple(GAMES)
    begin: Annotated[str, "folder of a checkpoint of this recipe whose weights tower and decoder begin with"] = ""
    seed: Annotated[int, "of weights, batches and texts"] = 0
    vocabulary: Annotated[int, "most tokens of the tokenizer"] = 2048
    vision_streams: Annotated[int, "streams of each game for the vision tower"] = 61
    vision_more: Annotated[tuple[str, ...], "further streams of some games for it, as NAME=COUNT"] = ()
    vision_seconds: Annotated[int, "length of each"] = 240
    vision_minutes: Annotated[float, "training of the vision tower"] = 60.0
    streams: Annotated[int, "recorded streams of each game for the decoder"] = 20
    seconds: Annotated[int, "length of each"] = 600
    held: Annotated[int, "streams of each game for checks on the way"] = 2
    check_seconds: Annotated[int, "seconds of each that a check watches"] = 200
    scale: Annotated[float, "more or fewer steps of the decoder"] = 1.0
    rate: Annotated[float, "highest learning rate of the decoder"] = 3e-3
    first_stage: Annotated[int, "of the decoder's six, for a run that begins with earlier weights"] = 0
    last_stage: Annotated[int, "of them, for a run that others begin with"] = 5
    without: Annotated[tuple[str, ...], f"parts of the recipe to leave out, of {', '.join(PARTS)}"] = ()
    precision: Annotated[str, "of products in training: float32 or, on some processors faster, bfloat16"] = "float32"
    notes: Annotated[str, "what else the model card should say of the run"] = ""
    compile: Annotated[bool, "compile the decoder's layers for training; needs a C++ compiler"] = False

    def __post_init__(self) -> None:
        for name in self.games:
            find_game(name)
        if not self.games or len(set(self.games)) < len(self.games):
            raise OptionError(f"every game once, and one at least, not {', '.join(self.games) or 'none'}")
        for name, least in MIN_ROWS.items():
            if getattr(self, name) < least:
                raise OptionError(f"{name.replace('_', ' ')}: {least} or more, not {getattr(self, name)}")
        if not set(self.without) <= set(PARTS):
            raise OptionError(f"what can be left out: {', '.join(PARTS)}, not {', '.join(self.without)}")
        for name, least in (("first_stage", 0), ("last_stage", self.first_stage)):
            if not least <= getattr(self, name) < len(stages(0, 0)):
                many = len(stages(0, 0)) - 1
                raise OptionError(f"{name.replace('_', ' ')}: {least} to {many}, not {getattr(self, name)}")
        if self.precision not in ("float32", "bfloat16"):
            raise OptionError(f"precision: float32 or bfloat16, not {self.precision}")
        self.further()
        if min(self.vision_minutes, self.scale, self.rate) <= 0:
            raise OptionError("vision minutes, scale and rate must be above 0")

    def further(self) -> dict[str, int]:
        """Further streams for the tower by game. OptionError for what is not NAME=COUNT, or no game of this run."""
        found = {}
        for part in self.vision_more:
            name, _, count = part.partition("=")
            if name not in self.games or not count.isdecimal():
                raise OptionError(f"vision more: NAME=COUNT with one of {', '.join(self.games)}, not {part!r}")
            found[name] = int(count)
        return found

    @property
    def dtype(self) -> torch.dtype:
        """The precision as torch calls it."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


class Work:
    """Runs the steps."""

    def __init__(self, settings: RecipeConfig, log: Callable[[str], None] = print) -> None:
        self.settings, self.log = settings, log
        self.games = [find_game(name) for name in settings.games]
        settings.folder.mkdir(parents=True, exist_ok=True)

    def _left_by(self, step: str, name: str) -> Path:
        """A file or folder of the run that an earlier step has left. OptionError."""
        path = self.settings.folder / name
        if not path.exists():
            raise OptionError(f"{path} is missing: run the step {step!r} first")
        return path

    @cached_property
    def special(self) -> dict[str, int]:
        """Ids of the markup."""
        return {name: self.vocabulary.convert_tokens_to_ids(name) for name in SPECIAL}

    @cached_property
    def vocabulary(self) -> Any:
        """The tokenizer of this run."""
        return AutoTokenizer.from_pretrained(self._left_by("tokenizer", "tokenizer"))

    @cached_property
    def grammar(self) -> Grammar:
        """The grammar of inference, with this run's tokenizer."""
        names = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
        marks = Marks(*(self.special[name] for name in names))
        return Grammar(HFTokenizer(self.vocabulary), marks, system=STREAMING["system"])

    def model(self, tower: bool = True) -> Any:
        """A new model or that which the run begins with, with the pretrained tower."""
        model = self._earlier() if self.settings.begin else new_model(self._config(), self.settings.seed)
        if tower:
            model.model.visual.load_state_dict(torch.load(self._left_by("vision", "tower.pt")))
        return model

    def _config(self, layers: int = ModelShape().layers) -> Qwen2_5_VLConfig:
        return config(ModelShape(layers=layers), len(self.vocabulary), self.special)

    def _earlier(self) -> Qwen2_5_VLForConditionalGeneration:
        folder = Path(self.settings.begin)
        if not (folder / "config.json").exists():
            raise OptionError(f"{folder} is no checkpoint to begin with: it has no config.json")
        words = AutoTokenizer.from_pretrained(folder).get_vocab()
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        same, depth = ("hidden_size", "intermediate_size", "vocab_size"), model.config.text_config.num_hidden_layers
        sizes = {tuple(getattr(each.text_config, name) for name in same) for each in (self._config(), model.config)}
        layers = ModelShape().layers
        if len(sizes) > 1 or words != self.vocabulary.get_vocab() or depth not in (layers, layers + FRONT):
            raise OptionError(f"{folder} has another shape or other tokens than this recipe: begin anew")
        return model

    def tokenizer(self) -> None:
        """Train the tokenizer."""
        corpus, words = arcade_corpus(self.games, self.settings.seed)
        save(build(corpus, words, self.settings.vocabulary), self.settings.folder / "tokenizer")

    def vision(self) -> None:
        """Pretrain the vision tower."""
        s = self.settings
        model, more = self.model(tower=False), s.further()
        seeds = [
            (game.name, seed)
            for game in self.games
            for seed in range(VISION_SEEDS, VISION_SEEDS + s.vision_streams + more.get(game.name, 0))
        ]
        recordings = list(play(seeds, s.vision_seconds))
        pretrain(model, recordings, minutes=s.vision_minutes, seed=s.seed, dtype=s.dtype, log=self.log)
        torch.save(model.model.visual.state_dict(), s.folder / "tower.pt")

    def data(self) -> None:
        """Record streams and keep what the tower sees."""
        self._recordings()

    def _recordings(self) -> tuple[list[Recording], list[Recording]]:
        s, model = self.settings, self.model()
        # What another tower has seen is of no use.
        tower = hashlib.sha256(self._left_by("vision", "tower.pt").read_bytes()).hexdigest()
        folder = (Path(s.features) if s.features else s.folder / "features") / tower[:12]
        seeds = range(STREAM_SEEDS, STREAM_SEEDS + s.streams), range(HELD, HELD + s.held)
        train, held = (prepare(model, self.games, part, s.seconds, folder, self.log) for part in seeds)
        return train, held

    def fit(self) -> Fit:
        """The decoder's training, at its beginning or where ``state.pt`` left it."""
        (train, held), state, model = self._recordings(), self.settings.folder / "state.pt", self.model()
        if state.exists():
            layers = _depth(torch.load(state, weights_only=False)["model"])
            model = model if layers == _depth(model.state_dict()) else grown(model, self._config(layers), 0)
        fit = self._fit(model, Library(train), held)
        fit.at = (self.settings.first_stage, 0)
        if state.exists():
            fit.load(state)
        return fit

    def _fit(self, model: Any, library: Library, held: Sequence[Recording]) -> Fit:
        policy = StreamingWindow(**window_options(STREAMING))
        s = self.settings
        return Fit(
            model, Scribe(self.grammar), library, held, s.folder, policy, self.log, s.seed,
            checked=s.check_seconds, dtype=s.dtype, compile=s.compile,
        )  # fmt: skip

    def _grow(self, fit: Fit) -> Fit:
        """The training of the averaged decoder with layers in front that look names up."""
        model = grown(fit.average, self._config(ModelShape().layers + FRONT), self.settings.seed)
        look_up(model, fit.scribe, self.games, list(self._samples(fit)))
        more = self._fit(model, fit.library, fit.held)
        more.at, more.steps, more.hours = fit.at, fit.steps, fit.hours
        self.log(f"the decoder has {FRONT} more layers")
        return more

    def _samples(self, fit: Fit) -> Iterator[StoryBatch]:
        """Batches with all kinds of ids: lines of names, calls at a distance, films."""
        rng, scribe, plan = random.Random(self.settings.seed), fit.scribe, FilmPlan()
        for habits in [*fit.library.habits.values()] * SAMPLES:
            for examples in (
                [lines(rng, scribe, habits.game) for _ in range(8)],
                [roll_call(rng, scribe, habits, plan.sink, plan.text, CALL) for _ in range(4)],
                [fit.library.example(rng, scribe, habits.game.name, plan) for _ in range(3)],
            ):
                yield collate(examples, self.special[SPECIAL[0]])

    def decoder(self) -> None:
        """Train the decoder; goes on where it was stopped."""
        s, fit = self.settings, self.fit()
        recipe = stages(STREAMING["sink"], STREAMING["text"], s.scale, s.without, s.rate)[: s.last_stage + 1]
        if len(fit.model.model.language_model.layers) == ModelShape().layers:
            fit.run(recipe[:GROWS])
            if s.last_stage < GROWS:
                return
            fit = self._grow(fit)
        fit.run(recipe)

    def export(self) -> None:
        """Write the averaged weights as a checkpoint folder, and how they came about."""
        s, state = self.settings, torch.load(self._left_by("decoder", "state.pt"), weights_only=False)
        model = new_model(self._config(_depth(state["average"])), s.seed)
        model.load_state_dict(state["average"])
        how = {key: value for key, value in asdict(s).items() if key not in ("folder", "features", "out")}
        done = {"steps": state["steps"], "decoder_hours": state["hours"], "date": f"{date.today()}"}
        export(model, self.vocabulary, s.out, games=s.games, training={**how, **done})


def _depth(weights: Mapping[str, Tensor]) -> int:
    """How many layers the decoder of these weights has."""
    return sum("language_model" in name and name.endswith("input_layernorm.weight") for name in weights)
