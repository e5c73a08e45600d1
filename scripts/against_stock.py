"""Milliseconds per token against stock transformers on the same weights, in one process, in turns, on one CPU core.

    PYTHONPATH=src taskset -c 1 python scripts/against_stock.py --json stock.json
    PYTHONPATH=src taskset -c 1 python scripts/against_stock.py --model bundled --tokens 8 --weights int8

Ours: one stream of synthetic frames whose cache is full; every reply has --tokens tokens, and the figure is the whole
decode stage, sampling included. Stock: the same weights in transformers (sdpa, DynamicCache) on a cache of as many
rows, as bare forward passes of one token with an argmax, and through ``generate``. Both are greedy. --weights is for
ours alone, --dtype for both. Each turn runs --steps replies of either side; figures are medians over turns, the ratio
is ours over the bare passes. CPU is the time of the process, which other jobs disturb less than wall time; the stages
of ours are in CPU time.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForImageTextToText, DynamicCache

from streamingvlm.bench.measure import STAGES, Step, summarize
from streamingvlm.bench.setup import Request
from streamingvlm.bench.streams import steps_to_fill
from streamingvlm.core.errors import StreamingVLMError
from streamingvlm.engine.request import StepRequest
from streamingvlm.engine.runner import Chosen, ModelRunner
from streamingvlm.models.base import Model
from streamingvlm.models.quantize import quiet_torchao
from streamingvlm.runtime.reports import Metrics, check_targets, heading, provenance, write_json

#: Seconds of CPU and of wall time, (2,).
Seconds = NDArray[np.float64]
LANES = ("ours", "stock", "stock_generate")


def clocks() -> Seconds:
    return np.array([time.process_time(), time.monotonic()])


class Ours:
    """A stream of synthetic frames with a full cache."""

    def __init__(self, request: Request, model: Model) -> None:
        spent: list[Seconds] = []

        class Timed(ModelRunner):
            def decode(self, requests: Sequence[StepRequest]) -> list[Chosen]:
                began = clocks()
                chosen = super().decode(requests)
                spent.append(clocks() - began)
                return chosen

        self.spent, self.steps = spent, list[Step]()
        _, self.session = request.open(model, context=request.full_sink(model), runner=Timed)
        self.chunks = iter(request.make_source())
        self.watch(steps_to_fill(self.session))

    def watch(self, count: int) -> Seconds:
        """Watch ``count`` steps, which :attr:`steps` then holds; seconds per token."""
        self.spent.clear()
        self.steps = [Step.of(self.session.step(next(self.chunks))) for _ in range(count)]
        return sum(self.spent, np.zeros(2)) / len(self.spent)


class Stock:
    """transformers' model with the weights of ``ours``, and a cache of ``rows`` made-up tokens."""

    def __init__(self, ours: Any, rows: int) -> None:
        config = copy.deepcopy(ours.hf.config)
        made = AutoModelForImageTextToText.from_config(config, dtype=ours.hf.dtype, attn_implementation="sdpa")
        made.load_state_dict(ours.hf.state_dict())
        self.model: Any = made.eval()
        self.model.generation_config.eos_token_id = None  # every reply has its full length
        self.cache = DynamicCache(config=made.config.get_text_config())
        self.rows = rows
        self.ids = torch.randint(ours.vocabulary, (1, rows + 1), generator=torch.Generator().manual_seed(0))
        self.model(input_ids=self.ids[:, :rows], past_key_values=self.cache, use_cache=True, logits_to_keep=1)

    def forward(self, tokens: int) -> None:
        """So many forward passes of one token."""
        token = self.ids[:, -1:]
        for at in range(self.rows, self.rows + tokens):
            position = torch.full((3, 1, 1), at)
            out = self.model(input_ids=token, position_ids=position, past_key_values=self.cache, use_cache=True)
            token = out.logits[:, -1].argmax(-1, keepdim=True)

    def generate(self, tokens: int) -> None:
        """The same through ``generate``."""
        self.model.generate(self.ids, past_key_values=self.cache, max_new_tokens=tokens, do_sample=False)

    def time(self, reply: Callable[[int], None], tokens: int, count: int) -> Seconds:
        """Seconds per token of ``count`` replies, each on a cache that was cut back to its rows."""
        spent = np.zeros(2)
        for _ in range(count):
            began = clocks()
            reply(tokens)
            spent += clocks() - began
            assert self.cache.get_seq_length() == self.rows + tokens
            self.cache.crop(-tokens)
        return spent / count / tokens


