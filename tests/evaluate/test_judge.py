"""A judge over the real protocol: what is sent, what becomes a vote, what is paid."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.errors import EndpointError, OptionError, SourceError
from streamingvlm.engine.endpoint import Endpoint
from streamingvlm.evaluate.judging.cache import Cache
from streamingvlm.evaluate.judging.judge import Judge, Parameters, known_table
from streamingvlm.evaluate.judging.pairs import places_of
from streamingvlm.evaluate.judging.prompts import open_prompt
from streamingvlm.evaluate.judging.votes import Pair
from streamingvlm.evaluate.judging.votes_file import Judged
from streamingvlm.evaluate.judging.win_rates import win_rates
from support.chat_server import ChatServer, broken, refusal, slow, too_many
from support.judges import JudgeReply, always, fair, longest, make_pairs, make_windows, part, says, sections

WINDOWS = make_windows()
PAIRS = make_pairs(WINDOWS, part(0.8), part(0.4))
ABOUT: dict[str, Any] = {"task": "inf-streams", "revision": "r", "a": {"name": "x"}, "b": {"name": "y"}}
#: Probes of temperature, seed, bound and schema.
PROBES = 4


def no_wait(seconds: float) -> None:
    """Retries are at once."""


@contextmanager
def judge_at(server: ChatServer, folder: Path, parameters: Parameters | None = None, **options: Any) -> Iterator[Judge]:
    """A prepared judge; ``retries`` and ``key`` are the endpoint's."""
    given = {name: options.pop(name) for name in ("key", "retries", "timeout") if name in options}
    with closing(Cache(folder / "cache.jsonl")) as cache:
        table = known_table(cache, server.url, "judge-1")
        at = {"key": None, "retries": 0, "accepted": table, "sleep": no_wait} | given
        with Endpoint(server.url, "judge-1", **at) as endpoint:
            judge = Judge(endpoint, open_prompt("inf-streams/1"), parameters or Parameters(), cache, **options)
            judge.prepare()
            yield judge


def run(
    server: ChatServer, folder: Path, pairs: Sequence[Pair] = PAIRS, out: str = "votes.jsonl", **options: Any
) -> Judged:
    """Judge at a server that runs."""
    with judge_at(server, folder, **options) as judge:
        return judge.run(folder / out, pairs, places_of(WINDOWS), ABOUT)


def judged_by(
    reply: JudgeReply | ChatServer,
    folder: Path,
    pairs: Sequence[Pair] = PAIRS,
    out: str = "votes.jsonl",
    **options: Any,
) -> Judged:
    """Judge at a server that runs for as long as that takes."""
    with reply if isinstance(reply, ChatServer) else ChatServer(reply) as server:
        return run(server, folder, pairs, out, **options)


def figures(judged: Judged) -> dict[str, Any]:
    found: dict[str, Any] = win_rates(judged, resamples=100)["figures"]
    return found


def test_a_fair_judge_finds_the_better_one_in_both_orders(tmp_path: Path) -> None:
    found = figures(judged_by(fair, tmp_path))
    assert found["win_rate"] == {"value": 100.0, "low": 100.0, "high": 100.0, "n": 40}
    assert found["consistent"]["value"] == 100.0
    assert found["first_position"]["value"] == 50.0


def test_a_judge_of_the_first_place_is_exposed(tmp_path: Path) -> None:
    found = figures(judged_by(always("A"), tmp_path))
    assert (found["win_rate"]["value"], found["first_position"]["value"]) == (50.0, 100.0)
    assert (found["consistent"]["value"], found["flips"]["value"]) == (0.0, 100.0)
    assert "win_rate_consistent" not in found


