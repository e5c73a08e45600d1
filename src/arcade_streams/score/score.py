"""How good a commentary of an arcade clip is: what was said against the truth, nothing else read."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..worlds.context import Colours, Context
from ..worlds.game import Game
from ..worlds.games import GAMES
from ..worlds.language import GameEvent
from .figures import RARE, VISION_WINDOW, Counts, Key, ScoreError, figures, pool

Timed = list[tuple[int, GameEvent]]
Row = tuple[int, int, str]
Record = Mapping[str, Any]
Said = Record | Sequence[Record]

SETTLE = 2
"""Seconds after a match's words in which the tally of the finished match may still be said."""
LAGS = (17, 29, 43, 59, 71, 97)
"""Shifts of the truth, in seconds, that give the chance level."""


def score(truth: Record, predictions: Said) -> dict[str, Any]:
    """The figures of one clip.

    ``truth``: ``{"video", "game", "title", "content": [[start, end, text], ...]}``; without a game it is Pong.
    ``predictions``: the same form, or one mapping with "start", "end" and "text" for each step. Times are seconds. A
    ratio without cases is None.
    """
    return score_many([(truth, predictions)])


def score_many(pairs: Iterable[tuple[Record, Said]]) -> dict[str, Any]:
    """The figures of several clips of one game pooled: counts are added before any ratio is taken."""
    return figures(pool([count(truth, predictions) for truth, predictions in pairs]))


def count(truth: Record, predictions: Said) -> Counts:
    """What is counted of one clip; see :func:`score` for the arguments and :func:`figures` for what follows."""
    game = game_of(truth)
    right, said = _rows(truth), _rows(predictions)
    duration = max([end for _, end, _ in right + said], default=0)
    true_events, said_events = _events(right, game), _events(said, game)
    chance: Counter[Key] = Counter()
    for lag in LAGS:
        chance += _overlap(true_events, _shifted(true_events, lag, duration))
    counts = _measure(true_events, said_events, duration, game) + _silence(right, said, duration)
    counts += _named(said_events, game.parse_context(str(truth.get("title", ""))))
    return Counts(game, counts, chance, _longest_repeat(said), 1)


def game_of(truth: Record) -> Game:
    """The game of a clip's truth; Pong where it names none, as clips did when there was no other. ScoreError."""
    name = truth.get("game", "pong")
    if name not in GAMES:
        raise ScoreError(f"unknown arcade game {name!r} (known: {', '.join(GAMES)})")
    return GAMES[name]


def score_files(clip: Path, out: Path) -> dict[str, Any]:
    """Scores a commentary file against a clip's truth file, both JSON lines."""
    truth, said = read(clip), read(out)
    if not isinstance(truth, Mapping):
        raise ScoreError(f"{clip} has no line with a 'content' list, so it is not the truth of a clip")
    return score(truth, said)


