"""What one GPU can do and which paths work on it; each item by itself, a line of JSON each.

    PYTHONPATH=src python scripts/gpu/probe.py OUT.jsonl --only products,prefill_is_right

An item that fails is a line that says so. On a CPU it runs with small sizes, to see that it runs; times mean nothing
there. Sizes are those of Qwen2.5-VL-7B.
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
    return round(statistics.median(times), 2)


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


def attempt(work: Callable[[], Any]) -> Any:
    """What ``work`` gives, or what it raised."""
    try:
        return work()
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=DTYPE)


def triton_kernels() -> Any:
    """The Triton functions; raises where they cannot run."""
    if not CUDA:
        raise RuntimeError("Triton's kernels need a GPU")
    from streamingvlm.kernels import triton_kernels as own

    return own


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
        out |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        command = ["nvidia-smi", query, "--format=csv,noheader"]
        out["smi"] = attempt(lambda: subprocess.run(command, capture_output=True, text=True).stdout.strip())
    return out


def kernels_are_right() -> Found:
    """The check that a model's loading makes, for each dtype; and which kernels it would choose."""
    chosen = choose_kernels(DEVICE, DTYPE)
    out: Found = {"chosen": chosen.name, "reason": chosen.reason}
    for dtype in (torch.float32, torch.float16, torch.bfloat16) if CUDA else ():
        flash = dtype != torch.float32
        out[str(dtype)] = attempt(lambda dtype=dtype, flash=flash: wrong_parts(CudaKernels(flash=flash), DEVICE, dtype))
    return out


def ceilings() -> Found:
    found = measure_device(DEVICE, DTYPE)
    return {"copy_TBs": found.bandwidth / 1e12, "product_TFLOPs": found.rate / 1e12}


