"""What is known before an arcade stream starts: who plays which colour, their homes, the length of a match."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

Colours = tuple[str, str]
"""The two sides as they look on the screen, in the order in which scores and tallies are said."""

EVALUATION_SEEDS = 9_000_000
"""Seeds from here on are for evaluation only."""

_NAMES = """Ada Alma Anton Astrid Bela Boris Carla Cora Dario Diana Edda Elias Emil Erik Felix Fiona
Gina Greta Hana Hugo Ida Igor Ines Ivan Jana Jonas Karl Kira Lara Leo Lotte Lukas Marta Max Mina Nadia
Nils Nora Olga Oscar Paula Pavel Rita Rosa Sofia Tomas Vera Wanda"""
_TOWNS = """Athens Basel Bergen Bilbao Boston Bremen Cairo Cork Dakar Delhi Denver Dublin Geneva Ghent
Hanoi Kyoto Lagos Lima Lisbon Lyon Madrid Milan Naples Oslo Osaka Paris Porto Prague Quito Riga Tunis
Turin"""
NAMES: tuple[str, ...] = tuple(_NAMES.split())
TOWNS: tuple[str, ...] = tuple(_TOWNS.split())


@dataclass(frozen=True, slots=True)
class Player:
    """One side: its colour on the screen, a name of NAMES and a town of TOWNS."""

    colour: str
    name: str
    town: str


@dataclass(frozen=True, slots=True)
class Context:
    """The players in the order of the game's colours, and how many games ("rounds", "sets") win a match.

    ``games``: what the game calls them; ``first``: the colour that the text names first.
    """

    players: tuple[Player, Player]
    games_to_win: int
    games: str
    first: str

    def player(self, colour: str) -> Player:
        """The player of a colour."""
        return self.players[colour != self.players[0].colour]

    @property
    def text(self) -> str:
        """One sentence; every value stands directly after the two words that are its key ("player green Mina")."""
        sides = self.players if self.first == self.players[0].colour else self.players[::-1]
        parts = [f"first to {self.games_to_win} {self.games}"]
        parts += [f"player {side.colour} {side.name}" for side in sides]
        parts += [f"home {side.colour} {side.town}" for side in sides]
        return " ; ".join(parts)

    @classmethod
    def parse(cls, text: str, colours: Colours, games: str) -> Context | None:
        """The context that a text states, or None if any of the five facts is missing or unknown."""
        length = re.search(rf"\bfirst to (\d+) {games}\b", text)
        if length is None:
            return None
        players = []
        for colour in colours:
            name = re.search(rf"\bplayer {colour} (\w+)", text)
            town = re.search(rf"\bhome {colour} (\w+)", text)
            if name is None or town is None or name[1] not in NAMES or town[1] not in TOWNS:
                return None
            players.append(Player(colour, name[1], town[1]))
        first = min(colours, key=lambda colour: text.find(f"player {colour}"))
        return cls((players[0], players[1]), int(length[1]), games, first)

    @classmethod
    def draw(cls, rng: random.Random, colours: Colours, lengths: Sequence[int], games: str) -> Context:
        """Two players with names and towns, and a length of match, at random."""
        names, towns = rng.sample(NAMES, 2), rng.sample(TOWNS, 2)
        one, other = (Player(*facts) for facts in zip(colours, names, towns, strict=True))
        return cls((one, other), rng.choice(lengths), games, rng.choice(colours))


def training_seed(seed: int) -> int:
    """The seed itself; ValueError for a seed that is kept for evaluation or is negative."""
    if not 0 <= seed < EVALUATION_SEEDS:
        raise ValueError(f"a training seed is in 0..{EVALUATION_SEEDS - 1}, not {seed}: others are for evaluation")
    return seed
