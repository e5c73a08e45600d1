"""What is read from the small files of a checkpoint folder, the same for every model family."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..errors import ModelError
from ..sampling import Sampling
from .base import StreamDefaults
from .patches import CLIP_MEAN, CLIP_STD, Patcher

#: The paper's pixel budget per frame; a checkpoint's own processor config is for whole offline videos.
PAPER_PIXELS = {"min_pixels": 128 * 28 * 28, "max_pixels": 768 * 28 * 28}
_DEFAULT_INSTRUCTION = "Commentate on this video."


class HFTokenizer:
    """A transformers tokenizer as the grammar wants it: plain text in, plain ids out."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``; nothing is added, and text that looks like a special token stays text."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids`` without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


@contextmanager
def progress_for_people() -> Iterator[None]:
    """Let transformers draw its loading bar only where a person can see it."""
    before = logging.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            logging.enable_progress_bar()


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of the folder, empty if it is not there. :class:`ModelError` if it is broken."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from None
    return content


def patcher(folder: Path, vision: Any) -> Patcher:
    """How the model wants its frames; the pixel budget is the paper's unless the folder is made for streams."""
    config = read_json(folder, "video_preprocessor_config.json") or read_json(folder, "preprocessor_config.json")
    made_for_streams = "streaming" in read_json(folder, "generation_config.json")
    budget = {key: config.get(key, value) if made_for_streams else value for key, value in PAPER_PIXELS.items()}
    return Patcher(
        patch=vision.patch_size,
        temporal=vision.temporal_patch_size,
        merge=vision.spatial_merge_size,
        mean=tuple(config.get("image_mean", CLIP_MEAN)),
        std=tuple(config.get("image_std", CLIP_STD)),
        **budget,
    )


def stream_defaults(folder: Path) -> StreamDefaults:
    """The checkpoint's streaming defaults (``generation_config.json``, key ``"streaming"``), else the paper's."""
    streaming = read_json(folder, "generation_config.json").get("streaming")
    if streaming is None:
        return StreamDefaults(instruction=_DEFAULT_INSTRUCTION)
    names = {field.name for field in fields(Sampling)}
    return StreamDefaults(
        sampling=Sampling(**{key: value for key, value in streaming.items() if key in names}),
        policy={key: streaming[key] for key in ("vision", "turns", "sink", "text") if key in streaming},
        instruction=streaming.get("instruction", ""),
    )


def end_tokens(folder: Path, turn_end: int) -> frozenset[int]:
    """Ids that end a reply: those of the generation config, and the end of turn in any case."""
    ids = read_json(folder, "generation_config.json").get("eos_token_id", [])
    return frozenset([ids] if isinstance(ids, int) else ids) | {turn_end}


def system_prompt(folder: Path, tokenizer: Any) -> str:
    """The system prompt that the checkpoint's chat template puts in by itself."""
    streaming = read_json(folder, "generation_config.json").get("streaming", {})
    if "system" in streaming:
        return str(streaming["system"])
    if not tokenizer.chat_template:
        return "You are a helpful assistant."
    text: str = tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
    before, mark, after = text.partition("<|im_start|>system\n")
    return after.partition("<|im_end|>")[0] if mark and not before else ""
