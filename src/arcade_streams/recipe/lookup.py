"""Two layers that look a name up: from a colour to the name that the context gives to it.

Copying a name by its colour over a thousand ids was learnt by few runs and undone by pictures
(dev/log/bundled-model.md): a head that is trained on near names compares in dimensions that are turned round at a
distance, and of 600 ids 500 are of pictures, whose states are large. Here the first layer tells every id whether a
colour stands before it, where pictures have next to nothing to say, and the second compares in the slowest dimensions.
Both are solved for, by least squares on states of the model, and write nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..worlds.context import NAMES, TOWNS
from ..worlds.game import Game
from .decoder import StoryBatch, hidden_states
from .shape import FRONT, look_back
from .stories import Scribe

#: Logits of the right value over the other one, and of both over all other ids.
MATCH, KIND = 40.0, 60.0
#: How firmly weights are kept small.
RIDGE = 1e-6
#: Every id counts alike, however often it stands in the batches; that of pictures as many as these.
PICTURES = 10
#: How large the colour before an id and a name that was found are written, in norms of a word's embedding.
BEFORE, FOUND = 0.5, 8.0
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
def look_up(model: Any, scribe: Scribe, games: Sequence[Game], batches: Sequence[StoryBatch]) -> None:
    """Set up the first two layers of a model that has ``grown``: from a colour behind "player" one head finds the name
    that the context gives to it, from one behind "home" another its town. What they find is written as that word's
    embedding, FOUND times.

    ``batches``: where states are read, with all kinds of ids in them, pictures too.
    """
    first, second = (layer.self_attn for layer in model.model.language_model.layers[:FRONT])
    embeddings, colours = model.get_input_embeddings().weight, _ids(scribe, [c for game in games for c in game.colours])
    told = torch.tensor([*colours.values(), *_ids(scribe, VALUES).values()])
    look_back(first, model.model.language_model.rotary_emb.inv_freq, group=0)
    _tell_before(
        first, _read(model, batches, 0), told, model.config.video_token_id, embeddings[told].norm(dim=1).mean()
    )
    read = _read(model, batches, 1)
    for group, (key, words) in enumerate(VALUES.items()):
        wanted = torch.tensor(list(_ids(scribe, words).values()))
        (asked,) = _ids(scribe, [key]).values()
        head = _Head(second, group, _places(games, colours))
        head.compare(read, asked, wanted)
        head.write(read, wanted, FOUND * embeddings[wanted])


def _tell_before(attention: Any, read: _Read, told: Tensor, picture: int, size: Tensor) -> None:
    """The head that looks one id back writes which of the ids ``told`` it is, where pictures are quietest."""
    width, pictures = attention.head_dim, read.states[read.ids == picture]
    _, directions = torch.linalg.eigh(pictures.T @ pictures)
    values = torch.zeros(len(read.ids), width)
    values[:, : len(told)] = (read.ids[:, None] == told).float()
    _solve(attention.v_proj, slice(0, width), read, values)
    attention.o_proj.weight.zero_()
    attention.o_proj.weight[:, : len(told)] = BEFORE * size * directions[:, : len(told)]


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


def _read(model: Any, batches: Iterable[StoryBatch], number: int) -> _Read:
    layer, seen, parts = model.model.language_model.layers[number], [], []
    with layer.register_forward_pre_hook(lambda _, inputs: seen.append(layer.input_layernorm(inputs[0]))):
        for batch in batches:
            hidden_states(model, batch)
            before = F.pad(batch.ids, (1, 0), value=-1)[:, :-1]
            parts.append((seen.pop().flatten(0, 1), batch.ids.flatten(), before.flatten()))
    states, ids, before = (torch.cat(part) for part in zip(*parts, strict=True))
    weights = 1.0 / ids.bincount()[ids]
    return _Read(states, ids, before, weights * torch.where(ids == model.config.video_token_id, PICTURES, 1))


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
        _solve(self.attention.q_proj, self.queries, read, queries)
        _solve(self.attention.k_proj, self.keys, read, keys)

    def write(self, read: _Read, wanted: Tensor, written: Tensor) -> None:
        """Of an id ``wanted`` that is looked at, its row of ``written`` (n, hidden) is added."""
        values = torch.zeros(len(read.ids), self.width)
        values[:, : len(wanted)] = (read.ids[:, None] == wanted).float()
        _solve(self.attention.v_proj, self.keys, read, values)
        out = self.attention.o_proj.weight[:, self.queries]
        out.zero_()
        out[:, : len(wanted)] = written.T


def _solve(projection: Any, rows: slice, read: _Read, target: Tensor) -> None:
    """Weights and biases of a projection that turn states into the target (n, rows), by least squares."""
    share = (read.weights / read.weights.sum())[:, None]
    mean, wanted = (share * read.states).sum(0), (share * target).sum(0)
    x = read.states - mean
    gram = x.T @ (share * x)
    firm = RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    weight = torch.linalg.solve(gram + firm, x.T @ (share * target)).T
    projection.weight[rows], projection.bias[rows] = weight, wanted - weight @ mean
