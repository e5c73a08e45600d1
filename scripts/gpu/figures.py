"""The figures of one GPU, in one run of less than nine minutes: Qwen2.5-VL-7B's shape in bf16, random weights.

    PYTHONPATH=src python scripts/gpu/figures.py --json gpu.json

16 s of video and of turns stay, 512 + 512 tokens of old text, 20 tokens are said a second, a temporal patch has 756
tokens (256 at 448 x 448). Frames are made up, so no video library is needed. Every stream's cache is full before
anything is measured. "GPU time" is eviction, vision, prefill and decoding, each waited for; cutting frames into patches
is the CPU's and stands apart. A setting that fails costs the others nothing; the JSON is written after every trial.
Needs no more than the package's own torch, transformers, numpy and rich.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from streamingvlm.bench.measure import summarize
from streamingvlm.bench.setup import Request
from streamingvlm.bench.streams import count_streams, open_stream_batch
from streamingvlm.engine.ladder import CAPTURES
from streamingvlm.kernels.choose import KERNELS
from streamingvlm.models.base import Model
from streamingvlm.runtime.reports import Metrics, describe_device, how_it_ran, provenance

SHAPE = "qwen2.5-vl-7b"
#: Takes what there is of a setting.
Save = Callable[[Metrics], None]
ON_GPU = ("evict", "vision_encode", "prefill", "decode")


@dataclass(frozen=True)
class RateAndSize:
    """One rate and frame size (None: the shape's own), and the most streams that are tried.

    ``varied``: replies end by themselves, at a token of VARIED, so that their lengths differ: nearly every step then
    has numbers of rows that no step before it had.
    """

    name: str
    fps: float
    size: tuple[int, int] | None
    most: int
    varied: bool = False


SETTINGS = (
    RateAndSize("2 FPS", 2.0, None, 40),
    RateAndSize("2 FPS with varied replies", 2.0, None, 1, varied=True),
    RateAndSize("8 FPS", 8.0, None, 12),
    RateAndSize("448x448 at 2 FPS", 2.0, (448, 448), 112),
    RateAndSize("448x448 at 8 FPS", 8.0, (448, 448), 32),
)

#: One token in so many ends a reply whose length varies: half of them have less than 11 tokens.
VARIED = 16

#: RateAndSize -> figure -> what one H100 can do at all: computed from 14.14 GB of weights read per token, 3.0 TB/s and
#: 600 TFLOP/s.
BOUNDS: dict[str, dict[str, float]] = {
    "2 FPS": {"ms per token": 4.98, "GPU ms per second of video": 130, "streams": 26},
    "8 FPS": {"ms per token": 5.68, "GPU ms per second of video": 307, "streams": 4},
    "448x448 at 2 FPS": {"GPU ms per second of video": 105, "streams": 83},
    "448x448 at 8 FPS": {"GPU ms per second of video": 145, "streams": 18},
}
#: The same: what we want of it, at most (times) or at least (streams).
GOALS: dict[str, dict[str, float]] = {
    "2 FPS": {"ms per token": 6.0, "GPU ms per second of video": 170, "streams": 18},
    "8 FPS": {"ms per token": 6.8, "GPU ms per second of video": 400, "streams": 3, "lag p95, ms": 500},
    "448x448 at 2 FPS": {"streams": 50},
}
#: The same: what we expect, from counted kernels and bytes.
PREDICTED: dict[str, dict[str, float]] = {
    "2 FPS": {"ms per token": 6.0, "GPU ms per second of video": 164, "streams": 18},
    "8 FPS": {"ms per token": 6.9, "GPU ms per second of video": 440, "streams": 3},
}


@contextmanager
def ends_of_turn(model: Model, setting: RateAndSize) -> Iterator[None]:
    """What ends a reply: where replies vary, one token in VARIED, whatever it says."""
    kept = model.end_tokens
    if setting.varied:
        model.end_tokens = frozenset(range(0, model.vocabulary, VARIED))
    try:
        yield
    finally:
        model.end_tokens = kept


def measure(
    model: Model, request: Request, setting: RateAndSize, args: argparse.Namespace, deadline: float, save: Save
) -> None:
    """One stream, then as many as stay real-time; every result goes to ``save`` as soon as it is there."""
    most, rounds, warm_up = (2, 2, 3) if args.quick else (setting.most, args.rounds, None)
    batch = open_stream_batch(request, model, most=most, rounds=rounds, warm_up=warm_up, deadline=deadline)
    ran = how_it_ran(batch.runtime.engine)
    print(
        f"{setting.name}: kernels {ran['kernels']}, capture {ran['capture']} {ran['capture_reason']}", file=sys.stderr
    )
    try:
        batch.watch(1)
        one = summarize(batch.watch(2 if args.quick else args.steps))
    except BaseException:
        batch.close()  # its memory is the next setting's
        raise
    save({"one": one, **ran})
    print(f"{setting.name}: one stream measured", file=sys.stderr)
    batch.on_trial = lambda count: print(f"{setting.name}: {count} streams", file=sys.stderr)
    batch.on_trial_end = lambda: save({"one": one, **batch.figures(), **ran})
    save({"one": one, "many": count_streams(batch), **ran})


def table(results: dict[str, Metrics], shape: str) -> list[dict[str, Any]]:
    """Lines of (setting, figure, bound, predicted, goal, measured); all but what was measured is of one shape."""
    lines = []
    for name, result in results.items():
        found = (_of_one(result["one"]) if "one" in result else {}) | (
            _of_many(result["many"]) if "many" in result else {}
        )
        known = {
            key: figures.get(name, {}) if shape == SHAPE else {}
            for key, figures in (("bound", BOUNDS), ("predicted", PREDICTED), ("goal", GOALS))
        }
        lines += [
            {
                "setting": name,
                "figure": figure,
                **{key: own.get(figure) for key, own in known.items()},
                "measured": text,
            }
            for figure, text in found.items()
        ]
    return lines


def _of_one(one: Metrics) -> dict[str, str]:
    stages, per_token = one["stages"], one["seconds_per_token"]
    return {
        "ms per token": f"{per_token * 1000:.2f}" if per_token else "-",
        "tokens per second of video": f"{one['tokens_per_second']:.1f}",
        "GPU ms per second of video": f"{sum(stages[stage] for stage in ON_GPU) * 1000:.0f}",
        "prefill, ms per second of video": f"{stages['prefill'] * 1000:.0f}",
        "patches on the CPU, ms per second of video": f"{stages['preprocess'] * 1000:.0f}",
        "lag p95, ms": f"{one['lag_p95'] * 1000:.0f}",
    }


def _of_many(many: Metrics) -> dict[str, str]:
    more = "" if many["complete"] and not many["all_slots"] else " or more"
    return {
        "streams": f"{many['streams']}{more}",
        "streams, patches cut elsewhere": f"{many['streams_without_preprocess']}{more}",
        "decoding of 8 streams / 1": ratio(many, "8"),
    }


def ratio(many: Metrics, count: str) -> str:
    """How many times one stream's decoding a batch of ``count`` takes."""
    batch = many["batches"].get(count)
    return f"{batch['decode_ratio']:.2f}" if batch and batch["decode_ratio"] else "-"


def show(lines: list[dict[str, Any]]) -> None:
    print("| setting | figure | bound | predicted | goal | measured |\n|---|---|---|---|---|---|")
    for line in lines:
        known = ["" if line[key] is None else f"{line[key]:g}" for key in ("bound", "predicted", "goal")]
        print(f"| {' | '.join([line['setting'], line['figure'], *known, line['measured']])} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random-weights", default=SHAPE)
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--tokens", type=int, default=20, help="tokens per second")
    parser.add_argument("--steps", type=int, default=12, help="measured steps of one stream")
    parser.add_argument("--rounds", type=int, default=8, help="measured steps of every count of streams")
    parser.add_argument("--minutes", type=float, default=8.0, help="no new count of streams is tried behind that")
    parser.add_argument("--settings", default=",".join(s.name for s in SETTINGS), help="which of them, by name")
    parser.add_argument("--capture", default="auto", choices=CAPTURES)
    parser.add_argument("--kernels", default="auto", choices=KERNELS)
    parser.add_argument("--quick", action="store_true", help="a few steps, to see that it runs")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    chosen = [s for s in SETTINGS if s.name in args.settings.split(",")]
    if not chosen:
        parser.error(f"--settings: one or more of {', '.join(s.name for s in SETTINGS)}")
    began = time.perf_counter()
    names = ("random_weights", "device", "dtype", "tokens", "capture", "kernels")
    base: dict[str, Any] = {name: getattr(args, name) for name in names}
    model = Request(**base).make_model()
    print(f"{model.name} on {describe_device(model.kv_shape.device)}", file=sys.stderr)
    results: dict[str, Metrics] = {}
    failed: list[str] = []
    for index, setting in enumerate(chosen):
        now = time.perf_counter()
        left = args.minutes * 60 - (now - began)
        own = {"tokens": None} if setting.varied else {}
        request = Request(**base | own, fps=setting.fps, size=setting.size)

        def save(result: Metrics, name: str = setting.name) -> None:
            results[name] = result
            if args.json:  # what is there already outlives a run that is cut short
                write(args.json, results, args.random_weights, model, time.perf_counter() - began)

        try:
            with ends_of_turn(model, setting):
                measure(model, request, setting, args, now + left / (len(chosen) - index), save)
        except Exception:  # one setting that fails does not cost the others
            traceback.print_exc()
            failed.append(setting.name)
            save(results.get(setting.name, {}) | {"error": traceback.format_exc()[-2000:]})
    show(table(results, args.random_weights))
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def write(path: Path, results: dict[str, Metrics], shape: str, model: Model, seconds: float) -> None:
    out = {"table": table(results, shape), "results": results, "seconds": seconds, "model": model.name}
    path.write_text(json.dumps(out | provenance(model.kv_shape.device), indent=2) + "\n")


if __name__ == "__main__":
    main()
