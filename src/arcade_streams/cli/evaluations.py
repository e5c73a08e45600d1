"""``eval arcade``, ``eval claims`` and ``eval proof``: how good a checkpoint is where the truth is known."""

from __future__ import annotations

import re
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamingvlm import OptionError
from streamingvlm.cli.ending import Stopped, stoppable
from streamingvlm.cli.eval import WordsOption
from streamingvlm.cli.follow import kept
from streamingvlm.cli.options import DeviceOption, DtypeOption, ModelOption, PolicyOption, WeightsOption

if TYPE_CHECKING:
    from ..evaluate.claims import Claim
    from ..evaluate.run import EvalConfig

GameOption = Annotated[
    list[str] | None,
    typer.Option("--game", help="Repeatable. [default: every game; of the bundled model those that it knows]"),
]
SeedsOption = Annotated[
    str | None,
    typer.Option(metavar="FIRST:LAST", help="Evaluation seeds, the last one left out. [default: 9000000 on]"),
]
QuickOption = Annotated[bool, typer.Option("--quick", help="Six minutes of six streams of every game.")]
MemoryOption = Annotated[float, typer.Option(metavar="GB", help="For the caches of full attention, together.")]


def arcade(
    model: ModelOption = None,
    policy: PolicyOption = "streaming",
    hours: Annotated[float | None, typer.Option(help="Hours of every stream. [default: 1/3]")] = None,
    streams: Annotated[int | None, typer.Option(help="Streams of every game. [default: 8]")] = None,
    game: GameOption = None,
    seeds: SeedsOption = None,
    quick: QuickOption = False,
    gate: Annotated[
        bool,
        typer.Option("--gate", help="Also with the names in the context flipped: is the model fit for comparisons?"),
    ] = False,
    words: WordsOption = Path("runs/eval"),
    memory: MemoryOption = 8.0,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    weights: WeightsOption = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures as JSON.")
    ] = None,
) -> int:
    """Watch unseen streams, all in one batch, the model reading nothing but its own words; print the figures.

    Ctrl-C keeps what was said: the same command goes on from there.
    """
    from streamingvlm import make_policy
    from streamingvlm.runtime import reports

    from ..evaluate import run as program
    from ..score.table import table

    make_policy(policy)
    setting = make_setting(hours, streams, game or known_games(model), seeds, quick, words, memory, again=gate)
    reports.check_targets(json_file)
    try:
        with stoppable():
            from streamingvlm.evaluate.checkpoint import Checkpoint

            checkpoint = Checkpoint.load(model, device=device, dtype=dtype, weights=weights)
            found = program.evaluate(checkpoint, policy, setting, reports.progress, gated=gate)
    except (KeyboardInterrupt, Stopped) as end:
        return kept(end)
    reports.write_json(json_file, found)
    print(table(found))
    if gate:
        verdict = found["gate"]
        print("\ngate: passed" if verdict["passed"] else "\ngate: not passed: " + "; ".join(verdict["reasons"]))
    print(f"\n{found['streams']} streams of {setting.seconds / 60:g} min; {reports.heading(found)}")
    return 0


def claims(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...|all", help="Which claims; see docs/arcade_streams/proof.md.", show_default=False
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="FOLDER|NAME=FOLDER",
            help="The checkpoint under test, once for each training seed; NAME=FOLDER: one of another training "
            "(non-overlapping, no-corruption, no-on-policy). [default: the bundled model]",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the results go, NAME.json each.")] = Path(
        "docs/results"
    ),
    ungated: Annotated[bool, typer.Option("--ungated", help="Compare even if the gate is not passed.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Also draw NAME.png (needs matplotlib).")] = False,
    hours: Annotated[
        float | None, typer.Option(help="Hours of every stream; endurance: 7.5 times. [default: 1/3]")
    ] = None,
    streams: Annotated[
        int | None, typer.Option(help="Streams of every game; endurance: at most 3. [default: 8]")
    ] = None,
    game: GameOption = None,
    seeds: SeedsOption = None,
    quick: QuickOption = False,
    words: WordsOption = Path("runs/eval"),
    memory: MemoryOption = 8.0,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    weights: WeightsOption = None,
) -> int:
    """Test what the paper says of the cache: run claims' rows on the same streams and say what holds.

    Ctrl-C keeps what was said: the same command goes on from there. `eval proof` writes the results into a page.
    """
    from streamingvlm.runtime import reports
    from streamingvlm.sinks.files import make_folder

    from ..evaluate.proof import summary

    setting = make_setting(hours, streams, game or known_games(model), seeds, quick, words, memory, again=True)
    chosen, tested, others = choose_claims(names, model or [])
    make_folder(out)
    for one in chosen:
        reports.check_targets(out / f"{one.name}.json", out / f"{one.name}.png" if plot else None)
    try:
        with stoppable():
            from streamingvlm.evaluate.checkpoint import Checkpoint

            from ..evaluate.compare import Comparison

            load = partial(Checkpoint.load, device=device, dtype=dtype, weights=weights)
            comparison = Comparison(
                [load(path) for path in tested],
                {key: load(path, name=key) for key, path in others.items()},
                setting,
                reports.progress,
                ungated,
            )
            for one in chosen:
                found = comparison.test(one)
                reports.write_json(out / f"{one.name}.json", found)
                if plot:
                    from ..evaluate.plot import draw

                    draw(out / f"{one.name}.png", found)
                print("\n".join(summary([found])), flush=True)
    except (KeyboardInterrupt, Stopped) as end:
        return kept(end)
    return 0


