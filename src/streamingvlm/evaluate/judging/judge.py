"""Asks a judge for its votes: both orders of every pair, each verdict paid once, failures never votes.

A text that is empty is not sent: the other one has won, or it is a tie. A reply in another form is asked for again a
bounded number of times; then, like a call that has failed, it is an error in the place of a vote, and the next run asks
again. What was paid is in the cache before it is in the votes.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, get_args
from urllib.parse import urlsplit

from ...core.errors import EndpointError, OptionError
from ...engine.endpoint import Accepted, Completion, Endpoint
from .cache import Cache, verdict_key
from .prompts import RESPONSE_FORMAT, JudgePrompt, Winner, ask_again, parse, shown
from .votes import Choice, Order, Pair, Vote
from .votes_file import Judged, Place, Slot, VotesFile, read_votes, slot

#: Asks that follow a reply in another form.
REASKS = 2
#: Failures after which nothing else can succeed.
FATAL = frozenset({"auth", "not_found", "refused_parameter"})
#: Calls that may fail one after the other before the run is given up.
FAILURES = 20
#: Seconds for which a run that is stopped waits for calls that are under way: they are paid.
GRACE = 10.0
#: How many characters are taken to be a token, and tokens of a reply, in an estimate.
CHARACTERS, REPLY = 4, 10
#: What runs without a parameter that a judge refuses.
OPTIONS = {"temperature": "--no-temperature", "seed": "--no-seed"}


@dataclass(frozen=True, slots=True)
class Parameters:
    """What is sent beside the texts (None: not sent). ``max_tokens``: of a reply, its reasoning included."""

    temperature: float | None = 0.0
    seed: int | None = 42
    max_tokens: int | None = 4096

    def wanted(self) -> dict[str, Any]:
        """As a request has them."""
        wanted = {"temperature": self.temperature, "seed": self.seed, "max_tokens": self.max_tokens}
        return {name: value for name, value in wanted.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would cost. ``calls``: to be paid; ``kept``: votes that are there, or made of cached verdicts;
    ``by_rule``: votes on empty texts; tokens are estimates, ``completion_tokens`` for a judge that does not reason."""

    calls: int
    kept: int
    by_rule: int
    prompt_tokens: int
    completion_tokens: int

    def cost(self, price_in: float, price_out: float) -> float:
        """Of all calls. Prices: per million tokens."""
        return (self.prompt_tokens * price_in + self.completion_tokens * price_out) / 1e6


@dataclass(frozen=True, slots=True)
class _Ask:
    """One verdict to be had, and the votes that are made of it."""

    key: str
    messages: list[dict[str, Any]]
    votes: list[tuple[Pair, Order, int]]


@dataclass(frozen=True, slots=True)
class _Answer:
    """``winner``: None for an error; ``call``: as a vote keeps it, without the request."""

    winner: Winner | None
    call: Mapping[str, Any]
    error: EndpointError | None = None