def test_a_judge_of_length_is_exposed(tmp_path: Path) -> None:
    """a is the longer text in 16 of 20 windows, by more or by less."""
    pairs = [
        replace(
            pair, a="word " * (10 + place), b="word " * (10 + place + (1 if place % 5 == 0 else -1) * (1 + place % 7))
        )
        for place, pair in enumerate(PAIRS)
    ]
    found = figures(judged_by(longest, tmp_path, pairs))
    assert (found["win_rate"]["value"], found["consistent"]["value"]) == (80.0, 100.0)
    assert found["length_controlled"]["win_rate"]["value"] < 70.0


def test_a_judge_that_does_not_keep_to_the_form_gives_no_votes(tmp_path: Path) -> None:
    server = ChatServer(lambda request: "Commentary A is better.")  # noqa: ARG005
    judged = judged_by(server, tmp_path, PAIRS[:3])
    assert [vote.choice for vote in judged.votes] == [None] * 6
    assert {vote.error.partition(":")[0] for vote in judged.votes} == {"unparsed"}
    assert len(server.requests) == PROBES + 6 * 3  # asked, and twice again
    assert judged.votes[0].call["replies"] == ["Commentary A is better."] * 3
    assert win_rates(judged)["counts"]["errors_by_kind"] == {"unparsed": 6}


def test_a_reply_is_asked_for_again_and_the_vote_says_so(tmp_path: Path) -> None:
    def reply(request: Any) -> str:
        return fair(request) if len(request["messages"]) != 2 else "A"

    judged = judged_by(reply, tmp_path, PAIRS[:2])
    assert [vote.choice for vote in judged.votes] == ["a"] * 4
    call = judged.votes[0].call
    assert (call["asks"], call["replies"]) == (2, ["A", call["reply"]])
    assert call["usage"]["prompt_tokens"] > 2 * 40 * 3
    assert win_rates(judged)["counts"]["asked_again"] == 4


def test_every_vote_says_how_it_came_about(tmp_path: Path) -> None:
    server = ChatServer(fair, model="judge-1-2026-05-01", fingerprint="fp_7", key="sk-secret")
    judged_by(server, tmp_path, PAIRS[:2], key="sk-secret")
    lines = [json.loads(line) for line in (tmp_path / "votes.jsonl").read_text().splitlines()]
    settings, votes = lines[0]["settings"], lines[2:]
    assert (settings["judge"], settings["host"]) == ("judge-1", "127.0.0.1")
    assert settings["prompt"].startswith("inf-streams/1#")
    assert settings["parameters"] == {"temperature": 0.0, "seed": 42, "max_tokens": 4096, "reply": "json_schema"}
    assert [row["taken"] for row in settings["accepted"]["parameters"]] == [True] * PROBES
    assert len(lines[1]["windows"]) == 20
    for vote in votes:
        call = vote["call"]
        assert (call["model"], call["fingerprint"], call["asks"], call["cached"]) == (
            "judge-1-2026-05-01",
            "fp_7",
            1,
            False,
        )
        assert {name: call["sent"][name] for name in ("temperature", "seed", "max_tokens")} == {
            "temperature": 0.0,
            "seed": 42,
            "max_tokens": 4096,
        }
        assert call["sent"]["response_format"]["type"] == "json_schema"
        assert call["request"] in [request["messages"] for request in server.requests]
        assert call["usage"]["completion_tokens"] == 2
        assert json.loads(call["reply"])["winner"] == {"ab": "A", "ba": "B"}[vote["order"]]
        assert vote["words_a"] == vote["words_b"] == 40
    for path in tmp_path.iterdir():
        assert "sk-secret" not in path.read_text()


def test_both_orders_are_sent_and_no_title(tmp_path: Path) -> None:
    server = ChatServer(fair)
    judged_by(server, tmp_path, PAIRS[:1])
    asked = [sections(request) for request in server.requests[PROBES:]]
    pair = PAIRS[0]
    assert sorted(asked) == sorted([(pair.reference, pair.a, pair.b), (pair.reference, pair.b, pair.a)])
    assert pair.title not in json.dumps(server.requests)


