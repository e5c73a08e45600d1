"""All that one run on a GPU machine does, step by step, each in a process of its own with a limit; its log is kept.

    python3 scripts/gpu/day.py 1 OUT --minutes 8.5
    python3 scripts/gpu/day.py 2 OUT --minutes 9
    python3 scripts/gpu/day.py 3 OUT --minutes 9

Call 1 looks whether everything is right and what the device can do; call 2 has all figures; call 3 compares variants.
One step that fails or hangs costs its own limit and nothing else; what is there when time is up has been written. Needs
torch, transformers, numpy, rich, triton and pytest; no video library.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: Seconds that a step which is told to stop has for writing what it has.
GRACE = 5.0
#: A step is not begun with less than that.
LEAST = 15.0


@dataclass(frozen=True)
class Step:
    """``command``: {out} is the folder, {minutes} what the step may take by itself; ``limit``: seconds at most."""

    name: str
    limit: float
    command: Sequence[str]


@dataclass(frozen=True)
class Outcome:
    """How a step ended: ``exit CODE``, ``stopped at N s`` or ``no time left``."""

    step: str
    how: str
    seconds: float


PYTHON = sys.executable
TESTS = [
    PYTHON, "-m", "pytest", "-p", "no:cacheprovider",
    "tests/engine/test_gpu.py", "tests/engine/test_gpu_paths.py", "tests/kernels",
]  # fmt: skip


def figures(name: str, *options: str) -> list[str]:
    """The command that writes the figures NAME.json."""
    return [PYTHON, str(HERE / "figures.py"), "--minutes", "{minutes}", "--json", f"{{out}}/{name}.json", *options]


def profile(name: str, *options: str) -> list[str]:
    """The command that writes the profile NAME.txt."""
    return [PYTHON, str(HERE / "stages.py"), f"{{out}}/{name}.txt", *options]


TWO = ("--settings", "2 FPS")
CALLS: dict[str, list[Step]] = {
    "1": [
        Step("probe", 150, [PYTHON, str(HERE / "probe.py"), "{out}/probe.jsonl"]),
        Step("tests", 120, TESTS),
        Step("none", 60, figures("none", "--quick", *TWO, "--capture", "none")),
        Step("auto", 70, figures("auto", "--quick", *TWO)),
        Step("profile", 60, profile("profile")),
        Step("figures", 150, figures("figures", *TWO)),
    ],
    "2": [
        Step("tests", 90, TESTS),
        Step("figures", 470, figures("figures")),
    ],
    "3": [
        Step("auto", 120, figures("auto", *TWO)),
        Step("plain", 120, figures("plain", *TWO, "--kernels", "plain")),
        Step("auto-again", 120, figures("auto-again", *TWO)),
        Step("profile-8", 90, profile("profile-8", "--fps", "8")),
    ],
}


def run(step: Step, out: Path, limit: float) -> Outcome:
    """Run one step for at most ``limit`` seconds; its log is OUT/logs/NAME.log."""
    minutes = f"{max(limit - 35, 10) / 60:.2f}"
    command = [part.format(out=out, minutes=minutes) for part in step.command]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    began = time.perf_counter()
    with (out / "logs" / f"{step.name}.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=ROOT, start_new_session=True
        )
        try:
            how = f"exit {process.wait(limit)}"
        except subprocess.TimeoutExpired:
            stop(process)
            how = f"stopped at {limit:.0f} s"
    return Outcome(step.name, how, round(time.perf_counter() - began, 1))


def stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a step and all that it has started; kill what does not end."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def day(steps: Sequence[Step], out: Path, seconds: float) -> list[Outcome]:
    """Run ``steps`` within ``seconds``. OUT/summary.json is written after each of them."""
    end, outcomes = time.perf_counter() + seconds, []
    (out / "logs").mkdir(parents=True, exist_ok=True)
    for step in steps:
        left = end - time.perf_counter()
        if left < min(LEAST, step.limit):
            outcomes.append(Outcome(step.name, "no time left", 0.0))
        else:
            outcomes.append(run(step, out, min(step.limit, left)))
            tail = (out / "logs" / f"{step.name}.log").read_text(errors="replace").splitlines()[-12:]
            print(f"--- {step.name}: {outcomes[-1].how}, {outcomes[-1].seconds:.0f} s", *tail, sep="\n", flush=True)
        (out / "summary.json").write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
    with tarfile.open(out / "logs.tgz", "w:gz") as packed:
        packed.add(out / "logs", "logs")
    shutil.rmtree(out / "logs")
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("call", choices=CALLS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=8.5, help="for all steps together")
    parser.add_argument("--only", default="", help="steps by name, with commas between them")
    args = parser.parse_args()
    wanted = [step for step in CALLS[args.call] if not args.only or step.name in args.only.split(",")]
    if not wanted:
        parser.error(f"--only: some of {', '.join(step.name for step in CALLS[args.call])}")
    outcomes = day(wanted, args.out.resolve(), args.minutes * 60)
    sys.exit(any(one.how != "exit 0" for one in outcomes))


if __name__ == "__main__":
    main()
