"""``record``, ``score`` and ``demo``: the arcade, where the truth is known."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamingvlm import OptionError, OutputError, SourceError
from streamingvlm.cli.follow import follow
from streamingvlm.cli.loading import load_engine
from streamingvlm.cli.options import PaceOption, WeightsOption, check_numbers
from streamingvlm.cli.plan import Watched

if TYPE_CHECKING:
    from streamingvlm.core.events import Event
    from streamingvlm.sinks.terminal import Beside

    from ..worlds.game import Game

#: The demo watches this many seconds of a match whose seed no training run has seen.
DEMO_SECONDS = 60
DEMO_SEED_OFFSET = 777


def record(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="arcade:GAME", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="The .mp4 to write; a .jsonl goes beside it. With --serve: a .jsonl for the truth, at the end.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Which match. [default: the source's, or 0]")] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Length. [default: 60; with --serve until it is stopped]")
    ] = None,
    serve: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Serve the match live, at its own pace: http://HOST:PORT/match.ts, or rtsp://HOST:PORT/match where "
            "gst-rtsp-server is installed.",
        ),
    ] = None,
) -> int:
    """Record an arcade match as a video with its true commentary beside it, or serve it as a live stream."""
    if seconds is not None and not (math.isfinite(seconds) and seconds >= 1):
        raise OptionError("--seconds must be 1 or more")
    if seed is not None:
        check_numbers(seed=seed)
    if serve is not None:
        return serve_match(source, seed, serve, seconds, output)
    if output is None:
        raise OptionError("record needs -o PATH.mp4 for a clip, or --serve URL for a live stream")
    length = 60 if seconds is None else int(seconds)
    write_record(source, seed, length, output)
    print(f"{output} and {output.with_suffix('.jsonl')}: {length} s")
    return 0


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
    watched = Watched("demo", video, {"context": video.context}, [said])
    code = follow([watched], engine, "auto", Pace(pace.value), beside(truth))
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
    from ..worlds.source import kind_of
    from ..worlds.stream import GameStream

    if path.suffix.lower() != ".mp4":
        raise OutputError(f"cannot write {path}: a clip's name must end in .mp4")
    game, seed = parse_match(source, seed)
    words = path.with_suffix(".jsonl")
    for target in (path, words):
        check_writable(target)
    stream = GameStream(game, seed)
    frames, truth = frames_and_truth(stream, seconds)
    title = stream.context.text
    write_video(path, frames, fps=CLIP_FPS, title=title, comment=kind_comment(kind_of(game), f"seed={seed}"))
    told = truth_record(game, path.name, title, truth)
    write_whole(words, json_text(told) + "\n")


def parse_match(source: str, seed: int | None) -> tuple[Game, int]:
    """The game of ``arcade:GAME?seed=N`` and the seed, its own if ``seed`` is None. SourceError."""
    from ..worlds.source import parse_locator

    if not source.startswith("arcade:"):
        raise SourceError(f"{source} cannot be recorded; only arcade:GAME can")
    game, own_seed = parse_locator(source)
    return game, own_seed if seed is None else seed


def serve_match(source: str, seed: int | None, url: str, seconds: float | None, output: Path | None) -> int:
    """Serve a match at ``url`` for ``seconds`` (None: until the program is stopped); returns the exit code.

    ``output``: a .jsonl for the truth of what was played, with the wall clock of its second 0 as ``wall``.
    """
    from streamingvlm.cli.ending import Stopped, stoppable
    from streamingvlm.sinks.files import check_writable, json_text, write_whole

    from ..serve.address import parse_address
    from ..serve.match import LiveMatch
    from ..serve.open import open_server
    from ..worlds.record import truth_record
    from ..worlds.source import kind_of

    game, seed = parse_match(source, seed)
    if output is not None:
        if output.suffix.lower() != ".jsonl":
            raise OutputError(
                f"cannot write {output}: with --serve the truth is written, to a name that ends in .jsonl"
            )
        check_writable(output)
    address, match, code = parse_address(url), LiveMatch(game, seed), 0
    taken = url
    try:
        with stoppable(), open_server(address) as server:
            taken = address.url(server.port)
            print(f"serving {game.name}, seed {seed}, at {taken}", flush=True)
            known = f"--kind {kind_of(game)} --context {shlex.quote(match.context)}"
            print(f"streamingvlm watch {taken} {known}", flush=True)
            match.run(server.publish, math.inf if seconds is None else seconds)
    except KeyboardInterrupt:
        code = 130
    except Stopped:
        code = 143
    if output is not None:
        told = truth_record(game, taken, match.context, list(match.truth()))
        write_whole(output, json_text({**told, "wall": match.wall}) + "\n")
    late = f"; {match.late} frames left out, this machine did not keep up" if match.late else ""
    print(f"served {match.seconds:.0f} s{late}", file=sys.stderr)
    return code


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