def test_empty_texts_are_decided_and_never_sent(tmp_path: Path) -> None:
    server = ChatServer(always("A"))
    pairs = [replace(PAIRS[0], a=""), replace(PAIRS[1], b=" \n"), replace(PAIRS[2], a="\t", b="")]
    judged = judged_by(server, tmp_path, pairs)
    assert len(server.requests) == PROBES
    assert [(vote.choice, vote.empty) for vote in judged.votes] == [
        *[("b", "a")] * 2,
        *[("a", "b")] * 2,
        *[("tie", "ab")] * 2,
    ]


@pytest.mark.parametrize(
    "faults", [[too_many()] * 3, [broken()] * 3, [broken(503), too_many(0), broken(502)], [slow(1.0)] * 2]
)
def test_what_passes_is_tried_again_and_no_vote_is_lost(faults: list[Any], tmp_path: Path) -> None:
    with (
        ChatServer(fair) as server,
        judge_at(server, tmp_path, retries=3, timeout=0.5 if faults[0].slow else 5) as judge,
    ):
        server.faults += faults
        judged = judge.run(tmp_path / "votes.jsonl", PAIRS[:2], places_of(WINDOWS), ABOUT)
    assert [vote.choice for vote in judged.votes] == ["a"] * 4
    assert sum(vote.call["tries"] for vote in judged.votes) == 4 + len(faults)


@pytest.mark.parametrize(("fault", "kind"), [(broken(), "server"), (too_many(), "rate_limit")])
def test_what_does_not_pass_is_an_error_and_the_next_run_asks_again(fault: Any, kind: str, tmp_path: Path) -> None:
    server = ChatServer(fair)
    with server, judge_at(server, tmp_path, workers=1) as judge:
        server.faults += [fault] * 2
        judged = judge.run(tmp_path / "votes.jsonl", PAIRS[:2], places_of(WINDOWS), ABOUT)
        assert Counter(vote.choice for vote in judged.votes) == {None: 2, "a": 2}
        assert [vote.error.partition(":")[0] for vote in judged.votes[:2]] == [kind] * 2
        asked = len(server.requests)
        again = judge.run(tmp_path / "votes.jsonl", PAIRS[:2], places_of(WINDOWS), ABOUT)
        assert [vote.choice for vote in again.votes] == ["a"] * 4
        assert len(server.requests) == asked + 2


def test_a_run_of_failures_is_given_up(tmp_path: Path) -> None:
    with ChatServer(fair) as server, judge_at(server, tmp_path, workers=2) as judge:
        server.faults += [broken()] * 40
        with pytest.raises(EndpointError, match="the server has failed"):
            judge.run(tmp_path / "votes.jsonl", PAIRS, places_of(WINDOWS), ABOUT)
        assert len(server.requests) < PROBES + 40


def test_a_wrong_key_ends_the_run_at_once(tmp_path: Path) -> None:
    server = ChatServer(fair, key="right")
    with pytest.raises(EndpointError, match="the key is missing, wrong"):
        judged_by(server, tmp_path, key="wrong")
    assert len(server.requests) == 1


def test_a_judge_that_refuses_a_temperature_is_refused_with_the_way_out(tmp_path: Path) -> None:
    server = ChatServer(fair, refuses=("temperature", "max_tokens", "response_format"))
    with server:
        with pytest.raises(OptionError, match=r"refuses temperature=0\.0 .*; to judge without, add --no-temperature$"):
            run(server, tmp_path)
        judged = run(server, tmp_path, parameters=Parameters(temperature=None))
    assert not [
        request for request in server.requests if request.get("temperature") == 0 and len(request["messages"]) > 1
    ]
    sent = judged.votes[0].call["sent"]
    assert sent == {"seed": 42, "max_completion_tokens": 4096}
    assert judged.settings["parameters"] == {"seed": 42, "max_tokens": 4096, "reply": "text"}
    assert figures(judged)["win_rate"]["value"] == 100.0


