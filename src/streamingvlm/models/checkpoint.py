"""What is read from the small files of a checkpoint folder, the same for every model family."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers.utils import logging

from ..core.errors import ModelError, OptionError
from ..core.policy import make_policy
from ..core.sampling_params import Sampling
from .base import LONGEST_TIME, StreamDefaults, window_options
from .edge import library
from .files import number, read_json, triple
from .knows import GENERATION, known_kinds, read_streaming
from .patches import Patcher

#: The paper's budget per frame, in tokens of 28 x 28 pixels (32 x 32 in families with larger patches); a checkpoint's
#: own processor config is for whole offline videos.
PAPER_TOKENS = {"min_pixels": 128, "max_pixels": 768}
#: Most tokens of a frame that a folder may ask for: what published processors allow an image.
MAX_TOKENS = 16_384
#: Names of the least and the most pixels of a frame, and of the same in a size as transformers 5 saves it.
_KEYS = ("min_pixels", "max_pixels")
_EDGES = ("shortest_edge", "longest_edge")

#: Windows and replies that a folder may ask for, in seconds and tokens: the cache is allocated for the largest.
_LARGEST = {"vision": 3600, "turns": 3600, "sink": 2**17, "text": 2**17, "max_new_tokens": 2**14}

#: Seconds that a checkpoint must know at least: time stamps start anew within it.
_SHORTEST_TIME = 60.0

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


def patcher(folder: Path, vision: Any, mean: Sequence[float], std: Sequence[float]) -> Patcher:
    """How the model wants its frames; the pixel budget is the paper's unless the folder is made for streams.

    ``mean`` and ``std`` are the family's, for folders that have no processor's file. :class:`ModelError` where the
    file says what cannot be meant, or sizes of patches that are not the tower's.
    """
    path, config = _processor(folder)
    sizes = {"patch_size": vision.patch_size, "temporal_patch_size": vision.temporal_patch_size}
    for key, size in (sizes | {"merge_size": vision.spatial_merge_size}).items():
        if number(config, key, path, 1, whole=True) not in (None, size):
            raise ModelError(f"{path}: {key} is {config[key]}, by config.json {size}; they are not of one model")
    budget = _budget(folder, config, path, (vision.patch_size * vision.spatial_merge_size) ** 2)
    return Patcher(
        patch=vision.patch_size,
        temporal=vision.temporal_patch_size,
        merge=vision.spatial_merge_size,
        mean=triple(config, "image_mean", mean, path, -math.inf),
        std=triple(config, "image_std", std, path, 0),
        min_pixels=budget["min_pixels"],
        max_pixels=budget["max_pixels"],
    )


def _budget(folder: Path, config: Mapping[str, Any], path: Path, token: int) -> dict[str, int]:
    """Least and most pixels of a frame, of ``token`` pixels a token: the folder's own if it is made for streams.

    transformers 5 saves the two as edges of a size; the numbers stay areas.
    """
    paper = {key: count * token for key, count in PAPER_TOKENS.items()}
    streaming = read_streaming(folder)
    if streaming is None:
        return paper
    size = config.get("size")
    edges = size if isinstance(size, dict) else {}
    places = ((config, _KEYS), (edges, _EDGES), (edges, _KEYS), (streaming, _KEYS))
    own: dict[str, int] = {}
    for table, keys in places:
        for name, key in zip(_KEYS, keys, strict=True):
            value = number(table, key, path if table is not streaming else folder / GENERATION, 1, whole=True)
            if value is not None:
                own.setdefault(name, value)
    if own.get("max_pixels", token) < token:
        raise ModelError(f"{path}: at most {own['max_pixels']} pixels a frame is less than one token ({token})")
    if own.get("max_pixels", token) > token * MAX_TOKENS:
        raise ModelError(f"{path}: {own['max_pixels']:,} pixels a frame are more than {MAX_TOKENS:,} tokens")
    budget = paper | own
    if budget["min_pixels"] > budget["max_pixels"]:
        if len(own) == 2:
            raise ModelError(f"{path}: min_pixels {own['min_pixels']} is above max_pixels {own['max_pixels']}")
        budget = dict.fromkeys(_KEYS, next(iter(own.values())))
    return budget


def write_streaming(folder: Path, streaming: Mapping[str, Any], patcher: Patcher) -> None:
    """Say in a checkpoint folder how it likes to be run: what :func:`stream_defaults` and :func:`patcher` read."""
    generation = read_json(folder, "generation_config.json")
    write_json(folder / "generation_config.json", {**generation, "streaming": dict(streaming)})
    budget = {"min_pixels": patcher.min_pixels, "max_pixels": patcher.max_pixels}
    name = "video_preprocessor_config.json"
    if not read_json(folder, name):
        name = "preprocessor_config.json"
    write_json(folder / name, {**_made(patcher), **_processor(folder)[1], **budget})


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


def _processor(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Settings of the video processor: from its own file, or from the one that transformers 5 writes for all."""
    for name in ("video_preprocessor_config.json", "preprocessor_config.json"):
        if own := read_json(folder, name):
            return folder / name, own
    together = read_json(folder, "processor_config.json").get("video_processor") or {}
    if not isinstance(together, dict):
        raise ModelError(f"{folder / 'processor_config.json'}: video_processor must be a JSON object")
    return folder / "processor_config.json", together


