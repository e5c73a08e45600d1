"""What a model behind an endpoint is sent for one step of a stream, and the two ways of watching that are compared."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import OptionError
from ..core.events import Question

#: What a model says for a step without words; an empty reply means the same.
SILENCE = "..."
#: Characters that one word of the history may take: bounds text that has no spaces.
WORD_CHARACTERS = 8
#: Options of a question: each has a letter.
MOST_OPTIONS = 26
#: What may stand around an option in a reply, and before a word in the names of tokens.
MARKS = "\"'`*().: \t\r\n\u2581\u0120\u010a"
#: How servers say how many pictures a call may have.
PICTURES = re.compile(
    r"at most (\d+) images?\b|\bimage=(\d+)|\b(?:max(?:imum)?|limit)\b[^.\d]{0,40}?(\d+) images?\b"
    r"|\b(?:max(?:imum)?|limit)\b[^.\d]{0,20}\bimages?\b[^.\d]{0,30}(\d+)"
    r"|\bimages?\b[^.\d]{0,40}\b(?:max(?:imum)?|limit)\b[^.\d]{0,20}(\d+)",
    re.IGNORECASE,
)
#: How they say that a call is too long, in tokens.
TOO_LONG = re.compile(
    r"context.{0,20}(length|size|window)|maximum (context|model) length|(prompt|input) is too long|too many tokens"
    r"|(entity|payload|request|content) too large",
    re.IGNORECASE,
)

Message = dict[str, Any]


def check_text(what: str, text: str) -> None:
    """OptionError for what is no text: halves of characters cannot be sent."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise OptionError(f"the {what} is not text in Unicode: {text!r}") from None


@dataclass(frozen=True, slots=True)
class Still:
    """A picture that is sent: seconds from the stream's start, and the picture as a URL."""

    time: float
    url: str


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """How a stream is shown to a model behind an endpoint.

    Pictures: ``fps`` of them per second of video (None: every frame of the source), those of the step and, before it,
    those of the last ``seconds`` up to its end (None: without a bound in time); at most ``frames`` (None: no bound) of
    at most ``height`` lines (None: as they are), JPEG of ``quality``. ``history_words``: how many of its own last words
    the model is shown (0: none). ``system``: the system text; ``context``: what is known before the video starts;
    ``instruction``: the standing instruction, which :meth:`RemoteSession.instruct` replaces. ``words_per_second``: the
    length that is asked for, per second of the step (0: none is asked for); what is streamed is cut far above it, as
    models may not end by themselves. ``params``: of every call, as
    :meth:`Endpoint.chat` takes them.
    """

    fps: float | None = 2.0
    seconds: float | None = 16.0
    frames: int | None = None
    height: int | None = 360
    quality: int = 85
    history_words: int = 400
    system: str = ""
    context: str = ""
    instruction: str = ""
    words_per_second: float = 0.0
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise OptionError(f"fps must be a number above 0, not {self.fps}")
        if self.seconds is None and self.frames is None:
            raise OptionError("pictures need a bound: seconds, frames or both")
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise OptionError(f"seconds must be 0 (the step alone) or more, not {self.seconds}")
        if self.frames is not None and self.frames < 1:
            raise OptionError(f"frames must be 1 or more, not {self.frames}")
        if self.height is not None and self.height < 1:
            raise OptionError(f"height must be 1 or more, not {self.height}")
        if not 1 <= self.quality <= 100:
            raise OptionError(f"quality must be 1 to 100, not {self.quality}")
        if self.history_words < 0 or not (math.isfinite(self.words_per_second) and self.words_per_second >= 0):
            raise OptionError("history_words and words_per_second must be 0 or more")
        for name in ("system", "context", "instruction"):
            check_text(name, getattr(self, name))


#: The paper's GPT baseline: each window by itself, few stills, no history, the endpoint's own sampling.
PAPER_BASELINE = RemoteOptions(
    fps=0.25,
    seconds=0.0,
    frames=60,
    height=360,
    quality=85,
    history_words=0,
    system="You are a sports commentator. Answer in plain text of two to six sentences, without lists or headings.",
    instruction="Describe what happens in this video.",
)
#: As a local streaming model watches: the same pictures and, as text, its own words.
OURS = RemoteOptions(
    fps=2.0,
    seconds=16.0,
    height=360,
    quality=85,
    history_words=400,
    system=(
        "You comment on a video while it runs. Each time you get the latest pictures and what you have said so far. "
        "Go on from there in plain spoken text: do not repeat yourself, do not announce what you do, use no lists or "
        f"headings. When nothing is worth a word, answer {SILENCE} and nothing else."
    ),
    words_per_second=3.0,
)


