"""Work in the background makes no live step wait, and is not held for ever."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from streamingvlm.core.errors import SessionError
from streamingvlm.core.events import Answer, Arrival, Question, StepInput
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.slack import GRACE, LOOK, PATIENCE, PIECE, TOTAL_PATIENCE, Slack
from streamingvlm.testing import ScriptedModel, ScriptedSource
from support import tiny
from support.streams import chunk

QUESTION = Question("who is ahead?")
STEPS = list(ScriptedSource(4))


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock) -> Engine:
    engine = Engine(ScriptedModel(lambda *_: "words", answer=lambda _: "an answer"), slots=4)
    engine._core._scheduler.slack = Slack(clock)
    return engine


def live(number: int, ready: float, due: float | None = None) -> StepInput:
    """A step whose last frame came at ``ready``; its reply is never cut short."""
    due = 1e12 if due is None else due
    return StepInput(STEPS[number], Arrival(ready_at=ready, due=due))


def test_a_question_waits_while_a_live_step_is_under_way(clock: Clock) -> None:
    engine = make(clock)
    with engine.open() as session, engine.fork(session) as fork:
        fork.take(session)
        step = engine.submit(session, live(0, ready=0.0))
        asked = fork.submit(QUESTION, background=True)
        assert fork.wait(QUESTION, 0.0) == LOOK
        while not step.done:
            assert engine.rest == 0.0
            engine.advance()
            assert not asked.tokens
        while not asked.done:
            engine.advance()
        assert asked.result is not None
        assert asked.result.text == "an answer"


@pytest.mark.parametrize("arrival", [Arrival(), None])
def test_steps_without_a_clock_hold_nobody(clock: Clock, arrival: Arrival | None) -> None:
    engine = make(clock)
    with engine.open() as session, engine.fork(session) as fork:
        fork.take(session)
        if arrival is not None:
            engine.submit(session, StepInput(STEPS[0], arrival))
        asked = fork.submit(QUESTION, background=True)
        assert fork.wait(QUESTION, 0.0) == 0.0
        engine.advance()
        assert asked.tokens


def test_a_question_that_has_waited_too_long_shares_the_batch(clock: Clock) -> None:
    engine = make(clock)
    with engine.open() as session, engine.fork(session) as fork:
        fork.take(session)
        engine.submit(session, live(0, ready=0.0))
        asked = fork.submit(QUESTION, background=True)
        engine.advance()
        assert not asked.tokens
        clock.now = PATIENCE + 0.01
        for count in (2, 3):  # the first prefill gives two
            engine.advance()
            assert len(asked.tokens) == count


def test_who_has_waited_before_waits_no_longer(clock: Clock) -> None:
    engine = make(clock)
    clock.now = 10.0
    with engine.open() as session, engine.fork(session) as fork:
        fork.take(session)
        engine.submit(session, live(0, ready=0.0))
        asked = fork.submit(QUESTION, background=True, since=10.0 - PATIENCE - 0.01)
        engine.advance()
        assert asked.tokens


def test_seconds_in_the_background_are_bounded_in_all(clock: Clock) -> None:
    engine = make(clock)
    with engine.open() as session, engine.fork(session) as fork:
        fork.take(session)
        asked = fork.submit(QUESTION, background=True)
        engine.advance()
        held = 0.0
        while held < TOTAL_PATIENCE:
            asked.held_since = None
            asked.held = held
            engine.submit(session, live(0, ready=0.0))
            before = len(asked.tokens)
            engine.advance()
            assert len(asked.tokens) == before
            session.abandon()
            held += PATIENCE
        asked.held = held
        engine.submit(session, live(0, ready=0.0))
        engine.advance()
        assert len(asked.tokens) == before + 1


#: The clock when a question comes, and whether it begins: frames come at 0 and are expected at 1; a prefill is known to
#: take 0.2 s at most.
MOMENTS = [(0.3, True), (0.79, True), (0.81, False), (0.99, False), (1.0 + GRACE / 2, False), (1.0 + GRACE, True)]


@pytest.mark.parametrize(("moment", "begins"), MOMENTS)
def test_nothing_begins_where_frames_would_wait_for_it(clock: Clock, moment: float, begins: bool) -> None:
    engine = make(clock)
    with engine.open() as session, engine.fork(session) as fork:
        step = engine.submit(session, live(0, ready=0.0))
        while not step.done:
            engine.advance()
        slack = engine._core._scheduler.slack
        slack._prefills.append(0.2 / slack_margin(fork._stream.planner.question_tokens(QUESTION)))
        fork.take(session)
        fork._copy_seconds = 0.0
        clock.now = moment
        assert (fork.wait(QUESTION, 0.0) == 0.0) is begins
        assert fork.wait(QUESTION, PATIENCE + 0.01) == 0.0
        asked = fork.submit(QUESTION, background=True)
        if not begins:
            assert engine.rest == pytest.approx(1.0 + GRACE - moment)
        engine.advance()
        assert bool(asked.tokens) is begins
        clock.now = 1.0 + GRACE  # whoever waits for a camera is asked at once
        engine.advance()
        assert asked.tokens


def slack_margin(tokens: int) -> float:
    """What a second a token is multiplied by."""
    slack = Slack()
    slack._prefills.append(1.0)
    return slack.start_seconds(tokens)


def test_what_is_expected_of_a_closed_stream_holds_nobody(clock: Clock) -> None:
    engine = make(clock)
    with engine.open() as session, engine.fork(session) as fork:
        other = engine.open()
        step = engine.submit(other, live(0, ready=0.0))
        while not step.done:
            engine.advance()
        clock.now = 1.0
        assert fork.wait(QUESTION, 0.0) > 0
        other.close()
        assert fork.wait(QUESTION, 0.0) == 0.0


def test_the_prefills_of_steps_are_the_first_guess(clock: Clock) -> None:
    class Slow(ScriptedModel):
        def forward(self, embeds, batch, deepstack=None):  # type: ignore[no-untyped-def]
            clock.now += 0.01 if batch.single else 0.5
            return super().forward(embeds, batch, deepstack)

    engine = Engine(Slow(lambda *_: "w", answer=lambda _: "a"), slots=2)
    engine._core._scheduler.slack = slack = Slack(clock)
    with engine.open() as session, engine.fork(session) as fork:
        assert slack.start_seconds(40) == 0.0
        session.step(live(0, ready=0.0))
        assert slack.start_seconds(40) > 0.1
        fork.take(session)
        fork.submit(QUESTION, background=True)
        clock.now = 100.0
        while engine.busy:
            engine.advance()
        tokens = fork._stream.planner.question_tokens(QUESTION)
        assert slack.start_seconds(tokens) == pytest.approx(1.5 * 0.5, rel=0.1)


def test_a_wider_fork_takes_larger_streams() -> None:
    engine = make(Clock())
    with engine.open(policy="streaming:vision=4,sink=8,text=8") as small, engine.open() as large:
        with engine.fork(small) as fork:
            fork.take(small)
            before = fork.ask(QUESTION)
            fork.widen(large)
            assert fork.ask(QUESTION).tokens == before.tokens
            fork.take(large)
            answer = fork.ask(replace(QUESTION, options=("an answer", "no answer")))
            assert isinstance(answer, Answer)
            assert answer.text == "an answer"
            fork.cancel()  # nothing is under way
        assert fork.closed
        fork.cancel()


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_a_long_question_is_prefilled_in_pieces(family: str) -> None:
    """Its answer is the same; a step that comes in between waits for one piece and no more."""
    engine = Engine(tiny.model(family=family), slots=2)
    question = Question("who is ahead? " * 14, max_new_tokens=5)
    letters = replace(question, options=("A", "B"))
    with engine.open(policy="streaming:vision=3,sink=20,text=20") as session, engine.fork(session) as fork:
        for index in range(3):
            session.step(chunk(index))
        fork.take(session)
        whole = [fork.ask(one) for one in (question, letters)]
        assert fork._stream.planner.question_tokens(question) > 3 * PIECE
        for one, expected in zip((question, letters), whole, strict=True):
            asked = fork.submit(one, background=True)
            rounds = 0
            while not asked.done:
                held = engine.pool.length[fork._stream.slot]
                engine.advance()
                assert engine.pool.length[fork._stream.slot] - held <= PIECE + 1
                rounds += 1
            assert rounds > 3
            assert asked.result is not None
            assert asked.result.tokens == expected.tokens
            np.testing.assert_allclose(asked.result.logprobs, expected.logprobs, rtol=1e-4)


def test_a_question_that_is_given_up_between_two_pieces_leaves_nothing_behind() -> None:
    engine = Engine(tiny.model(), slots=2)
    with engine.open() as session, engine.fork(session) as fork:
        session.step(chunk(0))
        fork.take(session)
        expected = fork.ask(QUESTION)
        asked = fork.submit(Question("who? " * 80), background=True)
        engine.advance()
        assert asked.pieces
        fork.cancel()
        assert isinstance(asked.error, SessionError)
        assert fork.ask(QUESTION).tokens == expected.tokens
        assert engine.rest == 0.0
