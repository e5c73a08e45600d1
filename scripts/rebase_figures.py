"""What late time stamps cost the bundled model, and what a rebase gives back.

    python scripts/rebase_figures.py [--seconds 600] [--seeds 4] [--games pong,tennis] [--json figures.json]

Watches the same matches several times: from second 0, from hours that a stream reaches in days and weeks with the time
stamps that belong to them, and rebased. The frames are the same each time; only what the model is told of the time
differs. The figure is the F1 in the same second; a difference is paired by stream, with its 95% interval.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from arcade_streams.evaluate.match import Match, matches
from arcade_streams.score.figures import Counts, figures, pool
from arcade_streams.score.score import count
from arcade_streams.worlds.context import EVALUATION_SEEDS
from arcade_streams.worlds.games import GAMES
from streamingvlm import Chunk, Engine, load_model
from streamingvlm.core.events import Commentary, Event, Rebased
from streamingvlm.evaluate.bootstrap import Replicates, difference, mean, replicate
from streamingvlm.models.load import settle_threads
from streamingvlm.runtime.reports import provenance
from streamingvlm.runtime.runtime import Runtime

#: Seconds for which turns with old stamps still stand beside the new ones.
BEHIND = 16
F1 = ("f1",)


@dataclass(frozen=True)
class Case:
    """One way to watch: from second ``since``; stamps beyond ``longest_time`` are rebased (None: the checkpoint's)."""

    name: str
    since: float = 0.0
    longest_time: float | None = math.inf


BASE = Case("from 0 s, never rebased")
CASES = [
    BASE,
    Case("from hour 80 (in training)", 80 * 3600.0),
    Case("from hour 240, not rebased", 240 * 3600.0),
    Case("from hour 2400, not rebased", 2400 * 3600.0),
    Case("from hour 240, rebased", 240 * 3600.0, None),
    Case("rebased every minute", 0.0, 120.0),
]


@dataclass
class Late:
    """A match whose second 0 is second ``since``."""

    match: Match
    seconds: float
    since: float
    live: bool = False

    def __post_init__(self) -> None:
        self._source = self.match.source(self.seconds)
        self.name, self.context, self.kind = self._source.name, self._source.context, self._source.kind

    def __iter__(self) -> Iterator[Chunk]:
        for chunk in self._source:
            times = tuple(one + self.since for one in chunk.times)
            yield replace(chunk, times=times, start=chunk.start + self.since, end=chunk.end + self.since)


@dataclass
class Heard:
    """What was said of a match, and when it was rebased, in seconds of the match."""

    since: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    rebased: list[float] = field(default_factory=list)

    def write(self, event: Event) -> None:
        """See :meth:`Sink.write`."""
        if isinstance(event, Commentary):
            self.rows.append({"start": event.start - self.since, "end": event.end - self.since, "text": event.text})
        elif isinstance(event, Rebased):
            self.rebased.append(event.time - self.since)

    def close(self) -> None:
        """See :meth:`Sink.close`."""


def watch(engine: Engine, streams: Sequence[Match], seconds: int, case: Case) -> list[Heard]:
    """All streams at once; a stream's text does not depend on the others."""
    heard = [Heard(case.since) for _ in streams]
    with Runtime(engine, lockstep=True) as runtime:
        for match, sink in zip(streams, heard, strict=True):
            source = Late(match, seconds, case.since)
            runtime.start(source, sinks=[sink], context=match.context, longest_time=case.longest_time)
        runtime.wait()
    return heard


def counted(match: Match, seconds: int, rows: Sequence[Mapping[str, Any]], parts: Sequence[float] | None) -> Counts:
    """The counts of a match, or of the seconds behind some moments of it alone."""
    truth, _ = match.truth(seconds)
    if parts is not None:
        inside = {int(part) + second for part in parts for second in range(BEHIND)}
        truth = {**truth, "content": [row for row in truth["content"] if int(row[0]) in inside]}
        rows = [row for row in rows if int(row["start"] + 1e-6) in inside]
    return count(truth, rows)


def replicates(streams: Sequence[Match], counts: Sequence[Counts]) -> Replicates:
    """The F1 in the same second, as the mean over the games, in every resample of streams."""
    games = dict.fromkeys(match.game for match in streams)
    cells = [[one for match, one in zip(streams, counts, strict=True) if match.game == game] for game in games]
    return mean(replicate(cells, lambda units: {"f1": figures(pool(units))["micro_f1_strict"]}))


def main() -> None:
    """Watch, count, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--games", default=",".join(GAMES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    streams = matches(options.games.split(","), range(EVALUATION_SEEDS, EVALUATION_SEEDS + options.seeds))
    model = load_model()
    settle_threads(model)
    engine = Engine(model, slots=len(streams))
    heard: dict[Case, list[Heard]] = {}
    for case in CASES:
        began = time.perf_counter()
        heard[case] = watch(engine, streams, options.seconds, case)
        print(f"{case.name}: {time.perf_counter() - began:.0f} s", flush=True)
    rows = table(streams, options.seconds, heard)
    print_table(rows)
    if options.json:
        about = {"games": options.games, "seconds": options.seconds, "seeds": options.seeds}
        found = {**about, "longest_time": model.defaults.longest_time, "rows": rows}
        found |= provenance(model.kv_shape.device)
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def table(streams: Sequence[Match], seconds: int, heard: Mapping[Case, Sequence[Heard]]) -> list[dict[str, Any]]:
    """A row for every case, and one for the seconds behind its rebases where it has some in mid-stream."""
    rows = []
    for case, own in heard.items():
        rows.append(row(case.name, streams, seconds, own, heard[BASE], None))
        jumps = [[at for at in one.rebased if at > 0] for one in own]
        if all(jumps):
            name = f"  the {BEHIND} s behind each of {len(jumps[0])} rebases"
            rows.append(row(name, streams, seconds, own, heard[BASE], jumps))
    return rows


def row(
    name: str,
    streams: Sequence[Match],
    seconds: int,
    own: Sequence[Heard],
    base: Sequence[Heard],
    jumps: Sequence[Sequence[float]] | None,
) -> dict[str, Any]:
    """F1 of a case, and how much it is above that of the same seconds of the base."""
    parts: Sequence[Sequence[float] | None] = jumps or [None] * len(streams)
    one, other = (
        replicates(streams, [counted(m, seconds, h.rows, p) for m, h, p in zip(streams, every, parts, strict=True)])
        for every in (own, base)
    )
    above = difference(one, other, F1)
    same = sum(
        a["text"] == b["text"] for x, y in zip(own, base, strict=True) for a, b in zip(x.rows, y.rows, strict=True)
    )
    games = {
        game: figures(
            pool(
                [counted(m, seconds, h.rows, p) for m, h, p in zip(streams, own, parts, strict=True) if m.game == game]
            )
        )["micro_f1_strict"]
        for game in dict.fromkeys(match.game for match in streams)
    }
    return {
        "name": name, "f1": one[F1][0], "games": games, "difference": above.json(),
        "same_words": same / sum(len(one.rows) for one in own),
        "rebases": sum(len(one.rebased) for one in own) / len(own),
    }  # fmt: skip


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as a table in Markdown."""
    games = list(rows[0]["games"])
    print("| stamps | F1, same second | difference | " + " | ".join(games) + " | same words |")
    print("|---" * (4 + len(games)) + "|")
    for one in rows:
        apart = one["difference"]
        bounds = "" if apart["low"] is None else f" ({apart['low']:+.3f} to {apart['high']:+.3f})"
        each = " | ".join(f"{one['games'][game]:.3f}" for game in games)
        print(f"| {one['name']} | {one['f1']:.3f} | {apart['value']:+.3f}{bounds} | {each} | {one['same_words']:.3f} |")


if __name__ == "__main__":
    main()
