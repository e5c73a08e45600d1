"""What one GPU can do and which paths work on it; each item by itself, a line of JSON each.

    PYTHONPATH=src python scripts/gpu/probe.py OUT.jsonl --only products,prefill_is_right

An item that fails is a line that says so. Sizes are those of Qwen2.5-VL-7B. On a CPU they are small and Triton's items
are skipped, to see that it runs; times mean nothing there.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from streamingvlm.bench.roofline import measure_device
from streamingvlm.kernels import plain
from streamingvlm.kernels.check import wrong_parts
from streamingvlm.kernels.choose import choose_kernels
from streamingvlm.kernels.cuda import CudaKernels

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
DTYPE = torch.bfloat16
HEADS, KEYS, DIM, HIDDEN, INNER, VOCABULARY = (28, 4, 128, 3584, 18944, 152_064) if CUDA else (4, 2, 32, 64, 96, 640)
#: Rows of one stream at 2 and at 8 FPS, and the new ones of a step.
ROWS, NEW = ((14_135, 50_423), (795, 3063)) if CUDA else ((70, 130), (9, 17))
Found = dict[str, Any]


def synchronize() -> None:
    if CUDA:
        torch.cuda.synchronize()


def median_us(work: Callable[[], object], tries: int = 15) -> float:
    """Median microseconds of a call: of the device by events, of the wall clock on a CPU."""
    for _ in range(3 if CUDA else 1):
        work()
    synchronize()
    times = []
    for _ in range(tries if CUDA else 2):
        if CUDA:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            first.record()
            work()
            last.record()
            last.synchronize()
            times.append(first.elapsed_time(last) * 1e3)
        else:
            began = time.perf_counter()
            work()
            times.append((time.perf_counter() - began) * 1e6)
    return float(round(statistics.median(times), 2))


def graphed(work: Callable[[], object]) -> Callable[[], object]:
    """``work`` as a CUDA graph: without the launches of the host."""
    if not CUDA:
        return work
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    return graph.replay


def wall_ms(work: Callable[[], object]) -> float:
    synchronize()
    began = time.perf_counter()
    work()
    synchronize()
    return round((time.perf_counter() - began) * 1e3, 3)


class SkippedError(Exception):
    """There is nothing to measure here."""


def attempt(work: Callable[[], Any]) -> Any:
    """What ``work`` gives, or why it gave nothing."""
    try:
        return work()
    except SkippedError as reason:
        return f"skipped: {reason}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"


def timed(work: Callable[[], object], bytes_: float = 0.0, operations: float = 0.0) -> Found:
    """Microseconds of ``work`` in a graph, with the rates that follow; or why there are none."""

    def measure() -> Found:
        spent = median_us(graphed(work))
        found = {"us": spent}
        if bytes_:
            found["TBs"] = round(bytes_ / spent / 1e6, 3)
        if operations:
            found["TFLOPs"] = round(operations / spent / 1e6, 1)
        return found

    found = attempt(measure)
    return found if isinstance(found, dict) else {"error": found}


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=DTYPE)


def triton_kernels() -> Any:
    """The Triton functions."""
    if not CUDA:
        raise SkippedError("no CUDA device")
    from streamingvlm.kernels import triton_kernels as own

    return own


def kinds() -> dict[str, plain.PlainKernels]:
    """The kernels that are compared: torch's own operations, and Triton's where there is a GPU."""
    return {"plain": plain.PlainKernels(), **({"triton": CudaKernels(flash=True)} if CUDA else {})}


def environment() -> Found:
    out: Found = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "triton": attempt(lambda: __import__("triton").__version__),
    }
    if CUDA:
        found = torch.cuda.get_device_properties(0)
        query = "--query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit"
        out |= {"device": found.name, "processors": found.multi_processor_count, "memory": found.total_memory}
        out |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}  # type: ignore[no-untyped-call]
        command = ["nvidia-smi", query, "--format=csv,noheader"]
        out["smi"] = attempt(lambda: subprocess.run(command, capture_output=True, text=True).stdout.strip())
    return out


def chosen() -> Found:
    """Which kernels a model would be loaded with."""
    found = choose_kernels(DEVICE, DTYPE)
    return {"name": found.name, "reason": found.reason, "flash": found.flash}


def kernels_are_right() -> Found:
    """The check that a model's loading makes, for each dtype: what is wrong."""
    triton_kernels()
    out: Found = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        out[str(dtype)] = attempt(lambda: wrong_parts(CudaKernels(flash=dtype != torch.float32), DEVICE, dtype))
    return out


