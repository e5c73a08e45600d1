"""The line that is typed under a view, as a console draws it."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from streamingvlm.core.events import Answer, AnswerDelta, Answered, Asked, Commentary, Delta, Question, StreamOpened
from streamingvlm.sinks.prompt_line import ANSWER_TAIL, EMPTY, PromptLine
from streamingvlm.sinks.terminal import Terminal


def console(width: int = 30, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=width, height=40, force_terminal=terminal, color_system=None)


def drawn(prompt: PromptLine, width: int = 30) -> list[str]:
    on = console(width)
    with on.capture() as capture:
        on.print(prompt)
    return capture.get().splitlines()


def typed(text: str, cursor: int, width: int = 12) -> str:
    prompt = PromptLine()
    prompt.start()
    prompt.show(text, cursor)
    (line,) = drawn(prompt, width)
    return line.rstrip()


def test_nothing_is_drawn_where_nobody_types() -> None:
    prompt = PromptLine()
    assert drawn(prompt) == []
    prompt.start()
    assert drawn(prompt) == [f">  {EMPTY}"]
    prompt.show("hello", 5)
    assert [line.rstrip() for line in drawn(prompt)] == ["> hello"]
    prompt.stop()
    assert drawn(prompt) == []


@pytest.mark.parametrize(
    ("text", "cursor", "line"),
    [
        ("short", 0, "> short"),
        ("0123456789", 10, "> 23456789"),
        ("0123456789abcdef", 16, "> 89abcdef"),
        ("0123456789abcdef", 0, "> 0123456789"),
        ("0123456789abcdef", 8, "> 3456789abc"),
        ("\u4f60\u597d\u4f60\u597d\u4f60\u597d", 6, "> \u4f60\u597d\u4f60\u597d"),
    ],
)
def test_a_long_line_is_shown_around_its_cursor(text: str, cursor: int, line: str) -> None:
    assert typed(text, cursor) == line


@pytest.mark.parametrize("text", ["x" * 50, "\u4f60" * 25, "a\u4f60" * 20, "\U0001f600 b" * 9])
@pytest.mark.parametrize("width", [4, 7, 12, 33, 200])
def test_a_line_is_never_wider_than_the_screen(text: str, width: int) -> None:
    for cursor in range(len(text) + 1):
        assert cell_len(typed(text, cursor, width)) <= width


def test_what_is_said_stands_beneath_in_one_line_each() -> None:
    prompt = PromptLine()
    prompt.start()
    prompt.say(["one", "two is much longer than the screen is wide"])
    assert [line.rstrip() for line in drawn(prompt)[1:]] == ["one", "two is much longer than the s\u2026"]
    prompt.say([])
    assert len(drawn(prompt)) == 1


def test_an_answer_is_shown_as_it_comes() -> None:
    prompt = PromptLine()
    prompt.write(AnswerDelta(3, "it is "))
    prompt.write(AnswerDelta(3, "over\x1b[31m"))
    assert drawn(prompt, 60) == ["answer 3: it is over\ufffd[31m\u258c"]
    prompt.write(Answered(3, None, "too late"))
    assert drawn(prompt) == []
    prompt.write(AnswerDelta(4, "x" * 1000))
    assert sum(map(len, drawn(prompt))) < ANSWER_TAIL + 20


def test_a_view_draws_it_and_answers_stay_as_lines() -> None:
    prompt, on = PromptLine(), console(80, terminal=True)
    view = Terminal(console=on, prompt=prompt)
    view.write(StreamOpened("pong", ""))
    prompt.start()
    prompt.show("what is", 7)
    view.write(Delta(0.0, 1.0, "green serves"))
    view.write(Commentary(0.0, 1.0, "green serves"))
    question = Question("what is the score?")
    view.write(Asked(1, question.text, 1.0))
    view.write(AnswerDelta(1, "3 to 1"))
    prompt.refresh()
    view.write(Answered(1, Answer(question, 1.0, "3 to 1")))
    prompt.say(["instruction 1 holds"], "yellow")
    prompt.refresh()
    view.close()
    assert isinstance(on.file, io.StringIO)
    text = on.file.getvalue()
    for shown in ("> what is", "answer 1: 3 to 1\u258c", "instruction 1 holds"):
        assert shown in text
    for line in ("[   0.0s] green serves", "[   1.0s] question 1: what is the score?", "[   1.0s] answer 1: 3 to 1"):
        assert f"{line}\n" in text.replace(" \n", "\n")


def test_a_refresh_behind_the_end_draws_nothing() -> None:
    prompt, on = PromptLine(), console(80, terminal=True)
    view = Terminal(console=on, prompt=prompt)
    view.write(StreamOpened("pong", ""))
    view.close()
    assert isinstance(on.file, io.StringIO)
    before = on.file.getvalue()
    prompt.say(["late"])
    prompt.stop()
    assert on.file.getvalue().replace("\n", "") == before.replace("\n", "")
