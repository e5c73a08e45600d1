"""A model of this package in lmms-eval (0.7): ``lmms_eval --model streamingvlm --model_args pretrained=CHECKPOINT``.

lmms-eval finds :func:`manifest` by its entry point group ``lmms_eval.models`` and loads :data:`StreamingVLM`. That is a
subclass of its own ``lmms_eval.api.model.lmms``, made when it is first asked for, so that this module can be imported
without lmms-eval. lmms-eval needs PyAV below 16 and some fifty packages: give it an environment of its own.

What is answered is offline: the frames of the whole clip and one question, greedy. A request that asks for anything
else (sampling, likelihoods, a batch) is refused in one line; nothing is dropped in silence, and a video that cannot be
read ends the run rather than become an empty answer.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ModelError, OptionError, SourceError
from ..data.report import Unusable
from ..data.videos import Videos
from ..sources.file import FileSource
from .questions.mvbench import read_picture

#: What lmms-eval calls the model, and the class that it loads.
MODEL = "streamingvlm"
CLASS = "StreamingVLM"
#: What opens the model behind the class: a function of a checkpoint and a device, of a module that needs torch.
OPENER = "streamingvlm.evaluate.questions.offline:open_answerer"
#: Tokens of an answer where the task does not say.
MAX_NEW_TOKENS = 128

Frames = NDArray[np.uint8]


class FramesAnswererPort(Protocol):
    """Answers one question about some frames."""

    def answer(
        self, frames: Frames, times: Sequence[float], prompt: str, *, choices: Sequence[str], max_new_tokens: int
    ) -> str:
        """``frames``: (n, height, width, 3) uint8 RGB; ``times``: n seconds; ``choices``: all replies that there may
        be (none: any text)."""
        ...


@dataclass(frozen=True, slots=True)
class FrameSampling:
    """Which frames of a clip are shown: ``fps`` a second, but at most ``max_frames``, then evenly over the clip."""

    fps: float = 1.0
    max_frames: int = 64

    def __post_init__(self) -> None:
        if not 0 < self.fps < math.inf or self.max_frames < 1:
            raise OptionError(f"fps is above 0 and max_frames at least 1, not {self.fps:g} and {self.max_frames}")

    def read(self, path: Path, start: float = 0.0, end: float = math.inf) -> tuple[Frames, list[float]]:
        """The frames of a file from ``start`` to ``end`` seconds and their times. SourceError if there are none."""
        duration = None if end == math.inf else end - start
        if duration is not None and not duration > 0:
            raise SourceError(f"{path}: the clip ends at {end:g} s, not behind its start at {start:g} s")
        source = FileSource(path, fps=self.fps, step=max(1.0, 1 / self.fps), start=start, duration=duration)
        wanted = self._wanted(min(end, _length(path)) - start)
        frames: list[Frames] = []
        times: list[float] = []
        shown = (pair for chunk in source for pair in zip(chunk.frames, chunk.times, strict=True))
        for number, (frame, time) in enumerate(shown):
            if number in wanted:
                frames.append(frame.copy())  # the rest of its chunk can go
                times.append(time)
        if not frames:
            raise SourceError(f"{path} has no frame from {start:g} s on")
        return np.stack(frames), times

    def _wanted(self, seconds: float) -> frozenset[int]:
        """The numbers of the samples that are shown of so many seconds."""
        samples = max(1, math.ceil(seconds * self.fps - 1e-6))
        places = np.linspace(0, samples - 1, min(samples, self.max_frames))
        return frozenset(places.round().astype(int).tolist())


def _length(path: Path) -> float:
    """Seconds of a video as its file tells. SourceError where it does not: nothing could be even over it."""
    try:
        seconds = Videos().header(path).seconds
    except Unusable as error:
        raise SourceError(str(error)) from None
    if seconds is None:
        raise SourceError(f"{path} does not tell how long it is; frames cannot be spread over it")
    return seconds


class ChatRequests:
    """What lmms-eval asks of a model, answered by an :class:`FramesAnswererPort`. Base class of :data:`StreamingVLM`.

    ``pretrained``: the checkpoint; ``fps`` and ``max_frames``: see :class:`FrameSampling`; ``device``: handed on;
    ``batch_size``: 1. ``answerer`` stands for the model (None: it is opened).
    """

    is_simple = False
    #: Set by lmms-eval: task -> split -> documents; and where replies are cached.
    task_dict: dict[str, Any]
    cache_hook: Any

    def __init__(
        self,
        pretrained: str = "",
        fps: float = 1.0,
        max_frames: int = 64,
        device: str | None = None,
        batch_size: int | str = 1,
        answerer: FramesAnswererPort | None = None,
        **others: object,
    ) -> None:
        super().__init__()
        if others:
            raise OptionError(f"unknown --model_args {', '.join(sorted(others))}; there is pretrained, fps, max_frames")
        if str(batch_size) != "1":
            raise OptionError(f"questions are answered one by one: --batch_size 1, not {batch_size}")
        if answerer is None and not pretrained:
            raise OptionError("--model_args has to name a checkpoint: pretrained=PATH")
        self.sampling = FrameSampling(float(fps), int(max_frames))
        self.answerer = answerer or _open(pretrained, device)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """A reply to each request, in their order."""
        return [self._reply(Request.of(request)) for request in requests]

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[list[str]]:
        """The replies of all rounds of each request. The task tells each round's question, and when it was the last."""
        return [self._rounds(Request.of(request)) for request in requests]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refused: lmms-eval asks chat models to generate only."""
        raise ModelError(
            f"{MODEL} answers by generating; {len(requests)} requests ask for likelihoods of given replies"
        )

    def _reply(self, request: Request) -> str:
        messages = request.to_messages(self._document(request))
        reply = self._answer(messages, request)
        self.cache_hook.add_partial("generate_until", (request.context, dict(request.settings)), reply)
        return reply

    def _rounds(self, request: Request) -> list[str]:
        document = self._document(request)
        messages, info = request.to_messages(document), None
        replies: list[str] = []
        while True:
            replies.append(self._answer(messages, request))
            told = request.to_messages(
                document, round_idx=len(replies), previous_output=list(replies), previous_round_info=info
            )
            if not isinstance(told, tuple) or len(told) != 4:
                raise ModelError(f"task {request.task!r} has no question for round {len(replies)}, nor does it end")
            messages, last, _, info = told
            if last:
                return replies

    def _document(self, request: Request) -> Any:
        return self.task_dict[request.task][request.split][request.document]

    def _answer(self, messages: Any, request: Request) -> str:
        prompt, frames, times = read_messages(messages, self.sampling)
        tokens = request.check_settings()
        return request.cut(self.answerer.answer(frames, times, prompt, choices=(), max_new_tokens=tokens))


@dataclass(frozen=True, slots=True)
class Request:
    """The six values of a chat request. ``settings``: ``generation_kwargs`` of the task."""

    context: str
    to_messages: Callable[..., Any]
    settings: Mapping[str, Any]
    document: int
    task: str
    split: str

    @classmethod
    def of(cls, request: Any) -> Request:
        """Those of an ``Instance``. ModelError for another number of values."""
        values = tuple(request.args)
        if len(values) != 6 or not callable(values[1]):
            raise ModelError(
                f"a chat request of lmms-eval 0.7 has six values (context, doc_to_messages, gen_kwargs, doc_id, task, "
                f"split); this one has {len(values)}"
            )
        return cls(*values)

    def check_settings(self) -> int:
        """How many tokens an answer may have. OptionError where the task wants anything but the likeliest text."""
        temperature = self.settings.get("temperature")
        sampled = bool(self.settings.get("do_sample")) if temperature is None else temperature > 0
        if sampled or (self.settings.get("num_beams") or 1) != 1:
            raise OptionError(
                f"answers are greedy, but task {self.task!r} asks for {dict(self.settings)}: "
                "--gen_kwargs temperature=0,do_sample=False,num_beams=1"
            )
        return int(self.settings.get("max_new_tokens") or MAX_NEW_TOKENS)

    def cut(self, reply: str) -> str:
        """A reply up to the first of the texts at which the task ends it."""
        until = self.settings.get("until") or ()
        ends = [until] if isinstance(until, str) else list(until)
        return reply[: min((reply.find(end) for end in ends if end and end in reply), default=len(reply))]


def read_messages(messages: Any, sampling: FrameSampling) -> tuple[str, Frames, list[float]]:
    """Prompt, frames and times of a conversation: texts in their order, one video or several pictures.

    Pictures count as frames that follow each other with the sampling's rate. OptionError for what cannot be shown:
    an answer that is given already, sound, two videos, pictures of different sizes, nothing to see.
    """
    texts: list[str] = []
    videos: list[tuple[Path, float, float]] = []
    pictures: list[Frames] = []
    for message in messages:
        if message["role"] == "assistant":
            raise OptionError("a conversation with given answers cannot be asked; use --num_fewshot 0")
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                texts.append(part["text"])
            elif part["type"] == "video":
                videos.append(_stretch(part))
            elif part["type"] == "image":
                pictures.append(_picture(part["url"]))
            else:
                raise OptionError(f"{MODEL} sees and reads; it has no use for {part['type']!r}")
    prompt = "\n".join(text for text in texts if text)
    if len(videos) + bool(pictures) != 1:
        raise OptionError(f"a question is about one video or about pictures, not {len(videos)} and {len(pictures)}")
    if videos:
        return prompt, *sampling.read(*videos[0])
    if len({picture.shape for picture in pictures}) > 1:
        raise OptionError("the pictures of a question have different sizes")
    return prompt, np.stack(pictures), [place / sampling.fps for place in range(len(pictures))]


def _stretch(part: Mapping[str, Any]) -> tuple[Path, float, float]:
    """File, start and end of a video; lmms-eval tells the latter beside the file or within its name's mapping."""
    named: Any = part["url"]
    told = named if isinstance(named, Mapping) else {}
    path = next((told[key] for key in ("url", "path", "video") if key in told), None if told else named)
    if not isinstance(path, str | Path):
        raise OptionError(f"a video is named by its file, not by {type(path).__name__}")
    start = part.get("start_time", told.get("video_start"))
    end = part.get("end_time", told.get("video_end"))
    return Path(path), 0.0 if start is None else float(start), math.inf if end is None else float(end)