def ceilings() -> Found:
    """What copies, sums and products of random numbers reach."""
    found = measure_device(DEVICE, DTYPE)
    source = torch.randn(2**29 if CUDA else 2**18, device=DEVICE)
    read = median_us(source.sum)
    return {
        "copy_TBs": found.bandwidth / 1e12,
        "read_TBs": source.nbytes / read / 1e6,
        "product_TFLOPs": found.rate / 1e12,
    }


def launches() -> Found:
    """Microseconds of the host for a launch, a copy to the device, a read-back; of the device for a graph's node."""
    x = torch.zeros(64, device=DEVICE)
    numbers = torch.tensor([1, 2, 3])

    def host_us(work: Callable[[], object], count: int = 300) -> float:
        synchronize()
        began = time.perf_counter()
        for _ in range(count):
            work()
        spent = time.perf_counter() - began
        synchronize()
        return round(spent / count * 1e6, 2)

    def many() -> None:
        for _ in range(1000):
            x.add_(1)

    return {
        "launch_us": host_us(lambda: x.add_(1)),
        "graph_node_us": median_us(graphed(many), 5) / 1000,
        "tensor_to_device_us": host_us(lambda: torch.tensor([1, 2, 3], device=DEVICE)),
        "upload_us": host_us(lambda: plain.upload(numbers, DEVICE)),
        "tolist_us": host_us(x.tolist),
        "synchronize_us": host_us(synchronize),
    }


def products() -> Found:
    """The five products of a token and of a prefill; weights of several layers, so that none stays in a cache."""
    out: Found = {}
    width = (HEADS + 2 * KEYS) * DIM
    shapes = {"qkv": (width, HIDDEN), "out": (HIDDEN, HEADS * DIM), "gate_up": (2 * INNER, HIDDEN)}
    shapes |= {"down": (HIDDEN, INNER), "head": (VOCABULARY, HIDDEN)}
    for name, (rows, columns) in shapes.items():
        copies = max(1, min(12, int(4e8 / (2 * rows * columns)) + 1)) if CUDA else 1
        weights = [draw(rows, columns) for _ in range(copies)]
        for count in (1, 2, 4, 8, 16, 32, 64, 295, 795, 1590, 3063):
            if name == "head" and count > 64:
                continue
            x = draw(count, columns)

            def work(x: Tensor = x, weights: list[Tensor] = weights) -> None:
                for weight in weights:
                    F.linear(x, weight)

            size = copies * rows * columns
            out[f"{name}, {count} rows"] = timed(work, 2 * size, 2 * count * size) | {"products": copies}
        del weights
    return out


#: Queries, keys, values and the mask to attention.
Way = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
SCALE = DIM**-0.5
#: Numbers to tune: of a tile of queries, a block of rows, warps, stages.
PREFILL_NUMBERS = ((128, 64, 8, 3), (128, 64, 4, 3), (64, 64, 4, 2), (64, 64, 4, 3), (128, 128, 8, 2), (64, 128, 4, 3))
#: Rows of a piece, rows of a block, warps, stages.
DECODE_NUMBERS = (
    (256, 64, 4, 3), (256, 64, 4, 2), (256, 128, 4, 2), (256, 128, 8, 3), (512, 64, 4, 3), (512, 128, 8, 2),
    (1024, 64, 4, 3),
)  # fmt: skip


