"""Published replies and data, for the golden tests: ``python scripts/fetch_golden.py ovo-bench CLONE``.

The tests rescore the replies and compare with the published figures, and read the data. Neither is part of this
repository (they have their own licences): a person clones the repository named below, and this script copies what the
tests read to ``golden-data/`` at the root, which git has to ignore. Without arguments it says what to clone.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

#: Where the copies lie, and where the tests look for them.
GOLDEN = Path(__file__).resolve().parent.parent / "golden-data"


@dataclass(frozen=True)
class Origin:
    """A public repository. ``commit``: the one whose figures the tests know; ``patterns``: the files that they read."""

    url: str
    commit: str
    licence: str
    patterns: Sequence[str]


ORIGINS = {
    "ovo-bench": Origin(
        "https://github.com/JoeLeelyf/OVO-Bench",
        "c34093f",
        "code MIT, data CC BY-NC-SA 4.0",
        ("LICENSE", "data/ovo_bench_new.json", "results/*/*.json"),
    ),
    "livecc": Origin(
        "https://github.com/showlab/livecc",
        "fdaa91e",
        "no licence file: for your own use",
        (
            "evaluation/livesports3kcc/judges/GPT-4o_LiveCC-7B-*.jsonl",
            "evaluation/livesports3kcc/livecc/LiveCC-7B-*.jsonl",
            "evaluation/livesports3kcc/captions/GPT-4o.jsonl",
            "evaluation/videomme/results/LiveCC-7B-Instruct_*_subtitles.json",
        ),
    ),
    "streamingbench": Origin(
        "https://github.com/THUNLP-MT/StreamingBench",
        "8929923",
        "MIT",
        ("LICENSE", "src/data/questions_*.json"),
    ),
}


def instructions() -> str:
    """What to clone, for every origin."""
    told = []
    for name, origin in ORIGINS.items():
        told += [f"{name} ({origin.licence}):", f"  git clone {origin.url} /tmp/{name}"]
        told += [
            f"  git -C /tmp/{name} checkout {origin.commit}",
            f"  python scripts/fetch_golden.py {name} /tmp/{name}",
        ]
    return "\n".join(told)


def copy(name: str, clone: Path, golden: Path = GOLDEN) -> int:
    """Copy an origin's files from ``clone``; returns how many. ValueError if they are not there."""
    origin = ORIGINS[name]
    files = [file for pattern in origin.patterns for file in sorted(clone.glob(pattern)) if file.is_file()]
    missing = [pattern for pattern in origin.patterns if not any(clone.glob(pattern))]
    if missing:
        raise ValueError(f"{clone} is no clone of {origin.url}: it has no {', '.join(missing)}")
    for file in files:
        target = golden / name / file.relative_to(clone)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return len(files)


def commit_of(clone: Path) -> str | None:
    """The commit of a clone; None if it is a folder that is no clone."""
    if not (clone / ".git").exists():
        return None
    told = subprocess.run(["git", "-C", str(clone), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return told.stdout.strip() or None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description="Copy published replies and data for the golden tests.", epilog=instructions()
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", nargs="?", choices=sorted(ORIGINS))
    parser.add_argument("clone", nargs="?", type=Path)
    given = parser.parse_args(arguments)
    if given.name is None or given.clone is None:
        print(instructions())
        return 0
    commit, wanted = commit_of(given.clone), ORIGINS[given.name].commit
    if commit is not None and not commit.startswith(wanted):
        print(f"warning: {given.clone} is at {commit[:7]}; the tests know the figures of {wanted}", file=sys.stderr)
    try:
        count = copy(given.name, given.clone)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{count} files copied to {GOLDEN / given.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
