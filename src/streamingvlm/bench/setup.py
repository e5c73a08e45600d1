"""What the commands measure: a checkpoint or random weights, and where its frames come from."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..cache.kv_pool import KVPool
from ..core.errors import CapacityError, OptionError
from ..core.events import Chunk, Source
from ..core.policy import CachePolicy, StreamingWindow
from ..core.sampling_params import Sampling
from ..engine.engine import Engine
from ..engine.ladder import CAPTURES
from ..engine.runner import ModelRunner
from ..engine.session import Session
from ..kernels.choose import KERNELS
from ..models.base import Model
from ..models.hub import BUNDLED, find_checkpoint
from ..models.knows import check_source, example_source
from ..models.load import load_model, pick_device, pick_dtype, settle_threads
from ..models.quantize import quantize
from ..sources.open import open_recording
from .measure import synced, synced_pool
from .shapes import build, shape_named


@dataclass(frozen=True, slots=True)
class Request:
    """What a command was asked to measure.

    ``model``: a checkpoint (None: the bundled one) or ``random_weights``: a published size with random
    weights; ``source``: a locator (None: synthetic frames); ``size``: (width, height) of synthetic frames;
    ``tokens``: tokens that every reply is forced to have (None: replies end by themselves); ``weights``: see
    :func:`streamingvlm.models.load.load_model`; ``capture``: see
    :class:`streamingvlm.engine.engine.Engine`; ``threads``: see :func:`streamingvlm.models.load.settle_threads`;
    ``kernels``: see :data:`streamingvlm.kernels.choose.KERNELS`.
    """

    model: str | None = None
    random_weights: str | None = None
    source: str | None = None
    fps: float = 2.0
    step: float = 1.0
    size: tuple[int, int] | None = None
    tokens: int | None = None
    seed: int = 0
    device: str | None = None
    dtype: str | None = None
    weights: str | None = None
    capture: str = "auto"
    threads: int | None = None
    kernels: str = "auto"

    def __post_init__(self) -> None:
        if self.model is not None and self.random_weights is not None:
            raise OptionError("--model and --random-weights exclude each other")
        if self.random_weights is not None:
            shape_named(self.random_weights)
        if self.capture not in CAPTURES:
            raise OptionError(f"--capture must be one of {', '.join(CAPTURES)}, not {self.capture!r}")
        if self.kernels not in KERNELS:
            raise OptionError(f"--kernels must be one of {', '.join(KERNELS)}, not {self.kernels!r}")
        if self.tokens is not None and self.tokens < 1:
            raise OptionError(f"--tokens must be 1 or more, not {self.tokens}")
        if self.size is not None and (self.source is not None or min(self.size) < 1):
            raise OptionError("--size is for synthetic frames: both sides above 0, and no SOURCE")

    @property
    def synthetic(self) -> bool:
        """Whether the frames are made up."""
        return self.source is None

    @property
    def frame_size(self) -> tuple[int, int]:
        """Width and height of synthetic frames."""
        return self.size or (shape_named(self.random_weights).size if self.random_weights else (420, 320))

    def max_pixels(self, model: Model) -> int | None:
        """The pixel budget that is reserved: no more than a synthetic frame has (None: the checkpoint's own)."""
        if not self.synthetic:
            return None
        width, height = self.frame_size
        return max(min(width * height, model.patcher.max_pixels), model.patcher.factor**2)

    def make_model(self) -> Model:
        """Load the checkpoint, or make up random weights."""
        if self.random_weights is None:
            model = load_model(
                self.model, device=self.device, dtype=self.dtype, weights=self.weights, kernels=self.kernels
            )
        else:
            device = pick_device(self.device)
            dtype = pick_dtype(self.dtype, device)
            model = build(self.random_weights, device=device, dtype=dtype, seed=self.seed, kernels=self.kernels)
            if self.weights is not None:
                quantize(model, self.weights)
        settle_threads(model, self.threads)
        return model

    def sampling(self, model: Model) -> Sampling:
        """The checkpoint's way of sampling; with ``tokens`` every reply is forced to that length."""
        if self.tokens is None:
            return model.defaults.sampling
        return replace(model.defaults.sampling, max_new_tokens=self.tokens, forced=True)

    def make_source(self, duration: float | None = None) -> Source:
        """Open the source. SourceError if it cannot be, ModelError if the checkpoint does not know such video."""
        if self.source is None:
            return Synthetic(self.frame_size, self.fps, self.step, duration, self.seed)
        source = open_recording(self.source, fps=self.fps, step=self.step, duration=duration)
        if self.random_weights is None:
            check_source(find_checkpoint(self.model), self.model or "the bundled model", source)
        return source

    def open(
        self,
        model: Model,
        policy: CachePolicy | str = "streaming",
        *,
        context: str = "",
        runner: type[ModelRunner] = ModelRunner,
        pool: type[KVPool] = KVPool,
        slots: int = 1,
    ) -> tuple[Engine, Session]:
        """An engine of its own, whose stages end when the device has done them, and a first stream on it.

        :class:`CapacityError` if the cache does not fit into memory.
        """
        import torch

        engine = self.make_engine(model, runner=runner, pool=pool, slots=slots)
        try:
            return engine, self.open_session(engine, policy, context=context)
        except torch.OutOfMemoryError:
            raise CapacityError("the cache of this policy does not fit into memory; take fewer seconds") from None

    def make_engine(
        self,
        model: Model,
        *,
        runner: type[ModelRunner] = ModelRunner,
        pool: type[KVPool] = KVPool,
        slots: int = 1,
    ) -> Engine:
        """An engine of its own, whose stages end when the device has done them."""
        # A baseline's cache is not made for fixed shapes.
        capture = self.capture if pool is KVPool else "none"
        kept = synced_pool(pool, model.kv_shape.device)
        return Engine(synced(model), slots, capture=capture, pool=kept, runner=runner)

    def open_session(self, engine: Engine, policy: CachePolicy | str, *, context: str = "", stream: int = 0) -> Session:
        """One more stream on an engine."""
        return engine.open(
            policy=policy,
            context=context,
            seed=self.seed,
            stream=stream,
            sampling=self.sampling(engine.model),
            fps=self.fps,
            step=self.step,
            max_pixels=self.max_pixels(engine.model),
        )

    def full_sink(self, model: Model) -> str:
        """A context that fills the sink of streams with random weights from the start ("" for a checkpoint)."""
        return "a" * int(model.defaults.policy.get("sink", StreamingWindow().sink)) if self.random_weights else ""

    @property
    def model_name(self) -> str:
        """What was measured, for the files."""
        return (
            f"{self.random_weights} (random weights)"
            if self.random_weights
            else self.model or f"bundled ({BUNDLED.name})"
        )


class Made:
    """A source of chunks that are made elsewhere."""

    live = False
    kind = ""
    context = ""

    def __init__(self, name: str, chunks: Iterator[Chunk]) -> None:
        self.name = name
        self._chunks = chunks

    def __iter__(self) -> Iterator[Chunk]:
        return self._chunks


def default_source(model: str | None, random_weights: str | None, size: object = None) -> str | None:
    """What is watched where no source is named: what the checkpoint's config names, else None, synthetic frames.

    Synthetic frames also where a ``size`` of frames was asked for.
    """
    if random_weights is not None or size is not None:
        return None
    return example_source(find_checkpoint(model))


class Synthetic:
    """A source of made-up frames, (height, width) pixels of noise that moves: vision towers do not care.

    Making them costs next to nothing, so that a benchmark measures the model.
    """

    live = False
    kind = ""
    context = ""

    def __init__(
        self, size: tuple[int, int], fps: float, step: float, duration: float | None = None, seed: int = 0
    ) -> None:
        self.width, self.height = size
        self.fps, self.step, self.duration = fps, step, duration
        self.count = max(round(fps * step), 1)
        self.name = f"synthetic {self.width}x{self.height}"
        random = np.random.default_rng(seed)
        self._noise = random.integers(0, 256, (self.count + 8, self.height, self.width, 3), dtype=np.uint8)

    def chunk(self, index: int, start: float | None = None) -> Chunk:
        """Step ``index``; ``start``: its first second (default ``index * step``)."""
        began = time.perf_counter()
        first = index % (len(self._noise) - self.count + 1)
        at = index * self.step if start is None else start
        times = tuple(at + self.step * i / self.count for i in range(self.count))
        frames = self._noise[first : first + self.count]
        return Chunk(frames, times, at, at + self.step, read_seconds=time.perf_counter() - began)

    def __iter__(self) -> Iterator[Chunk]:
        index = 0
        while self.duration is None or index * self.step < self.duration - 1e-9:
            yield self.chunk(index)
            index += 1
