"""The strict parser on awkward replies."""

from __future__ import annotations

import pytest

from streamingvlm.core.errors import OptionError
from streamingvlm.evaluate.questions import parsers
from streamingvlm.evaluate.questions.items import Form, Item, Reply
from streamingvlm.evaluate.questions.parsers import Mark, read_choice, read_count, read_proactive, read_yes_no

OPTIONS = ("A red car.", "Vitamin C", "a blue car", "The man is not running")

CHOICES = [
    # A letter, alone or dressed.
    ("B", "B"),
    ("b", "B"),
    (" B \n", "B"),
    ("B.", "B"),
    ("(B)", "B"),
    ("[B]", "B"),
    ("(B", "B"),
    ("B)", "B"),
    ("**B**", "B"),
    ("**B.**", "B"),
    ("\\boxed{B}", "B"),
    ("'B'", "B"),
    ("a", "A"),
    # A letter and words.
    ("B. Vitamin C", "B"),
    ("B: Vitamin C", "B"),
    ("B) vitamin c.", "B"),
    ("(B) Vitamin C.", "B"),
    ("B - Vitamin C", "B"),
    ("B. because it is on the label", "B"),
    ("D. The man is not running", "D"),
    ("Option B", "B"),
    ("option b", "B"),
    ("B is correct", "B"),
    ("Answer: B", "B"),
    ("answer b", "B"),
    ("ANSWER: (B)", "B"),
    ("The answer is B.", "B"),
    ("The best option is: B", "B"),
    ("So, the correct answer is (B).", "B"),
    ("The correct answer is B. Vitamin C", "B"),
    ("The final answer is **B**", "B"),
    ("A.", "A"),
    ("(A) A red car", "A"),
    ("The answer is A", "A"),
    ("The answer is: A. A red car", "A"),
    ("Answer: B\nAnswer: B", "B"),
    # The words of an option.
    ("vitamin c", "B"),
    ("Vitamin C.", "B"),
    ("A red car", "A"),
    ("a  blue\ncar", "C"),
    ("The man is not running.", "D"),
    ("Answer: a blue car", "C"),
    # None, or more than one.
    ("", None),
    ("   ", None),
    ("...", None),
    ("()", None),
    ("A or B", None),
    ("B or C", None),
    ("B, C", None),
    ("(A) or (B)", None),
    ("A, B, C, D", None),
    ("A. A red car; B. Vitamin C", None),
    ("B. No, wait: C", None),
    ("B. a blue car", None),
    ("The answer is B or C", None),
    ("The answer is not B", None),
    ("It isn't B", None),
    ("(B) is wrong", None),
    ("E", None),
    ("(E)", None),
    ("The answer is E.", None),
    ("a car", None),
    ("A man walks past", None),
    ("The answer is a mystery", None),
    ("I cannot tell", None),
    ("I", None),
    ("I don't know.", None),
    ("Because of the light", None),
    ("Based on the video, nothing is shown", None),
    ("None of the above", None),
    ("2", None),
    ("BC", None),
    ("Bus", None),
]


@pytest.mark.parametrize(("text", "answer"), CHOICES)
def test_choice(text: str, answer: str | None) -> None:
    assert read_choice(text, OPTIONS) == answer


