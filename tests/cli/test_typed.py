"""What typed lines ask for."""

from __future__ import annotations

import pytest

from streamingvlm.cli.typed import (
    HELP,
    AskLine,
    CancelLine,
    HelpLine,
    InstructLine,
    QuitLine,
    RebaseLine,
    RuleLine,
    TypedLine,
    UnruleLine,
    parse_line,
)
from streamingvlm.core.errors import OptionError
from streamingvlm.runtime.rules import AskedRule, SaysRule


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", None),
        ("  \t ", None),
        ("what is the score?", AskLine("what is the score?")),
        ("  is it 3/4? ", AskLine("is it 3/4?")),
        ("/instruct be  brief", InstructLine("be  brief")),
        ("/rule fall: a person lies there", RuleLine(AskedRule(name="fall", text="a person lies there"))),
        ("/rule goal: says: \\bgoal\\b; off_after=5", RuleLine(SaysRule(name="goal", text="\\bgoal\\b", off_after=5))),
        ("/unrule fall", UnruleLine("fall")),
        ("/cancel", CancelLine()),
        ("/cancel 3", CancelLine(3)),
        ("/rebase", RebaseLine()),
        ("/rebase 12.5", RebaseLine(12.5)),
        ("/help", HelpLine()),
        (" /quit ", QuitLine()),
    ],
)
def test_a_line_is_a_question_or_a_command(text: str, line: TypedLine | None) -> None:
    assert parse_line(text) == line


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("/", "there is no command / "),
        ("/quite", "there is no command /quite (there are /instruct, /rule, /unrule, /cancel, /rebase, /help, /quit)"),
        ("/Quit", "there is no command /Quit"),
        ("/quit now", "/quit stands alone"),
        ("/help me", "/help stands alone"),
        ("/instruct", "it is /instruct TEXT"),
        ("/unrule  ", "it is /unrule NAME"),
        ("/rule", "it is /rule NAME: WHAT"),
        ("/rule goal", "a rule is 'NAME: WHAT'"),
        ("/rule goal: says: (", "rule 'goal': '(' is no regular expression"),
        ("/cancel last", "/cancel takes the number of a question, not 'last'"),
        ("/cancel -1", "/cancel takes the number of a question, not '-1'"),
        ("/cancel 99999999999", "/cancel takes the number of a question"),
        ("/rebase soon", "/rebase takes a number of seconds, not 'soon'"),
        ("/rebase nan", "/rebase takes a number of seconds, not 'nan'"),
        ("/rebase inf", "/rebase takes a number of seconds, not 'inf'"),
    ],
)
def test_what_is_no_command_is_one_line(text: str, error: str) -> None:
    with pytest.raises(OptionError) as found:
        parse_line(text)
    assert str(found.value).startswith(error)
    assert "\n" not in str(found.value)


def test_help_names_every_command() -> None:
    assert [line.split()[0] for line in HELP[1:]] == [
        "/instruct", "/rule", "/unrule", "/cancel", "/rebase", "/help", "/quit",
    ]  # fmt: skip
    assert all(len(line) <= 80 for line in HELP)
