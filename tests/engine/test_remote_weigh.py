"""How probable the options of a question are to a model behind an endpoint, over the real protocol."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from streamingvlm.core.errors import EndpointError
from streamingvlm.core.events import Answer, Question
from streamingvlm.engine.chat_protocol import Completion, Token, read_completion
from streamingvlm.engine.endpoint import Endpoint
from streamingvlm.engine.remote import RemoteOptions, RemoteSession
from streamingvlm.engine.remote_prompt import most_pictures, option_of_token
from streamingvlm.engine.remote_weigh import FEW, MANY, UNLIKELY, Weighing, weights
from streamingvlm.runtime.rules import AskedRule
from support.chat_server import ChatServer, Fault, malformed, refusal, texts, too_many

YES_NO = ("yes", "no", "unknown")
RAIN = Question("Does it rain?", YES_NO)
#: Mostly yes, by letter and by word.
MOSTLY_YES = {"A": 0.5, "Yes": 0.2, " yes": 0.1, "B": 0.1, "no": 0.05, "C": 0.03, "The": 0.02}


def one_token(text: str = "A", likely: Mapping[str, float] = MOSTLY_YES) -> list[tuple[str, Mapping[str, float]]]:
    return [(text, likely)]


def asked(server: ChatServer, weighing: Weighing | None = None, question: Question = RAIN, **params: Any) -> Answer:
    options = RemoteOptions(seconds=4, params=params)
    endpoint = Endpoint(server.url, "m", key=None, sleep=lambda _: None)
    with endpoint, RemoteSession(endpoint, options) as session:
        return session.answer(question, weighing=weighing or Weighing())


def sent(request: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for beside the letter."""
    return {name: value for name, value in request.items() if name not in ("model", "messages")}


@pytest.mark.parametrize(
    ("token", "named"),
    [
        ("A", 0),
        (" b", 1),
        ("C.", 2),
        ("(C", 2),
        ("**B", 1),
        ("Yes", 0),
        (" yes", 0),
        ("YES", 0),
        ("\u2581Yes", 0),
        ("\u0120no", 1),
        ("Y", 0),
        ("ye", 0),
        ("n", 1),
        ("Un", 2),
        ("unknown", 2),
        ("Not", None),
        ("None", None),
        ("yesterday", None),
        ("D", None),
        ("The", None),
        (" ", None),
        ("**", None),
        ("\n", None),
    ],
)
def test_what_a_token_names(token: str, named: int | None) -> None:
    assert option_of_token(YES_NO, token) == named


@pytest.mark.parametrize(
    ("options", "token", "named"),
    [
        (("person", "pet"), "pe", None),  # it may be either
        (("person", "pet"), "per", 0),
        (("pet", "person"), "B", 1),
        (("Bob", "Ann"), "B", 1),  # a letter was asked for
        (("Bob", "Ann"), "Bo", 0),
        (("b", "a"), "B", 0),  # a letter that is an option is that option
        (("yes", "Yes."), "yes", None),
    ],
)
def test_what_a_token_names_of_other_options(options: tuple[str, ...], token: str, named: int | None) -> None:
    assert option_of_token(options, token) == named


