"""The bundled model's tokenizer: byte-level BPE whose pieces are the words of all games of the arcade.

Any text can be encoded. A word of the commentary with its leading space is one token, so that copying a name is
copying one token, and so is a word without it that a reply can begin with; digits stand alone; markup that occurs every
second is as short as it can be.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ..worlds.context import NAMES, TOWNS
from ..worlds.game import Game
from ..worlds.language import GameEvent

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|video_pad|>",
    "<|image_pad|>",
)

#: Texts that occur every second and are one token each.
FRAME = ("system\n", "previous text\n", "user\n", "assistant\n", " ...", "\n", "Time=", ".0-", ".0s")

#: Spaced numbers up to 99 are one token: a score is read from the screen and said in one step.
_PIECES = (
    r"system\n|previous text\n|user\n|assistant\n|Time=|\.0-|\.0s| \.\.\.|\n"
    r"| \d\d?(?!\d)|\d| ?\p{L}+| ?[^\s\p{L}\d]+|\s+"
)


def build(corpus: Iterable[str], words: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Train on ``corpus``; each of ``words``, with its leading space if it has one, becomes one token. ``size`` bounds
    the vocabulary."""
    core = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    # Whole pieces are merged first when they are frequent, so each is repeated often.
    wanted = [text for text in (*FRAME, *words) for _ in range(2000)]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=100,
    )
    core.train_from_iterator([*corpus, *wanted], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[t for t in SPECIAL if t not in ("<|im_end|>", "<|endoftext|>")],
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    tokenizer.save_pretrained(folder)


def arcade_corpus(games: Sequence[Game], seed: int = 0, lines: int = 4000) -> tuple[list[str], list[str]]:
    """Everything that is said of the games, in all wordings, and every piece that should be one token."""
    rng = random.Random(f"corpus {seed}")
    said: list[str] = []
    for _ in range(lines):
        for game in games:
            language = game.language
            kinds = rng.sample(language.kinds, rng.randint(1, 3))
            said.append(language.say([_event(rng, game, kind) for kind in kinds], language.draw(rng)))
            said.append(game.draw_context(rng).text)
    words = sorted({word for line in said for word in re.findall(r"[^\W\d]+", line)} | {*NAMES, *TOWNS})
    firsts = sorted({word for game in games for word in _firsts(game)})
    return said, [*(f" {word}" for word in (*words, *range(100), ";")), *firsts]


def _firsts(game: Game) -> set[str]:
    """Words that a reply can begin with, in the wording that the model speaks."""
    language = game.language
    wordings = (language[kind].wordings[0].split()[0] for kind in language.kinds)
    return {word for each in wordings for word in (game.colours if each.startswith("{") else (each,))}


def _event(rng: random.Random, game: Game, kind: str) -> GameEvent:
    player, zones = game.draw_context(rng).player(rng.choice(game.colours)), game.language[kind].zones
    name = player.name if kind == "game" and rng.random() < 0.5 else None
    numbers = (rng.randrange(12), rng.randrange(12))
    return GameEvent(kind, player.colour, rng.choice(zones) if zones else None, numbers, name, player.town)
