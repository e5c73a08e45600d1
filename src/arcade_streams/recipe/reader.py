"""What a game's labels say of each second, as targets, and throw-away heads that read them from the tower's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..worlds.game import Game
from . import tower
from .record import Labels

#: Pixels of the 210 x 160 screen that one token covers (height, width): a place inside it is told to the pixel.
CELL = (210 // tower.GRID[1], 160 // tower.GRID[2])
#: Pixels of a bin in which a place on the screen is told, and how many there are.
COARSE, COARSE_BINS = 12, 18
#: Classes read from the token of a place: place in it (y, x), place on the screen in its frame and in the other one (y,
#: x each), movement (y, x).
_LOCAL = (*CELL, *[COARSE_BINS] * 4, 3, 3)
_LOCAL_NAMES = ("y", "x", "screen y", "screen x", "other y", "other x", "moved y", "moved x")
#: How much more than the rest it counts where things are and what the score is, before which nothing else is read, and
#: the facts.
FIRST, FACT = 4.0, 2.0
#: What names begin with of all that is read from the mean of the tokens.
MEAN = "mean: "
Answers = dict[str, tuple[Tensor, Tensor]]
"""By what is read: logits (n, classes) and truth (n,), -1 for unknown."""


@dataclass(frozen=True, slots=True)
class Sights:
    """Targets of b seconds, all int64, for both frames of each.

    ``cell`` (b, 2, places): the token with the place, TOKENS for none. ``local`` (b, 2, places, 8): what _LOCAL lists,
    -1 for unknown; movements are 0, 1, 2 for up or left, none, down or right. ``facts`` (b, 2, facts + 1): 0 for none;
    the last says whether a point is played. ``scores``: (b, 2, 2).
    """

    cell: Tensor
    local: Tensor
    facts: Tensor
    scores: Tensor

    def __getitem__(self, pick: Tensor) -> Sights:
        """Of some of the seconds."""
        return Sights(*(getattr(self, part.name)[pick] for part in fields(self)))

    @staticmethod
    def joined(parts: Sequence[Sights]) -> Sights:
        """One after the other."""
        return Sights(*(torch.cat([getattr(part, name.name) for part in parts]) for name in fields(Sights)))


def sights(labels: Labels) -> Sights:
    """Targets of the labels of b seconds."""
    places = torch.from_numpy(labels.places.astype(np.int64)).flip(-1)
    seen = places[..., 0] >= 0
    grid = torch.tensor(CELL)
    row = torch.minimum(places.clamp(min=0) // grid, torch.tensor(tower.GRID[1:]) - 1)
    inside = torch.minimum(places.clamp(min=0) - row * grid, grid - 1)
    screen = (places // COARSE).clamp(0, COARSE_BINS - 1)
    moved = ((places[:, 1] - places[:, 0]).sign() + 1)[:, None].expand_as(places)
    both = (seen & seen.flip(1))[..., None]
    own = torch.where(seen[..., None], torch.cat([inside, screen], dim=-1), -1)
    local = torch.cat([own, torch.where(both, screen.flip(1), -1)], dim=-1)
    facts = np.concatenate([labels.facts + 1, labels.playing[..., None]], axis=-1)
    return Sights(
        cell=torch.where(seen, row[..., 0] * tower.GRID[2] + row[..., 1], tower.TOKENS),
        local=torch.cat([local, torch.where(both, moved, -1)], dim=-1),
        facts=torch.from_numpy(facts.astype(np.int64)),
        scores=torch.from_numpy(labels.scores.astype(np.int64)),
    )


class FrameReader(nn.Module):
    """Heads of one game; they read tokens (b, TOKENS, hidden).

    All but the token of a place is read twice: from the tokens where it is to be seen, and from the mean of all tokens,
    for a decoder that looks at a picture as a whole.
    """

    def __init__(self, game: Game, hidden: int) -> None:
        super().__init__()
        self.places, self.facts, self.most = game.places, {**game.facts, "in play": 1}, game.most
        places = len(game.places)
        self.here, self.none = nn.Linear(hidden, 2 * places), nn.Linear(hidden, 2 * places)
        self.local = nn.Parameter(torch.randn(2, places, hidden, sum(_LOCAL)) * hidden**-0.5)
        classes = sum(self.facts.values()) + len(self.facts)
        self.fact = nn.Parameter(torch.randn(2, (places + 1) * hidden, classes) * hidden**-0.5)
        #: Where on the screen the scores stand differs between the games: which row of tokens is learnt.
        self.row = nn.Parameter(torch.zeros(tower.GRID[1]))
        self.score = nn.Linear(hidden * tower.GRID[2], 2 * 2 * (self.most + 1))
        self.whole = nn.Linear(hidden, 2 * (places * sum(_LOCAL) + classes + 2 * (self.most + 1)))

    def forward(self, tokens: Tensor, want: Sights) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over the losses of all that is read, and the share of right answers by what is read (NaN: no case)."""
        seen = want.cell < tower.TOKENS
        spot = want.cell.clamp(max=tower.TOKENS - 1)
        who = torch.arange(len(tokens))[:, None, None]
        # Each frame's places are read from the tokens where they are.
        found = tokens[who, spot] * seen[..., None]
        mean = tokens.mean(1)
        answers = self._cells(tokens, mean, want) | self._local(found, want) | self._facts(found, mean, want)
        answers |= self._scores(tokens, want) | self._mean(mean, want)
        losses = [
            self._weight(name)
            * F.cross_entropy(guess.float(), truth, ignore_index=-1, reduction="sum")
            / (truth >= 0).sum().clamp(1)
            for name, (guess, truth) in answers.items()
        ]
        right = {
            name: (guess.argmax(-1) == truth)[truth >= 0].float().mean() for name, (guess, truth) in answers.items()
        }
        return torch.stack(losses).mean(), right

    def _cells(self, tokens: Tensor, mean: Tensor, want: Sights) -> Answers:
        none = self.none(mean)[..., None]
        cells = torch.cat([self.here(tokens).transpose(1, 2), none], dim=-1)
        cells = cells.view(len(tokens), 2, len(self.places), -1)
        pairs = ((cells[:, :, i].flatten(0, 1), want.cell[:, :, i].flatten()) for i in range(len(self.places)))
        return {f"{name} cell": pair for name, pair in zip(self.places, pairs, strict=True)}

    def _local(self, found: Tensor, want: Sights) -> Answers:
        return self._told_of_places(torch.einsum("bfph,fphl->bfpl", found, self.local), want)

    def _told_of_places(self, logits: Tensor, want: Sights) -> Answers:
        parts = torch.split(logits, list(_LOCAL), dim=-1)
        return {
            f"{name} {what}": (part[:, :, i].flatten(0, 1), want.local[:, :, i, j].flatten())
            for i, name in enumerate(self.places)
            for j, (what, part) in enumerate(zip(_LOCAL_NAMES, parts, strict=True))
        }

    def _facts(self, found: Tensor, mean: Tensor, want: Sights) -> Answers:
        """Facts are about things: they are read where those are, and from the whole."""
        seen = torch.cat([found.flatten(2), mean[:, None].expand(-1, 2, -1)], dim=-1)
        return self._told_of_facts(torch.einsum("bfh,fhc->bfc", seen, self.fact), want)

    def _told_of_facts(self, logits: Tensor, want: Sights) -> Answers:
        parts = torch.split(logits, [classes + 1 for classes in self.facts.values()], dim=-1)
        return {
            name: (part.flatten(0, 1), want.facts[..., i].flatten())
            for i, (name, part) in enumerate(zip(self.facts, parts, strict=True))
        }

    def _scores(self, tokens: Tensor, want: Sights) -> Answers:
        rows = tokens.reshape(len(tokens), tower.GRID[1], -1)
        row = torch.einsum("brh,r->bh", rows, self.row.softmax(0).to(rows.dtype))
        return {"scores": (self.score(row).reshape(-1, self.most + 1), want.scores.flatten())}

    def _mean(self, mean: Tensor, want: Sights) -> Answers:
        logits, scores = self.whole(mean).view(len(mean), 2, -1), 2 * (self.most + 1)
        facts = sum(classes + 1 for classes in self.facts.values())
        places, told, score = torch.split(logits, [logits.shape[-1] - facts - scores, facts, scores], dim=-1)
        answers = self._told_of_places(places.reshape(len(mean), 2, len(self.places), -1), want)
        answers |= self._told_of_facts(told, want)
        answers["scores"] = (score.reshape(-1, self.most + 1), want.scores.flatten())
        return {MEAN + name: answer for name, answer in answers.items()}

    def _weight(self, name: str) -> float:
        name = name.removeprefix(MEAN)
        if name == "scores" or name.endswith(" cell"):
            return FIRST
        return FACT if name in self.facts else 1.0
