"""All that one run on a GPU machine does, step by step, each in a process of its own with a limit; its log is kept.

    python3 scripts/gpu/day.py 1 OUT --minutes 8.5
    python3 scripts/gpu/day.py 2 OUT --minutes 9
    python3 scripts/gpu/day.py 3 OUT --minutes 9 --variants "--kernels auto" "--kernels plain"

Call 1 looks whether everything is right and what the device can do; call 2 has all figures; call 3 measures two
variants in turns. A step that fails or hangs costs its own limit and nothing else; what is there when time is up has
been written: OUT/summary.json after each step, and at most 8 files in the end. Needs torch, transformers, numpy, rich,
triton and pytest; no video library. What a step needs besides may lie in gpu-libs/ (pip install --target gpu-libs
ale-py); without it that step is skipped.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import FrameType

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: Packages that the machine does not have, if somebody brought them.
LIBRARIES = ROOT / "gpu-libs"
#: Seconds that a step which is told to stop has for writing what it has.
GRACE = 5.0
#: A step is not begun with less than that.
LEAST = 15.0
#: Seconds of a step's limit that it does not plan with: imports, loading, its end.
SPARE = 35.0
MOST_FILES = 8


@dataclass(frozen=True)
class Step:
    """``command``: {out} is the folder, {minutes} what the step may take by itself; ``limit``: seconds at most.

    ``needs``: modules without which it is skipped.
    """

    name: str
    limit: float
    command: Sequence[str]
    needs: Sequence[str] = ()


@dataclass(frozen=True)
class Outcome:
    """How a step ended: ``exit CODE``, ``stopped at N s``, ``no time left`` or ``skipped: WHY``."""

    step: str
    how: str
    seconds: float = 0.0


PYTHON = sys.executable


def tests(limit: float) -> list[Step]:
    """The tests of a GPU, each file in a process of its own: a broken device costs the rest of one file."""
    # One line a test: the log of a file that is stopped says in which.
    pytest = [PYTHON, "-m", "pytest", "-vv", "-p", "no:cacheprovider"]
    files = {
        "tests-paths": ["tests/engine/test_gpu_paths.py"],
        "tests-engine": ["tests/engine/test_gpu.py"],
        "tests-kernels": ["tests/kernels/test_triton_kernels.py", "tests/kernels/test_kernels.py"],
    }
    return [Step(name, limit, [*pytest, *paths]) for name, paths in files.items()]


def figures(name: str, *options: str) -> list[str]:
    """The command that writes the figures NAME.json."""
    return [PYTHON, str(HERE / "figures.py"), "--minutes", "{minutes}", "--json", f"{{out}}/{name}.json", *options]


def profile(name: str, *options: str) -> list[str]:
    """The command that writes the profile NAME.txt."""
    return [PYTHON, str(HERE / "stages.py"), f"{{out}}/{name}.txt", *options]


TWO = ("--settings", "2 FPS")


def calls(first: Sequence[str], second: Sequence[str]) -> dict[str, list[Step]]:
    """The steps of each call; ``first`` and ``second``: options of figures.py, the two variants of call 3."""
    return {
        "1": [
            Step("probe", 150, [PYTHON, str(HERE / "probe.py"), "{out}/probe.jsonl"]),
            *tests(60),
            Step("none", 60, figures("none", "--quick", *TWO, "--capture", "none")),
            Step("auto", 70, figures("auto", "--quick", *TWO, "--capture", "auto")),
            Step("profile", 60, profile("profile")),
            Step("figures", 180, figures("figures", *TWO)),
        ],
        "2": [
            *tests(45),
            Step("figures", 370, figures("figures")),
            Step("bundled", 75, [PYTHON, str(HERE / "bundled.py"), "{out}/bundled.json"], needs=("ale_py",)),
        ],
        "3": [
            *tests(30),
            Step("first", 100, figures("first", *TWO, *first)),
            Step("second", 100, figures("second", *TWO, *second)),
            Step("first-again", 100, figures("first-again", *TWO, *first)),
            Step("second-again", 100, figures("second-again", *TWO, *second)),
            Step("profile", 60, profile("profile", "--fps", "8")),
        ],
    }


def missing(needs: Sequence[str]) -> list[str]:
    """Which modules are neither installed nor in gpu-libs/."""
    return [
        name
        for name in needs
        if PathFinder.find_spec(name, [str(LIBRARIES)]) is None and importlib.util.find_spec(name) is None
    ]


def run(step: Step, out: Path, limit: float) -> Outcome:
    """Run one step for at most ``limit`` seconds; its log is OUT/logs/NAME.log."""
    minutes = f"{max(limit - SPARE, 10) / 60:.2f}"
    command = [part.replace("{out}", str(out)).replace("{minutes}", minutes) for part in step.command]
    path = os.pathsep.join(str(one) for one in (ROOT / "src", ROOT / "tests", LIBRARIES))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    began = time.perf_counter()
    with (out / "logs" / f"{step.name}.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=ROOT, start_new_session=True
        )
        try:
            how = f"exit {process.wait(limit)}"
        except subprocess.TimeoutExpired:
            how = f"stopped at {limit:.0f} s"
        finally:
            stop(process)
    return Outcome(step.name, how, round(time.perf_counter() - began, 1))


def stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a step that still runs; kill it, and all that it has started and left."""
    if process.poll() is None:
        _signal(process, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # nobody is left
        os.killpg(process.pid, number)


def day(steps: Sequence[Step], out: Path, seconds: float) -> list[Outcome]:
    """Run ``steps`` within ``seconds``. OUT/summary.json is written after each of them."""
    end, outcomes = time.perf_counter() + seconds, list[Outcome]()
    (out / "logs").mkdir(parents=True, exist_ok=True)
    try:
        for step in steps:
            left = end - time.perf_counter()
            if absent := missing(step.needs):
                outcomes.append(Outcome(step.name, f"skipped: no module {', '.join(absent)}"))
            elif left < min(LEAST, step.limit):
                outcomes.append(Outcome(step.name, "no time left"))
            else:
                outcomes.append(run(step, out, min(step.limit, left)))
            _tell(outcomes[-1], out / "logs" / f"{step.name}.log")
            (out / "summary.json").write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
    finally:
        pack(out)
    return outcomes


def _tell(outcome: Outcome, log: Path) -> None:
    tail = log.read_text(errors="replace").splitlines()[-12:] if log.exists() else []
    lines = [f"--- {outcome.step}: {outcome.how}, {outcome.seconds:.0f} s", *(line[:300] for line in tail)]
    print(*lines, sep="\n", flush=True)


def pack(out: Path) -> None:
    """Put the logs, and files beyond MOST_FILES, into OUT/logs.tgz."""
    files = sorted(path for path in out.rglob("*") if path.is_file() and (out / "logs") not in path.parents)
    wanted = [path for path in files if path.parent == out and path.name not in ("summary.json", "logs.tgz")]
    kept = {*wanted[: MOST_FILES - 2], out / "summary.json", out / "logs.tgz"}
    with tarfile.open(out / "logs.tgz", "w:gz") as packed:
        packed.add(out / "logs", "logs")
        for path in files:
            if path not in kept:
                packed.add(path, str(path.relative_to(out)))
                path.unlink()
    shutil.rmtree(out / "logs")


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """Whoever ends this program ends the step under way too, and finds the logs packed."""
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("call", choices=("1", "2", "3"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=8.5, help="for all steps together")
    parser.add_argument("--only", default="", help="steps by name, with commas between them")
    parser.add_argument(
        "--variants", nargs=2, default=("--kernels auto", "--kernels plain"), help="options of figures.py, for call 3"
    )
    args = parser.parse_args()
    steps = calls(*(one.split() for one in args.variants))[args.call]
    wanted = [step for step in steps if not args.only or step.name in args.only.split(",")]
    if not wanted:
        parser.error(f"--only: some of {', '.join(step.name for step in steps)}")
    signal.signal(signal.SIGTERM, interrupt)
    outcomes = day(wanted, args.out.resolve(), args.minutes * 60)
    sys.exit(any(one.how != "exit 0" and not one.how.startswith("skipped") for one in outcomes))


if __name__ == "__main__":
    main()
