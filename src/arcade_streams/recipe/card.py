"""The model card: what the checkpoint is, how it was made, and its figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamingvlm import load_model

from ..score.table import kinds, look, show, table
from ..worlds.game import Game
from ..worlds.games import find_game
from ..worlds.language import GameEvent
from .export import TRAINING
from .tower import SIZE, TOKENS

_HEAD = """---
license: apache-2.0
pipeline_tag: video-text-to-text
library_name: transformers
tags: [streaming, video, commentary, arcade]
---

# StreamingVLM arcade

A miniature Qwen2.5-VL of {parameters:.1f} million parameters that comments on scripted Atari games ({games}), second by
second and without end. It exists so that the whole of `streamingvlm` (vision tower, decoder, cache policy, sampling)
runs on a laptop and in tests through the code path of the large checkpoints, with words that can be checked against
the truth.

It knows nothing but these games. Shown anything else it will still talk about them.

## What it says

{said}

A silent second is `...`. It speaks one wording of each kind. Players, their towns and the length of the match are known
only from the context given at the start, for example `{context}`.

## Shape

{shape} Weights in bfloat16.

## Use

```python
from streamingvlm import Engine, load_model, open_source

engine = Engine(load_model())
source = open_source("arcade:{first_game}?seed=7")
with engine.open(context=source.context) as session:
    for words in session.run(source):
        print(words.start, words.text)
```

The settings it was trained with are in `generation_config.json` under `streaming`: 16 s of video and turns, the
first {sink} and the last {text} tokens of older words, greedy.

## Training

{training}

## Weakest

{weak}

## Figures

{seconds} s of each of the seeds {first}-{last}, free running (the model reads nothing but its own words), {dtype} on
{machine}, {date}:

`{command}`

An event counts when its kind and all its facts are right. Chance: the true commentary shifted in time. Ceiling: a rule
that reads places and scores from the game's memory at the same two frames a second. In brackets: 95% intervals,
bootstrap over streams. docs/arcade_streams/evaluation.md defines each figure.

"""

_TRAINING = """`python -m arcade_streams.recipe all` (docs/arcade_streams/bundled-model.md) on {games}: of each game
{vision_streams} streams{more} of {vision_seconds} s for the tower ({vision_minutes:g} minutes),
{streams} of {seconds} s from seed 1000 for the decoder ({steps} steps, {decoder_hours:.1f} hours), made-up games
without pictures, checks on seeds from 8000000 on; seed of the run {seed}; finished on {date}. Seeds from 9000000 on
were used for the figures below only.{notes}"""
_UNTOLD = """Pong only, before the recipe knew several games (dev/log/bundled-model.md). Seeds from 9000000 on
were used for the figures below only."""
#: How many of the kinds that are told worst are listed, and from how many cases on.
WEAKEST, CASES = 8, 20


def card(found: Mapping[str, Any], folder: Path) -> str:
    """The text of README.md of the checkpoint in ``folder`` for ``found``, the figures of ``eval arcade``."""
    first, end = found["seeds"]
    model = load_model(folder, device="cpu")
    config, policy = json.loads((folder / "config.json").read_text()), model.defaults.policy
    training = _read(folder / TRAINING)
    games = [find_game(name) for name in (training or {"games": ["pong"]})["games"]]
    names = ", ".join(game.name for game in games)
    head = _HEAD.format(
        parameters=model.parameters / 1e6, games=names, said="\n".join(_said(game) for game in games),
        context=games[0].context(0).text, shape=_shape(config), first_game=games[0].name, weak=_weak(found["games"]),
        training=_UNTOLD if training is None else _told(training, names),
        sink=policy["sink"], text=policy["text"], first=first, last=end - 1, seconds=found["seconds"],
        command=found["command"], dtype=found["dtype"], machine=found["device"], date=found["date"],
    )  # fmt: skip
    streams = "; ".join(
        f"{name} {', '.join(f'{value:.2f}' for value in game['micro_f1_strict_by_stream'])}"
        for name, game in found["games"].items()
    )
    tables = f"{table(found, costs=False)}\n\n{kinds(found['games'])}"
    return f"{head}{tables}\n\nMicro F1 in the same second, by stream: {streams}.\n{_flipped(found)}"


def _flipped(found: Mapping[str, Any]) -> str:
    """What the gate found, if it was asked."""
    if "gate" not in found:
        return ""
    gate = found["gate"]
    verdict = "passed" if gate["passed"] else f"not passed ({'; '.join(gate['reasons'])})"
    names = show(gate["names_flipped"])
    told = f"With the sides' names exchanged in the context, {names} of those that are said are right."
    return f"\n{told} Gate: {verdict}.\n"


def _read(path: Path) -> dict[str, Any] | None:
    """How the weights were trained; None for a checkpoint from before that was written down."""
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _told(training: Mapping[str, Any], games: str) -> str:
    notes, more = training.get("notes", ""), training.get("vision_more")
    further = {"more": f" (and more: {', '.join(more)})" if more else "", "notes": f"\n\n{notes}" if notes else ""}
    return _TRAINING.format(**{**training, "games": games, **further})


def _said(game: Game) -> str:
    """One clause of each kind, with the first colour."""
    player, language = game.context(0).players[0], game.language
    clauses = []
    for name in language.kinds:
        zones = language[name].zones
        event = GameEvent(name, player.colour, zones[0] if zones else None, (3, 1), None, player.town)
        clauses.append(f"`{language.say([event], language.plain)}`")
    return f"- {game.name}: {', '.join(clauses)}"


def _shape(config: Mapping[str, Any]) -> str:
    text, seen = config["text_config"], config["vision_config"]
    heads, hidden = text["num_attention_heads"], text["hidden_size"]
    return (
        f"Decoder: hidden {hidden}, {text['num_hidden_layers']} layers, {heads} heads ({text['num_key_value_heads']} "
        f"key/value heads) of {hidden // heads}, intermediate {text['intermediate_size']}, tied embeddings, "
        f"{text['vocab_size']} tokens. Vision tower: hidden {seen['hidden_size']}, {seen['depth']} blocks of full "
        f"attention, patches of 14, merged 2 x 2. A 420 x 320 clip is resized to {SIZE[0]} x {SIZE[1]} "
        f"({TOKENS} tokens per second at 2 frames per second)."
    )


def _weak(games: Mapping[str, Any]) -> str:
    """The kinds that are told worst in the same second, beside their ceiling."""
    rows = []
    for name, game in games.items():
        for kind, part in game["by_kind"].items():
            value = look(part, ("strict", "value"))
            if value is not None and game["cases"].get(kind, 0) >= CASES:
                ceiling = show(look(game, ("ceiling", "by_kind", kind, "strict")))
                rows.append((value, f"- {name}, {kind}: {show(part['strict'])}, ceiling {ceiling}"))
    return "\n".join(row for _, row in sorted(rows)[:WEAKEST]) or "No kind has enough cases to say."