def test_a_parameter_that_is_refused_later_ends_the_run_and_is_probed_anew(tmp_path: Path) -> None:
    server = ChatServer(fair)
    with server:
        with judge_at(server, tmp_path, workers=1) as judge:
            server.faults.append(
                refusal(400, "Unsupported parameter: 'seed'.", param="seed", code="unsupported_parameter")
            )
            with pytest.raises(OptionError, match="add --no-seed"):
                judge.run(tmp_path / "votes.jsonl", PAIRS[:1], places_of(WINDOWS), ABOUT)
        before = len(server.requests)
        run(server, tmp_path, PAIRS[:1])
    probes = [request for request in server.requests[before:] if len(request["messages"]) == 1]
    assert len(probes) == PROBES


def test_nothing_is_paid_twice(tmp_path: Path) -> None:
    server = ChatServer(fair)
    with server:
        once = run(server, tmp_path)
        paid = len(server.requests)
        assert run(server, tmp_path).votes == once.votes
        other = run(server, tmp_path, out="other.jsonl")
        swapped = [replace(pair, a=pair.b, b=pair.a) for pair in PAIRS]
        turned = run(server, tmp_path, swapped, out="swapped.jsonl")
        assert len(server.requests) == paid == PROBES + 40
        more = run(server, tmp_path, out="repeats.jsonl", repeats=2)
        assert len(server.requests) == paid + 40
    assert [vote.choice for vote in other.votes] == ["a"] * 40
    assert [vote.choice for vote in turned.votes] == ["b"] * 40
    assert all(vote.call["cached"] for vote in (*other.votes, *turned.votes))
    assert figures(more)["repeat_stability"] == {"value": 100.0, "low": 100.0, "high": 100.0, "n": 40}


def test_swapped_orders_keep_the_place_that_was_chosen(tmp_path: Path) -> None:
    """A verdict of the first text is one for a in order ab, and one for the other contestant when they are swapped."""
    server = ChatServer(always("A"))
    with server:
        once = run(server, tmp_path)
        turned = run(server, tmp_path, [replace(pair, a=pair.b, b=pair.a) for pair in PAIRS], out="swapped.jsonl")
    for judged in (once, turned):
        assert {(vote.order, vote.choice) for vote in judged.votes} == {("ab", "a"), ("ba", "b")}


def test_equal_texts_are_one_call(tmp_path: Path) -> None:
    server = ChatServer(always("A"))
    judged = judged_by(server, tmp_path, [replace(PAIRS[0], b=PAIRS[0].a)])
    assert len(server.requests) == PROBES + 1
    assert [vote.choice for vote in judged.votes] == ["a", "b"]


@pytest.mark.parametrize(
    "change",
    [{"a": "another text"}, {"reference": "another reference"}],
)
def test_other_texts_are_asked_for(tmp_path: Path, change: dict[str, str]) -> None:
    server = ChatServer(fair)
    with server:
        run(server, tmp_path, PAIRS[:1])
        paid = len(server.requests)
        run(server, tmp_path, [replace(PAIRS[0], **change)], out="other.jsonl")
        assert len(server.requests) == paid + 2


def test_votes_of_another_judge_are_not_gone_on_with(tmp_path: Path) -> None:
    server = ChatServer(fair)
    with server:
        run(server, tmp_path, PAIRS[:1])
        with pytest.raises(SourceError, match=r"holds other votes .*parameters"):
            run(server, tmp_path, PAIRS[:1], parameters=Parameters(seed=7))