def _segment(new: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    keys, values = (draw(KEYS, rows + 400, DIM)[:, :rows] for _ in range(2))
    return draw(new, HEADS, DIM), keys, values


def _mask(new: int, rows: int) -> Tensor:
    return torch.ones(new, rows, dtype=torch.bool, device=DEVICE).tril_(rows - new)


def _sdpa(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(
        queries.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, scale=SCALE, enable_gqa=True
    )[0].transpose(0, 1)


def _cudnn(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
        return _sdpa(queries, keys, values, mask)


def _tuned(tile: int, block: int, warps: int, stages: int) -> Way:
    def way(queries: Tensor, keys: Tensor, values: Tensor, _mask: Tensor) -> Tensor:
        out: Tensor = triton_kernels().prefill_attention(
            queries, keys, values, keys.shape[1] - len(queries), SCALE,
            tile=tile, block=block, num_warps=warps, num_stages=stages,
        )  # fmt: skip
        return out

    return way


def _ways() -> dict[str, Way]:
    """Ways to attend in a prefill; those without a mask are causal to the lower right by themselves."""
    return {
        "sdpa, torch's choice": _sdpa,
        "sdpa, cudnn": _cudnn,
        "sdpa, no cudnn": lambda q, k, v, mask: plain.attend(q, k, v, mask, SCALE),
        "flash": lambda q, k, v, _: plain.flash(q, k, v, SCALE),
        **{
            f"triton {tile}x{block}, {warps} warps, {stages} stages": _tuned(tile, block, warps, stages)
            for tile, block, warps, stages in PREFILL_NUMBERS
        },
    }


def _relative(ours: Tensor, wanted: Tensor) -> float:
    return float((ours.double() - wanted).norm() / wanted.norm())


def _float64(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention to the lower right."""
    keys, values = (one.double().repeat_interleave(HEADS // KEYS, 0) for one in (keys, values))
    return plain.attend(queries.double(), keys, values, _mask(len(queries), keys.shape[1]), SCALE)


def prefill_is_right() -> Found:
    """Relative error of every way against float64; small, at lengths that fill no block."""
    out: Found = {}
    for new, rows in ((37, 300), (64, 64), (1, 129)):
        q, k, v = _segment(new, rows)
        wanted = _float64(q, k, v)
        for name, way in _ways().items():

            def off(way: Way = way, q: Tensor = q, k: Tensor = k, v: Tensor = v, wanted: Tensor = wanted) -> float:
                return _relative(way(q, k, v, _mask(len(q), k.shape[1])), wanted)

            out[f"{new} of {rows}, {name}"] = attempt(off)
    return out


def prefill_attention() -> Found:
    """First call, steady time, and the first call with one row more: does a new length cost a new plan?"""
    out: Found = {}
    for rows, new in zip(ROWS, NEW, strict=True):
        q, k, v = _segment(new, rows + 1)
        masks = {count: _mask(new, count) for count in (rows, rows + 1)}
        for name, way in _ways().items():

            def measure(way: Way = way, q: Tensor = q, k: Tensor = k, v: Tensor = v, rows: int = rows) -> Found:
                def one(count: int) -> Tensor:
                    return way(q, k[:, :count], v[:, :count], masks[count])

                first = wall_ms(lambda: one(rows))
                steady = median_us(lambda: one(rows), 5)
                return {
                    "first_ms": first,
                    "us": steady,
                    "TFLOPs": round(4 * len(q) * (rows - len(q) / 2) * HEADS * DIM / steady / 1e6, 1),
                    "new_length_ms": wall_ms(lambda: one(rows + 1)),
                    "same_length_ms": wall_ms(lambda: one(rows + 1)),
                }

            out[f"{new} of {rows}, {name}"] = attempt(measure)
    return out


class _Decoding:
    """``count`` streams of ``rows`` rows that decode a token each."""

    def __init__(self, count: int, rows: int, stores: list[Tensor]) -> None:
        self.stores = stores
        self.places = torch.arange(count, device=DEVICE)
        self.lengths = torch.full((count,), rows, device=DEVICE)
        self.qkv = draw(count, (HEADS + 2 * KEYS) * DIM)
        self.turn = torch.rand(2, count, DIM, device=DEVICE)

    def run(self, piece: int, block: int, warps: int, stages: int) -> Tensor:
        out: Tensor = triton_kernels().decode_attention(
            self.qkv, *self.turn, None, None, 1e-6, *self.stores, self.places, self.lengths,
            heads=HEADS, scaling=SCALE, piece=piece, block=block, num_warps=warps, num_stages=stages,
        )  # fmt: skip
        return out

    def wanted(self) -> Tensor:
        """The same in plain torch and float32."""
        keys, rotated, values = (store.float() for store in self.stores)
        heads, placement = plain.Heads(HEADS, KEYS, DIM), plain.Placement.on_device(self.places, self.lengths)
        stores, turn = plain.Stores(keys, rotated, values), (self.turn[0], self.turn[1])
        return plain.PlainKernels().decode_attention(self.qkv.float(), turn, heads, stores, placement).double()


def decode_is_right() -> Found:
    """Relative error of the split kernel with each of its numbers, against float32."""
    triton_kernels()
    out: Found = {}
    for rows in (1, 255, 256, 1000):
        one = _Decoding(3, rows, [draw(3, KEYS, 1100, DIM) for _ in range(3)])
        wanted = one.wanted()
        for numbers in DECODE_NUMBERS:
            out[f"{rows}, {numbers}"] = attempt(lambda: _relative(one.run(*numbers), wanted))
    return out


def decode_attention() -> Found:
    """The split kernel for 1 to 32 streams, with its numbers to tune."""
    triton_kernels()
    out: Found = {}
    for rows, counts in zip(ROWS, ((1, 2, 8, 18, 32), (1, 4)), strict=True):
        stores = [draw(max(counts), KEYS, rows + 600, DIM) for _ in range(3)]
        for count in counts:
            one = _Decoding(count, rows, stores)
            for piece, block, warps, stages in DECODE_NUMBERS:
                name = f"{count} x {rows}, piece {piece}, block {block}, {warps} warps, {stages} stages"
                out[name] = timed(lambda: one.run(piece, block, warps, stages), 4 * count * rows * KEYS * DIM)
        del stores
    return out


def layer_kernels() -> Found:
    """What runs between a layer's products, beside torch's own: sums and norms, activations, rotation with writing."""
    out: Found = {}
    heads = plain.Heads(HEADS, KEYS, DIM)
    stores = plain.Stores(*(draw(32, KEYS, NEW[0] + 8, DIM) for _ in range(3)))
    for count in (1, 18, 32, NEW[0]):
        x, delta, weight, wide = draw(count, HIDDEN), draw(count, HIDDEN), draw(HIDDEN), draw(count, 2 * INNER)
        qkv, turn = draw(count, (HEADS + 2 * KEYS) * DIM), torch.rand(2, count, DIM, device=DEVICE)
        single = [(place, place, place + 1, 5) for place in range(count)]
        placement = plain.Placement(single if count <= 32 else [(0, 0, count, 0)], count, DEVICE)
        placement.tensors  # noqa: B018  made now: a capture may bring nothing to the device
        for name, one in kinds().items():
            rotation = one.cast_rotation((turn[0], turn[1]), DTYPE)
            out |= {
                f"add_norm, {count} rows, {name}": timed(lambda: one.add_norm(x, delta, weight, 1e-6), 8 * x.numel()),
                f"silu_mul, {count} rows, {name}": timed(lambda: one.silu_mul(wide), 3 * wide.numel()),
                f"rotate_store, {count} rows, {name}": timed(
                    lambda: one.rotate_store(qkv, rotation, heads, stores, placement)
                ),
            }
    return out


def choice_kernels() -> Found:
    """What chooses a token behind the head: penalty, the best scores, the draw."""
    out: Found = {}
    mask = torch.rand(32, VOCABULARY, device=DEVICE) < 0.01
    for count in (1, 18, 32):
        logits, places = draw(count, VOCABULARY), torch.arange(count, device=DEVICE)
        ones = torch.ones(count, device=DEVICE)
        scores = logits.float()
        top, ids = scores.topk(64)
        noise, counts = torch.randn(count, 64, device=DEVICE), places * 0 + 50
        for name, one in kinds().items():
            out[f"best 64, {count} rows, {name}"] = timed(lambda: one.best(scores, 64), 4 * scores.numel())
            if name == "plain" and CUDA:
                continue  # it asks the device how many places are real, which no graph can
            out |= {
                f"penalize, {count} rows, {name}": timed(
                    lambda: one.penalize(logits, mask, places, places, ones * 1.05, ones), 7 * logits.numel()
                ),
                f"pick, {count} rows, {name}": timed(lambda: one.pick(top, ids, noise, counts, ones)),
            }
    return out


def moving_rows() -> Found:
    """An eviction of one stream: a step's rows leave, all behind them move. Beside torch's own."""
    layers = 28 if CUDA else 2
    pool = plain.Stores(*(draw(layers, 1, KEYS, ROWS[0] + 600, DIM) for _ in range(3)))
    rows = torch.arange(NEW[0] + 8, ROWS[0]).numpy()
    turn = torch.rand(2, len(rows), DIM, device=DEVICE)
    moved = 5 * layers * len(rows) * KEYS * DIM * DTYPE.itemsize
    out: Found = {}
    for name, one in kinds().items():
        move = one.plan_move(pool, 0, rows, 8, (turn[0], turn[1]))
        out[name] = timed(move, moved) | {
            "planning_ms": wall_ms(lambda: one.plan_move(pool, 0, rows, 8, (turn[0], turn[1])))
        }
    return out


#: What decides comes first, long sweeps last: whatever is cut short has the rest.
ITEMS = (
    environment, chosen, kernels_are_right, ceilings, launches, prefill_is_right, decode_is_right, products,
    prefill_attention, moving_rows, layer_kernels, choice_kernels, decode_attention,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--only", default="", help="items by name, with commas between them")
    args = parser.parse_args()
    for item in (one for one in ITEMS if not args.only or one.__name__ in args.only.split(",")):
        began = time.perf_counter()
        try:
            with torch.inference_mode():
                found = item()
        except SkippedError as reason:
            found = {"skipped": str(reason)}
        except Exception:  # one item that fails costs one line
            found = {"error": traceback.format_exc()[-1500:]}
        line = {"item": item.__name__, "seconds": round(time.perf_counter() - began, 1), "found": found}
        with open(args.out, "a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line)[:1500], flush=True)
        if CUDA:
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