@pytest.mark.parametrize("top", [MANY, FEW])
def test_the_first_tokens_that_were_likely_are_the_probabilities(top: int) -> None:
    with ChatServer(lambda _: "A", likely=lambda _: one_token()) as server:
        if top == FEW:
            server.faults.append(
                refusal(400, "Invalid value for 'top_logprobs': must be at most 5.", param="top_logprobs")
            )
        answer = asked(server)
    assert sent(server.requests[-1]) == {"logprobs": True, "top_logprobs": top, "max_tokens": 8 + 7 // 2}
    assert answer.text == "yes"
    shares = [0.8, 0.15, 0.03] if top == MANY else [0.8, 0.15, 0.0]
    assert answer.probabilities == pytest.approx([one / sum(shares) for one in shares])
    assert sum(math.exp(one) for one in answer.logprobs) == pytest.approx(1)


def test_the_likeliest_option_is_the_answer_whatever_was_drawn() -> None:
    with ChatServer(lambda _: "B. no", likely=lambda _: one_token("B")) as server:
        answer = asked(server)
    assert (answer.text, answer.finish_reason) == ("yes", "stop")


@pytest.mark.parametrize(("threshold", "verdict"), [(0.5, "yes"), (0.8, "yes"), (0.9, "no")])
def test_a_threshold_holds_as_with_a_local_model(threshold: float, verdict: str) -> None:
    rule = AskedRule(name="rain", text="it rains", threshold=threshold)
    with ChatServer(lambda _: "A", likely=lambda _: one_token()) as server:
        found, probability = rule.verdict(asked(server, question=rule.asked))
    assert (found, probability) == (verdict, pytest.approx(0.8 / 0.98))


def test_options_that_are_not_among_the_likely_tokens() -> None:
    with ChatServer(lambda _: "A", likely=lambda _: one_token("A", {"A": 0.9, "yes": 0.05})) as server:
        answer = asked(server)
    assert answer.logprobs[1:] == (UNLIKELY, UNLIKELY)
    assert answer.probabilities == pytest.approx([1, 0, 0])
    json.dumps(answer.logprobs, allow_nan=False)


@pytest.mark.parametrize(
    ("text", "tokens", "told"),
    [
        # Marks and spaces before the letter say nothing.
        ("**B**", [("**", {"**": 0.9, "B": 0.1}), ("B", {"B": 0.7, "A": 0.3})], [0.3, 0.7, 0]),
        ("\n B", [("\n", {"\n": 0.9, "A": 0.1}), (" B", {" B": 0.6, " A": 0.4})], [0.4, 0.6, 0]),
        # Thoughts: among the text, and among the tokens alone.
        (
            "<think>Hm. A?</think>B",
            [
                ("<think>", {"<think>": 1, "A": 1e-9}),
                ("Hm. A?", {"Hm. A?": 0.5, "A": 0.5}),
                ("</think>", {"</think>": 0.9, "A": 0.1}),
                ("B", {"B": 0.9, "A": 0.1}),
            ],
            [0.1, 0.9, 0],
        ),
        (
            "B",
            [("Hm", {"Hm": 0.5, "A": 0.5}), ("</think>", {"</think>": 0.9, "A": 0.1}), ("B", {"B": 0.9, "A": 0.1})],
            [0.1, 0.9, 0],
        ),
        ("B", [("A", {"A": 0.9, "B": 0.1}), ("B", {"B": 0.9, "A": 0.1})], None),  # which token is the answer's?
        # It says something else: what is left of the options tells nothing.
        ("The ball", [("The", {"The": 0.6, "A": 0.3, "B": 0.1})], None),
        ("", [], None),
    ],
)
def test_where_the_answer_begins(
    text: str, tokens: Sequence[tuple[str, Mapping[str, float]]], told: Sequence[float] | None
) -> None:
    rows = tuple(Token(one, tuple((name, math.log(value)) for name, value in likely.items())) for one, likely in tokens)
    found = weights(Completion(text, tokens=rows), YES_NO)
    assert [math.exp(one) for one in found] == pytest.approx(told or [])


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        5,
        {},
        {"content": None},
        {"content": 5},
        {"content": [5]},
        {"content": [{"token": "A"}]},
        {"content": [{"token": "A", "logprob": "-0.1", "top_logprobs": []}]},
        {"content": [{"token": "A", "logprob": -0.1}]},  # what else was likely is not told
        {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": [{"token": "A", "logprob": -0.1}]}]},
        {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": [{"token": 5, "logprob": -2}]}]},
        {"tokens": ["A"], "token_logprobs": [-0.1], "top_logprobs": [{"A": -0.1, "B": -2}]},  # of another protocol
    ],
)
def test_logprobs_in_another_form_are_none(logprobs: Any) -> None:
    body = {"choices": [{"message": {"content": "A"}, "finish_reason": "stop", "logprobs": logprobs}]}
    assert read_completion(body) == Completion("A", finish_reason="stop")


def test_what_can_be_read_before_a_row_in_another_form_counts() -> None:
    row = {"token": "A", "logprob": -0.1, "top_logprobs": [{"token": "B", "logprob": -2.5}]}
    body = {"choices": [{"message": {"content": "A"}, "logprobs": {"content": [row, {"token": "<end>"}, row]}}]}
    assert read_completion(body).tokens == (Token("A", (("A", -0.1), ("B", -2.5))),)


@pytest.mark.parametrize("message", ['{"content": ""}', '{"content": null, "refusal": "I will not."}'])
def test_a_reply_without_words_does_not_say_what_the_server_tells(message: str) -> None:
    weighing, body = Weighing(), f'{{"choices": [{{"message": {message}, "finish_reason": "stop"}}]}}'
    with ChatServer(lambda _: "A", faults=[malformed(body)], likely=lambda _: one_token()) as server:
        with pytest.raises(EndpointError):
            asked(server, weighing)
        assert asked(server, weighing).logprobs


def test_numbers_that_are_none_do_not_count() -> None:
    top = [{"token": "B", "logprob": -math.inf}, {"token": "C", "logprob": math.nan}, {"token": "A", "logprob": -0.1}]
    row = {"token": "A", "logprob": -0.1, "top_logprobs": top}
    body = json.loads(json.dumps({"choices": [{"message": {"content": "A"}, "logprobs": {"content": [row]}}]}))
    assert read_completion(body).tokens == (Token("A", (("A", -0.1),)),)


NO_LOGPROBS = "tells no logprobs"


@pytest.mark.parametrize(
    ("faults", "calls", "form"),
    [
        ([], 1, {"max_tokens": 11}),  # it leaves them out
        ([refusal(400, "Unsupported parameter: 'logprobs'.", param="logprobs")] * 2, 3, {"max_tokens": 11}),
        ([Fault(422, "{\"detail\": \"Unexpected fields in the request: {'logprobs', 'top_logprobs'}\"}")] * 2, 3, None),
        ([refusal(403, "You are not allowed to request logprobs from this model.")] * 2, 3, None),
        ([refusal(400, "Cannot request more than 1 logprobs.")] * 2, 3, None),
        ([refusal(500, "logprobs are not implemented")] * 8, 9, None),  # tried again as any failure of a server
        ([refusal(400, "Invalid request.")], 2, None),
        # Not even a bound is taken, under any name.
        (
            [refusal(400, "Invalid request.")]
            + [
                refusal(400, f"'{name}' is not supported", param=name)
                for name in ("max_tokens", "max_completion_tokens")
            ],
            4,
            {},
        ),
        ([refusal(400, "Invalid request.")] * 2, 3, {}),
    ],
)
def test_a_server_that_refuses_is_asked_without_from_then_on(
    faults: list[Fault], calls: int, form: dict[str, Any] | None, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once; the answer is read as before, and nothing of it has a probability."""
    weighing = Weighing()
    with caplog.at_level(logging.WARNING), ChatServer(lambda _: "A", faults=faults) as server:
        first = asked(server, weighing)
        assert len(server.requests) == calls
        for again in [asked(server, weighing) for _ in range(4)]:
            assert (again.text, again.logprobs) == ("yes", ())
        said = [record.getMessage() for record in caplog.records if NO_LOGPROBS in record.getMessage()]
    assert (first.text, first.logprobs) == ("yes", ())
    assert len(said) == 1
    assert "\n" not in said[0]
    wanted = {"max_tokens": 11} if form is None else form
    assert [sent(request) for request in server.requests[calls:]] == [wanted] * 4


@pytest.mark.parametrize("reason", [refusal(400, "'max_tokens' is not supported with this model.", param="max_tokens")])
def test_the_bound_goes_under_the_other_name(reason: Fault, caplog: pytest.LogCaptureFixture) -> None:
    weighing = Weighing()
    with ChatServer(lambda _: "A", faults=[reason], likely=lambda _: one_token()) as server:
        assert asked(server, weighing).logprobs
        assert asked(server, weighing).logprobs
    forms = [sorted(sent(request)) for request in server.requests]
    assert forms[1:] == [["logprobs", "max_completion_tokens", "top_logprobs"]] * 2
    assert NO_LOGPROBS not in caplog.text


@pytest.mark.parametrize("reply", ["<think>It is", ""])
def test_a_model_that_thinks_gets_room_for_it(reply: str) -> None:
    """The bound ends its first reply within the thoughts; from then on there is none."""
    body = {"choices": [{"message": {"content": reply}, "finish_reason": "length"}]}
    weighing, thinks = Weighing(), "<think>It is wet.</think>\n\nA"
    tokens = [("<think>It is wet.", {"A": 0.5, "B": 0.5}), ("</think>", {"A": 0.5, "B": 0.5}), ("A", MOSTLY_YES)]
    with ChatServer(lambda _: thinks, faults=[malformed(json.dumps(body))], likely=lambda _: tokens) as server:
        answers = [asked(server, weighing) for _ in range(2)]
    assert [answer.text for answer in answers] == ["yes", "yes"]
    assert answers[0].probabilities[0] == pytest.approx(0.8 / 0.98)
    assert [sorted(sent(request)) for request in server.requests[1:]] == [["logprobs", "top_logprobs"]] * 2


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (refusal(401, "Incorrect API key."), "auth"),
        (refusal(404, "No such model.", code="model_not_found"), "not_found"),
        (refusal(400, "This model's maximum context length is 4096 tokens."), "bad_request"),
        (malformed("{"), "malformed"),
        (too_many(code="insufficient_quota"), "rate_limit"),
        (refusal(400, "Unsupported parameter: 'seed'.", param="seed"), "refused_parameter"),
    ],
)
def test_what_is_about_something_else_teaches_nothing(fault: Fault, kind: str) -> None:
    weighing = Weighing()
    with ChatServer(lambda _: "A", faults=[fault], likely=lambda _: one_token()) as server:
        with pytest.raises(EndpointError) as caught:
            asked(server, weighing, seed=1)
        assert (caught.value.kind, len(server.requests)) == (kind, 1)
        assert asked(server, weighing, seed=1).logprobs
    assert sent(server.requests[-1])["top_logprobs"] == MANY


def test_a_refusal_that_stays_is_told_as_it_is() -> None:
    weighing = Weighing()
    with ChatServer(lambda _: "A", faults=[refusal(400, "A picture is broken.")] * 3) as server:
        with pytest.raises(EndpointError, match=r"A picture is broken\."):
            asked(server, weighing)
        server.likely = lambda _: one_token()
        assert asked(server, weighing).logprobs, "nothing was learned of it"


def test_the_callers_parameters_stand_over_ours() -> None:
    with ChatServer(lambda _: "A", likely=lambda _: one_token()) as server:
        assert asked(server, max_completion_tokens=3, top_logprobs=4).logprobs
    assert sent(server.requests[0]) == {"logprobs": True, "top_logprobs": 4, "max_completion_tokens": 3}


def test_long_options_have_room() -> None:
    question = Question("Who?", ("a person in a red coat with an umbrella", "nobody"))
    with ChatServer(lambda _: "A. a person in a red coat with an umbrella") as server:
        assert asked(server, question=question).text == question.options[0]
    assert sent(server.requests[0])["max_tokens"] >= 12


def test_threads_learn_once(caplog: pytest.LogCaptureFixture) -> None:
    weighing = Weighing()
    with caplog.at_level(logging.WARNING), ChatServer(lambda _: "A", refuses={"logprobs"}) as server:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: asked(server, weighing), range(8)))
        assert asked(server, weighing).text == "yes"
    assert {answer.text for answer in answers} == {"yes"}
    assert caplog.text.count(NO_LOGPROBS) == 1
    assert sent(server.requests[-1]) == {"max_tokens": 11}


def test_without_weighing_nothing_is_asked_beside_the_letter() -> None:
    with ChatServer(lambda _: "B") as server:
        endpoint = Endpoint(server.url, "m", key=None)
        with endpoint, RemoteSession(endpoint, RemoteOptions(seconds=4)) as session:
            assert session.answer(RAIN).text == "no"
    assert sent(server.requests[0]) == {}
    assert "A. yes" in texts(server.requests[0])[-1]


@pytest.mark.parametrize(
    ("words", "shown", "most"),
    [
        ("At most 1 image(s) may be provided in one request.", 32, 1),
        ("At most 4 image(s) may be provided in one prompt.", 32, 4),
        ("You set image=2 (or defaulted to 1) in `--limit-mm-per-prompt`, but passed 3 image items.", 3, 2),
        ("Too many images in request. Max is 10 images, got 32.", 32, 10),
        ("The maximum number of images per request is 16", 32, 16),
        ("At most 0 image(s) may be provided in one request.", 32, None),
        ("At most 8 image(s) may be provided in one request.", 4, None),
        ("This model's maximum context length is 4096 tokens. However, you requested 9000 tokens.", 32, 16),
        ("the request exceeds the available context size. try increasing the context size", 7, 3),
        ("The decoder prompt (length 9000) is longer than the maximum model length of 4096.", 2, 1),
        ('{"type": "exceed_context_size_error", "n_ctx": 256}', 2, 1),
        ("This model's maximum context length is 64 tokens.", 1, None),
        ("An image is broken: cannot identify image file", 32, None),
        ("Unsupported value: 'temperature'", 32, None),
    ],
)
def test_how_many_pictures_a_server_takes(words: str, shown: int, most: int | None) -> None:
    assert most_pictures(words, shown) == most