@torch.inference_mode()
def race(request: Request, turns: int, steps: int) -> Metrics:
    """Both sides in turns; what the JSON file holds. Times in ms."""
    model = request.make_model()
    model.defaults = replace(model.defaults, sampling=replace(model.defaults.sampling, temperature=0.0))
    # Quantized, a model does not keep the weights that it was made of.
    whole = model if request.weights is None else replace(request, weights=None).make_model()
    ours = Ours(request, model)
    rows, tokens = ours.steps[-1].rows, ours.steps[-1].tokens
    stock, count = Stock(whole, rows - tokens), tokens - 1  # the first token comes out of the prefill
    work: dict[str, Callable[[], Seconds]] = {
        "ours": lambda: ours.watch(steps),
        "stock": lambda: stock.time(stock.forward, count, steps),
        "stock_generate": lambda: stock.time(stock.generate, count, steps),
    }
    runs: list[Metrics] = []
    for turn in range(-1, turns):  # the first is a warm-up
        spent = {lane: (1000 * work[lane]()).tolist() for lane in (LANES if turn % 2 else LANES[::-1])}
        stages = {stage: 1000 * each for stage, each in summarize(ours.steps)["stages"].items()}
        runs.append({"ms_per_token": spent, "ms_per_second": stages | {"total": sum(stages.values())}})
    return {
        **summary(runs[1:]),
        "rows": rows,
        "tokens_per_reply": tokens,
        "model": request.model_name,
        "weights": request.weights or "as loaded",
        "dtype": str(model.kv_shape.dtype).removeprefix("torch."),
        **provenance(model.kv_shape.device),
    }


def summary(runs: Sequence[Metrics]) -> Metrics:
    """Medians over turns, in ms."""
    token = {lane: np.median([run["ms_per_token"][lane] for run in runs], axis=0).tolist() for lane in LANES}
    stages = {s: float(np.median([run["ms_per_second"][s] for run in runs])) for s in (*STAGES, "total")}
    return {
        "ms_per_token": {lane: {"cpu": cpu, "wall": wall} for lane, (cpu, wall) in token.items()},
        "ours_over_stock": token["ours"][0] / token["stock"][0],
        "cpu_ms_per_second": stages,
        "turns": runs,
    }


def show(figures: Metrics) -> None:
    """The figures as tables."""
    print(f"{figures['model']}, weights {figures['weights']}, {figures['dtype']}, {figures['rows']} rows")
    print(f"{heading(figures)}\n\n| ms per token | CPU | wall |\n|---|---|---|")
    for lane, spent in figures["ms_per_token"].items():
        print(f"| {lane} | {spent['cpu']:.2f} | {spent['wall']:.2f} |")
    print(f"\nours / stock: {figures['ours_over_stock']:.2f}\n\n| stage | CPU ms per second of video |\n|---|---|")
    for stage, spent in figures["cpu_ms_per_second"].items():
        print(f"| {stage} | {spent:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random-weights", default="middle")
    parser.add_argument("--model", help="a checkpoint in place of random weights; 'bundled' is the package's own")
    parser.add_argument("--tokens", type=int, default=20, help="tokens of every reply, at least 2")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="replies of either side in a turn")
    parser.add_argument("--weights", help="how ours keeps its matrices: int8, ...")
    parser.add_argument("--dtype")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if min(args.turns, args.steps, args.threads, args.tokens - 1) < 1:
        parser.error("--turns, --steps and --threads must be 1 or more, --tokens 2 or more")
    time.perf_counter = time.process_time  # the engine's stages become CPU time
    try:
        check_targets(args.json)
        request = Request(
            model=None if args.model == "bundled" else args.model,
            random_weights=None if args.model else args.random_weights,
            device="cpu",
            **{name: getattr(args, name) for name in ("tokens", "dtype", "weights", "threads")},
        )
        with quiet_torchao():
            figures = race(request, args.turns, args.steps)
    except StreamingVLMError as error:
        parser.error(str(error))
    write_json(args.json, figures)
    show(figures)


if __name__ == "__main__":
    main()
