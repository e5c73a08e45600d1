"""Where the time of a second of video goes: operations by total time, for eviction, tower, prefill and decoding apart.

PYTHONPATH=src python scripts/gpu/stages.py OUT.txt --fps 8
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from streamingvlm.bench.setup import Request
from streamingvlm.bench.streams import open_stream_batch
from streamingvlm.engine.runner import ModelRunner

STAGES = ("select", "encode", "prefill", "decode")


class Profiled:
    """Runs the stages of every runner as they are, and the one that is wanted once under the profiler."""

    def __init__(self, out: Path) -> None:
        self.wanted = ""
        self._out = out
        for stage in STAGES:
            setattr(ModelRunner, stage, self._watched(stage, getattr(ModelRunner, stage)))

    def _watched(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            if self.wanted != stage:
                return work(*given)
            self.wanted = ""
            return self._profile(stage, work, given)

        return run

    def _profile(self, stage: str, work: Callable[..., Any], given: Any) -> Any:
        cuda = torch.cuda.is_available()
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        with profile(activities=kinds) as found:
            result = work(*given)
            if cuda:
                torch.cuda.synchronize()
        order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
        table = found.key_averages().table(sort_by=order, row_limit=30, max_name_column_width=70)
        with self._out.open("a") as file:
            file.write(f"\n##### {stage}\n{table}\n")
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--random-weights", default="qwen2.5-vl-7b")
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--capture", default="auto")
    parser.add_argument("--warm-up", type=int, default=18, help="steps before; 18 fill the window of video")
    args = parser.parse_args()
    request = Request(random_weights=args.random_weights, fps=args.fps, tokens=20, capture=args.capture)
    batch = open_stream_batch(request, request.make_model(), most=1, rounds=1, warm_up=args.warm_up)
    profiled = Profiled(args.out)
    with closing(batch):
        batch.watch(1)
        for profiled.wanted in STAGES:
            batch.watch(1)
    print(f"{args.out} is written")


if __name__ == "__main__":
    main()
