"""The engine on a CUDA device says what it says on the CPU."""

from __future__ import annotations

import pytest
import torch

from streamingvlm.core.policy import StreamingWindow
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.request import Trace
from support import tiny
from support.streams import chunk

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def run(family: str, device: str, dtype: torch.dtype) -> list[Trace]:
    traces = []
    window = StreamingWindow(vision=3, turns=3, sink=10, text=8)
    with Engine(tiny.model(family=family, device=device, dtype=dtype)).open(
        policy=window, context="context"
    ) as session:
        for index in range(6):
            traces.append(Trace())
            session.step(chunk(index, size=tiny.FAMILIES[family].size), trace=traces[-1])
    return traces


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_cuda_equals_cpu(family: str) -> None:
    for ours, reference in zip(run(family, "cuda", torch.float32), run(family, "cpu", torch.float32), strict=True):
        assert ours.retained == reference.retained
        assert ours.tokens == reference.tokens
        for one, other in zip(ours.logits, reference.logits, strict=True):
            torch.testing.assert_close(one.cpu(), other, rtol=0, atol=2e-3)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_cuda_streams_in_bf16(family: str) -> None:
    assert all(trace.tokens for trace in run(family, "cuda", torch.bfloat16))
