"""The chunk grammar: what a stream looks like as tokens. Inference and training build their spans here.

Layout (facts of the public code, paper section 2.1)::

    system | previous text | standing instruction | (user: time, video)(assistant: words ...) x rounds

Every text between two marks is tokenized by itself, so a span always has the same tokens, wherever it stands.
How time and video of a round are written is the model family's: :class:`Grammar` writes one stamp and one block,
:class:`StampedGrammar` a stamp and a block for every temporal patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Protocol

from .spans import PREAMBLE, Kind, Role, Span

#: The largest time that a stamp is reserved for: 115 days of one stream.
LONGEST_STREAM = 9_999_999.0


class Tokenizer(Protocol):
    """What the grammar needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Tokens of ``text``, without any special token added."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``, special tokens left out."""
        ...


@dataclass(frozen=True, slots=True)
class Marks:
    """Tokens of the special tokens of the Qwen-VL chat markup."""

    turn_start: int
    turn_end: int
    vision_start: int
    vision_end: int
    vision_pad: int


#: How the history block is called in the markup.
ROLE_NAMES = {Role.SYSTEM: "system", Role.HISTORY: "previous text", Role.USER: "user", Role.ASSISTANT: "assistant"}


class Grammar:
    """Makes the spans of a stream for one checkpoint.

    ``opening`` and ``closing`` stand around the words of every reply, silent ones too: the public checkpoint was
    trained on ``"\\n" + words + " ..."``.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        marks: Marks,
        *,
        system: str = "You are a helpful assistant.",
        opening: str = "\n",
        closing: str = " ...",
    ) -> None:
        self.tokenizer = tokenizer
        self.marks = marks
        self.system = system
        self.opening = tuple(tokenizer.encode(opening))
        self.closing = tuple(tokenizer.encode(closing))
        #: Whether the standing instruction goes with the first turn, in place of standing before it (the public code).
        self.instruction_in_first_turn = False
        #: Seconds of one temporal patch on the time axis, whatever the frame rate (None: the seconds that it covers).
        self.fixed_patch_seconds: float | None = None
        #: Whether a stream is one plain chat message: no block of old words, no stamp in front of the video.
        self.plain_chat = False
        self._newline = tuple(tokenizer.encode("\n"))
        self._headers = {role: (marks.turn_start, *tokenizer.encode(f"{name}\n")) for role, name in ROLE_NAMES.items()}

    def of_public_code(self) -> Grammar:
        """The same marks and texts laid out as the public code does."""
        other = copy(self)
        other.instruction_in_first_turn, other.fixed_patch_seconds = True, 1.0
        return other

    def of_plain_chat(self) -> Grammar:
        """The same marks laid out as the checkpoint's own chat template does it: system prompt, video, question."""
        other = copy(self)
        other.plain_chat = True
        return other

    def header(self, role: Role, turn: int = PREAMBLE) -> Span:
        """``<|im_start|>role`` and a newline."""
        return Span(Kind.MARKUP, role, self._headers[role], turn)

    def footer(self, role: Role, turn: int = PREAMBLE) -> Span:
        """``<|im_end|>`` and a newline."""
        return Span(Kind.MARKUP, role, (self.marks.turn_end, *self._newline), turn)

    def preamble(self, history: str | Sequence[int] = "", instruction: str = "") -> list[Span]:
        """Everything before the first turn: system prompt, history block, standing instruction (if any).

        ``history`` is text, or tokens where they are known already (training).
        """
        words = tuple(self.tokenizer.encode(history)) if isinstance(history, str) else tuple(history)
        spans = []
        if self.system:
            content = Span(Kind.SYSTEM, Role.SYSTEM, tuple(self.tokenizer.encode(self.system)))
            spans += [self.header(Role.SYSTEM), content, self.footer(Role.SYSTEM)]
        if not self.plain_chat:
            spans.append(self.header(Role.HISTORY))
            if words:
                spans.append(Span(Kind.HISTORY, Role.HISTORY, words))
            spans.append(self.footer(Role.HISTORY))
        if instruction and not self.instruction_in_first_turn:
            spans += [self.header(Role.USER), self.query(instruction), self.footer(Role.USER)]
        return spans

    def query(self, text: str, turn: int = PREAMBLE) -> Span:
        """An instruction or a question."""
        return Span(Kind.QUERY, Role.USER, tuple(self.tokenizer.encode(text)), turn)

    def separator(self, turn: int) -> Span:
        """The newline that follows the reply of ``turn``; it is made with the next turn and goes with the reply."""
        return Span(Kind.MARKUP, Role.ASSISTANT, self._newline, turn)

    def turn(
        self,
        turn: int,
        start: float,
        end: float,
        grid: tuple[int, int, int],
        *,
        patch_seconds: float = 1.0,
        times: Sequence[float] = (),
        query: str = "",
    ) -> list[Span]:
        """One step as the model is shown it: time and video, question if any, and the reply's header.

        ``grid`` counts merged patches (t, h, w); ``patch_seconds`` is the time one step along t covers; ``times`` are
        the t seconds at which the temporal patches stand, for the families that write them.
        """
        if self.fixed_patch_seconds is not None:
            patch_seconds = self.fixed_patch_seconds
        spans = [self.header(Role.USER, turn), *self.video(turn, start, end, grid, patch_seconds, times)]
        if query:
            spans.append(self.query(query, turn))
        return [*spans, self.footer(Role.USER, turn), self.header(Role.ASSISTANT, turn)]

    def video(
        self,
        turn: int,
        start: float,
        end: float,
        grid: tuple[int, int, int],
        patch_seconds: float,
        times: Sequence[float],  # noqa: ARG002
    ) -> list[Span]:
        """The frames of one step, with their time: TIME and VISION spans, all of them covering the whole step."""
        block = self.vision(turn, start, end, grid, patch_seconds)
        if self.plain_chat:
            return [block]
        return [Span(Kind.TIME, Role.USER, self.time_stamp(start, end), turn, start, end), block]

    def time_stamp(self, start: float, end: float) -> tuple[int, ...]:
        """Tokens of ``Time=12.0-13.0s``."""
        return tuple(self.tokenizer.encode(f"Time={start:.1f}-{end:.1f}s"))

    def vision(
        self, turn: int, start: float, end: float, grid: tuple[int, int, int], patch_seconds: float = 1.0
    ) -> Span:
        """One video block with its marks."""
        t, h, w = grid
        tokens = (self.marks.vision_start, *[self.marks.vision_pad] * (t * h * w), self.marks.vision_end)
        return Span(Kind.VISION, Role.USER, tokens, turn, start, end, grid, patch_seconds)

    def reply(self, words: str) -> tuple[int, ...]:
        """Target tokens of one step in training: opening, words, closing, end of turn. ``""`` is silence."""
        spoken = tuple(self.tokenizer.encode(words)) if words else ()
        return (*self.opening, *spoken, *self.closing, self.marks.turn_end)

    def commentary(self, turn: int, start: float, end: float, tokens: Sequence[int]) -> Span:
        """The span of a reply as far as it was sampled, knowing how many of its tokens are words."""
        ids = tuple(tokens)
        return Span(Kind.COMMENTARY, Role.ASSISTANT, ids, turn, start, end, words=self._count_words(ids))

    def text(self, tokens: Sequence[int]) -> str:
        """What a reply says: its words without opening, closing and marks."""
        ids = tuple(tokens)
        return self.tokenizer.decode(ids[: self._count_words(ids)]).strip()

    def turn_overhead(self, patches: int = 1) -> int:
        """Most tokens of a turn of ``patches`` temporal patches, without one video block, a question and the reply."""
        markup = self.header(Role.USER), self.footer(Role.USER), self.header(Role.ASSISTANT), self.separator(0)
        return self.video_overhead(patches) + sum(map(len, markup))

    def video_overhead(self, patches: int) -> int:  # noqa: ARG002
        """Most tokens that :meth:`video` writes beside the pads and the two marks of one block."""
        return max(len(self.time_stamp(t, LONGEST_STREAM)) for t in (0.0, LONGEST_STREAM))

    def _count_words(self, ids: tuple[int, ...]) -> int:
        count = len(ids)
        if count and ids[-1] == self.marks.turn_end:
            count -= 1
        size = len(self.closing)
        if size and ids[count - size : count] == self.closing and count >= size:
            count -= size
        return count


