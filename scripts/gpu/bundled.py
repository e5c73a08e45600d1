"""The bundled model on this device: what it says of unseen games of Pong, in float32 and bfloat16, and on the CPU.

    PYTHONPATH=src python scripts/gpu/bundled.py OUT.json --seconds 120

Real weights: in float32 nearly all steps should say what they say on the CPU, in bfloat16 F1 should be the same. Needs
ale_py, no video library.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from arcade_streams.evaluate.figures import statistic
from arcade_streams.evaluate.run import EvalConfig
from arcade_streams.worlds.context import EVALUATION_SEEDS
from streamingvlm.evaluate.checkpoint import Checkpoint
from streamingvlm.evaluate.runner import run_task
from streamingvlm.models.load import pick_device
from streamingvlm.runtime.reports import provenance

POLICY = "streaming"
F1S = ("micro_f1_strict", "micro_f1")
Found = dict[str, Any]


@contextmanager
def quiet(what: str, _total: float) -> Iterator[Callable[[float], None]]:
    """A bar that only says what is done."""
    print(what, file=sys.stderr, flush=True)
    yield lambda _done: None


def watch(device: str, dtype: str, streams: int, seconds: int) -> tuple[Found, list[str]]:
    """The figures on one device, and what was said in each step."""
    checkpoint = Checkpoint.load(None, device=device, dtype=dtype)
    setting = EvalConfig(games=("pong",), seeds=range(EVALUATION_SEEDS, EVALUATION_SEEDS + streams), seconds=seconds)
    task, began = setting.task(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:  # words of another device would be taken up
        records = run_task(task, checkpoint, POLICY, Path(folder), quiet)
    spent = time.perf_counter() - began
    figures = statistic(task.measure(records, lambda _done: None))
    kernels = checkpoint.model.kernels
    found = {name: figures[name] for name in F1S} | {"kernels": kernels.name, "kernels_reason": kernels.reason}
    return found | {"seconds": round(spent, 1)}, [row["text"] for record in records for row in record.rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", help="default: the GPU, if there is one")
    parser.add_argument("--streams", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=120, help="of each stream")
    args = parser.parse_args()
    device = str(pick_device(args.device))
    found: Found = {
        "streams": args.streams,
        "seconds": args.seconds,
        "runs": {},
        **provenance(pick_device(args.device)),
    }
    cpu: list[str] = []
    failed = False
    for where, dtype in (("cpu", "fp32"), (str(device), "fp32"), (str(device), "bf16")):
        try:
            one, texts = watch(where, dtype, args.streams, args.seconds)
            if not found["runs"]:
                cpu = texts
            one["same_as_cpu"] = sum(a == b for a, b in zip(texts, cpu, strict=False)) / len(cpu) if cpu else None
        except Exception:  # one that fails does not cost the others
            traceback.print_exc()
            one, failed = {"error": traceback.format_exc()[-2000:]}, True
        found["runs"][f"{where} {dtype}"] = one
        print(f"{where} {dtype}: {json.dumps(one)}", flush=True)
        args.out.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