class Judge:
    """A model at an endpoint with a prompt and parameters.

    ``repeats``: how often every vote is asked for, under the same parameters; ``workers``: calls at once. Tables of
    what the endpoint takes are kept in the cache: give the endpoint that of :func:`known_table`.
    """

    def __init__(
        self,
        chat: Endpoint,
        prompt: JudgePrompt,
        parameters: Parameters,
        cache: Cache,
        *,
        repeats: int = 1,
        workers: int = 8,
        reasks: int = REASKS,
    ) -> None:
        if repeats < 1 or workers < 1 or reasks < 0:
            raise OptionError("repeats and workers are at least 1, further asks at least 0")
        self.chat, self.prompt, self.parameters, self.cache = chat, prompt, parameters, cache
        self.repeats, self.workers, self.reasks = repeats, workers, reasks

    def prepare(self) -> None:
        """Find out what the endpoint takes, unless that is known; OptionError if it refuses what was asked for."""
        before = self.chat.accepted
        accepted = self.chat.probe({**self.parameters.wanted(), "response_format": RESPONSE_FORMAT})
        if accepted != before:
            self.cache.put(_table_key(self.chat.url, self.chat.model), {"accepted": accepted.as_json()})
        refused = accepted.refused(self.parameters.wanted())
        if refused:
            what = ", ".join(f"{one.shown} ({one.reason})" for one in refused)
            raise OptionError(f"the judge {self.chat!r} refuses {what}; {_way([one.name for one in refused])}")

    @property
    def params(self) -> dict[str, Any]:
        """What is sent with every request. Whatever was never tried is taken to be accepted."""
        wanted = self.parameters.wanted()
        schema = self.chat.accepted.takes("response_format", RESPONSE_FORMAT) is not False
        return {**wanted, "response_format": RESPONSE_FORMAT} if schema else wanted

    @property
    def identity(self) -> dict[str, Any]:
        """All that makes this judge another than others."""
        reply = "json_schema" if "response_format" in self.params else "text"
        return {
            "judge": self.chat.model,
            "host": urlsplit(self.chat.url).hostname or "",
            "prompt": self.prompt.version,
            "parameters": {**self.parameters.wanted(), "reply": reply},
        }

    def plan(self, pairs: Sequence[Pair], votes_path: Path) -> Plan:
        """What is still to be asked for. Nothing is sent or written."""
        there: dict[Slot, Vote] = {}
        if votes_path.exists() and votes_path.stat().st_size:
            there = {slot(vote): vote for vote in read_votes(votes_path).votes}
        rule, _, asks = self._sorted(pairs, there)
        total = len(pairs) * 2 * self.repeats
        characters = sum(len(part["content"]) for ask in asks for part in ask.messages)
        to_come = sum(len(ask.votes) for ask in asks)
        by_rule = sum(vote.empty != "" for vote in there.values()) + len(rule)
        tokens = round(characters / CHARACTERS)
        return Plan(len(asks), total - to_come - by_rule, by_rule, tokens, REPLY * len(asks))

    def run(
        self,
        votes_path: Path,
        pairs: Sequence[Pair],
        places: Sequence[Place],
        about: Mapping[str, Any],
        done: Callable[[float], None] | None = None,
    ) -> Judged:
        """All votes of ``pairs``, in the file and returned; what is there already is not asked for.

        ``places``: every window of the data, also those that are left out; ``about``: ``task``, ``revision``, ``a`` and
        ``b``; ``done``: is told how many votes there are. Raises EndpointError where no call can succeed.
        """
        settings = {**about, **self.identity, "repeats": self.repeats, "accepted": self.chat.accepted.as_json()}
        file = VotesFile(votes_path, settings, places)
        try:
            rule, cached, asks = self._sorted(pairs, file.votes)
            for vote in (*rule, *cached):
                file.add(vote)
            for ask, answer in self._answers(asks):
                for vote in self._votes(ask, answer, paid=True):
                    file.add(vote)
                if done is not None:
                    done(len(file.votes))
            return Judged(settings, places, list(file.votes.values()))
        finally:
            file.close()

    def _sorted(self, pairs: Sequence[Pair], there: Mapping[Slot, Vote]) -> tuple[list[Vote], list[Vote], list[_Ask]]:
        """Votes that are missing: those decided by rule, those of cached verdicts, and what has to be asked."""
        rule, found, asks = list[Vote](), list[Vote](), dict[str, _Ask]()
        identity = self.identity
        for pair in pairs:
            a, b, reference = shown(pair.a), shown(pair.b), shown(pair.reference)
            for repeat in range(self.repeats):
                for order in get_args(Order):
                    before = there.get((pair.window, order, repeat))
                    if before is not None and before.choice is not None:
                        continue
                    if not a or not b:
                        rule.append(_by_rule(pair, order, repeat))
                        continue
                    texts = (a, b) if order == "ab" else (b, a)
                    key = verdict_key(identity, *texts, reference, repeat)
                    if key not in asks:
                        asks[key] = _Ask(key, self.prompt.messages(pair.reference, *_ordered(pair, order)), [])
                    asks[key].votes.append((pair, order, repeat))
        for key in list(asks):
            row = self.cache.get(key)
            if row is not None and row.get("winner") in get_args(Winner):
                found += self._votes(asks.pop(key), _Answer(row["winner"], row.get("call") or {}), paid=False)
        return rule, found, list(asks.values())

    def _votes(self, ask: _Ask, answer: _Answer, *, paid: bool) -> Iterator[Vote]:
        for number, (pair, order, repeat) in enumerate(ask.votes):
            choice = None if answer.winner is None else _chosen(answer.winner, order)
            call = {"request": ask.messages, **answer.call, "cached": not paid or number > 0}
            error = "" if choice else str(call.pop("error"))
            yield _vote(pair, order, repeat, choice, key=ask.key, error=error, call=call)

    def _answers(self, asks: Sequence[_Ask]) -> Iterator[tuple[_Ask, _Answer]]:
        """Answers as they come. Threads of their own, so that who stops the run does not wait for slow calls."""
        todo: SimpleQueue[_Ask] = SimpleQueue()
        for ask in asks:
            todo.put(ask)
        answers: SimpleQueue[tuple[_Ask, _Answer | BaseException]] = SimpleQueue()
        stop = threading.Event()
        workers = [
            threading.Thread(target=self._work, args=(todo, answers, stop), daemon=True)
            for _ in range(min(self.workers, len(asks)))
        ]
        for worker in workers:
            worker.start()
        try:
            failures = 0
            for _ in asks:
                ask, answer = answers.get()
                if isinstance(answer, BaseException):
                    raise answer
                failures = failures + 1 if answer.error is not None else 0
                self._check(answer.error)
                yield ask, answer
                if failures >= FAILURES and answer.error is not None:
                    raise answer.error
        finally:
            stop.set()
            until = time.monotonic() + GRACE
            for worker in workers:
                worker.join(max(0.0, until - time.monotonic()))

    def _check(self, error: EndpointError | None) -> None:
        """Raise what makes further calls senseless."""
        if error is None or error.kind not in FATAL:
            return
        if error.kind == "refused_parameter":
            self.cache.put(_table_key(self.chat.url, self.chat.model), {})  # it is not as it was: probe again
            raise OptionError(f"{error}; {_way([error.parameter])}")
        raise error

    def _work(
        self,
        todo: SimpleQueue[_Ask],
        answers: SimpleQueue[tuple[_Ask, _Answer | BaseException]],
        stop: threading.Event,
    ) -> None:
        while not stop.is_set():
            try:
                ask = todo.get_nowait()
            except Empty:
                return
            try:
                answers.put((ask, self._ask(ask, stop)))
            except BaseException as error:  # whatever it is, it belongs to who runs
                answers.put((ask, error))
                return

    def _ask(self, ask: _Ask, stop: threading.Event) -> _Answer:
        messages, replies = ask.messages, list[Completion]()
        for _ in range(1 + self.reasks):
            if replies and stop.is_set():
                break
            try:
                reply = self.chat.chat(messages, self.params)
            except EndpointError as error:
                return _Answer(None, _call(replies) | {"error": f"{error.kind}: {error}"}, error)
            replies.append(reply)
            winner = parse(reply.text)
            if winner is not None:
                call = _call(replies)
                self.cache.put(ask.key, {"winner": winner, "call": call})
                return _Answer(winner, call)
            messages = ask_again(ask.messages, reply.text)
        ended = replies[-1].finish_reason
        why = f"unparsed: {len(replies)} replies in another form (the last ended with {ended or 'no reason'})"
        return _Answer(None, _call(replies) | {"error": why})