def test_a_plan_counts_what_is_left(tmp_path: Path) -> None:
    server = ChatServer(fair)
    pairs = [*PAIRS[:4], replace(PAIRS[4], a="")]
    with server, judge_at(server, tmp_path) as judge:
        before = judge.plan(pairs, tmp_path / "votes.jsonl")
        assert (before.calls, before.kept, before.by_rule) == (8, 0, 2)
        judge.run(tmp_path / "votes.jsonl", PAIRS[:1], places_of(WINDOWS), ABOUT)
        sent = sum(len(message["content"]) for request in server.requests[PROBES:] for message in request["messages"])
        assert before.prompt_tokens == pytest.approx(sent * 4 / 4, rel=0.05)
        assert before.completion_tokens == 80
        assert before.cost(2.0, 10.0) == pytest.approx((before.prompt_tokens * 2 + 800) / 1e6)
        for out in ("votes.jsonl", "other.jsonl"):
            after = judge.plan(pairs, tmp_path / out)
            assert (after.calls, after.kept, after.by_rule) == (6, 2, 2)
    assert not (tmp_path / "other.jsonl").exists()
    assert len(server.requests) == PROBES + 2


def test_calls_are_made_at_once_and_no_more_than_asked_for(tmp_path: Path) -> None:
    server = ChatServer(lambda request: time.sleep(0.05) or fair(request))  # type: ignore[func-returns-value]
    judged_by(server, tmp_path, PAIRS[:6], workers=3)
    assert server.most_at_once == 3


def test_an_interrupt_keeps_what_was_paid(tmp_path: Path) -> None:
    server = ChatServer(lambda request: time.sleep(0.01) or fair(request))  # type: ignore[func-returns-value]

    def stop(votes: float) -> None:
        if votes >= 5:
            raise KeyboardInterrupt

    with server:
        with judge_at(server, tmp_path, workers=2) as judge, pytest.raises(KeyboardInterrupt):
            judge.run(tmp_path / "votes.jsonl", PAIRS, places_of(WINDOWS), ABOUT, stop)
        assert 5 <= len(server.requests) - PROBES < 40
        judged = run(server, tmp_path)
        assert len(server.requests) == PROBES + 40
    assert [vote.choice for vote in judged.votes] == ["a"] * 40


#: Judges the windows of the tests.
KILLED = """
import importlib.util, sys
from contextlib import closing
from pathlib import Path
spec = importlib.util.spec_from_file_location("tests_of_judge", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)

class At:
    url = sys.argv[2]

with tests.judge_at(At, Path(sys.argv[3])) as judge:
    judge.run(Path(sys.argv[3]) / "votes.jsonl", tests.PAIRS, tests.places_of(tests.WINDOWS), tests.ABOUT)
"""


def test_a_killed_run_is_taken_up_and_pays_no_finished_call_again(tmp_path: Path) -> None:
    server = ChatServer(lambda request: time.sleep(0.05) or fair(request))  # type: ignore[func-returns-value]
    with server:
        for votes in (3, 15, 26):
            process = subprocess.Popen(
                [sys.executable, "-c", KILLED, __file__, server.url, str(tmp_path)], cwd=Path(__file__).parents[1]
            )
            wait_for(lambda least=votes: lines(tmp_path / "votes.jsonl") >= least + 2, process)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            process.wait()
        judged = run(server, tmp_path)
    assert [vote.choice for vote in judged.votes] == ["a"] * 40
    assert judged.expected == judged.judged == 40
    # At each kill at most the eight calls under way were lost.
    assert len(server.requests) <= PROBES + 40 + 3 * 8


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until, "nothing has happened"
        assert process.poll() is None or what(), "the process has ended"
        time.sleep(0.002)


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    for options in ({"repeats": 0}, {"workers": 0}, {"reasks": -1}):
        with pytest.raises(OptionError, match="at least"):
            judged_by(always("A"), tmp_path, **options)


def test_half_a_verdict_is_a_tie(tmp_path: Path) -> None:
    judged = judged_by(always("tie"), tmp_path, PAIRS[:2])
    assert [vote.choice for vote in judged.votes] == ["tie"] * 4
    assert figures(judged)["win_rate"]["value"] == 50.0
    assert says("tie") == judged.votes[0].call["reply"]