def read(path: Path) -> Said:
    """A clip's truth (a line with "content") or a commentary (a line for each event)."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except OSError as error:
        raise ScoreError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ScoreError(f"{path} is not JSON lines: {error}") from error
    if not all(isinstance(line, dict) for line in lines):
        raise ScoreError(f"{path}: every line must be a JSON object")
    if lines and "content" in lines[0]:
        return dict(lines[0])
    said = [line for line in lines if line.get("type", "commentary.done") == "commentary.done"]
    return [line for line in said if "start" in line and "text" in line]


def _rows(said: Said) -> list[Row]:
    """(second, end, text) of every row; a row belongs to the second in which it starts."""
    try:
        if isinstance(said, Mapping):
            triples = [(start, end, text) for start, end, text in said["content"]]
        else:
            triples = [(row["start"], row.get("end", row["start"] + 1), row["text"]) for row in said]
        return [(int(start + 1e-6), int(end + 0.999), str(text)) for start, end, text in triples]
    except (KeyError, TypeError, ValueError) as error:
        raise ScoreError(f"a row of commentary needs a start, an end and a text: {error!r}") from error


def _events(rows: list[Row], game: Game) -> Timed:
    parse = game.language.parse
    return sorted(((at, event) for at, _, text in rows for event in parse(text)), key=lambda pair: pair[0])


def _shifted(events: Timed, lag: int, duration: int) -> Timed:
    return sorted((((at + lag) % max(1, duration), event) for at, event in events), key=lambda pair: pair[0])


def _pairs(true: Sequence[int], said: Sequence[int], reach: int) -> list[tuple[int, int]]:
    """Index pairs of two rising lists of seconds, one to one, at most ``reach`` apart, nearest first."""
    gaps = sorted(
        (abs(t - said[j]), i, j)
        for i, t in enumerate(true)
        for j in range(bisect_left(said, t - reach), bisect_right(said, t + reach))
    )
    left, right, chosen = set(range(len(true))), set(range(len(said))), []
    for _, i, j in gaps:
        if i in left and j in right:
            left.remove(i)
            right.remove(j)
            chosen.append((i, j))
    return chosen


def _overlap(true: Timed, said: Timed) -> Counter[Key]:
    """By kind: how many were true, said, and matched with all facts right, at once and within 1 s."""
    counts: Counter[Key] = Counter()
    places: dict[GameEvent, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, events in enumerate((true, said)):
        for at, event in events:
            places[event][side].append(at)
            counts["kind", event.kind, ("n_true", "n_said")[side]] += 1
    for event, (trues, saids) in places.items():
        gaps = [abs(trues[i] - saids[j]) for i, j in _pairs(trues, saids, 1)]
        counts["kind", event.kind, "near"] += len(gaps)
        counts["kind", event.kind, "strict"] += gaps.count(0)
    return counts


def _measure(true: Timed, said: Timed, duration: int, game: Game) -> Counter[Key]:
    facts = _facts(true, said, game.language.kinds)
    counts = _overlap(true, said) + facts + _tallies(true, said, game.colours) + _repeats(said)
    parts = {f"fifth {i}": (duration * i / 5, duration * (i + 1) / 5) for i in range(5)}
    parts |= {"minutes_0_2": (0, 120)} if duration >= 120 else {}
    parts |= {"minutes_8_10": (480, 600)} if duration >= 600 else {}
    parts |= {"minutes_0_10": (0, 600), "last_30_minutes": (duration - 1800, duration)} if duration >= 2400 else {}
    for name, (low, high) in parts.items():
        inside = _overlap(*([pair for pair in events if low <= pair[0] < high] for events in (true, said)))
        for (_, kind, what), n in inside.items():
            counts["part", name, kind, what] += n
    counts["seconds",] += duration
    return counts


def _facts(true: Timed, said: Timed, kinds: Sequence[str]) -> Counter[Key]:
    """Events matched by kind and time alone: which of their facts are right."""
    counts: Counter[Key] = Counter()
    last: dict[tuple[str | None, str], int] = {}
    for kind in kinds:
        trues = [pair for pair in true if pair[1].kind == kind]
        saids = [pair for pair in said if pair[1].kind == kind]
        found = {i: saids[j][1] for i, j in _pairs([t for t, _ in trues], [s for s, _ in saids], 1)}
        for i, (at, event) in enumerate(trues):
            rare = event.name or event.town
            gap = at - last.get((event.colour, kind), -RARE - 1)
            if rare is not None:
                last[event.colour, kind] = at
            if i in found:
                _compare(counts, event, found[i], "far" if gap > RARE else "near")
    return counts


def _compare(counts: Counter[Key], event: GameEvent, said: GameEvent, gap: str) -> None:
    def note(what: str, right: bool) -> None:
        counts["fact", what, "n"] += 1
        counts["fact", what, "right"] += right

    if event.colour is not None:
        note("colours", said.colour == event.colour)
    if event.zone is not None:
        note("zones", said.zone == event.zone)
    if event.numbers:
        note(event.kind, said.numbers == event.numbers and said.colour == event.colour)
    if event.name or event.town:
        right = (said.name, said.town) == (event.name, event.town)
        note("names", right)
        note("names " + gap, right)


def _named(said: Timed, context: Context | None) -> Counter[Key]:
    """Names and towns that are said: which are those that the context gives to the side they are said of.

    Whether one was due, and of which side, follows from the tally: that is not asked here.
    """
    counts: Counter[Key] = Counter()
    for _, event in said:
        if context is not None and event.colour is not None and (event.name or event.town):
            player = context.player(event.colour)
            right = (event.name or player.name, event.town or player.town) == (player.name, player.town)
            counts["fact", "names said", "n"] += 1
            counts["fact", "names said", "right"] += right
    return counts


def _tallies(true: Timed, said: Timed, colours: Colours) -> Counter[Key]:
    """Steps from one said tally to the next, judged by the true games in between and by the games said."""
    counts: Counter[Key] = Counter()
    for source, events in (("true", true), ("self", said)):
        changes = sorted(
            ((at + SETTLE * (event.kind == "match"), event) for at, event in events if event.kind in ("game", "match")),
            key=lambda pair: pair[0],
        )
        at, value = -1, (0, 0)
        for now, event in said:
            if event.kind != "tally":
                continue
            expected = _play(value, [change for when, change in changes if at < when <= now], colours)
            gap = "first" if at < 0 else "short" if now - at <= VISION_WINDOW else "long"
            for key in ("all", gap):
                counts["tally", source, key, "n"] += 1
                counts["tally", source, key, "right"] += event.numbers == expected
            at, value = now, (event.numbers[0], event.numbers[1])
    return counts


def _play(tally: tuple[int, int], changes: Iterable[GameEvent], colours: Colours) -> tuple[int, int]:
    """The tally after some games and matches; a match sets it back to 0 to 0."""
    for event in changes:
        one, other = (event.kind == "game" and event.colour == colour for colour in colours)
        tally = (0, 0) if event.kind == "match" else (tally[0] + one, tally[1] + other)
    return tally


def _repeats(said: Timed) -> Counter[Key]:
    """Events that say again what was said one or two seconds before."""
    counts: Counter[Key] = Counter({("repeat", "n"): len(said)})
    last: dict[GameEvent, int] = {}
    for at, event in said:
        counts["repeat", "again"] += at - last.get(event, -9) <= 2
        last[event] = at
    return counts


def _silence(true: Sequence[Row], said: Sequence[Row], duration: int) -> Counter[Key]:
    """Seconds in which nothing is said, and how many of them are truly silent."""
    spoken, meant = ({at for at, _, text in rows if text.strip()} for rows in (said, true))
    silent = set(range(duration)) - spoken
    return Counter({("silence", "n"): len(silent), ("silence", "right"): len(silent - meant)})


def _longest_repeat(rows: list[Row]) -> int:
    """The longest run of rows with one and the same text, silent rows left out."""
    texts = [text.strip() for _, _, text in rows if text.strip()]
    longest = run = 0
    for i, text in enumerate(texts):
        run = run + 1 if i and text == texts[i - 1] else 1
        longest = max(longest, run)
    return longest