def step_messages(
    options: RemoteOptions, instruction: str, stills: Sequence[Still], said: str, start: float, end: float
) -> list[Message]:
    """The messages of a call for the commentary of ``start`` to ``end`` seconds."""
    wanted = [instruction] if instruction else []
    if options.seconds != 0 or options.history_words:
        wanted.append(f"Now comment on the video from {start:g} s to {end:g} s.")
    if options.words_per_second:
        wanted.append(f"Use at most {max(1, round(options.words_per_second * (end - start)))} words.")
    return _messages(options, stills, said, " ".join(wanted) or "Comment on this video.")


def question_messages(
    options: RemoteOptions, stills: Sequence[Still], said: str, question: str, choices: Sequence[str]
) -> list[Message]:
    """The messages of a call with a question. ``choices``: answers to choose from, by letter."""
    lines = [question, *(f"{chr(ord('A') + number)}. {choice}" for number, choice in enumerate(choices))]
    if choices:
        lines.append("Answer with the letter of the right choice alone.")
    return _messages(options, stills, said, "\n".join(lines))


def check_question(question: Question) -> None:
    """OptionError for what a model behind an endpoint cannot be asked."""
    if not question.text.strip():
        raise OptionError("a question needs words")
    if question.prefix or question.as_commentary:
        raise OptionError("a model behind an endpoint is asked in words: its reply cannot be begun for it")
    if len(question.options) > MOST_OPTIONS:
        raise OptionError(f"a question has at most {MOST_OPTIONS} options, not {len(question.options)}")
    if len(set(question.options)) != len(question.options) or not all(map(str.strip, question.options)):
        raise OptionError("the options of a question are different texts, none of them empty")
    for text in (question.text, *question.options):
        check_text("question", text)


def plain_word(text: str) -> str:
    """``text`` without capitals and without the marks around it."""
    return text.strip(MARKS).casefold()


def choice_of(options: Sequence[str], reply: str) -> str | None:
    """The option that ``reply`` names: by its letter or its words, with nothing else beside (None: it names none).

    Capitals, quotes, brackets and a full stop do not matter. A letter that is an option itself is that option.
    """
    text = plain_word(reply)
    named = [one for one in options if plain_word(one) == text]
    if len(named) == 1:
        return named[0]
    letters = {chr(ord("a") + number): one for number, one in enumerate(options)}
    pairs = {plain_word(f"{letter}. {one}"): one for letter, one in letters.items()}
    return letters.get(text) or pairs.get(text)


def option_of_token(options: Sequence[str], token: str) -> int | None:
    """Which option a reply names that begins with ``token``: its letter, its words or the beginning of these.

    None: it names none, or it may be the beginning of several.
    """
    text, words = plain_word(token), [plain_word(one) for one in options]
    if not text:
        return None
    if words.count(text) == 1:
        return words.index(text)
    if len(text) == 1 and 0 <= ord(text) - ord("a") < len(options):
        return ord(text) - ord("a")
    begun = [place for place, word in enumerate(words) if word.startswith(text)]
    return begun[0] if len(begun) == 1 else None


def most_pictures(refusal: str, shown: int) -> int | None:
    """How many pictures the next call may have where a server has refused one of ``shown`` pictures with these words.

    What it says where it tells a bound; half of them where the call is too long. None: it is about something else, or
    cannot be less.
    """
    told = PICTURES.search(refusal)
    if told:
        bound = int(next(filter(None, told.groups())))
        return bound if 0 < bound < shown else None
    return shown // 2 if shown > 1 and TOO_LONG.search(refusal) else None


def last_words(text: str, most: int) -> str:
    """The end of ``text``: at most ``most`` words, and bounded in characters where there are no spaces."""
    words = text.split()[-most:] if most else []
    return " ".join(words)[-WORD_CHARACTERS * most :] if most else ""


def _messages(options: RemoteOptions, stills: Sequence[Still], said: str, wanted: str) -> list[Message]:
    system = "\n\n".join(
        text for text in (options.system, options.context and f"About the video: {options.context}") if text
    )
    content: list[Message] = []
    if said:
        content.append(_text(f"You have said so far: {said}"))
    if stills:
        content.append(_text(_caption(stills)))
        content += [{"type": "image_url", "image_url": {"url": still.url}} for still in stills]
    content.append(_text(wanted))
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": content}]


def _caption(stills: Sequence[Still]) -> str:
    if len(stills) == 1:
        return f"A picture of the video, at {stills[0].time:g} s:"
    return f"{len(stills)} pictures of the video, from {stills[0].time:g} s to {stills[-1].time:g} s, the oldest first:"


def _text(text: str) -> Message:
    return {"type": "text", "text": text}
