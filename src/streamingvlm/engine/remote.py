"""The face of a :class:`Session` for a model behind an OpenAI-compatible endpoint.

A server keeps nothing between two calls, so every call carries what the model sees: the newest pictures, its own last
words, the instruction. That is all the state there is.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from ..core.errors import EndpointError, OptionError, SessionError
from ..core.events import Answer, Chunk, Commentary, FinishReason, InstructionUpdated, Question, StepInput, Timing
from .accepted import LIMITS
from .chat_protocol import Enough, without_thoughts
from .endpoint import CallLimit, Completion, Endpoint
from .jpeg import data_url, encode_jpeg
from .options import INSTRUCTIONS
from .remote_prompt import (
    OURS,
    PAPER_BASELINE,
    SILENCE,
    WORD_CHARACTERS,
    RemoteOptions,
    Still,
    check_question,
    check_text,
    choice_of,
    last_words,
    question_messages,
    step_messages,
)
from .remote_weigh import Weighing

__all__ = ["OURS", "PAPER_BASELINE", "Pictures", "RemoteOptions", "RemoteSession"]

#: Number of the form of :meth:`RemoteSession.state`.
STATE_FORMAT = 1
#: A streamed reply is cut at so many times the words that were asked for, and not before so many.
EXCESS, LEAST_WORDS = 4, 32
#: Seconds by which times of frames and steps may differ and be the same.
NEAR = 1e-6


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a chunk shows, encoded: see :meth:`RemoteSession.encode`. Some ten kilobytes a picture."""

    start: float
    end: float
    stills: tuple[Still, ...]

    @property
    def times(self) -> tuple[float, ...]:
        """Seconds of the stream, one per picture."""
        return tuple(still.time for still in self.stills)


@dataclass(frozen=True, slots=True)
class _State:
    """Where a stream stands. Replaced as a whole once a step has succeeded.

    ``start``: where the last chunk began; ``stills``: what may be shown again; ``missing``: of a restored stream, the
    second from which its pictures are still to be fed; ``expected``: when they were taken (None: not known).
    """

    time: float = 0.0
    start: float = 0.0
    turn: int = 0
    said: str = ""
    instruction: str = ""
    version: int = 0
    pending: tuple[InstructionUpdated, ...] = ()
    stills: tuple[Still, ...] = ()
    missing: float | None = None
    expected: tuple[float, ...] | None = None


