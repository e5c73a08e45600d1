"""An engine turns (states, inputs) into (states, tokens) for many streams at once.

A step of a stream is: evict, encode the new frames, prefill the new turn, then decode until the turn ends. Prefill and
decoding run as one batch over all streams that have the same to do, so a stream may join and leave at any second.
Batches are padded to fixed numbers of rows and every stream attends by itself, so its text does not depend on who
shares the batch.

A fault stays in its stream. What can be refused is refused at ``submit``. Whatever is raised while a step is begun,
encoded, prefilled, decoded or delivered ends that request and puts its stream back where it was before the step; a
batch that raises is run again stream by stream, so that the others go on with the same text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..cache.kv_pool import KVPool
from ..core.errors import OptionError
from ..core.events import Answer, Chunk, Question, StepInput
from ..core.policy import CachePolicy, PlainChat, make_policy
from ..core.sampling_params import Sampling
from ..models.base import Model
from .ask import ANSWER_SAMPLING, Fork
from .engine_core import EngineCore
from .ladder import CAPTURES, Decoding
from .options import QUESTION_TOKENS, StreamOptions
from .planner import StepPlanner
from .request import StepRequest, Trace, TurnRequest
from .runner import ModelRunner
from .session import Session


class Engine:
    """Runs any number of streams, up to ``slots``, on one model, for one thread: open, submit, advance.

    The thread is the first that opens a stream; others are refused with a :class:`SessionError` as long as it lives.
    ``rows``: rows of a slot; by default the pool grows to the capacity of the largest stream that is opened.
    ``capture``: how steps of decoding run: ``graph``, as CUDA graphs; ``static``, with the same fixed shapes, not
    captured; ``none``, one operation after the other; ``auto``, on CUDA the first of these three that passes its check,
    elsewhere ``none``. ``pool`` and ``runner``: the classes that keep keys and values and that run the tensors; other
    ones for comparisons only.
    """

    def __init__(
        self,
        model: Model,
        slots: int = 1,
        rows: int | None = None,
        *,
        capture: str = "auto",
        pool: type[KVPool] = KVPool,
        runner: type[ModelRunner] = ModelRunner,
    ) -> None:
        if capture not in CAPTURES:
            raise OptionError(f"capture must be one of {', '.join(CAPTURES)}, not {capture!r}")
        if capture == "graph" and model.kv_shape.device.type != "cuda":
            raise OptionError("CUDA graphs need a CUDA device")
        self._runner = runner(model, pool(model.kv_shape, slots, rows or 1, model.kernels), capture)
        self._core = EngineCore(self._runner, rows)

    @property
    def model(self) -> Model:
        """The model that all streams run on."""
        return self._core.model

    @property
    def slots(self) -> int:
        """How many streams may be open."""
        return self._core.pool.slots

    @property
    def pool(self) -> KVPool:
        """Where the streams' keys and values are, for checks."""
        return self._core.pool

    @property
    def decoding(self) -> Decoding:
        """How decoding runs, and why not faster; known as soon as a stream is open."""
        return self._runner.decoding

    @property
    def busy(self) -> bool:
        """Whether requests are under way."""
        return self._core.busy

    @property
    def rest(self) -> float:
        """Seconds for which :meth:`advance` has nothing to do, unless more is handed in (0: it has, or none is busy).

        Questions in the background wait where a live step would wait for them.
        """
        return self._core.rest

    @property
    def alarm(self) -> float | None:
        """Seconds until :meth:`advance` has something to do though nothing was handed in: never."""
        return None

    def wake_by(self, wake: Callable[[], None]) -> None:
        """Nothing comes to this engine by itself, so it never calls ``wake``."""

    def open(
        self,
        *,
        policy: CachePolicy | str = "streaming",
        context: str = "",
        instruction: str | None = None,
        seed: int = 0,
        stream: int = 0,
        previous: Sequence[str] = (),
        sampling: Sampling | None = None,
        temperature: float | None = None,
        max_new_tokens: int | None = None,
        fps: float = 2.0,
        step: float = 1.0,
        max_pixels: int | None = None,
    ) -> Session:
        """Open a stream.

        ``policy``: a policy, or what :func:`make_policy` takes; the checkpoint's own windows are its defaults.
        ``context``: what is known before the video starts; it goes into the sink. ``instruction``: the standing
        instruction (None: the checkpoint's). ``previous``: what was said before the stream begins, a text for every
        step; it stands behind the context and is cut as the policy cuts old words. ``sampling``: how replies are
        sampled (None: the checkpoint's way); ``temperature`` and ``max_new_tokens`` replace these two of its numbers.
        ``seed`` and ``stream`` fix the sampling noise. ``fps`` and ``step`` (seconds) bound the frames of a chunk,
        ``max_pixels`` a frame's area after the resize (None: the checkpoint's).
        Raises :class:`CapacityError` when there is no free slot or a text is over its budget, :class:`OptionError` for
        numbers that cannot be meant, :class:`SessionError` in a second thread.
        """
        self._core.check_thread()
        for name, value in (("fps", fps), ("step", step)):
            if not (value > 0 and math.isfinite(value)):
                raise OptionError(f"{name} must be a number above 0, not {value}")
        defaults = self.model.defaults
        if isinstance(policy, str):
            policy = make_policy(policy, defaults.policy)
        sampling = sampling or defaults.sampling
        if temperature is not None:
            sampling = replace(sampling, temperature=temperature)
        if max_new_tokens is not None:
            sampling = replace(sampling, max_new_tokens=max_new_tokens)
        text = defaults.instruction if instruction is None else instruction
        options = StreamOptions(policy, sampling, context, text, seed, stream, tuple(previous), fps, step)
        opened = self._core.open_stream(options, self.model.patcher.with_budget(max_pixels))
        return Session(self._core, opened)

    def ask_once(
        self,
        question: Question,
        chunk: Chunk | None = None,
        *,
        max_pixels: int | None = None,
        sampling: Sampling = ANSWER_SAMPLING,
    ) -> Answer:
        """Ask about one chunk in a stream of its own, which is dropped: offline question answering.

        The prompt is one message as the checkpoint's chat template lays it out: all frames of ``chunk`` (None: no
        video), then the question. Takes one free slot meanwhile. Raises what :meth:`open` and :meth:`Fork.ask` raise.
        """
        seconds = chunk.end - chunk.start if chunk is not None else 1.0
        fps = len(chunk.frames) / seconds if chunk is not None else 2.0
        sampling = replace(sampling, max_new_tokens=max(sampling.max_new_tokens, question.max_new_tokens))
        options = StreamOptions(PlainChat(seconds), sampling, fps=fps, step=seconds)
        planner = StepPlanner(self.model, options, self.model.patcher.with_budget(max_pixels))
        planner = planner.for_questions(planner.question_tokens(question), sampling)
        stream = self._core.open_planned(planner)
        try:
            request = self._core.submit_question(stream, question, None if chunk is None else StepInput(chunk))
            self._core.run_until(request)
        finally:
            self._core.close_stream(stream)
        assert request.result is not None, "a question has an answer"
        return request.result

    def fork(
        self,
        session: Session,
        *,
        question_tokens: int = QUESTION_TOKENS,
        sampling: Sampling = ANSWER_SAMPLING,
        answer_tokens: int | None = None,
    ) -> Fork:
        """Open a spare slot in which ``session``, or a session opened alike, is asked questions: see :class:`Fork`.

        ``question_tokens``: most tokens of a question with its markup and prefix; ``sampling``: of the answers;
        ``answer_tokens`` replaces their bound.
        Raises :class:`CapacityError` when there is no free slot.
        """
        if answer_tokens is not None:
            sampling = replace(sampling, max_new_tokens=answer_tokens)
        return Fork(self._core, session, question_tokens, sampling)

    def submit(
        self,
        session: Session,
        item: Chunk | StepInput,
        *,
        on_text: Callable[[str], None] | None = None,
        trace: Trace | None = None,
    ) -> StepRequest:
        """Hand in the next chunk of a stream. One request per stream is under way at a time.

        Whatever can be refused is refused here, and then nothing has changed: what :meth:`Session.step` raises.
        """
        return self._core.submit_stream(session.stream, StepInput.of(item), on_text=on_text, trace=trace)

    def advance(self) -> list[TurnRequest]:
        """One round: start what is waiting, then one more token for every reply under way; what has ended.

        A request that fails is not raised here: its ``status`` and ``error`` say so. An interrupt (KeyboardInterrupt,
        SystemExit) is, and ends all requests that are under way.
        """
        return self._core.advance()
