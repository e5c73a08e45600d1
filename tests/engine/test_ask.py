"""Questions in forks: the stream is not changed by them, and they are answered as if it had been asked itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from streamingvlm.core.errors import CapacityError, OptionError, SessionError
from streamingvlm.core.events import Answer, Chunk, Commentary, Question
from streamingvlm.core.positions import positions
from streamingvlm.core.spans import Kind, Role, Span
from streamingvlm.engine.ask import Fork
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.session import Session
from streamingvlm.models.reference import reference_forward
from support import tiny
from support.streams import chunk, query_text

WINDOW = "streaming:vision=3,sink=20,text=20"
POLICIES = [WINDOW, f"{WINDOW},history_kv=recompute", "public-code", "recent-frames", "sliding-recompute:vision=4"]
STEPS = 8
QUESTION = Question("who is ahead?", max_new_tokens=5)
LETTERS = Question("who is ahead? A. one; B. two", ("A", "B"))


def watch(
    session: Session, ask: Callable[[Session], object] = lambda _: None, steps: Sequence[int] = range(STEPS)
) -> list[Commentary]:
    out = []
    for index in steps:
        out.append(session.step(chunk(index)))
        ask(session)
    return out


def words(said: Sequence[Commentary]) -> list[tuple[int, ...]]:
    return [one.tokens for one in said]


def rows(session: Session, engine: Engine) -> list[torch.Tensor]:
    pool, slot = engine.pool, session.stream.slot
    return [store[:, slot, :, : pool.length[slot]].clone() for store in (pool.keys, pool.values, pool.rotated_keys)]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_the_stream_is_the_same_bit_for_bit_with_twenty_questions(family: str, policy: str) -> None:
    model = tiny.model(family=family)
    quiet = Engine(model)
    with quiet.open(policy=policy) as alone:
        expected, state, kept = watch(alone), alone.state, rows(alone, quiet)
    engine = Engine(model, slots=4)
    with (
        engine.open(policy=policy) as asked,
        engine.open(policy=policy, stream=1) as beside,
        engine.fork(asked) as fork,
    ):

        def ask(session: Session) -> None:
            requests = engine.submit(beside, chunk(int(beside.time)))  # in one batch with the questions
            fork.take(session)
            for number in range(20 // STEPS + 1):
                fork.ask(LETTERS if number else QUESTION)
            fork.ask(QUESTION, step=chunk(int(session.time)))
            while not requests.done:
                engine.advance()

        said = watch(asked, ask)
        assert words(said) == words(expected)
        assert asked.state == state
        assert all(torch.equal(one, other) for one, other in zip(rows(asked, engine), kept, strict=True))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_question_in_a_steps_turn_is_answered_as_an_instruction_would_be(policy: str) -> None:
    engine = Engine(tiny.model(), slots=3)
    greedy = {"temperature": 0.0, "max_new_tokens": 5, "policy": policy}
    with engine.open(**greedy) as session, engine.open(**greedy) as other:
        watch(session)
        watch(other)
        other.stream.planner.options = replace(
            other.options, sampling=replace(other.options.sampling, repetition_penalty=1.0)
        )
        other.instruct(QUESTION.text)
        expected = other.step(chunk(STEPS))
        with engine.fork(session) as fork:
            fork.take(session)
            for _ in range(2):
                answer = fork.ask(QUESTION, step=chunk(STEPS))
                assert (answer.tokens, answer.text, answer.time) == (expected.tokens, expected.text, STEPS + 1)


def test_questions_at_one_moment_do_not_see_each_other() -> None:
    engine = Engine(tiny.model(), slots=2)
    with engine.open(policy=WINDOW) as session, engine.fork(session) as fork:
        watch(session)
        fork.take(session)
        first = [fork.ask(QUESTION), fork.ask(LETTERS), fork.ask(Question("and now?", max_new_tokens=9))]
        again = [fork.ask(one.question) for one in reversed(first)][::-1]
        plain = [(one.tokens, one.logprobs) for one in first]
        assert [(one.tokens, one.logprobs) for one in again] == plain
        assert query_text(session) == []


def token_by_token(fork: Fork, question: Question, option: str) -> float:
    """The likelihood of an option, each of its characters weighed as what follows those before it."""
    total = 0.0
    for place, character in enumerate(option):
        answer = fork.ask(replace(question, options=(character,), prefix=question.prefix + option[:place]))
        total += answer.logprobs[0]
    return total


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_an_option_of_several_tokens_is_as_likely_as_its_tokens_one_by_one(family: str) -> None:
    engine = Engine(tiny.model(family=family), slots=2)
    with engine.open(policy=WINDOW) as session, engine.fork(session) as fork:
        watch(session)
        fork.take(session)
        question = Question("who?", ("red", "blue", "r"), prefix="it is ")
        answer = fork.ask(question)
        expected = [token_by_token(fork, question, option) for option in question.options]
        np.testing.assert_allclose(answer.logprobs, expected, rtol=1e-4)
        assert answer.text == question.options[int(np.argmax(expected))]
        assert sum(answer.probabilities) == pytest.approx(1)


def test_before_the_first_step_a_question_is_asked_blind() -> None:
    engine = Engine(tiny.model(), slots=2)
    with engine.open(policy=WINDOW) as session, engine.fork(session) as fork:
        fork.take(session)
        answer = fork.ask(QUESTION)
        assert (answer.time, answer.question) == (0.0, QUESTION)
        assert session.turn == 0


def test_an_option_as_commentary_stands_between_the_models_marks() -> None:
    engine = Engine(tiny.model(), slots=2)
    with engine.open(policy=WINDOW) as session, engine.fork(session) as fork:
        question = Question("", ("goal",), as_commentary=True)
        grammar = engine.model.grammar
        assert fork._stream.planner.option_tokens(question) == [grammar.reply("goal")]


def test_text_comes_as_it_is_decoded() -> None:
    engine = Engine(tiny.model(), slots=2)
    with engine.open(policy=WINDOW) as session, engine.fork(session) as fork:
        watch(session)
        fork.take(session)
        parts: list[str] = []
        answer = fork.ask(QUESTION, on_text=parts.append)
        assert "".join(parts).strip() == answer.text


def test_answers_are_decoded_in_one_batch_with_steps() -> None:
    engine = Engine(tiny.model(), slots=2)
    with engine.open(policy=WINDOW) as session, engine.fork(session) as fork:
        watch(session)
        fork.take(session)
        alone = fork.ask(QUESTION)
        asked, step = fork.submit(QUESTION), engine.submit(session, chunk(STEPS))
        ended = []
        while engine.busy:
            ended += engine.advance()
        assert {asked, step} == set(ended)
        assert isinstance(asked.result, Answer)
        assert asked.result.tokens == alone.tokens


REFUSED = [
    (Question("x" * 600), CapacityError, "the question has 6.. tokens; at most 512 fit"),
    (Question("x", max_new_tokens=100), CapacityError, "an answer of 100 tokens; at most 64 fit"),
    (Question("x", ("a", "a")), OptionError, "different texts"),
    (Question("x", ("a", "")), OptionError, "none of them empty"),
    (Question("x", ("a" * 65,)), CapacityError, "an option of 65 tokens"),
    (Question("\ud800"), OptionError, "not text in Unicode"),
]


@pytest.mark.parametrize(("question", "error", "text"), REFUSED)
def test_what_cannot_be_asked_is_refused(question: Question, error: type[Exception], text: str) -> None:
    engine = Engine(tiny.model(), slots=2)
    with engine.open(policy=WINDOW) as session, engine.fork(session) as fork:
        watch(session, steps=range(2))
        fork.take(session)
        with pytest.raises(error, match=text):
            fork.ask(question)
        assert fork.ask(QUESTION).tokens


def test_a_fork_takes_streams_that_it_has_room_for() -> None:
    engine = Engine(tiny.model(), slots=3)
    with engine.open(policy=WINDOW) as session, engine.open(policy="streaming:vision=9") as other:
        with engine.fork(session) as fork:
            with pytest.raises(SessionError, match="take a stream"):
                fork.ask(QUESTION)
            with pytest.raises(CapacityError, match="open it for the largest"):
                fork.take(other)
            session.feed(chunk(0))
            with pytest.raises(SessionError, match="between two steps"):
                fork.take(session)
        with pytest.raises(SessionError, match="another engine"):
            Engine(tiny.model(), slots=2).fork(session)


def test_a_stream_that_went_on_is_taken_again() -> None:
    engine = Engine(tiny.model(), slots=2)
    with engine.open(policy=WINDOW) as session, engine.fork(session) as fork:
        watch(session, steps=range(2))
        fork.take(session)
        before = fork.ask(QUESTION)
        fork.ask(QUESTION, step=chunk(2))
        watch(session, steps=[2])
        with pytest.raises(SessionError, match="take it again"):
            fork.ask(QUESTION)  # the rows of the fork were evicted with the step
        fork.take(session)
        assert fork.ask(QUESTION).time == 3.0 != before.time


def test_a_question_that_fails_ends_alone() -> None:
    engine = Engine(tiny.model(), slots=2)
    with engine.open(policy=WINDOW) as session, engine.fork(session) as fork:
        watch(session, steps=range(3))
        fork.take(session)

        def breaks(_: str) -> None:
            raise RuntimeError("no listener")

        expected = fork.ask(QUESTION)
        with pytest.raises(RuntimeError, match="no listener"):
            fork.ask(QUESTION, on_text=breaks)
        assert fork.ask(QUESTION).tokens == expected.tokens
        watch(session, steps=[3])


def in_one_pass(family: str, question: Question, frames: Chunk) -> torch.Tensor:
    """Logits of the first token of a reply, by transformers' own forward over the chat template's layout."""
    model, marks = tiny.model(family=family), tiny.MARKS
    encode, patches = tiny.CharTokenizer().encode, model.patcher(frames)
    (seen,) = model.encode([patches])
    stamped = family == "qwen3_vl"
    t, h, w = patches.merged
    grids, size = [(1, h, w)] * t if stamped else [(t, h, w)], len(frames.frames) / (frames.end - frames.start)
    tokens = [marks.turn_start, *encode("system\nYou are a helpful assistant."), marks.turn_end, *encode("\n")]
    tokens += [marks.turn_start, *encode("user\n")]
    spans = [Span(Kind.MARKUP, Role.USER, tuple(tokens))]
    for place, grid in enumerate(grids):
        if stamped:
            stamp = f"<{model.patcher.times(frames.times)[place]:.1f} seconds>"
            spans.append(Span(Kind.TIME, Role.USER, tuple(encode(stamp))))
        pads = [marks.vision_pad] * int(np.prod(grid))
        block = (marks.vision_start, *pads, marks.vision_end)
        spans.append(Span(Kind.VISION, Role.USER, block, grid=grid, patch_seconds=model.patcher.temporal / size))
    rest = [*encode(question.text), marks.turn_end, *encode("\n"), marks.turn_start, *encode("assistant\n")]
    spans.append(Span(Kind.QUERY, Role.USER, (*rest, *encode(question.prefix))))
    ids = torch.tensor([token for span in spans for token in span.tokens])
    embeds, pads_at = model.embed(ids).clone(), ids == marks.vision_pad
    embeds[pads_at] = seen.embeds
    features = []
    for layer in seen.deepstack:
        features.append(torch.zeros_like(embeds))
        features[-1][pads_at] = layer
    hidden = reference_forward(model, embeds, positions(spans, model.tokens_per_second), features)
    return model.logits(hidden[-1:])[0].float()


@pytest.mark.parametrize("family", list(tiny.FAMILIES))
def test_offline_is_one_message_of_the_chat_template(family: str) -> None:
    """Seven frames over ten seconds, one prompt, no stamp but where the family has them."""
    times = tuple(10 * number / 7 for number in range(7))
    shown = replace(chunk(0, frames=7, size=tiny.FAMILIES[family].size), times=times, end=10.0)
    question = Question("who?", ("a", "b", "c"), prefix="it is ")
    answer = Engine(tiny.model(family=family)).ask_once(question, shown)
    logits = in_one_pass(family, question, shown).log_softmax(-1)
    expected = [float(logits[tiny.CharTokenizer().encode(letter)[0]]) for letter in question.options]
    np.testing.assert_allclose(answer.logprobs, expected, atol=2e-4)
    assert answer.text == "abc"[int(np.argmax(expected))]


def test_offline_without_video_is_the_question_alone() -> None:
    engine = Engine(tiny.model())
    long = Question("x" * 3000, max_new_tokens=70)
    assert engine.ask_once(long).question == long
    assert engine.ask_once(QUESTION).tokens != engine.ask_once(QUESTION, chunk(0)).tokens