def _picture(image: Any) -> Frames:
    """A PIL image, or a file of one, as (height, width, 3) uint8."""
    if not isinstance(image, str | Path):
        return np.asarray(image.convert("RGB"), np.uint8)
    return read_picture(Path(image))


def _open(pretrained: str, device: str | None) -> FramesAnswererPort:
    module, _, name = OPENER.partition(":")
    answerer: FramesAnswererPort = getattr(importlib.import_module(module), name)(pretrained, device)
    return answerer


def manifest() -> Any:
    """What lmms-eval registers: a ``ModelManifest``. Its entry point of the group ``lmms_eval.models``."""
    registry = importlib.import_module("lmms_eval.models.registry_v2")
    return registry.ModelManifest(model_id=MODEL, chat_class_path=f"{__name__}.{CLASS}", aliases=("streaming-vlm",))


@lru_cache(maxsize=1)
def _chat_class(base: type) -> type:
    told = {"__module__": __name__, "__doc__": ChatRequests.__doc__}
    return type(CLASS, (ChatRequests, base), told)


def __getattr__(name: str) -> Any:
    if name != CLASS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        base = importlib.import_module("lmms_eval.api.model").lmms
    except ImportError as error:
        raise ModelError(f"lmms-eval is not installed here ({error}); it needs an environment of its own") from error
    return _chat_class(base)
