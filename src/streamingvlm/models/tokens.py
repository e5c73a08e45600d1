"""Whether a folder's tokenizer and its config are of one model: nothing about ids is taken on trust.

transformers builds an empty tokenizer where the files are missing, and answers with the id of an unknown token where
one is asked for that does not exist. Either would turn every word into nothing, without an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from ..core.errors import ModelError
from ..core.grammar import Marks, Tokenizer
from .edge import library
from .files import check_text, read_json

#: Special token -> key of config.json that must say the same id.
VISION_MARKS = {
    "<|vision_start|>": "vision_start_token_id",
    "<|vision_end|>": "vision_end_token_id",
    "<|video_pad|>": "video_token_id",
}
IMAGE_MARK = "<|image_pad|>"
TURN_MARKS = ("<|im_start|>", "<|im_end|>")

#: What a tokenizer must give back as it was: what the grammar writes, and plain words.
PLAIN = (
    "system\n",
    "previous text\n",
    "assistant\n",
    "Time=1234567890.0-9.5s",
    "<0.2 seconds>",
    "\nAnd it's a goal, 2-1! The quick brown fox jumps over the lazy dog ...",
)

#: Files that a tokenizer may be made of.
_JSON = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "special_tokens_map.json", "added_tokens.json")
_TEXT = ("merges.txt", "chat_template.jinja")


def load_tokenizer(folder: Path) -> Any:
    """transformers' tokenizer of a folder. :class:`ModelError` names the file that is missing or broken."""
    for name in _JSON:
        read_json(folder, name)
    for name in _TEXT:
        check_text(folder / name)
    there = [name for name in ("tokenizer.json", "vocab.json", "merges.txt") if (folder / name).is_file()]
    if "tokenizer.json" not in there and len(there) < 2:
        raise ModelError(f"{folder} has no tokenizer: tokenizer.json, or vocab.json and merges.txt, is needed")
    with library(f"{folder / there[0]} makes no tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        _check_whole(tokenizer, folder)
    return tokenizer


def _check_whole(tokenizer: Any, folder: Path) -> None:
    """Refuse a vocabulary with holes, and words that no merge makes: both come of files that were cut short."""
    ids = set(tokenizer.get_vocab().values())
    if not ids:
        raise ModelError(f"{folder}: its tokenizer is empty")
    if missing := sorted(set(range(max(ids))) - ids)[:1]:
        raise ModelError(
            f"{folder}: its tokenizer knows {len(ids):,} of the ids up to {max(ids):,}, not {missing[0]:,} for one; "
            "its files are cut short, or not of this model"
        )
    backend = getattr(tokenizer, "backend_tokenizer", None)
    model = json.loads(backend.to_str()) if backend is not None else {}
    added = {token["content"] for token in model.get("added_tokens", ())}
    model = model.get("model", {})
    if model.get("type") != "BPE":
        return
    made = {"".join(merge) if isinstance(merge, list) else merge.replace(" ", "") for merge in model["merges"]}
    lost = [word for word in model["vocab"] if len(word) > 1 and word not in made and word not in added]
    if len(lost) > len(model["vocab"]) // 100:
        raise ModelError(
            f"{folder}: no merge of its tokenizer makes {len(lost):,} of its {len(model['vocab']):,} words, such as "
            f"{lost[0]!r}; its files are cut short, or not of one model"
        )


def find_marks(tokenizer: Any, config: Any, name: str, title: str) -> Marks:
    """The ids of the chat markup, on which tokenizer and config must agree. :class:`ModelError` if they do not."""
    vocabulary, size = tokenizer.get_vocab(), int(config.text_config.vocab_size)
    needed = (*TURN_MARKS, *VISION_MARKS)
    if lacking := [mark for mark in needed if mark not in vocabulary]:
        raise ModelError(f"{name}: its tokenizer has no {' and no '.join(lacking)}; that of {title} is needed")
    image = {IMAGE_MARK: "image_token_id"} if IMAGE_MARK in vocabulary else {}
    for mark, key in (VISION_MARKS | image).items():
        if (said := getattr(config, key, None)) != vocabulary[mark]:
            raise ModelError(
                f"{name}: config.json says {key} {said}, its tokenizer {vocabulary[mark]} for {mark}; "
                "they are not of one model"
            )
    if (largest := max(vocabulary.values())) >= size:
        raise ModelError(
            f"{name}: its tokenizer has ids up to {largest:,}, config.json a vocab_size of {size:,}; "
            "they are not of one model"
        )
    return Marks(*(vocabulary[mark] for mark in needed))


def check_words(tokenizer: Tokenizer, marks: Marks, name: str) -> None:
    """Plain words must survive a round trip, and a mark that is written as text must stay text."""
    for text in PLAIN:
        with library(f"{name}: its tokenizer fails"):
            ids = tokenizer.encode(text)
            back = tokenizer.decode(ids)
        if back != text:
            raise ModelError(f"{name}: its tokenizer makes {back!r} of {text!r}; it is not that of a Qwen-VL model")
    with library(f"{name}: its tokenizer fails"):
        injected = {mark for text in (*TURN_MARKS, *VISION_MARKS) for mark in tokenizer.encode(text)}
    if injected & {marks.turn_start, marks.turn_end, marks.vision_start, marks.vision_end, marks.vision_pad}:
        raise ModelError(f"{name}: its tokenizer reads text as marks of the chat; they must be special tokens")


def check_ends(ends: Iterable[int], tokenizer: Any, size: int, where: Path) -> None:
    """Ends of a reply must be special tokens that the tokenizer and the embedding have."""
    known = tokenizer.added_tokens_decoder
    for end in ends:
        if not 0 <= end < size:
            raise ModelError(f"{where}: eos_token_id {end} is outside the vocabulary of {size:,}")
        if end not in known or not known[end].special:
            word = tokenizer.convert_ids_to_tokens(end)
            raise ModelError(f"{where}: eos_token_id {end} is {word!r} in its tokenizer, which is no special token")
