"""What is known before an arcade stream starts: who plays which colour, their homes, the length of a match."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

Colour = Literal["green", "orange"]
COLOURS: tuple[Colour, Colour] = ("green", "orange")

EVALUATION_SEEDS = 9_000_000
"""Seeds from here on are for evaluation only."""

GAMES_TO_WIN = (2, 3)
"""Match lengths that a stream can have."""

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

    colour: Colour
    name: str
    town: str


@dataclass(frozen=True, slots=True)
class Context:
    """The players and the number of games that win a match; ``first`` is the side that the text names first."""

    green: Player
    orange: Player
    games_to_win: int
    first: Colour = "green"

    def player(self, colour: str) -> Player:
        """The player of a colour."""
        return self.green if colour == "green" else self.orange

    @property
    def text(self) -> str:
        """One sentence; every value stands directly after the two words that are its key ("player green Mina")."""
        sides = [self.player(self.first), self.orange if self.first == "green" else self.green]
        parts = [f"first to {self.games_to_win} games"]
        parts += [f"player {side.colour} {side.name}" for side in sides]
        parts += [f"home {side.colour} {side.town}" for side in sides]
        return " ; ".join(parts)

    @classmethod
    def parse(cls, text: str) -> Context | None:
        """The context that a text states, or None if any of the five facts is missing or unknown."""
        length = re.search(r"\bfirst to (\d+) games\b", text)
        if length is None:
            return None
        players = {}
        for colour in COLOURS:
            name = re.search(rf"\bplayer {colour} (\w+)", text)
            town = re.search(rf"\bhome {colour} (\w+)", text)
            if name is None or town is None or name[1] not in NAMES or town[1] not in TOWNS:
                return None
            players[colour] = Player(colour, name[1], town[1])
        first = COLOURS[text.find("player orange") < text.find("player green")]
        return cls(players["green"], players["orange"], int(length[1]), first)

    @classmethod
    def draw(cls, seed: int) -> Context:
        """The context of a seed's stream."""
        rng = random.Random(f"pong context {seed}")
        names, towns = rng.sample(NAMES, 2), rng.sample(TOWNS, 2)
        green, orange = Player("green", names[0], towns[0]), Player("orange", names[1], towns[1])
        return cls(green, orange, rng.choice(GAMES_TO_WIN), rng.choice(COLOURS))


def training_seed(seed: int) -> int:
    """The seed itself; ValueError for a seed that is kept for evaluation or is negative."""
    if not 0 <= seed < EVALUATION_SEEDS:
        raise ValueError(f"a training seed is in 0..{EVALUATION_SEEDS - 1}, not {seed}: others are for evaluation")
    return seed
