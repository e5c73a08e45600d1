"""Heads that look a name up: from a colour to the name that the context gives to it.

Copying a name by its colour over a thousand ids was learnt by few runs and undone by pictures (docs/log.md): a head
that is trained on near names compares in dimensions that are turned round at a distance. Here the comparison is put in
the slowest dimensions from the start. What is compared is read off states of the model, by least squares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...arcade.context import NAMES, TOWNS
from ...arcade.game import Game
from .decoder import Batch, hidden_states
from .shape import FRONT
from .stories import Scribe

#: Logits of the right value over the other one, and of both over all other ids.
MATCH, KIND = 24.0, 24.0
#: How firmly weights are kept small.
RIDGE, BALANCE = 1e-5, 1.0
#: What is looked up, by the word that stands before the colour, in the context and in a reply.
VALUES = {"player": NAMES, "home": TOWNS}


@dataclass(frozen=True, slots=True)
class _Read:
    """States (n, hidden) in front of a layer, normalised, their ids (n,) and those before them, what each counts."""

    states: Tensor
    ids: Tensor
    before: Tensor
    weights: Tensor


@torch.no_grad()
def look_up(
    model: Any,
    scribe: Scribe,
    games: Sequence[Game],
    batches: Iterable[Batch],
    layer: int = FRONT - 1,
    strength: float = 8.0,
) -> None:
    """Set up the first query head of both key/value heads of a layer: from a colour behind "player" one finds the name
    that the context gives to it, from one behind "home" the other its town.

    What they find is written as that word's embedding, ``strength`` times. ``batches``: where states are read, with all
    kinds of ids in them. The layers in front must tell every id what the one before it was (``shape.look_back``).
    """
    read = _read(model, batches, layer)
    colours = _ids(scribe, [colour for game in games for colour in game.colours])
    for group, (key, words) in enumerate(VALUES.items()):
        wanted = torch.tensor(list(_ids(scribe, words).values()))
        (asked,) = _ids(scribe, [key]).values()
        head = _Head(model.model.language_model.layers[layer].self_attn, group, _places(games, colours))
        head.compare(read, asked, wanted)
        head.write(read, wanted, strength * model.get_input_embeddings().weight[wanted])


def _ids(scribe: Scribe, words: Iterable[str]) -> dict[str, int]:
    """The id of each word with the space before it."""
    return {word: scribe.grammar.tokenizer.encode(f" {word}")[0] for word in words}


def _places(games: Sequence[Game], colours: Mapping[str, int]) -> dict[int, tuple[int, int]]:
    """A pair of dimensions and one of its two for each colour, by its id.

    A pair is turned together, so that its two are mixed up at a distance: they are never the two sides of a game.
    """
    found: dict[str, tuple[int, int]] = {}
    for game in games:
        for colour in game.colours:
            foes = {found[foe][0] for each in games if colour in each.colours for foe in each.colours if foe in found}
            free = (
                at for at in product(range(len(colours)), range(2)) if at not in found.values() and at[0] not in foes
            )
            found.setdefault(colour, next(free))
    return {colours[colour]: place for colour, place in found.items()}


def _read(model: Any, batches: Iterable[Batch], number: int) -> _Read:
    layer, seen, parts = model.model.language_model.layers[number], [], []
    with layer.register_forward_pre_hook(lambda _, inputs: seen.append(layer.input_layernorm(inputs[0]))):
        for batch in batches:
            hidden_states(model, batch)
            before = F.pad(batch.ids, (2, 0), value=-1)
            parts.append((seen.pop().flatten(0, 1), batch.ids.flatten(), before[:, 1:-1].flatten()))
    states, ids, before = (torch.cat(part) for part in zip(*parts, strict=True))
    # Colours and names are few among the ids of pictures.
    return _Read(states, ids, before, ids.bincount()[ids].float() ** -BALANCE)


class _Head:
    """The first query head of a key/value head. ``places``: of each colour's id among the pairs of dimensions, the
    slowest but one first; the slowest tells the kind."""

    def __init__(self, attention: Any, group: int, places: Mapping[int, tuple[int, int]]) -> None:
        self.attention, self.width = attention, attention.head_dim
        self.keys = slice(group * self.width, (group + 1) * self.width)
        first = group * attention.num_key_value_groups * self.width
        self.queries = slice(first, first + self.width)
        half = self.width // 2
        self.kind = half - 1
        self.places = {colour: half - 2 - pair + half * which for colour, (pair, which) in places.items()}

    def compare(self, read: _Read, asked: int, wanted: Tensor) -> None:
        """A colour behind ``asked`` is to look at the ids ``wanted`` behind that colour."""
        queries, keys = (torch.zeros(len(read.ids), self.width) for _ in range(2))
        match, kind = ((logit * self.width**0.5) ** 0.5 for logit in (MATCH, KIND))
        for colour, place in self.places.items():
            queries[:, place] = (read.ids == colour) * match
            keys[:, place] = (read.before == colour) * match
            queries[:, self.kind] += ((read.ids == colour) & (read.before == asked)) * kind
        keys[:, self.kind] = torch.isin(read.ids, wanted) * kind
        self._solve("q_proj", self.queries, read, queries)
        self._solve("k_proj", self.keys, read, keys)

    def write(self, read: _Read, wanted: Tensor, written: Tensor) -> None:
        """Of an id ``wanted`` that is looked at, its row of ``written`` (n, hidden) is added."""
        values = torch.zeros(len(read.ids), self.width)
        values[:, : len(wanted)] = (read.ids[:, None] == wanted).float()
        self._solve("v_proj", self.keys, read, values)
        out = self.attention.o_proj.weight[:, self.queries]
        out.zero_()
        out[:, : len(wanted)] = written.T

    def _solve(self, name: str, rows: slice, read: _Read, target: Tensor) -> None:
        """Weights and biases of a projection that turn states into the target, by least squares."""
        share = (read.weights / read.weights.sum())[:, None]
        mean, wanted = (share * read.states).sum(0), (share * target).sum(0)
        x = read.states - mean
        gram = x.T @ (share * x)
        firm = RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
        weight = torch.linalg.solve(gram + firm, x.T @ (share * target)).T
        projection = getattr(self.attention, name)
        projection.weight[rows], projection.bias[rows] = weight, wanted - weight @ mean
