"""How well rules do on games whose truth is known exactly: precision, recall and delay of their alerts.

    nice python scripts/rule_figures.py --seconds 180 --seeds 9000810 9000811

The bundled model watches streams of each game that are in no training set. Three kinds of rules watch it:

- ``says``: a regular expression on the words, for what happens in one second;
- ``own sentences``: asked by how likely the model is to say, as its next point, one that could only follow if the rule
  were so: this is how a model that was trained on commentary and on no question can be asked;
- ``yes or no``: the plain question, which the bundled model was never trained for.

An alert is right if what it tells began within --within seconds before it (twice that for rules that are asked: every
3 s, and they need two findings); every truth counts for one alert. Beside each rule stand the same rule if all its
findings were yes, and if they were no: that one never raises, so its recall is 0 and it has no precision. The second
table compares each single finding of an asked rule with the truth of that moment; there the share of yes in the truth
is the precision of always yes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

import streamingvlm
from arcade_streams.worlds.context import EVALUATION_SEEDS
from arcade_streams.worlds.game import Game
from arcade_streams.worlds.games import GAMES
from arcade_streams.worlds.language import EventKind, GameEvent
from arcade_streams.worlds.source import ArcadeSource
from arcade_streams.worlds.stream import GameStream
from streamingvlm.core.events import Alert, Answer, Event
from streamingvlm.runtime.rule_files import rule_of
from streamingvlm.runtime.rule_state import Finding, Rule
from streamingvlm.runtime.rules import AskedRule, RuleSpec
from streamingvlm.runtime.runtime import Runtime

#: Every alert counts, and nothing that happens soon behind another is kept back.
PLAIN = {"cooldown": 0.0, "merge_gap": 0.0, "max_event": 0.0}
WORDS = PLAIN | {"on_after": 1, "off_after": 1}
ASKED = PLAIN | {"on_after": 2, "off_after": 2, "every": 3.0}
Spans = list[tuple[float, float]]


@dataclass
class Case:
    """A rule of a game, and when it is truly so in a stream: half-open spans of seconds, by what was said."""

    label: str
    spec: RuleSpec
    truth: Callable[[Sequence[Sequence[GameEvent]]], Spans]


@dataclass
class Tally:
    """What came of a rule, over all streams of a game."""

    truths: int = 0
    alerts: int = 0
    right: int = 0
    always_alerts: int = 0
    always_right: int = 0
    delays: list[float] = field(default_factory=list)
    yes_right: int = 0
    yes_found: int = 0
    yes_true: int = 0
    findings: int = 0
    unknown: int = 0


def cases_of(game: Game) -> list[Case]:
    """The rules of one game."""
    colour = game.colours[0]
    kinds = {kind.name: kind for kind in game.kinds}
    named = [("point", colour), ("game", None)]
    named += [(kind, None) for kind in ("rally", "flurry", "save") if kind in kinds][:1]
    cases = []
    for kind, side in named:
        name = kind if side is None else f"{kind}-{side}"
        table = {"name": name, "says": pattern(kinds[kind], side, game.colours)} | WORDS
        cases.append(Case("says", rule_of(table), of_seconds(kind, side)))
    ahead = {"ask": f"{colour} is ahead in the game that is going on"} | ASKED
    own = {"question": "-", "prefix": "\n", "options": replies_if_ahead(game)}
    cases.append(Case("own sentences", rule_of({"name": f"ahead-{colour}"} | ahead | own), of_lead(0)))
    cases.append(Case("yes or no", rule_of({"name": f"ahead-{colour}-asked"} | ahead), of_lead(0)))
    return cases


def pattern(kind: EventKind, side: str | None, colours: Sequence[str]) -> str:
    """Any wording of a kind, of one side or of either."""
    who = side or "(?:" + "|".join(colours) + ")"
    places = {"{colour}": who, "{who}": rf"(?:player {who} \w+|{who})", "{zone}": "(?:" + "|".join(kind.zones) + ")"}
    wordings = []
    for wording in kind.wordings:
        for place, text in places.items():
            wording = wording.replace(place, text)
        wordings.append(wording)
    return rf"(?:^|; )(?:{'|'.join(wordings)})(?: ;|$)"  # a whole clause: "game point green" tells no point


def replies_if_ahead(game: Game) -> dict[str, list[str]]:
    """How the model would tell the next point, by whether the first side is ahead before it."""
    replies: dict[str, list[str]] = {"yes": [], "no": [], "unknown": []}
    most = game.rules.points_to_win
    # Where a goal's origin stands between the two, any one will do: all options have the same.
    origin = [GameEvent("origin", zone=kind.zones[1]) for kind in game.kinds if kind.name == "origin"]
    for a in range(most):
        for b in range(most):
            for side, colour in enumerate(game.colours):
                score = GameEvent("score", numbers=(a + (side == 0), b + (side == 1)))
                text = game.language.say([GameEvent("point", colour), *origin, score], game.language.plain)
                replies["yes" if a > b else "no"].append(text)
    return replies


def of_seconds(kind: str, side: str | None) -> Callable[[Sequence[Sequence[GameEvent]]], Spans]:
    """The seconds that tell an event of a kind; seconds in a row are one span."""

    def truth(said: Sequence[Sequence[GameEvent]]) -> Spans:
        hits = [any(one.kind == kind and side in (None, one.colour) for one in events) for events in said]
        return spans(hits)

    return truth


def of_lead(side: int) -> Callable[[Sequence[Sequence[GameEvent]]], Spans]:
    """While a side is ahead, from the second that tells the score on; a game that is won leaves it level."""

    def truth(said: Sequence[Sequence[GameEvent]]) -> Spans:
        score, hits = (0, 0), []
        for events in said:
            for event in events:
                if event.kind == "score":
                    score = (event.numbers[0], event.numbers[1])
            if any(event.kind == "game" for event in events):
                score = (0, 0)
            hits.append(score[side] > score[1 - side])
        return spans(hits)

    return truth


def spans(hits: Sequence[bool]) -> Spans:
    """The runs of true seconds."""
    found: Spans = []
    for second, hit in enumerate(hits):
        if hit and found and found[-1][1] == second:
            found[-1] = (found[-1][0], second + 1.0)
        elif hit:
            found.append((float(second), second + 1.0))
    return found


class Kept:
    """A sink that keeps alerts."""

    def __init__(self) -> None:
        self.alerts: list[Alert] = []

    def write(self, event: Event) -> None:
        """See :meth:`Sink.write`."""
        if isinstance(event, Alert) and event.kind == "raised":
            self.alerts.append(event)

    def close(self) -> None:
        """See :meth:`Sink.close`."""


class AskAtOnce:
    """Asks in a fork, and waits; keeps what was answered."""

    def __init__(self, engine: streamingvlm.Engine) -> None:
        self.engine, self.answers = engine, list[Answer]()
        self._fork: streamingvlm.Fork | None = None

    def weigh(self, pipeline: Any, questions: Sequence[streamingvlm.Question], done: Callable[[Any], None]) -> None:
        """See :meth:`Asker.weigh`."""
        self._fork = self._fork or self.engine.fork(pipeline.session)
        self._fork.take(pipeline.session)
        replies = [self._fork.ask(question) for question in questions]
        self.answers += replies
        done(replies)


def watch(model: Any, game: Game, seed: int, seconds: int, cases: Sequence[Case]) -> tuple[list[Alert], list[Answer]]:
    """Alerts that were raised in one stream, and what was answered."""
    source, kept = ArcadeSource(game, seed, duration=float(seconds)), Kept()
    engine = streamingvlm.Engine(model, slots=2)
    with Runtime(engine, patience=60.0) as runtime:
        runtime.asker = asker = AskAtOnce(engine)
        runtime.start(source, sinks=[kept], context=source.context, rules=[case.spec for case in cases]).wait()
    return kept.alerts, asker.answers


def matched(truths: Spans, raised: Iterable[float], within: float) -> list[float]:
    """Delays of the alerts that are right: each truth is found by the first alert at most ``within`` s behind it."""
    left, delays = [begin for begin, _ in truths], []
    for moment in sorted(raised):
        found = next((begin for begin in left if 0 <= moment - begin <= within), None)
        if found is not None:
            left.remove(found)
            delays.append(moment - found)
    return delays


def add(tally: Tally, case: Case, truths: Spans, alerts: Sequence[Alert], answers: Sequence[Answer], args: Any) -> None:
    """Count one stream of a rule."""
    within = args.within * (2 if isinstance(case.spec, AskedRule) else 1)
    raised = [alert.time for alert in alerts if alert.rule == case.spec.name]
    delays = matched(truths, raised, within)
    always = Rule(case.spec)
    every = int(case.spec.every) if isinstance(case.spec, AskedRule) else 1
    constant = [one.time for second in range(1, args.seconds + 1, every) for one in always.find(Finding(second, "yes"))]
    tally.truths, tally.alerts = tally.truths + len(truths), tally.alerts + len(raised)
    tally.right, tally.delays = tally.right + len(delays), tally.delays + delays
    tally.always_alerts += len(constant)
    tally.always_right += len(matched(truths, constant, within))
    if isinstance(case.spec, AskedRule):
        for answer in answers:
            if answer.question == case.spec.asked:
                verdict, _ = case.spec.verdict(answer)
                true = any(begin < answer.time <= end for begin, end in truths)
                tally.findings, tally.unknown = tally.findings + 1, tally.unknown + (verdict == "unknown")
                tally.yes_true, tally.yes_found = tally.yes_true + true, tally.yes_found + (verdict == "yes")
                tally.yes_right += true and verdict == "yes"


def ratio(part: int, whole: int) -> str:
    """``part`` of ``whole``, or that there is none."""
    return f"{part / whole:.2f}" if whole else "-"


def rows(tallies: dict[tuple[str, str, str], Tally]) -> Iterable[str]:
    """The tables in Markdown."""
    yield "| game | rule | kind | truths | alerts | precision | recall | always yes | delay (median) |"
    yield "|---|---|---|---:|---:|---:|---:|---:|---:|"
    for (game, rule, label), one in tallies.items():
        delay = f"{median(one.delays):.0f} s" if one.delays else "-"
        always = f"{ratio(one.always_right, one.always_alerts)} / {ratio(one.always_right, one.truths)}"
        values = [one.truths, one.alerts, ratio(one.right, one.alerts), ratio(one.right, one.truths), always, delay]
        yield "| " + " | ".join([game, rule, label, *map(str, values)]) + " |"
    yield ""
    yield "| game | rule | kind | findings | truly yes | precision | recall | unknown |"
    yield "|---|---|---|---:|---:|---:|---:|---:|"
    for (game, rule, label), one in tallies.items():
        if one.findings:
            precision, recall = ratio(one.yes_right, one.yes_found), ratio(one.yes_right, one.yes_true)
            values = [one.findings, ratio(one.yes_true, one.findings), precision, recall, one.unknown]
            yield "| " + " | ".join([game, rule, label, *map(str, values)]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="+", default=list(GAMES), choices=list(GAMES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[9_000_810, 9_000_811])
    parser.add_argument("--seconds", type=int, default=180)
    parser.add_argument("--within", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if min(args.seeds) < EVALUATION_SEEDS:
        parser.error(f"seeds below {EVALUATION_SEEDS} are for training")
    torch.set_num_threads(1)
    model, began = streamingvlm.load_model(), time.perf_counter()
    tallies: dict[tuple[str, str, str], Tally] = {}
    for name in args.games:
        game = GAMES[name]
        cases = cases_of(game)
        for seed in args.seeds:
            alerts, answers = watch(model, game, seed, args.seconds, cases)
            said = [second.events for second in islice(GameStream(game, seed, render=False), args.seconds)]
            for case in cases:
                tally = tallies.setdefault((name, case.spec.name, case.label), Tally())
                add(tally, case, case.truth(said), alerts, answers, args)
            print(f"{name} {seed}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    print("\n".join(rows(tallies)))
    seconds = args.seconds * len(args.seeds)
    print(f"\n{seconds} s of each game, seeds {args.seeds}; right within {args.within:g} s (asked: twice that).")
    print(f"{time.perf_counter() - began:.0f} s on one thread of {platform.machine()}, torch {torch.__version__}")
    if args.json:
        table = {" ".join(key): vars(one) for key, one in tallies.items()}
        args.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
