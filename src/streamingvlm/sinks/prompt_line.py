"""The line that a person types under a live view, with answers as they come and what is said of commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions
from rich.text import Text

from ..core.events import AnswerDelta, Answered, Event
from .text import printable

PROMPT = "> "
EMPTY = "a question, or /help"
#: Characters of an answer that are shown while it comes; the whole of it stays as a line.
ANSWER_TAIL = 200


class PromptLine:
    """Drawn by a live view, which asks for it whenever it draws. Other threads may change it meanwhile.

    ``refresh`` is called when something has changed: the view sets it.
    """

    def __init__(self) -> None:
        self.refresh: Callable[[], None] = lambda: None
        # Each is replaced as a whole, so a view that draws meanwhile sees the old or the new one.
        self._line = ("", 0)
        self._said: tuple[Text, ...] = ()
        self._answers: dict[int, str] = {}
        self._open = False

    def start(self) -> None:
        """There is somebody who types."""
        self._open = True
        self.refresh()

    def stop(self) -> None:
        """Nothing is typed any more."""
        self._open, self._line, self._said = False, ("", 0), ()
        self.refresh()

    def show(self, text: str, cursor: int) -> None:
        """The line is ``text`` now, with the cursor before character number ``cursor``."""
        self._line = (text, cursor)
        self.refresh()

    def say(self, lines: Sequence[str], style: str = "dim") -> None:
        """Show lines beneath, in place of those before them."""
        self._said = tuple(Text(line, style, no_wrap=True, overflow="ellipsis") for line in lines)
        self.refresh()

    def write(self, event: Event) -> None:
        """Take an event: answers are shown as they come."""
        if isinstance(event, AnswerDelta):
            text = (self._answers.get(event.number, "") + event.text)[-ANSWER_TAIL:]
            self._answers = {**self._answers, event.number: text}
        elif isinstance(event, Answered):
            self._answers = {number: text for number, text in self._answers.items() if number != event.number}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for number, text in self._answers.items():
            yield Text(f"answer {number}: {printable(text)}▌", style="green")
        if self._open:
            yield _line(*self._line, options.max_width)
        yield from self._said


def _line(text: str, cursor: int, width: int) -> Text:
    """The part of a line around its cursor that ``width`` cells have room for."""
    if not text:
        return Text.assemble(PROMPT, (" ", "reverse"), (EMPTY[: max(width - len(PROMPT) - 1, 0)], "dim"))
    room = max(width - len(PROMPT) - 1, 1)
    before, under, behind = text[:cursor], text[cursor : cursor + 1] or " ", text[cursor + 1 :]
    # Two thirds of the room at most are for what stands before the cursor, unless nothing stands behind it.
    least = min(cell_len(behind), room // 3)
    before = _end(before, room - cell_len(under) - least)
    behind = _begin(behind, room - cell_len(before) - cell_len(under) + 1)
    return Text.assemble(PROMPT, before, (under, "reverse"), behind, no_wrap=True, overflow="crop")


def _begin(text: str, cells: int) -> str:
    return chop_cells(text, cells)[0] if text and cells > 1 else ""


def _end(text: str, cells: int) -> str:
    """The longest end of ``text`` in so many cells."""
    while cell_len(text) > max(cells, 0):
        text = text[1:]
    return text
