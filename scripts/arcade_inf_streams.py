"""The protocol of Inf-Streams-Eval run end to end on arcade games: every policy, judged against the streaming cache.

    python scripts/arcade_inf_streams.py OUT [--games pong,tennis] [--hours 2] [--policies NAME=POLICY,...]

Writes the games, generates with the bundled model under every policy, judges each against ``streaming`` with the judge
that compares facts, asks the arcade's questions in forks, and writes one report. What was done is taken up: the same
command goes on. The figures are not the paper's: games and judge are made for this package.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from arcade_streams.benchmark.questions import AGES, ArcadeQuestions
from streamingvlm.evaluate.registry import open_benchmark
from streamingvlm.evaluate.runs import open_contestant

#: Name of a run -> policy. Full attention gets as much as a fifth of two hours: its cache grows with the video.
POLICIES = {
    "streaming": "streaming",
    "recent-frames": "recent-frames",
    "sliding-reset": "sliding-reset",
    "append": "streaming:positions=append",
    "full": "full:seconds=1440",
    "sliding-recompute": "sliding-recompute",
}
#: What is asked questions besides: the streaming cache without one of its parts.
LESS = {
    "no-sink": "streaming:sink=0",
    "no-text": "streaming:text=0",
    "one-second": "streaming:vision=1",
}
TASK, QUESTIONS = "inf-streams", "arcade-questions?each=8&seconds=1800"
PORT = 8127
#: The parts of a cache that can hold evidence, in the order of the table.
HELD = ["vision", "recent text", "long text", "sink", "nothing"]


def main() -> int:
    """Run all steps."""
    options = arguments()
    out: Path = options.out
    data = out / "data"
    names = options.policies.split(",")
    run("arcade-benchmark", data, "--games", options.games, "--hours", options.hours, "--videos", "locator")
    vision = out / "vision"
    for name in names:
        began = time.perf_counter()
        more = ["--policy", POLICIES[name], "--keep-vision", vision, "--name", name]
        # As in the paper, the human words of the first 1000 s are given.
        run("eval", "generate", TASK, "--data", data, "--out", out / name, "--words", "human", *more)
        run("eval", "score", TASK, "--data", data, "--predictions", out / name, "--json", out / f"{name}.words.json")
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    asked = list(dict.fromkeys([*names, *LESS])) if options.questions else []
    for name in asked:
        more = ["--policy", (POLICIES | LESS)[name], "--keep-vision", vision, "--name", name]
        run("eval", "generate", options.questions, "--data", data, "--out", out / f"{name}-questions", *more)
        scores = ["--predictions", out / f"{name}-questions", "--json", out / f"{name}.scores.json"]
        run("eval", "score", options.questions, "--data", data, *scores)
    server = subprocess.Popen([sys.executable, "-m", "arcade_streams.benchmark.judge_server", "--port", str(PORT)])
    try:
        wait_for(server)
        for name in names[1:]:
            pair = ["--a", out / names[0], "--b", out / name]
            judge = ["--judge", f"http://127.0.0.1:{PORT}/v1", "--judge-model", "facts"]
            votes = out / "votes" / f"{name}.jsonl"
            run("eval", "judge", TASK, "--data", data, *pair, *judge, "--out", votes)
    finally:
        server.terminate()
        server.wait()
    report = [part for name in names[1:] for part in ("--votes", out / "votes" / f"{name}.jsonl")]
    if asked:
        report += [part for name in asked for part in ("--scores", out / f"{name}.scores.json")]
        table = forgetting(data, options.questions, {name: out / f"{name}-questions" for name in asked})
        (out / "forgetting.md").write_text(table, encoding="utf-8")
        print(table)
    run("eval", "report", *(out / name for name in names), *report, "--data", data, "--out", out / "report")
    return 0


def forgetting(data: Path, questions: str, runs: Mapping[str, Path]) -> str:
    """Share of right answers by what can still hold the evidence and how old it is, a column for each policy."""
    benchmark = open_benchmark(questions, data)
    assert isinstance(benchmark, ArcadeQuestions), "the script asks the arcade's own"
    found = {}
    for name, path in runs.items():
        replies = benchmark.replies(open_contestant(path).predictions)
        found[name] = benchmark.by_part(benchmark.score(replies))
    ages = list(AGES)
    every = {row for parts in found.values() for row in parts}
    rows = sorted(every, key=lambda row: (HELD.index(row[0]), ages.index(row[1])))
    lines = [f"| held by | age | items | {' | '.join(found)} |", "|---|---|" + "---|" * (len(found) + 1)]
    for row in rows:
        shares = [f"{100 * parts[row][0] / parts[row][1]:.0f}" for parts in found.values()]
        lines.append(f"| {row[0]} | {row[1]} | {next(iter(found.values()))[row][1]} | {' | '.join(shares)} |")
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="where everything is kept")
    parser.add_argument("--games", default="pong,tennis", help="which games")
    parser.add_argument("--hours", default="2", help="length of a game")
    parser.add_argument("--policies", default=",".join(POLICIES), help=f"of {', '.join(POLICIES)}; the first is a")
    parser.add_argument(
        "--questions", default=QUESTIONS, help="the benchmark of questions, with its options; '' for none"
    )
    return parser.parse_args()


def run(*parts: object) -> None:
    """A command of the program; its failure ends the script."""
    command = [sys.executable, "-m", "streamingvlm", *map(str, parts)]
    print("+ streamingvlm", *map(str, parts), flush=True)
    subprocess.run(command, check=True)


def wait_for(server: subprocess.Popen[bytes]) -> None:
    """Until the judge answers."""
    for _ in range(300):
        if server.poll() is not None:
            raise SystemExit("the judge did not start")
        try:
            urlopen(f"http://127.0.0.1:{PORT}/v1/models", timeout=1).close()
            return
        except URLError as error:
            if hasattr(error, "code"):
                return  # it answers
            time.sleep(0.2)
    raise SystemExit("the judge did not answer")


if __name__ == "__main__":
    raise SystemExit(main())