def proof(
    results: Annotated[Path, typer.Option(metavar="FOLDER", help="Where `eval claims` put its results.")] = Path(
        "docs/results"
    ),
    page: Annotated[Path, typer.Option(metavar="FILE", help="The page whose results are written anew.")] = Path(
        "docs/arcade_streams/proof.md"
    ),
) -> None:
    """Write the results of `eval claims` and of `eval arcade --json docs/results/model.json` into the page."""
    from streamingvlm.sinks.files import check_writable, write_whole

    from ..evaluate import proof as program

    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise OptionError(f"{page} cannot be read") from None
    check_writable(page)
    found = program.load(results)
    write_whole(page, program.page(text, found))
    print(f"{page}: {len(found)} results of {results}")


def choose_claims(names: list[str], models: list[str]) -> tuple[list[Claim], list[str | None], dict[str, str]]:
    """The claims that are tested, the checkpoints under test, and those of other trainings by name.

    ``all`` leaves out the claims whose checkpoints were not given, and says so. OptionError for unknown names.
    """
    from ..evaluate.claims import CHECKPOINTS, CLAIMS

    named = [part.partition("=") for part in models]
    others = {key: path for key, sign, path in named if sign and key in CHECKPOINTS}
    for key, sign, _ in named:
        if sign and key not in CHECKPOINTS:
            raise OptionError(f"no training is called {key!r}; known: {', '.join(CHECKPOINTS)}")
    tested: list[str | None] = [part for part, (key, _, _) in zip(models, named, strict=True) if key not in others]
    for name in names:
        if name != "all" and name not in CLAIMS:
            raise OptionError(f"unknown claim {name!r}; known: all, {', '.join(CLAIMS)}")
    chosen = []
    for claim in CLAIMS.values() if "all" in names else [CLAIMS[name] for name in dict.fromkeys(names)]:
        missing = [key for key in claim.checkpoints if key not in others]
        if missing and claim.name not in names:
            print(f"{claim.name}: not tested, needs --model {missing[0]}=FOLDER", file=sys.stderr)
            continue
        if missing:
            raise OptionError(f"{claim.name} needs a checkpoint of another training: --model {missing[0]}=FOLDER")
        chosen.append(claim)
    return chosen, tested or [None], others


def known_games(model: str | list[str] | None) -> list[str] | None:
    """The games that are watched where none is named (None: every game): of the bundled model those that it knows."""
    from streamingvlm.models.hub import BUNDLED
    from streamingvlm.models.knows import read_known_kinds

    from ..worlds.games import GAMES
    from ..worlds.source import kind_of

    if model:
        return None
    kinds = read_known_kinds(BUNDLED)
    return [name for name, game in GAMES.items() if kind_of(game) in kinds] or None


def make_setting(
    hours: float | None,
    streams: int | None,
    games: list[str] | None,
    seeds: str | None,
    quick: bool,
    words: Path,
    memory: float,
    usual: tuple[float, int] = (1 / 3, 8),
    again: bool = False,
) -> EvalConfig:
    """What is to be watched; OptionError for what cannot be meant.

    ``usual``: hours and streams by default; ``again``: the same streams are watched more than once.
    """
    from ..evaluate.run import QUICK_HOURS, QUICK_STREAMS, EvalConfig
    from ..worlds.context import EVALUATION_SEEDS
    from ..worlds.games import GAMES

    if quick and (hours is not None or streams is not None or seeds is not None):
        raise OptionError("--quick says how long and how many; leave out --hours, --streams and --seeds")
    if seeds is not None and streams is not None:
        raise OptionError("--seeds and --streams exclude each other")
    length, count = (QUICK_HOURS, QUICK_STREAMS) if quick else usual
    length, count = hours if hours is not None else length, streams if streams is not None else count
    if not 0 < length <= 1000:
        raise OptionError(f"--hours must be above 0 and at most 1000, not {length:g}")
    if not 0 < count <= 1000:
        raise OptionError(f"--streams must be between 1 and 1000, not {count}")
    first, last = EVALUATION_SEEDS, EVALUATION_SEEDS + count
    if seeds is not None:
        if not (parts := re.fullmatch(r"(\d{1,18}):(\d{1,18})", seeds)):
            raise OptionError(f"--seeds must be FIRST:LAST, such as 9000000:9000008, not {seeds!r}")
        first, last = int(parts[1]), int(parts[2])
    return EvalConfig(
        games=tuple(games or GAMES),
        seeds=range(first, last),
        seconds=round(length * 3600),
        folder=words,
        features=words / "features" if again else None,
        memory=memory * 1e9,
        command=shlex.join(["streamingvlm", *sys.argv[1:]]),
    )
