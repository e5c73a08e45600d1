"""What a checkpoint's own config says of itself as a watcher of streams: ``generation_config.json``, ``"streaming"``.

Read without torch, so that video that a checkpoint does not know is refused before anything is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import ModelError
from ..core.events import Source, StepSource
from .files import read_json

GENERATION = "generation_config.json"


def read_streaming(folder: Path) -> dict[str, Any] | None:
    """How the folder likes to be run (``generation_config.json``, key ``"streaming"``), None if it does not say it."""
    streaming = read_json(folder, GENERATION).get("streaming")
    if streaming is not None and not isinstance(streaming, dict):
        raise ModelError(f"{folder / GENERATION}: streaming must be a JSON object, not {streaming!r}")
    return streaming


def known_kinds(streaming: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """Kinds of source that the checkpoint was trained on (key ``"knows"``); () if it may be shown anything.

    :class:`ModelError`, which names ``path``, for anything but a list of texts.
    """
    kinds = streaming.get("knows")
    if kinds is None:
        return ()
    if not isinstance(kinds, list) or not all(isinstance(kind, str) and kind for kind in kinds):
        raise ModelError(f"{path}: knows must be a list of kinds of source, not {kinds!r}")
    return tuple(kinds)


def example_source(folder: Path) -> str | None:
    """A locator of video that shows what the checkpoint can do (key ``"example_source"``), None if it names none."""
    locator = (read_streaming(folder) or {}).get("example_source")
    if locator is not None and not isinstance(locator, str):
        raise ModelError(f"{folder / GENERATION}: example_source must be a text, not {locator!r}")
    return locator


def read_known_kinds(folder: Path) -> tuple[str, ...]:
    """:func:`known_kinds` of a checkpoint's folder."""
    return known_kinds(read_streaming(folder) or {}, folder / GENERATION)


def check_source(folder: Path, name: str, source: Source | StepSource, kind: str = "") -> None:
    """Raise :class:`ModelError` for video of a kind that the checkpoint does not know.

    ``name``: how it is called; ``kind``: what the user says that the source shows ("": what it says itself; a live one
    says nothing).
    """
    kinds = read_known_kinds(folder)
    if kinds and (kind or source.kind) not in kinds:
        hint = f"; if it shows one of these, say so: --kind {kinds[0]}" if source.live and not kind else ""
        raise ModelError(
            f"{name} knows only {', '.join(kinds)} (and recordings of them), not {kind or source.name}; "
            f"to watch other video, name a checkpoint: --model Qwen/Qwen2.5-VL-7B-Instruct or a folder{hint}"
        )
