"""The bundled model's tokenizer: byte-level BPE whose pieces are the arcade's words.

Any text can be encoded. A word of the commentary with its leading space is one token, so that copying a name is
copying one token; digits stand alone; markup that occurs every second is as short as it can be.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ...arcade.context import NAMES, TOWNS
from ...arcade.games.pong import PONG
from ...arcade.language import Event

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
    """Train on ``corpus``; each of ``words`` with its leading space becomes one token. ``size`` bounds all."""
    core = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    # Whole pieces are merged first when they are frequent, so each is repeated often.
    wanted = [text for text in (*FRAME, *(f" {word}" for word in words)) for _ in range(2000)]
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


def arcade_corpus(seed: int = 0, lines: int = 4000) -> tuple[list[str], list[str]]:
    """Everything that the arcade says, in all wordings, and every word that should be one token."""
    rng = random.Random(f"corpus {seed}")
    said: list[str] = []
    language = PONG.language
    for _ in range(lines):
        style = language.draw(rng)
        said.append(language.say([_event(rng, kind) for kind in rng.sample(language.kinds, rng.randint(1, 3))], style))
        said.append(PONG.draw_context(rng).text)
    words = sorted({word for line in said for word in re.findall(r"[^\W\d]+", line)})
    numbers = [str(number) for number in range(100)]
    return said, [*words, *NAMES, *TOWNS, *numbers, ";"]


def _event(rng: random.Random, kind: str) -> Event:
    about = PONG.draw_context(rng)
    player = about.player(rng.choice(PONG.colours))
    numbers = (rng.randrange(12),) if kind == "streak" else (rng.randrange(6), rng.randrange(6))
    name = player.name if kind == "game" and rng.random() < 0.5 else None
    return Event(kind, player.colour, rng.choice(PONG.language["return"].zones), numbers, name, player.town)