def launches() -> Found:
    """Microseconds of a launch, of a graph's node, of a blocking copy to the device, of a read-back."""
    x = torch.zeros(64, device=DEVICE)

    def many(count: int = 1000) -> None:
        for _ in range(count):
            x.add_(1)

    def host_us(work: Callable[[], object], count: int = 300) -> float:
        began = time.perf_counter()
        for _ in range(count):
            work()
        return round((time.perf_counter() - began) / count * 1e6, 2)

    return {
        "launch_us": median_us(many, 5) / 1000,
        "graph_node_us": median_us(graphed(many), 5) / 1000,
        "tensor_to_device_us": host_us(lambda: torch.tensor([1, 2, 3], device=DEVICE)),
        "tolist_us": host_us(x.tolist),
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

            spent = median_us(graphed(work), 9) / copies
            rates = {"TBs": 2 * rows * columns / spent / 1e6, "TFLOPs": 2 * count * rows * columns / spent / 1e6}
            out[f"{name}, {count} rows"] = {"us": round(spent, 2)} | {k: round(v, 3) for k, v in rates.items()}
        del weights
    return out


def _segment(new: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    keys, values = (draw(KEYS, rows + 400, DIM)[:, :rows] for _ in range(2))
    return draw(new, HEADS, DIM), keys, values


def _ways() -> dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]:
    """Ways to attend in a prefill, of queries, keys and values."""
    scale = DIM**-0.5

    def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mask = torch.ones(len(q), k.shape[1], dtype=torch.bool, device=DEVICE).tril_(k.shape[1] - len(q))
        gqa = {"attn_mask": mask, "scale": scale, "enable_gqa": True}
        return F.scaled_dot_product_attention(q.transpose(0, 1)[None], k[None], v[None], **gqa)[0].transpose(0, 1)

    ways = {"sdpa, masked": masked, "flash": lambda q, k, v: plain.flash(q, k, v, scale)}
    for tile, block, warps, stages in ((128, 64, 8, 3), (64, 64, 4, 2), (128, 128, 8, 2), (64, 128, 4, 3)):
        options = {"tile": tile, "block": block, "num_warps": warps, "num_stages": stages}
        ways[f"triton {tile}x{block}, {warps} warps, {stages} stages"] = lambda q, k, v, options=options: (
            triton_kernels().prefill_attention(q, k, v, k.shape[1] - len(q), scale, **options)
        )
    return ways


def prefill_is_right() -> Found:
    """Relative error against float64, small."""
    q, k, v = _segment(37, 300)
    keys, values = (x.double().repeat_interleave(HEADS // KEYS, 0) for x in (k, v))
    scores = torch.einsum("nhd,hmd->hnm", q.double(), keys) * DIM**-0.5
    hidden = ~torch.ones(37, 300, dtype=torch.bool, device=DEVICE).tril(263)
    wanted = torch.einsum("hnm,hmd->nhd", scores.masked_fill(hidden, -torch.inf).softmax(-1), values)
    return {
        name: attempt(lambda way=way: float((way(q, k, v).double() - wanted).norm() / wanted.norm()))
        for name, way in _ways().items()
    }


def prefill_attention() -> Found:
    """First call, steady time, and the first call with one row more: does a new length cost a new plan?"""
    out: Found = {}
    for rows, new in zip(ROWS, NEW, strict=True):
        q, k, v = _segment(new, rows + 1)
        operations = 4 * new * (rows - new / 2) * HEADS * DIM
        for name, way in _ways().items():

            def measure(way: Any = way, q: Tensor = q, k: Tensor = k, v: Tensor = v, rows: int = rows) -> Found:
                def one(count: int) -> Tensor:
                    return way(q, k[:, :count], v[:, :count])

                first = wall_ms(lambda: one(rows))
                steady = median_us(lambda: one(rows), 5)
                return {
                    "first_ms": first,
                    "us": steady,
                    "TFLOPs": round(operations / steady / 1e6, 1),
                    "new_length_ms": wall_ms(lambda: one(rows + 1)),
                    "same_length_ms": wall_ms(lambda: one(rows + 1)),
                }

            out[f"{new} of {rows}, {name}"] = attempt(measure)
    return out


def decode_attention() -> Found:
    """The split kernel for 1 to 32 streams, with its numbers to tune."""
    own, out = triton_kernels(), {}
    for rows, counts in zip(ROWS, ((1, 8, 18, 32), (1, 4)), strict=True):
        slots = max(counts)
        stores = [draw(slots, KEYS, rows + 600, DIM) for _ in range(3)]
        for count in counts:
            places = torch.arange(count, device=DEVICE)
            lengths = torch.full((count,), rows, device=DEVICE)
            qkv, turn = draw(count, (HEADS + 2 * KEYS) * DIM), torch.rand(2, count, DIM, device=DEVICE)
            for piece, block, warps, stages in (
                (256, 64, 4, 3), (256, 64, 4, 2), (512, 64, 4, 3), (512, 128, 8, 2), (256, 128, 4, 2), (1024, 64, 4, 3),
            ):  # fmt: skip

                def work(options: dict[str, int]) -> Tensor:
                    result: Tensor = own.decode_attention(
                        qkv, *turn, None, None, 1e-6, *stores, places, lengths, heads=HEADS, scaling=0.1, **options
                    )
                    return result

                options = {"piece": piece, "block": block, "num_warps": warps, "num_stages": stages}
                spent = attempt(lambda options=options, work=work: median_us(graphed(lambda: work(options))))
                rate = 4 * count * rows * KEYS * DIM / spent / 1e6 if isinstance(spent, float) else None
                name = f"{count} x {rows}, piece {piece}, block {block}, {warps} warps, {stages} stages"
                out[name] = {"us": spent, "TBs": rate}
        stores = []
    return out


def small_kernels() -> Found:
    """The other kernels of a layer and of a token, beside torch's own."""
    kernels: dict[str, plain.PlainKernels] = {"plain": plain.PlainKernels()}
    if CUDA:
        kernels["triton"] = CudaKernels(flash=True)
    out: Found = {}
    for count in (1, 18, NEW[0]):
        x, delta, weight, wide = draw(count, HIDDEN), draw(count, HIDDEN), draw(HIDDEN), draw(count, 2 * INNER)
        for name, one in kernels.items():
            out[f"add_norm, {count} rows, {name}"] = median_us(
                graphed(lambda one=one: one.add_norm(x, delta, weight, 1e-6))
            )
            out[f"silu_mul, {count} rows, {name}"] = median_us(graphed(lambda one=one: one.silu_mul(wide)))
    for count in (1, 18, 32):
        scores = torch.randn(count, VOCABULARY, device=DEVICE)
        out[f"topk of {count}"] = median_us(graphed(lambda scores=scores: scores.topk(64)))
    return out


def moving_rows() -> Found:
    """An eviction of one stream: a step's rows leave, all behind them move."""
    layers = 28 if CUDA else 2
    pool = plain.Stores(*(draw(layers, 1, KEYS, ROWS[0] + 600, DIM) for _ in range(3)))
    rows = torch.arange(NEW[0] + 8, ROWS[0]).numpy()
    turn = torch.rand(2, len(rows), DIM, device=DEVICE)
    out: Found = {}
    for name, one in {"plain": plain.PlainKernels(), **({"triton": CudaKernels(flash=True)} if CUDA else {})}.items():
        moved = 5 * layers * len(rows) * KEYS * DIM * 2

        def work(one: plain.PlainKernels = one) -> None:
            one.plan_move(pool, 0, rows, 8, (turn[0], turn[1]))()

        spent = attempt(lambda work=work: median_us(work, 7))
        out[name] = {"us": spent, "TBs": moved / spent / 1e6 if isinstance(spent, float) else None}
    return out


ITEMS = (
    environment, kernels_are_right, ceilings, launches, products, prefill_is_right, prefill_attention,
    decode_attention, small_kernels, moving_rows,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--only", default="", help="items by name, with commas between them")
    args = parser.parse_args()
    chosen = [item for item in ITEMS if not args.only or item.__name__ in args.only.split(",")]
    for item in chosen:
        began = time.perf_counter()
        try:
            with torch.inference_mode():
                found = item()
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
