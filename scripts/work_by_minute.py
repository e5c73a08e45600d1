"""Work per second of video, end to end from the file to the last word, minute by minute.

    python scripts/work_by_minute.py --minutes 31 --json work.json

Records a match (H.264, once, kept in --folder), watches it with the bundled model as fast as it goes and prints the
mean work per second of video of every minute, split by stage. The first 20 steps are warm-up and are left out: the
cache is still filling.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import transformers

import streamingvlm
from streamingvlm.core.run_stats import STAGES

WARM_UP = 20


def record(folder: Path, seed: int, seconds: int) -> Path:
    """The clip, made on first use."""
    clip = folder / f"pong-{seed}-{seconds}s.mp4"
    if not clip.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "streamingvlm", "record", "arcade:pong", "--seed", str(seed)]
        subprocess.run([*command, "--seconds", str(seconds), "-o", str(clip)], check=True)
    return clip


def watch(clip: Path) -> list[dict[str, float]]:
    """Seconds of work of every step, by stage."""
    source = streamingvlm.open_source(str(clip))
    steps = []
    with streamingvlm.Engine(streamingvlm.load_model()).open(context=source.context) as session:
        for event in session.run(source):
            steps.append({stage: getattr(event.timing, stage) for stage in STAGES} | {"rows": sum(event.rows.values())})
            if len(steps) % 60 == 0:
                print(f"minute {len(steps) // 60}: {work(steps[-60:]) * 1000:.1f} ms a second", file=sys.stderr)
    return steps


def work(steps: list[dict[str, float]]) -> float:
    """Mean seconds of work per step."""
    return statistics.fmean(sum(step[stage] for stage in STAGES) for step in steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=31)
    parser.add_argument("--seed", type=int, default=9_000_500)
    parser.add_argument("--folder", type=Path, default=Path("out"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    steps = watch(record(args.folder, args.seed, args.minutes * 60))[WARM_UP:]
    minutes = [steps[i : i + 60] for i in range(0, len(steps) - 59, 60)]
    first, last = work(minutes[0]), work(minutes[-1])
    result = {
        "work_per_second": work(steps),
        "stages": {stage: statistics.fmean(step[stage] for step in steps) for stage in STAGES},
        "first_minute": first,
        "last_minute": last,
        "last_over_first": last / first,
        "rows_max": max(step["rows"] for step in steps),
        "minutes": len(minutes),
        "device": f"{platform.machine()} CPU, {torch.get_num_threads()} threads",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "date": datetime.date.today().isoformat(),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
