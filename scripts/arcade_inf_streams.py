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
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

#: Name of a run -> policy. Full attention gets as much as a fifth of two hours: its cache grows with the video.
POLICIES = {
    "streaming": "streaming",
    "recent-frames": "recent-frames",
    "sliding-reset": "sliding-reset",
    "append": "streaming:positions=append",
    "full": "full:seconds=1440",
    "sliding-recompute": "sliding-recompute",
}
TASK, QUESTIONS = "inf-streams", "arcade-questions"
PORT = 8127


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
        if options.questions:
            run("eval", "generate", options.questions, "--data", data, "--out", out / f"{name}-questions", *more)
            scores = ["--predictions", out / f"{name}-questions", "--json", out / f"{name}.scores.json"]
            run("eval", "score", options.questions, "--data", data, *scores)
        run("eval", "score", TASK, "--data", data, "--predictions", out / name, "--json", out / f"{name}.words.json")
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
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
    if options.questions:
        report += [part for name in names for part in ("--scores", out / f"{name}.scores.json")]
    run("eval", "report", *(out / name for name in names), *report, "--data", data, "--out", out / "report")
    return 0


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
