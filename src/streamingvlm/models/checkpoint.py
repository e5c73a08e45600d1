"""What is read from the small files of a checkpoint folder, the same for every model family."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..errors import ModelError
from ..sampling import Sampling
from .base import StreamDefaults, window_options
from .patches import Patcher

#: The paper's budget per frame, in tokens of 28 x 28 pixels (32 x 32 in families with larger patches); a checkpoint's
#: own processor config is for whole offline videos.
PAPER_TOKENS = {"min_pixels": 128, "max_pixels": 768}
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
def no_bars() -> Iterator[None]:
    """Without transformers' bars."""
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bar:
            logging.enable_progress_bar()


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Let transformers draw its bars only where a person can see them, and no table of weights: see ``load``."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with nullcontext() if sys.stderr.isatty() else no_bars():
            yield
    finally:
        logging.set_verbosity(verbosity)


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


def patcher(folder: Path, vision: Any, mean: Sequence[float], std: Sequence[float]) -> Patcher:
    """How the model wants its frames; the pixel budget is the paper's unless the folder is made for streams.

    ``mean`` and ``std`` are the family's, for folders that have no processor's file.
    """
    config = _processor(folder)
    made_for_streams = "streaming" in read_json(folder, "generation_config.json")
    token = (vision.patch_size * vision.spatial_merge_size) ** 2
    budget = {key: count * token for key, count in PAPER_TOKENS.items()}
    if made_for_streams:
        budget |= {key: config[key] for key in budget if key in config}
    return Patcher(
        patch=vision.patch_size,
        temporal=vision.temporal_patch_size,
        merge=vision.spatial_merge_size,
        mean=tuple(config.get("image_mean", mean)),
        std=tuple(config.get("image_std", std)),
        **budget,
    )


def write_streaming(folder: Path, streaming: Mapping[str, Any], patcher: Patcher) -> None:
    """Say in a checkpoint folder how it likes to be run: what :func:`stream_defaults` and :func:`patcher` read."""
    generation = read_json(folder, "generation_config.json")
    write_json(folder / "generation_config.json", {**generation, "streaming": dict(streaming)})
    budget = {"min_pixels": patcher.min_pixels, "max_pixels": patcher.max_pixels}
    name = "video_preprocessor_config.json"
    if not read_json(folder, name):
        name = "preprocessor_config.json"
    write_json(folder / name, {**_made(patcher), **_processor(folder), **budget})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file as people like to read it."""
    path.write_text(json.dumps(dict(content), indent=2) + "\n", encoding="utf-8")


def _made(patcher: Patcher) -> dict[str, Any]:
    """A processor's settings for folders that have none."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": patcher.patch,
        "temporal_patch_size": patcher.temporal,
        "merge_size": patcher.merge,
        "image_mean": list(patcher.mean),
        "image_std": list(patcher.std),
    }


def _processor(folder: Path) -> dict[str, Any]:
    """Settings of the video processor: from its own file, or from the one that transformers 5 writes for all."""
    own = read_json(folder, "video_preprocessor_config.json") or read_json(folder, "preprocessor_config.json")
    together: dict[str, Any] = read_json(folder, "processor_config.json").get("video_processor", {})
    return own or together


def stream_defaults(folder: Path) -> StreamDefaults:
    """The checkpoint's streaming defaults (``generation_config.json``, key ``"streaming"``), else the paper's."""
    streaming = read_json(folder, "generation_config.json").get("streaming")
    if streaming is None:
        return StreamDefaults(instruction=_DEFAULT_INSTRUCTION)
    names = {field.name for field in fields(Sampling)}
    return StreamDefaults(
        sampling=Sampling(**{key: value for key, value in streaming.items() if key in names}),
        policy=window_options(streaming),
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
