"""``eval judge``: two contestants of a commentary benchmark before a judge."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .ending import Stopped, stoppable

if TYPE_CHECKING:
    from ..evaluate.benchmark import CommentaryBenchmark
    from ..evaluate.judging.calibration import Calibration
    from ..evaluate.judging.judge import Judge, Plan
    from ..evaluate.judging.pairs import Match
    from ..evaluate.judging.prompts import JudgePrompt
    from ..evaluate.runs import Contestant

#: Where the key of the judge's endpoint is read from, and nowhere else.
KEY = "OPENAI_API_KEY"
#: Verdicts of all runs of a folder.
CACHE = "verdicts.jsonl"


def judge(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK", help="A benchmark of commentary: NAME or NAME?key=value&...", show_default=False
        ),
    ],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="The benchmark's data.", show_default=False)],
    a: Annotated[
        Path, typer.Option("--a", metavar="RUN_OR_FILE", help="A run, or a prediction file.", show_default=False)
    ],
    b: Annotated[
        Path, typer.Option("--b", metavar="RUN_OR_FILE", help="What it is compared with.", show_default=False)
    ],
    url: Annotated[
        str,
        typer.Option(
            "--judge",
            metavar="URL",
            help=f"An OpenAI-compatible endpoint, with its version (.../v1); its key is taken from {KEY}.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str, typer.Option("--judge-model", metavar="NAME", help="The model that judges.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="VOTES",
            help=f"JSON lines that votes are added to; {CACHE} beside it keeps all that was paid.",
            show_default=False,
        ),
    ],
    videos: Annotated[
        Path | None, typer.Option("--videos", metavar="DIR", help="The videos' folder (judging opens none of them).")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", metavar="NAME", help="A judge prompt other than the task's own.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Ask for every vote so many times.")] = 1,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Calls at once.")] = 8,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for one reply.")] = 120.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is left to be paid, and call nothing.")] = False,
    price_in: Annotated[
        float | None, typer.Option("--price-in", min=0, help="Price of a million prompt tokens, for --dry-run.")
    ] = None,
    price_out: Annotated[
        float | None, typer.Option("--price-out", min=0, help="Price of a million reply tokens, for --dry-run.")
    ] = None,
    no_temperature: Annotated[
        bool, typer.Option("--no-temperature", help="Do not ask for temperature 0: some judges refuse it.")
    ] = False,
    no_seed: Annotated[bool, typer.Option("--no-seed", help="Do not ask for a fixed seed.")] = False,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="Bound of a reply, a judge's reasoning included.")
    ] = 4096,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out windows that a contestant has nothing for.")
    ] = False,
    allow_different: Annotated[
        bool, typer.Option("--allow-different", help="Judge runs of different presets or modes.")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Print the win rate also while votes are missing.")
    ] = False,
    without_calibration: Annotated[
        bool, typer.Option("--without-calibration", help="Do not calibrate the judge; figures are marked.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write all figures as JSON.")
    ] = None,
) -> int:
    """Let a model judge two contestants, window by window and in both orders; print win rates and the judge's biases.

    The judge first has to find the right answer of pairs that are made of the reference texts. Ctrl-C keeps all votes:
    the same command goes on from there and pays nothing twice. Exit code 1: votes are missing.
    """
    from ..engine.endpoint import Endpoint
    from ..evaluate.judging.cache import Cache
    from ..evaluate.judging.judge import Judge, Parameters, known_table
    from ..runtime import reports

    reports.check_targets(json_file)
    opened, match = _match(task, data, videos, a, b, allow_missing, allow_different)
    asked_for = Parameters(max_tokens=max_tokens)
    if no_temperature:
        asked_for = replace(asked_for, temperature=None)
    if no_seed:
        asked_for = replace(asked_for, seed=None)
    cache = Cache(out.parent / CACHE)
    endpoint = Endpoint(
        url,
        model,
        key=os.environ.get(KEY) or None,
        timeout=timeout,
        in_flight=workers,
        accepted=known_table(cache, url, model),
    )
    with closing(cache), endpoint:
        asked = Judge(endpoint, _prompt(task, prompt), asked_for, cache, repeats=repeats, workers=workers)
        job = _Job(asked, opened, match, out, without_calibration)
        if dry_run:
            print(job.price(price_in, price_out))
            return 0
        try:
            with stoppable():
                tree = job.run(partial)
        except (KeyboardInterrupt, Stopped) as end:
            print("votes are kept; the same command goes on from there", file=sys.stderr)
            return end.code if isinstance(end, Stopped) else 130
    from ..evaluate.judging.report import report

    reports.write_json(json_file, tree)
    print(report(tree))
    left_out = len(match.places) - len(match.pairs)
    return 0 if tree["counts"]["judged"] + left_out * 2 * repeats >= tree["counts"]["expected"] else 1


@dataclass(frozen=True, slots=True)
class _Job:
    judge: Judge
    benchmark: CommentaryBenchmark
    match: Match
    out: Path
    without_calibration: bool

    def price(self, price_in: float | None, price_out: float | None) -> str:
        """What is left to be paid, in words."""
        lines = [
            "left to be paid (tokens are estimates: 4 characters each; 10 a reply, many more if the judge reasons):"
        ]
        plans = [("votes", self.judge.plan(self.match.pairs, self.out))]
        if not self.without_calibration:
            plans.insert(0, ("calibration", self.calibration.plan()))
        lines += [_priced(name, one, price_in, price_out) for name, one in plans]
        if price_in is None and price_out is None:
            lines.append("--price-in and --price-out, per million tokens, add the cost")
        return "\n".join(lines)

    def run(self, partial: bool) -> dict[str, Any]:
        """Calibrate, judge, count."""
        from ..evaluate.judging.report import summary
        from ..runtime import reports

        self.judge.prepare()
        calibration = self.calibration.stored if self.without_calibration else self.passed()
        votes = len(self.match.pairs) * 2 * self.judge.repeats
        with reports.progress("votes", votes) as done:
            judged = self.judge.run(self.out, self.match.pairs, self.match.places, self.match.about, done)
        return summary(judged, calibration, without_calibration=self.without_calibration, partial=partial)

    def passed(self) -> dict[str, Any]:
        """The verdict of a calibration that the judge has passed; SourceError, with the table shown, if it has not."""
        from ..core.errors import SourceError
        from ..evaluate.judging.calibration import table
        from ..runtime import reports

        with reports.progress("votes of calibration", len(self.calibration.pairs) * 2) as done:
            verdict = self.calibration.run(done)
        if not verdict["passed"]:
            print(table(verdict), file=sys.stderr)
            raise SourceError(
                f"the judge failed its calibration ({', '.join(verdict['failed'])}), so nothing was judged; "
                "--without-calibration judges, and marks all figures"
            )
        return verdict

    @property
    def calibration(self) -> Calibration:
        """Of this judge, on the same data."""
        from ..evaluate.judging.calibration import Calibration

        return Calibration(self.judge, self.benchmark, self.out.parent)


def _match(
    task: str, data: Path, videos: Path | None, a: Path, b: Path, allow_missing: bool, allow_different: bool
) -> tuple[CommentaryBenchmark, Match]:
    """The benchmark and its pairs; OptionError for a benchmark of questions."""
    from ..core.errors import OptionError
    from ..evaluate.benchmark import CommentaryBenchmark
    from ..evaluate.judging.pairs import make_match
    from ..evaluate.registry import open_benchmark
    from ..evaluate.runs import open_contestant

    benchmark = open_benchmark(task, data, videos)
    if not isinstance(benchmark, CommentaryBenchmark):
        raise OptionError(f"{task} is a benchmark of questions: it is scored, not judged")
    one, other = open_contestant(a), open_contestant(b)
    if not allow_different:
        check_alike(one, other)
    return benchmark, make_match(benchmark, one, other, allow_missing=allow_missing)


def check_alike(one: Contestant, other: Contestant) -> None:
    """OptionError for two runs that were not given the same; prediction files do not tell what they were given."""
    from ..core.errors import OptionError

    def given(contestant: Contestant) -> dict[str, Any]:
        about = contestant.about
        words = (about.get("settings") or {}).get("human_words")
        return {"preset": about.get("preset"), "mode": about.get("mode"), "human words before the start": words}

    for (what, own), theirs in zip(given(one).items(), given(other).values(), strict=True):
        if own is not None and theirs is not None and own != theirs:
            raise OptionError(
                f"{one.name} and {other.name} were not given the same: {what} {own!r} and {theirs!r}; "
                "--allow-different judges them all the same"
            )


def _prompt(task: str, name: str | None) -> JudgePrompt:
    from ..core.errors import OptionError
    from ..evaluate.judging.prompts import PROMPTS, TASK_PROMPTS, open_prompt

    found = name or TASK_PROMPTS.get(task.partition("?")[0])
    if found is None:
        raise OptionError(f"{task} has no judge prompt of its own; choose one with --prompt: {', '.join(PROMPTS)}")
    return open_prompt(found)


def _priced(name: str, plan: Plan, price_in: float | None, price_out: float | None) -> str:
    line = (
        f"{name}: {plan.calls} calls, about {plan.prompt_tokens:,} prompt tokens and {plan.completion_tokens:,} reply "
        f"tokens; {plan.kept} votes are there or in {CACHE}, {plan.by_rule} on empty texts need no call"
    )
    if price_in is None and price_out is None:
        return line
    return f"{line}; about {plan.cost(price_in or 0.0, price_out or 0.0):.4f} in the prices' currency"