class RemoteSession:
    """One stream that a model behind ``endpoint`` watches; ``state``: what :meth:`state` of an earlier one gave.

    It is for one thread at a time; sessions of several threads may share an endpoint, which is theirs to close.
    OptionError for a state that is none.
    """

    def __init__(
        self, endpoint: Endpoint, options: RemoteOptions = OURS, *, state: Mapping[str, Any] | None = None
    ) -> None:
        self.endpoint, self.options = endpoint, options
        #: The last reply, with all that the endpoint told of it (None: there was none).
        self.last: Completion | None = None
        #: Pictures that the last call of :meth:`step` has shown.
        self.pictures = 0
        self._state = _State(instruction=options.instruction) if state is None else _restored(state)
        self._closed = False
        self._busy = threading.Lock()

    @property
    def time(self) -> float:
        """Seconds: where what was seen ends."""
        return self._state.time

    @property
    def turn(self) -> int:
        """Steps that have ended."""
        return self._state.turn

    @property
    def version(self) -> int:
        """Of the newest instruction (0: the one that the stream was opened with)."""
        return self._state.version

    @property
    def closed(self) -> bool:
        """Whether the session was closed."""
        return self._closed

    def step(
        self,
        item: Chunk | StepInput,
        *,
        on_text: Callable[[str], None] | None = None,
        limit: CallLimit | None = None,
    ) -> Commentary:
        """Watch one chunk, of any length, and say what happens in it; an empty reply is a silent step.

        What :meth:`encode` made of it may stand in ``prepared``. ``on_text`` receives new text as it comes: all of it
        joined is the commentary's text; a reply that comes so and is far longer than was asked for is cut. ``limit``:
        see :meth:`Endpoint.chat`. Raises :class:`EndpointError` where there is no reply, ValueError for a chunk that
        does not follow the last one; then, and when ``on_text`` raises, the stream stands as before the call.
        """
        step = StepInput.of(item)
        with self._alone():
            self._check_whole()
            if step.chunk.start < self.time - NEAR:
                raise ValueError(f"a chunk from {step.chunk.start:g} s cannot follow one that ended at {self.time:g} s")
            began = time.perf_counter()
            shown = step.prepared if isinstance(step.prepared, Pictures) else step.chunk
            state = _told(self._seen(shown))
            stills = self._shown(state)
            self.pictures = len(stills)
            messages = step_messages(self.options, state.instruction, stills, state.said, state.start, state.time)
            prepared = time.perf_counter() - began
            most = _most_characters(self.options.words_per_second, step.chunk.end - step.chunk.start)
            outgoing = None if on_text is None else _Outgoing(on_text, _spoken, most)
            reply = self.endpoint.chat(messages, self.options.params, on_text=outgoing, limit=limit)
            reply = _with_words(reply, self.endpoint)
            text = _spoken(reply.text)
            if outgoing is not None:
                outgoing.end(text)
            commentary = _commentary(step, text, reply, prepared, state.pending)
            said = last_words(f"{state.said} {text}", self.options.history_words)
            self._state = replace(state, turn=state.turn + 1, said=said, pending=())
            self.last = reply
            return commentary

    def see(self, chunk: Chunk | Pictures) -> None:
        """Add what a chunk shows, without a call: what a restored stream has lost, or a step that is left out.

        A restored stream is fed the video from ``frames_from`` of its state to its time. ValueError for a chunk whose
        frames do not follow those before.
        """
        with self._alone():
            self._state = self._seen(chunk)

    def encode(self, chunk: Chunk) -> Pictures:
        """The pictures of a chunk as they are sent, for :meth:`see` and :meth:`step`; from any thread."""
        stills = tuple(self._still(chunk, index) for index in _picked(chunk, self.options.fps, None))
        return Pictures(chunk.start, chunk.end, stills)

    def fork(self) -> RemoteSession:
        """Another session that stands where this one does; the two go on by themselves."""
        other = RemoteSession(self.endpoint, self.options)
        other._state = self._state
        return other

    def forget_pictures(self) -> None:
        """Go on without what was seen: a restored stream whose video is gone keeps its words and its instruction."""
        with self._alone():
            self._state = replace(self._state, stills=(), missing=None, expected=None)

    def run(self, source: Iterable[Chunk]) -> Iterator[Commentary]:
        """Watch a source to its end."""
        for chunk in source:
            yield self.step(chunk)

    def instruct(self, text: str) -> int:
        """Replace the standing instruction, from the next step on; the version of the new one (the first is 1)."""
        self.check_instruction(text)
        with self._alone():
            version = self._state.version + 1
            pending = (*self._state.pending, InstructionUpdated(version, text, None))[-INSTRUCTIONS:]
            self._state = replace(self._state, version=version, pending=pending)
        return version

    def check_instruction(self, text: str) -> None:
        """Raise what :meth:`instruct` would raise."""
        if not text.strip():
            raise OptionError("an instruction needs words; to open a stream without one, give instruction=''")
        check_text("instruction", text)

    def ask(self, question: str, *, options: Sequence[str] = ()) -> str:
        """The answer to a question about what was seen so far, as the model gave it; the stream stays as it is.

        ``options``: answers to choose from; the model is asked for a letter. Raises :class:`EndpointError`.
        """
        if not question.strip():
            raise OptionError("a question needs words")
        for text in (question, *options):
            check_text("question", text)
        with self._alone():
            self._check_whole()
            messages = question_messages(self.options, self._shown(self._state), self._state.said, question, options)
            self.last = _with_words(self.endpoint.chat(messages, self.options.params), self.endpoint)
            return _answered(self.last.text)

    def answer(
        self,
        question: Question,
        *,
        on_text: Callable[[str], None] | None = None,
        limit: CallLimit | None = None,
        weighing: Weighing | None = None,
    ) -> Answer:
        """The reply to ``question``, as an event; the stream stays as it is.

        With ``options`` the model is asked for a letter, and nothing is streamed; a reply that is neither a letter nor
        an option, alone, is an :class:`EndpointError` of kind ``malformed``. ``weighing``: how options are weighed
        (None: they are not). Where the server tells no ``logprobs`` the answer has none. The bound of the reply is
        ``max_new_tokens`` where the parameters of the calls have a bound. OptionError for what an endpoint cannot be
        asked: a prefix, or options as commentary.
        """
        check_question(question)
        with self._alone():
            self._check_whole()
            state, options, params = self._state, question.options, dict(self.options.params)
            messages = question_messages(self.options, self._shown(state), state.said, question.text, options)
            logprobs: tuple[float, ...] = ()
            if options and weighing is not None:
                reply, logprobs = weighing.choose(self.endpoint, messages, params, options, limit)
            elif options:
                reply = self.endpoint.chat(messages, params, limit=limit)
            else:
                params |= {name: question.max_new_tokens for name in LIMITS if name in params}
                most = question.max_new_tokens * WORD_CHARACTERS
                outgoing = None if on_text is None else _Outgoing(on_text, _answered, most)
                reply = self.endpoint.chat(messages, params, on_text=outgoing, limit=limit)
            self.last = reply = _with_words(reply, self.endpoint)
        text = _answered(reply.text)
        if logprobs:
            text = options[logprobs.index(max(logprobs))]
        elif options:
            text = self._chosen(options, text)
        finish: FinishReason = "length" if reply.finish_reason == "length" and not options else "stop"
        timing = Timing(decode=reply.seconds)
        return Answer(question, state.time, text, finish_reason=finish, logprobs=logprobs, timing=timing)

    def _chosen(self, options: Sequence[str], reply: str) -> str:
        chosen = choice_of(options, reply)
        if chosen is None:
            reason = f"the reply names none of the {len(options)} options: {reply[:80]!r}"
            raise EndpointError(f"{self.endpoint!r}: {reason}", "malformed", reason=reason, status=200)
        return chosen

    def state(self) -> dict[str, Any]:
        """The stream between two steps as a JSON value, without its pictures.

        A session made of it is fed the video from ``frames_from`` seconds (None: there were no pictures) up to
        ``time`` with :meth:`see`; its next request is then the same. ``pictures``: the times of those that it takes.
        Where the video is gone, :meth:`forget_pictures` lets it go on without.
        """
        state = self._state
        oldest = state.stills[0].time if state.stills else None
        pictures = [still.time for still in state.stills] if state.missing is None else state.expected
        return {
            "format": STATE_FORMAT,
            "time": state.time,
            "start": state.start,
            "turn": state.turn,
            "said": state.said,
            "instruction": state.instruction,
            "version": state.version,
            "pending": [[one.version, one.text] for one in state.pending],
            "frames_from": oldest if state.missing is None else state.missing,
            "pictures": list(pictures) if pictures is not None else None,
        }

    def close(self) -> None:
        """Nothing follows; the endpoint stays open. Safe to call twice."""
        self._closed = True

    def __enter__(self) -> RemoteSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._closed:
            raise SessionError("this session is closed; open another one")
        if not self._busy.acquire(blocking=False):
            raise SessionError("a call of this session is under way: a session is for one thread at a time")
        try:
            yield
        finally:
            self._busy.release()

    def _check_whole(self) -> None:
        if self._state.missing is not None:
            raise SessionError(
                f"this stream was restored: show it the video from {self._state.missing:g} s to {self.time:g} s "
                "first, with see()"
            )

    def _seen(self, chunk: Chunk | Pictures) -> _State:
        """The state with what ``chunk`` shows."""
        state, options = self._state, self.options
        if state.stills and chunk.times and chunk.times[0] < state.stills[-1].time - NEAR:
            raise ValueError(f"a frame of {chunk.times[0]:.3f} s cannot follow one of {state.stills[-1].time:.3f} s")
        now = max(state.time, chunk.end)
        if state.missing is not None:  # what comes is what was kept
            return self._mended(chunk, state.missing)
        own = [self._still(chunk, index) for index in self._picked(chunk)]
        since = -math.inf if options.seconds is None else now - options.seconds
        kept = [still for still in state.stills if still.time >= since - NEAR]
        if options.seconds is None and options.frames is not None:
            kept = kept[-options.frames :]
        if not kept and not own:
            own = [self._still(chunk, 0)]
        return replace(state, time=now, start=chunk.start, stills=(*kept, *own))

    def _mended(self, chunk: Chunk | Pictures, missing: float) -> _State:
        """The state of a restored stream that is shown again what it has seen: the same pictures count."""
        state = self._state
        tolerance = NEAR if self.options.fps is None else 0.5 / self.options.fps
        if not state.stills and chunk.times[0] > missing + tolerance:
            raise ValueError(f"the video is missing from {missing:g} s on, not from {chunk.times[0]:g} s")
        places: Iterable[int] = self._picked(chunk)
        if (expected := state.expected) is not None:
            near = (any(abs(moment - one) <= NEAR for one in expected) for moment in chunk.times)
            places = [place for place, counts in enumerate(near) if counts]
        own = [self._still(chunk, place) for place in places]
        whole = chunk.end >= state.time - NEAR
        mended = replace(state, time=max(state.time, chunk.end), stills=(*state.stills, *own))
        return replace(mended, missing=None, expected=None) if whole else mended

    def _picked(self, chunk: Chunk | Pictures) -> list[int]:
        last = self._state.stills[-1].time if self._state.stills else None
        return _picked(chunk, self.options.fps, last)

    def _still(self, chunk: Chunk | Pictures, index: int) -> Still:
        if isinstance(chunk, Pictures):
            return chunk.stills[index]
        jpeg = encode_jpeg(chunk.frames[index], height=self.options.height, quality=self.options.quality)
        return Still(chunk.times[index], data_url(jpeg))

    def _shown(self, state: _State) -> list[Still]:
        """What a call shows: pictures of the last chunk, spread over it where they are too many, and those before."""
        since = -math.inf if self.options.seconds is None else state.time - self.options.seconds
        own = [still for still in state.stills if still.time >= state.start - NEAR]
        earlier = [still for still in state.stills if since - NEAR <= still.time < state.start - NEAR]
        most = self.options.frames
        if most is None:
            return [*earlier, *own]
        if len(own) > most:
            own = [own[(number + 1) * len(own) // most - 1] for number in range(most)]
        return [*earlier[max(0, len(earlier) + len(own) - most) :], *own]


def _picked(chunk: Chunk | Pictures, fps: float | None, last: float | None) -> list[int]:
    """Which frames of a chunk count, with ``fps`` of them a second (None: every one), behind one at ``last`` seconds.

    All of them if there are no more than that: a video that was sampled at this rate has frames a little before and
    behind the moments asked for, and none of them is one too many. Else the frame nearest to every multiple of
    ``1 / fps``, as far as that can be told without the next chunk: the first one less than half of the time between two
    frames before it.
    """
    seconds, count = chunk.end - chunk.start, len(chunk.times)
    if fps is None or count <= seconds * fps + NEAR:
        return list(range(count))
    early = max(min(seconds / count * fps, 1.0) / 2 - NEAR, NEAR)
    picked, cell = [], -1 if last is None else math.floor(last * fps + early)
    for index, moment in enumerate(chunk.times):
        if math.floor(moment * fps + early) > cell:
            picked.append(index)
            cell = math.floor(moment * fps + early)
    return picked


class _Outgoing:
    """Passes text on as it comes, as far as ``words`` leaves it: what may become silence or thoughts is held back.

    Behind ``most`` characters it is enough: a model may not end by itself, and what is late is dropped meanwhile.
    """

    def __init__(self, on_text: Callable[[str], None], words: Callable[[str], str], most: float) -> None:
        self._on_text, self._words, self._most = on_text, words, most
        self._text, self._emitted = "", 0

    def __call__(self, piece: str) -> None:
        self._text += piece
        self.end(self._words(self._text))
        if self._emitted >= self._most:
            raise Enough

    def end(self, text: str) -> None:
        """Pass on what is new in ``text``."""
        if len(text) > self._emitted:
            new, self._emitted = text[self._emitted :], len(text)
            self._on_text(new)


def _most_characters(words_per_second: float, seconds: float) -> float:
    """Where a streamed reply to a step of ``seconds`` is cut (infinity: nowhere, no length is asked for)."""
    if not words_per_second:
        return math.inf
    return max(LEAST_WORDS, EXCESS * words_per_second * seconds) * WORD_CHARACTERS


def _told(state: _State) -> _State:
    """The state with the newest instruction in force, from the step that begins."""
    if not state.pending:
        return state
    *earlier, newest = state.pending
    pending = (*(replace(one, start=None) for one in earlier), replace(newest, start=state.start))
    return replace(state, instruction=newest.text, pending=pending)


def _commentary(
    step: StepInput, text: str, reply: Completion, prepared: float, told: tuple[InstructionUpdated, ...]
) -> Commentary:
    """What a step gave; ``prepared``: seconds of work before the call."""
    chunk, ready = step.chunk, step.arrival.ready_at
    lag = 0.0 if ready is None else time.perf_counter() - ready
    return Commentary(
        chunk.start,
        chunk.end,
        text,
        finish_reason="length" if reply.finish_reason == "length" else "stop",
        timing=Timing(read=chunk.read_seconds, preprocess=prepared, decode=reply.seconds, lag=lag),
        dropped=step.arrival.dropped,
        instructions=told,
    )


def _answered(reply: str) -> str:
    """The words of a reply: stripped, without thoughts."""
    return without_thoughts(reply).strip()


def _spoken(reply: str) -> str:
    """The same, and none if it is a sign of silence."""
    text = _answered(reply)
    return text if set(text) - {*SILENCE, "…"} else ""


def _with_words(reply: Completion, endpoint: Endpoint) -> Completion:
    """``reply``, unless it has no words for another reason than silence."""
    if reply.refusal or reply.finish_reason == "content_filter":
        reason = f"the model declines: {reply.refusal or 'its reply was filtered'}"
    elif reply.finish_reason == "length" and not _answered(reply.text):
        reason = "the bound of the reply was reached before its first word"
    else:
        return reply
    raise EndpointError(f"{endpoint!r}: {reason}", "no_text", reason=reason, status=200, tries=reply.tries)


def _restored(state: Mapping[str, Any]) -> _State:
    """What :meth:`RemoteSession.state` gave."""
    try:
        if state["format"] != STATE_FORMAT:
            raise OptionError(f"this state has form {state['format']!r}; this version reads {STATE_FORMAT}")
        said, instruction, missing = state["said"], state["instruction"], state["frames_from"]
        pictures = state.get("pictures")
        pending = tuple(InstructionUpdated(int(number), text, None) for number, text in state["pending"])
        moments = [float(one) for one in (state["time"], state["start"], 0.0 if missing is None else missing)]
        texts = [said, instruction, *(one.text for one in pending)]
        if not all(isinstance(one, str) for one in texts) or not all(map(math.isfinite, moments)):
            raise TypeError
        return _State(
            time=moments[0],
            start=moments[1],
            turn=int(state["turn"]),
            said=said,
            instruction=instruction,
            version=int(state["version"]),
            pending=pending,
            missing=None if missing is None else moments[2],
            expected=None if missing is None or pictures is None else tuple(map(float, pictures)),
        )
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError("this is not the state of a stream as RemoteSession.state gives it") from None