def test_options_that_are_letters_or_alike() -> None:
    assert read_choice("B", ("B", "A", "C")) == "B", "the letter, not the words of the first option"
    assert read_choice("car", ("car", "car")) is None, "two options with the same words"
    assert read_choice("7", ("5", "7")) == "B"
    assert read_choice("(C. (E)Inside;", ("x", "y", "(E)Inside", "z", "w")) == "C", "a letter within the words"
    assert read_choice("A. one of B or C", ("one of B or C", "y", "z")) == "A"
    assert read_choice("F", tuple("uvwxyz")) == "F"
    assert read_choice("H", tuple("uvwxyz")) is None
    assert read_choice("anything", ()) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes", "Yes"),
        ("no", "No"),
        ("YES.", "Yes"),
        ("Y", "Yes"),
        ("n", "No"),
        ("**No**", "No"),
        ("(Yes)", "Yes"),
        ("Answer: No", "No"),
        ("The answer is yes.", "Yes"),
        ("Yes, the man is cutting.", "Yes"),
        ("No, there is no knife.", "No"),
        ("No.\n", "No"),
        ("", None),
        ("Yes and no", None),
        ("Yes / No", None),
        ("Yes, no doubt", None),
        ("No idea", None),
        ("No, information is missing", None),
        ("Not yet", None),
        ("None", None),
        ("Nope", None),
        ("Yesterday", None),
        ("There is no person", None),
        ("I cannot answer Yes", None),
        ("1", None),
        ("YN", None),
    ],
)
def test_yes_no(text: str, answer: str | None) -> None:
    assert read_yes_no(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3", "3"),
        ("3.", "3"),
        ("03", "3"),
        ("(3)", "3"),
        ("**3**", "3"),
        ("10", "10"),
        ("0", "0"),
        ("Answer: 3", "3"),
        ("3 times", "3"),
        ("They did it 3 times.", "3"),
        ("three", "3"),
        ("Twice", "2"),
        ("once.", "1"),
        ("zero", "0"),
        ("3 (three)", "3"),
        ("", None),
        ("many", None),
        ("1 or 2", None),
        ("1-2", None),
        ("2 to 3", None),
        ("3/4", None),
        ("2.5", None),
        ("-1", None),
        ("1,000", None),
        ("one or two", None),
        ("2 people, 3 times", None),
        ("I cannot tell", None),
        ("x3", "3"),
        ("the 3rd", None),
        ("00:03", None),
        ("9" * 5000, None),
        ("²", None),
    ],
)
def test_count(text: str, answer: str | None) -> None:
    assert read_count(text) == answer


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Goal!", True),
        ("GOAL", True),
        ("It is a goal, at last", True),
        ("The goalkeeper", False),
        ("", False),
        ("Nothing", False),
    ],
)
def test_proactive_words(text: str, right: bool) -> None:
    assert read_proactive(text, "goal") == ("goal" if right else None)
    assert read_proactive(text, "") is None, "an item without words has no right words"


def item(form: Form, answer: str, options: tuple[str, ...] = (), **more: object) -> Item:
    return Item("1", "v", "T", "G", 10.0, "?", answer, "?", form, options, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "reply", "mark"),
    [
        (item(Form.CHOICE, "B", OPTIONS), Reply("1", "B"), Mark(1, True)),
        (item(Form.CHOICE, "B", OPTIONS), Reply("1", "C"), Mark(0, True)),
        (item(Form.CHOICE, "B", OPTIONS), Reply("1", ""), Mark(0, False)),
        (item(Form.CHOICE, "B", OPTIONS), Reply("1", None), Mark(0, False)),
        (item(Form.CHOICE, "B", OPTIONS), Reply("1", None, None, {"A": 0.2, "B": 0.7}), Mark(1, True)),
        (item(Form.CHOICE, "B", OPTIONS), Reply("1", None, None, {"A": 0.5, "B": 0.5}), Mark(0, False)),
        (item(Form.CHOICE, "B", OPTIONS), Reply("1", "C", None, {"B": 1.0}), Mark(0, True)),
        (item(Form.YES_NO, "No"), Reply("1", "No."), Mark(1, True)),
        (item(Form.COUNT, "12"), Reply("1", "1 or 2"), Mark(0, False)),
        (item(Form.PROACTIVE, "goal", truth_time=14.0), Reply("1", "Goal", 12.0), Mark(1, True)),
        (item(Form.PROACTIVE, "goal", truth_time=14.0), Reply("1", "Goal", 11.0), Mark(0, True)),
        (item(Form.PROACTIVE, "goal", truth_time=14.0), Reply("1", "foul", 14.0), Mark(0, False)),
        (item(Form.PROACTIVE, "goal", truth_time=14.0), Reply("1", "Goal"), Mark(0, True)),
        (item(Form.PROACTIVE, "goal"), Reply("1", "Goal", 14.0), Mark(0, True)),
        (item(Form.PROACTIVE, "goal", truth_time=14.0, about={"tolerance": 4}), Reply("1", "goal", 18), Mark(1, True)),
    ],
)
def test_strict_marks(asked: Item, reply: Reply, mark: Mark) -> None:
    assert parsers.strict(asked, reply) == mark


def test_an_unknown_parser_is_named() -> None:
    assert parsers.pick({"strict": parsers.strict}, "strict") is parsers.strict
    with pytest.raises(OptionError, match="'lenient'; it is one of: strict"):
        parsers.pick({"strict": parsers.strict}, "lenient")
