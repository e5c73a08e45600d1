"""What only a GPU runs: captured decoding, attention of a prefill, eviction, and threads beside a capture.

With STREAMINGVLM_GPU_PATHS=cpu the same tests run on a CPU, as far as it can, to see that they themselves are right.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType

import numpy as np
import pytest
import torch

from streamingvlm.cache.kv_pool import KVPool, KVShape
from streamingvlm.core.policy import StreamingWindow
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.request import Trace
from streamingvlm.engine.session import Session
from streamingvlm.kernels.check import wrong_parts
from streamingvlm.kernels.choose import choose_kernels
from streamingvlm.kernels.plain import PlainKernels, flash
from support import tiny
from support.streams import chunk, finish

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
FASTEST = "graph" if CUDA else "static"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not CUDA and os.environ.get("STREAMINGVLM_GPU_PATHS") != "cpu", reason="no CUDA device"),
]
WINDOW = StreamingWindow(vision=3, turns=3, sink=10, text=8)
WIDE = StreamingWindow(vision=4, turns=4, sink=10, text=300)
DTYPES = [torch.float32, torch.bfloat16] if CUDA else [torch.float32]
#: Largest relative difference (root mean square) by dtype: of logits, and of attention to float64.
LOGITS = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
ATTENTION = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


def run(family: str, dtype: torch.dtype, capture: str, seconds: int = 5) -> list[list[Trace]]:
    """The steps of three streams that start a second apart.

    The second one samples. The third has more rows, so that the pool grows behind what is captured.
    """
    engine = Engine(tiny.model(family=family, device=str(DEVICE), dtype=dtype), slots=3, capture=capture)
    size, sessions, traces = tiny.FAMILIES[family].size, [], [[], [], []]
    for second in range(seconds):
        if second < 3:
            window, heat = WINDOW if second < 2 else WIDE, 0.7 if second == 1 else 0.0
            sessions.append(engine.open(policy=window, context="context", seed=second, temperature=heat))
        jobs = []
        for index, session in enumerate(sessions):
            traces[index].append(Trace())
            jobs.append(engine.submit(session, chunk(second - index, seed=index, size=size), trace=traces[index][-1]))
        for job in jobs:
            finish(engine, job)
    assert engine.decoding.capture == capture, engine.decoding.reason
    return traces


def assert_same(ours: list[Trace], plain: list[Trace], dtype: torch.dtype) -> None:
    """A stream's logits are close as long as it has said the same; in float32 that is all of them."""
    for one, other in zip(ours, plain, strict=True):
        pairs = list(zip(one.tokens, other.tokens, strict=False))
        parts = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
        count = len(pairs) if parts is None else parts + 1
        a, b = (torch.stack(trace.logits[:count]).float().cpu() for trace in (one, other))
        assert torch.isfinite(a).all()
        assert float((a - b).norm() / b.norm()) < LOGITS[dtype]
        if parts is not None:
            assert dtype != torch.float32, "other tokens in float32"
            return  # in half precision texts may part; from there on the stream has another past


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("way", [FASTEST, "static"] if CUDA else ["static"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_fixed_shapes_say_what_one_by_one_says(family: str, way: str, dtype: torch.dtype) -> None:
    for ours, plain in zip(run(family, dtype, way), run(family, dtype, "none"), strict=True):
        assert_same(ours, plain, dtype)


def test_the_fastest_way_is_chosen_by_itself() -> None:
    engine = Engine(tiny.model(device=str(DEVICE)), slots=2)
    engine.open(policy=WINDOW)
    assert (engine.decoding.capture, engine.decoding.reason) == ("graph" if CUDA else "none", "")


def test_kernels_are_there() -> None:
    kernels = tiny.model(device=str(DEVICE)).kernels
    assert kernels.name == "triton" if CUDA else kernels.name in ("native", "plain")
    assert not CUDA or not kernels.reason


class Preparing:
    """Prepares and encodes chunks without a pause, as a source that runs ahead does."""

    def __init__(self, session: Session) -> None:
        self._session, self._stop = session, threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        index = 0
        try:
            while not self._stop.is_set():
                self._session.prepare(chunk(100 + index), encode=True)
                index += 1
        except Exception as error:
            self._error = error

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            raise self._error


def test_a_source_encodes_while_steps_are_captured() -> None:
    engine = Engine(tiny.model(device=str(DEVICE)), slots=4, capture=FASTEST)
    with engine.open(policy=WINDOW, context="context") as session, Preparing(session):
        for second in range(3):
            assert session.step(chunk(second)).tokens
            engine.open(policy=StreamingWindow(vision=4, turns=4, sink=10, text=100 * (second + 1)))
    assert engine.decoding.capture == FASTEST, engine.decoding.reason


@pytest.mark.parametrize("dtype", [*DTYPES, *([torch.float16] if CUDA else [])], ids=str)
def test_the_chosen_kernels_do_what_plain_torch_does(dtype: torch.dtype) -> None:
    kernels = choose_kernels(DEVICE, dtype)
    assert not kernels.reason
    assert wrong_parts(kernels, DEVICE, dtype) == []


def segment(dtype: torch.dtype, held: int, count: int, *, heads: int, group: int, dim: int) -> list[torch.Tensor]:
    torch.manual_seed(held)
    queries = torch.randn(count, heads * group, dim, device=DEVICE, dtype=dtype)
    return [queries, *torch.randn(2, heads, 512, dim, device=DEVICE, dtype=dtype)[:, :, : held + count]]


def off(ours: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> float:
    """Relative difference to causal attention to the lower right in float64."""
    held, group = keys.shape[1] - len(queries), queries.shape[1] // len(keys)
    keys, values = (one.double().repeat_interleave(group, 0) for one in (keys, values))
    scores = torch.einsum("nhd,hmd->hnm", queries.double(), keys) * queries.shape[-1] ** -0.5
    hidden = ~torch.ones(scores.shape[1:], dtype=torch.bool, device=DEVICE).tril(held)
    wanted = torch.einsum("hnm,hmd->nhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), values)
    return float((ours.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(("heads", "group", "dim"), [(4, 7, 128), (2, 2, 64)])
@pytest.mark.parametrize(("held", "count"), [(0, 37), (1, 37), (63, 37), (300, 37), (300, 1), (0, 1), (128, 64)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_attention_of_a_prefill(dtype: torch.dtype, held: int, count: int, heads: int, group: int, dim: int) -> None:
    queries, keys, values = segment(dtype, held, count, heads=heads, group=group, dim=dim)
    for kernels in (choose_kernels(DEVICE, dtype), PlainKernels()):
        ours = kernels.attend_prefill(queries, keys, values, kernels.mask(held, count, DEVICE), dim**-0.5)
        assert off(ours, queries, keys, values) < ATTENTION[dtype], kernels.name


@pytest.mark.skipif(not CUDA, reason="torch's flash kernel and Triton's need a GPU")
@pytest.mark.parametrize(("held", "count"), [(0, 37), (1, 37), (63, 37), (300, 37), (300, 1), (128, 64)])
def test_attention_of_a_prefill_by_kernels(held: int, count: int) -> None:
    from streamingvlm.kernels.triton_kernels import prefill_attention

    given = segment(torch.bfloat16, held, count, heads=4, group=7, dim=128)
    limit = ATTENTION[torch.bfloat16]
    assert off(flash(*given, 128**-0.5), *given) < limit
    assert off(prefill_attention(*given, held, 128**-0.5), *given) < limit


@pytest.mark.parametrize("back", [(), (25, 26)], ids=["forward alone", "some backward"])
def test_eviction_moves_the_same_rows(back: tuple[int, ...]) -> None:
    rows = np.array([*range(10), *range(30, 61), *back, *range(70, 96)])
    angles = torch.randn(len(rows), 16).repeat(1, 2)
    pools = []
    for device, kernels in ((torch.device("cpu"), PlainKernels()), (DEVICE, choose_kernels(DEVICE, torch.float32))):
        torch.manual_seed(1)
        pool = KVPool(KVShape(3, 2, 32, torch.float32, device), 2, 100, kernels)
        for store in (pool.keys, pool.values, pool.rotated_keys):
            store.copy_(torch.randn(3, 2, 2, 100, 32))
        pool.length = [96, 96]
        pool.select(1, rows, (angles.cos().to(device), angles.sin().to(device)))
        pools.append(pool)
    for name in ("keys", "values", "rotated_keys"):
        ours, plain = (getattr(pool, name).cpu() for pool in reversed(pools))
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-6)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one device alone")
def test_a_device_that_is_not_the_current_one() -> None:
    engine = Engine(tiny.model(device="cuda:1", dtype=torch.bfloat16), capture="graph")
    with engine.open(policy=WINDOW, context="context") as session:
        assert all(session.step(chunk(second)).tokens for second in range(3))
