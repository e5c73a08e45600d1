"""A part of the videos of a benchmark: by hash of the video, so that adding games moves none to another part."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from ..core.errors import OptionError


@dataclass(frozen=True, slots=True)
class Shard:
    """Shard ``number`` (from 1) of ``count``."""

    number: int = 1
    count: int = 1

    @staticmethod
    def parse(text: str) -> Shard:
        """``2/8``. OptionError for anything that is none."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise OptionError(f"a part is i/n with 1 <= i <= n, as 2/8, not {text!r}")
        return Shard(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def has(self, key: str) -> bool:
        """Whether the video that the data call ``key`` belongs to this part."""
        return stable_number(key) % self.count == self.number - 1


def stable_number(key: str) -> int:
    """A number that follows from a text alone, below 2**31: the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") >> 1
