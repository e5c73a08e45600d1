"""Made-up chunks, and what a stream's text says."""

from __future__ import annotations

import numpy as np

from streamingvlm.core.events import Chunk, Commentary
from streamingvlm.core.spans import Kind
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.request import StepRequest
from streamingvlm.engine.session import Session

from . import tiny


def chunk(index: int, *, seed: int = 0, step: float = 1.0, frames: int = 2, size: tuple[int, int] = (56, 84)) -> Chunk:
    random = np.random.default_rng([seed, index])
    pixels = random.integers(0, 256, (frames, *size, 3), dtype=np.uint8)
    times = tuple(index * step + step * i / frames for i in range(frames))
    return Chunk(pixels, times, index * step, (index + 1) * step)


def query_text(session: Session) -> list[str]:
    decode = tiny.CharTokenizer().decode
    return [decode(span.tokens) for span in session.state.timeline.spans if span.kind is Kind.QUERY]


def finish(engine: Engine, request: StepRequest) -> Commentary:
    """Run everybody's work until ``request`` is done; raises what ended it, if it failed."""
    while not request.done:
        engine.advance()
    if request.error is not None:
        raise request.error
    assert request.result is not None
    return request.result
