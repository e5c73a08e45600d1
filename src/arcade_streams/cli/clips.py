"""``record``, ``score`` and ``demo``: the arcade, where the truth is known."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamingvlm import OptionError, OutputError, SourceError
from streamingvlm.cli.follow import follow
from streamingvlm.cli.loading import load_engine
from streamingvlm.cli.options import PaceOption, WeightsOption, check_numbers

if TYPE_CHECKING:
    from streamingvlm.core.events import Event
    from streamingvlm.sinks.terminal import Beside

#: The demo watches this many seconds of a match whose seed no training run has seen.
DEMO_SECONDS = 60
DEMO_SEED_OFFSET = 777


def record(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="arcade:GAME", show_default=False)],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="PATH", help="The .mp4 to write; a .jsonl goes beside it.")
    ],
    seed: Annotated[int | None, typer.Option(help="Which match. [default: the source's, or 0]")] = None,
    seconds: Annotated[float, typer.Option(help="Length of the clip.")] = 60.0,
) -> None:
    """Record an arcade match as a video with its true commentary beside it."""
    if not (math.isfinite(seconds) and seconds >= 1):
        raise OptionError("--seconds must be 1 or more")
    if seed is not None:
        check_numbers(seed=seed)
    write_record(source, seed, int(seconds), output)
    print(f"{output} and {output.with_suffix('.jsonl')}: {int(seconds)} s")


def score(
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="The .jsonl that record wrote.", show_default=False)],
    words: Annotated[Path, typer.Argument(metavar="WORDS", help="The .jsonl that watch wrote.", show_default=False)],
) -> None:
    """Compare what was said with what happened; prints JSON."""
    from ..score.score import score_files

    print(json.dumps(score_files(truth, words), indent=2))


def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Where the match is kept. [default: the user's cache folder]")
    ] = None,
    pace: Annotated[PaceOption | None, typer.Option(help="[default: live in a terminal, else fast]")] = None,
    weights: WeightsOption = None,
) -> int:
    """Watch an unseen match of Pong and print what truly happened beside the words, then the score."""
    from streamingvlm import open_source
    from streamingvlm.runtime.clock import Pace
    from streamingvlm.sinks.files import make_folder

    from ..score.score import read
    from ..score.score import score as compare
    from ..worlds.context import EVALUATION_SEEDS

    folder = folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "streamingvlm"
    clip = folder / f"demo-{DEMO_SECONDS}s.mp4"
    if not (clip.is_file() and clip.with_suffix(".jsonl").is_file()):
        make_folder(folder)
        print(f"recording an unseen match to {clip}", file=sys.stderr)
        write_record("arcade:pong", EVALUATION_SEEDS + DEMO_SEED_OFFSET, DEMO_SECONDS, clip)
    truth = read(clip.with_suffix(".jsonl"))
    if not isinstance(truth, dict):
        raise SourceError(f"{clip.with_suffix('.jsonl')} is not the truth of a clip; remove it to record anew")
    video = open_source(str(clip))
    said = Collected()
    if pace is None:
        pace = PaceOption.LIVE if sys.stdout.isatty() else PaceOption.FAST
    engine = load_engine(None, weights=weights)
    code = follow(video, engine, {"context": video.context}, [said], "auto", Pace(pace.value), beside(truth))
    if code == 0:
        figures = compare(truth, said.records)  # its plain ratios; the tables of `score` would fill the screen
        print("score    " + ", ".join(f"{key} {part:.3f}" for key, part in figures.items() if isinstance(part, float)))
    return code


def write_record(source: str, seed: int | None, seconds: int, path: Path) -> None:
    """Write a match as ``path`` (.mp4) and its truth as .jsonl beside it."""
    from streamingvlm.sinks.clip import write_video
    from streamingvlm.sinks.files import check_writable, json_text, write_whole
    from streamingvlm.sources.file import kind_comment

    from ..worlds.record import CLIP_FPS, frames_and_truth, truth_record
    from ..worlds.source import kind_of, parse_locator
    from ..worlds.stream import GameStream

    if path.suffix.lower() != ".mp4":
        raise OutputError(f"cannot write {path}: a clip's name must end in .mp4")
    if not source.startswith("arcade:"):
        raise SourceError(f"{source} cannot be recorded; only arcade:GAME can")
    game, own_seed = parse_locator(source)
    seed = own_seed if seed is None else seed
    words = path.with_suffix(".jsonl")
    for target in (path, words):
        check_writable(target)
    stream = GameStream(game, seed)
    frames, truth = frames_and_truth(stream, seconds)
    title = stream.context.text
    write_video(path, frames, fps=CLIP_FPS, title=title, comment=kind_comment(kind_of(game), f"seed={seed}"))
    told = truth_record(game, path.name, title, truth)
    write_whole(words, json_text(told) + "\n")


def beside(truth: dict[str, Any]) -> Beside:
    """Finds the true words of a span of time."""

    def find(start: float, end: float) -> str:
        middle = (start + end) / 2
        return " ".join(text for lo, hi, text in truth["content"] if lo <= middle < hi).strip()

    return find


class Collected:
    """An output that keeps the events, as ``watch -o out.jsonl`` would write them."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def write(self, event: Event) -> None:
        from streamingvlm import Commentary
        from streamingvlm.sinks.files import json_line

        if isinstance(event, Commentary):
            self.records.append(json.loads(json_line(event)))

    def close(self) -> None: ...