def known_table(cache: Cache, url: str, model: str) -> Accepted | None:
    """What an earlier run has found out about an endpoint, without refusals that end a run: they are tried anew."""
    row = cache.get(_table_key(url, model))
    if row is None or "accepted" not in row:
        return None
    table = Accepted.from_json(row["accepted"])
    return replace(table, verdicts=tuple(one for one in table.verdicts if one.taken or one.name not in OPTIONS))


def _way(refused: Sequence[str]) -> str:
    """What to do where parameters are refused."""
    options = [OPTIONS[name] for name in refused if name in OPTIONS]
    return f"to judge without, add {' '.join(options)}" if options else "the same command finds out anew what it takes"


def _table_key(url: str, model: str) -> str:
    return f"accepted by {model} at {url.rstrip('/')}"


def _ordered(pair: Pair, order: Order) -> tuple[str, str]:
    return (pair.a, pair.b) if order == "ab" else (pair.b, pair.a)


def _chosen(winner: Winner, order: Order) -> Choice:
    """The contestant that stood where the winner did."""
    places: tuple[Choice, Choice] = ("a", "b") if order == "ab" else ("b", "a")
    return "tie" if winner == "tie" else places["AB".index(winner)]


def _by_rule(pair: Pair, order: Order, repeat: int) -> Vote:
    """The vote on a pair of which a text is empty."""
    empty = ("" if shown(pair.a) else "a") + ("" if shown(pair.b) else "b")
    choices: Mapping[str, Choice] = {"a": "b", "b": "a", "ab": "tie"}
    return _vote(pair, order, repeat, choices[empty], empty=empty)


def _vote(pair: Pair, order: Order, repeat: int, choice: Choice | None, *, key: str = "", **more: Any) -> Vote:
    """Words are counted in what the judge was shown."""
    words_a, words_b = len(shown(pair.a).split()), len(shown(pair.b).split())
    place = (pair.window, pair.video, pair.group, pair.start, pair.end)
    return Vote(*place, order, repeat, choice, key, words_a=words_a, words_b=words_b, **more)


def _call(replies: Sequence[Completion]) -> dict[str, Any]:
    """What a vote keeps of its call: ``usage`` and ``tries`` of all asks together, the rest of the last one."""
    if not replies:
        return {"asks": 0}
    last, usage = replies[-1], defaultdict[str, int](int)
    for reply in replies:
        usage["prompt_tokens"] += reply.usage.prompt_tokens or 0
        usage["completion_tokens"] += reply.usage.completion_tokens or 0
    return {
        "sent": dict(last.sent),
        "model": last.model,
        "fingerprint": last.fingerprint,
        "usage": dict(usage),
        "reply": last.text,
        "replies": [reply.text for reply in replies],
        "finish_reason": last.finish_reason,
        "asks": len(replies),
        "tries": sum(reply.tries for reply in replies),
        "seconds": round(sum(reply.seconds for reply in replies), 3),
    }
