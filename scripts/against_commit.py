"""Work per second of video against another checkout of this repository, in one run, in turns, on one CPU core.

    git worktree add --detach ../before COMMIT
    taskset -c 1 python scripts/against_commit.py ../before --json commit.json
    taskset -c 1 python scripts/against_commit.py ../before --model bundled --tokens 8 --turns 15 --steps 10

Either checkout gets a process of its own that lives on: a stream of synthetic frames, warmed up until its cache is
full, whose replies have --tokens tokens. The two take turns of --steps steps. Figures are medians over turns of the CPU
time of the process, which other jobs disturb less than wall time; a ratio is the median of those of each turn. Both
sides get the same frames, so it is also counted how many steps said the same tokens. Measure a checkout against itself
to see how large a difference is noise. --weights, --dtype and --capture are for this checkout; the other one gets them
with --both.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parents[1]


def work(options: dict[str, Any], shape: dict[str, Any] | None) -> None:
    """What a worker does: answer every number of steps on standard input with what they cost, one JSON line each.

    It runs on either checkout, so it uses public names that both have. ``shape``: the numbers of the random weights,
    for a checkout that does not know them.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    logging.disable(logging.WARNING)
    time.perf_counter = time.process_time  # the engine's stages become CPU time
    from streamingvlm.bench import setup, shapes
    from streamingvlm.bench.streams import steps_to_fill
    from streamingvlm.core.errors import StreamingVLMError
    from streamingvlm.core.grammar import Marks
    from streamingvlm.runtime.reports import provenance

    name = options["random_weights"]
    if shape and name not in shapes.SHAPES:
        made = shapes.Shape(**shape | {"marks": Marks(**shape["marks"]), "size": tuple(shape["size"])})
        shapes.SHAPES[name] = lambda: made
    try:
        request = setup.Request(**options)
        model = request.make_model()
        _, session = request.open(model, context=request.full_sink(model))
        chunks = iter(request.make_source())
    except StreamingVLMError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    measure(session, chunks, steps_to_fill(session))
    numbers = dataclasses.asdict(shapes.shape_named(name)) if name else None
    about = {"shape": numbers, "model": request.model_name, **provenance(model.kv_shape.device)}
    print(json.dumps(about), file=answers)
    for line in sys.stdin:
        print(json.dumps(measure(session, chunks, int(line))), file=answers)


def measure(session: Any, chunks: Iterator[Any], count: int) -> dict[str, Any]:
    """What ``count`` steps cost, in ms per second of video, and what they said."""
    from streamingvlm.bench.measure import Step

    began = time.monotonic()
    events = [session.step(next(chunks)) for _ in range(count)]
    wall, steps = time.monotonic() - began, [Step.of(event) for event in events]
    video = sum(step.seconds for step in steps)
    stages = {stage: 1000 * sum(step.stages[stage] for step in steps) / video for stage in steps[0].stages}
    return {
        "ms": stages | {"total": sum(stages.values())},
        "wall_ms": 1000 * wall / video,
        "ms_per_token": stages["decode"] * video / sum(step.tokens - 1 for step in steps),
        "tokens": [list(event.tokens) for event in events],
        "rows": steps[-1].rows,
    }


class Worker:
    """A process of one checkout, which waits while it is not asked."""

    def __init__(self, checkout: Path, options: dict[str, Any], shape: dict[str, Any] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", json.dumps([options, shape])],
            env=os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_WAIT_POLICY": "PASSIVE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about = self._answer()

    def run(self, steps: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(steps, file=self.process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            raise SystemExit(self.process.wait())  # it has said why
        return dict(json.loads(line))


def race(other: Path, options: dict[str, Any], own: dict[str, Any], turns: int, steps: int) -> dict[str, Any]:
    """Both checkouts in turns; what the JSON file holds. Times in ms. ``own``: options of this checkout alone."""
    with ExitStack() as stack:
        here = Worker(HERE, options | own)
        stack.enter_context(here.process)
        there = Worker(other, options, here.about["shape"])
        stack.enter_context(there.process)
        sides = {"here": here, "other": there}
        runs = []
        for turn in range(-1, turns):  # the first is a warm-up
            runs.append({side: sides[side].run(steps) for side in sorted(sides, reverse=turn % 2 == 0)})
    runs = runs[1:]
    said = [(run["here"].pop("tokens"), run["other"].pop("tokens")) for run in runs]
    stages = [s for s in runs[0]["here"]["ms"] if all(run["other"]["ms"].get(s) for run in runs)]
    return {
        "cpu_ms_per_second": {side: {s: median(run[side]["ms"][s] for run in runs) for s in stages} for side in sides},
        "wall_ms_per_second": {side: median(run[side]["wall_ms"] for run in runs) for side in sides},
        "cpu_ms_per_token": {side: median(run[side]["ms_per_token"] for run in runs) for side in sides},
        "ratio": {s: median(run["here"]["ms"][s] / run["other"]["ms"][s] for run in runs) for s in stages},
        "same_tokens": sum(a == b for ours, theirs in said for a, b in zip(ours, theirs, strict=True)),
        "steps": turns * steps,
        "rows": runs[-1]["here"]["rows"],
        "turns": runs,
        "options": {"here": options | own, "other": options},
        "commits": {"here": commit(HERE), "other": commit(other)},
        **{key: value for key, value in here.about.items() if key != "shape"},
    }


def commit(checkout: Path) -> str:
    """What a checkout stands at ("" where git does not know)."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def show(figures: dict[str, Any]) -> None:
    """The figures as a table."""
    here, other = figures["cpu_ms_per_second"].values()
    print(f"{figures['model']}; {figures['device']}; {figures['rows']} rows; {figures['date']}\n")
    print(f"| CPU ms per second of video | {' | other: '.join(figures['commits'].values())} | ratio |")
    print("|---|---|---|---|")
    for stage, times in figures["ratio"].items():
        print(f"| {stage} | {here[stage]:.1f} | {other[stage]:.1f} | {times:.2f} |")
    for name, key in (("wall", "wall_ms_per_second"), ("CPU ms per token", "cpu_ms_per_token")):
        a, b = figures[key].values()
        print(f"| {name} | {a:.2f} | {b:.2f} | {a / b:.2f} |")
    print(f"\n{figures['same_tokens']} of {figures['steps']} steps said the same tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--random-weights", default="middle")
    parser.add_argument("--model", help="a checkpoint in place of random weights; 'bundled' is the package's own")
    parser.add_argument("--tokens", type=int, default=20, help="tokens of every reply, at least 2")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps of either side in a turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--both", action="store_true", help="--weights, --dtype, --capture are for both checkouts")
    for name in ("--weights", "--dtype", "--capture"):
        parser.add_argument(name)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if min(args.turns, args.steps, args.threads, args.tokens - 1) < 1:
        parser.error("--turns, --steps and --threads must be 1 or more, --tokens 2 or more")
    other = args.other.resolve()
    if not (other / "src" / "streamingvlm").is_dir():
        parser.error(f"{args.other} is no checkout of this repository")
    if args.json and not args.json.parent.is_dir():
        parser.error(f"cannot write {args.json}: no such folder")
    own = {name: value for name in ("weights", "dtype", "capture") if (value := getattr(args, name)) is not None}
    options = {"tokens": args.tokens, "threads": args.threads, "device": "cpu"}
    options |= {
        "model": None if args.model == "bundled" else args.model,
        "random_weights": None if args.model else args.random_weights,
    }
    figures = race(other, options | own if args.both else options, own, args.turns, args.steps)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    show(figures)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*json.loads(sys.argv[2]))
    else:
        main()