def stream_defaults(folder: Path) -> StreamDefaults:
    """The checkpoint's streaming defaults (``generation_config.json``, key ``"streaming"``), else the paper's.

    :class:`ModelError` for one of a wrong type, or that cannot be meant.
    """
    streaming, path = read_streaming(folder), folder / GENERATION
    if streaming is None:
        return StreamDefaults(instruction=_DEFAULT_INSTRUCTION)
    instruction, policy = _text(streaming, "instruction", path), window_options(streaming)
    for key, most in _LARGEST.items():
        value = streaming.get(key)
        if isinstance(value, int | float) and value > most:
            raise ModelError(f"{path}: {key} must be at most {most:,}, not {value:,}: no cache would hold it")
    try:
        make_policy("streaming", policy)
        sampling = Sampling(**_sampling(streaming, path))
        longest = number(streaming, "longest_time", path, _SHORTEST_TIME)
        longest = LONGEST_TIME if longest is None else float(longest)
        return StreamDefaults(sampling, policy, instruction or "", known_kinds(streaming, path), longest)
    except OptionError as error:
        raise ModelError(f"{path}: {error}") from None


def _sampling(streaming: Mapping[str, Any], path: Path) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for field in fields(Sampling):
        kind: type[Any] = type(field.default)
        if field.name not in streaming:
            continue
        if kind is bool:
            out[field.name] = streaming[field.name]
            if not isinstance(out[field.name], bool):
                raise ModelError(f"{path}: {field.name} must be true or false, not {out[field.name]!r}")
        else:
            value = number(streaming, field.name, path, 0, whole=kind is int)
            if value is None:
                raise ModelError(f"{path}: {field.name} must be a number, not null")
            out[field.name] = value
    return out


def _text(table: Mapping[str, Any], key: str, path: Path) -> str | None:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise ModelError(f"{path}: {key} must be a text, not {value!r}")
    return value


def end_tokens(folder: Path, turn_end: int) -> frozenset[int]:
    """Ids that end a reply: those of the generation config, and the end of turn in any case. null names none."""
    value = read_json(folder, GENERATION).get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(one) is int for one in ids):
        raise ModelError(f"{folder / GENERATION}: eos_token_id must be an id or a list of ids, not {value!r}")
    return frozenset(ids) | {turn_end}


def system_prompt(folder: Path, tokenizer: Any) -> str:
    """The system prompt that the checkpoint's chat template puts in by itself."""
    streaming = read_streaming(folder) or {}
    if "system" in streaming:
        return _text(streaming, "system", folder / GENERATION) or ""
    if not tokenizer.chat_template:
        return "You are a helpful assistant."
    with library(f"{folder}: its chat template cannot be used"):
        text = tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
        before, mark, after = text.partition("<|im_start|>system\n")
    return after.partition("<|im_end|>")[0] if mark and not before else ""