class StampedGrammar(Grammar):
    """Every temporal patch is a block of its own, behind a stamp of its own: ``<0.2 seconds>`` and the block.

    The spans of all patches cover the whole step, so that a policy, which decides by turn, keeps or drops them
    together.
    """

    def video(
        self,
        turn: int,
        start: float,
        end: float,
        grid: tuple[int, int, int],
        patch_seconds: float,
        times: Sequence[float],
    ) -> list[Span]:
        """See :meth:`Grammar.video`."""
        patches, height, width = grid
        assert len(times) == patches, "one time per temporal patch"
        spans = []
        for time in times:
            spans.append(Span(Kind.TIME, Role.USER, self.patch_stamp(time), turn, start, end))
            spans.append(self.vision(turn, start, end, (1, height, width), patch_seconds))
        return spans

    def patch_stamp(self, time: float) -> tuple[int, ...]:
        """Tokens of ``<12.2 seconds>``."""
        return tuple(self.tokenizer.encode(f"<{time:.1f} seconds>"))

    def video_overhead(self, patches: int) -> int:
        """See :meth:`Grammar.video_overhead`: a stamp for every patch, two more marks for every one but the first."""
        stamp = max(len(self.patch_stamp(t)) for t in (0.0, LONGEST_STREAM))
        return patches * (stamp + 2) - 2
