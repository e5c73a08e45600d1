"""``python -m streamingvlm.train.arcade``: make the bundled model.

- all: tokenizer, vision, data, decoder and export, one after the other; this is how the bundled weights were made
- tokenizer, vision, data, decoder, export: one step; each takes up what the steps before it left
- card: the checkpoint's README.md, with the figures of ``streamingvlm eval arcade --json``
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ...models import BUNDLED
from .card import card
from .work import STEPS, Settings, Work


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; see the module's text."""
    options = _parser().parse_args(arguments)
    if options.command == "card":
        found = json.loads(options.figures.read_text(encoding="utf-8"))
        (options.model / "README.md").write_text(card(found, options.model), encoding="utf-8")
        return
    settings = Settings(
        folder=options.folder, seed=options.seed, streams=options.streams, seconds=options.seconds,
        vision_minutes=options.vision_minutes, scale=options.scale, assets=options.out,
    )  # fmt: skip
    work = Work(settings, log=_log)
    for name in STEPS if options.command == "all" else (options.command,):
        _log(f"{name}:")
        getattr(work, name)()


def _log(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


def _parser() -> argparse.ArgumentParser:
    usual = Settings()
    parser = argparse.ArgumentParser(prog="python -m streamingvlm.train.arcade", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("all", *STEPS):
        step = commands.add_parser(name)
        step.add_argument("--folder", type=Path, default=usual.folder, help="where the run keeps its files")
        step.add_argument("--out", type=Path, default=usual.assets, help="where the model goes")
        step.add_argument("--seed", type=int, default=usual.seed)
        step.add_argument("--streams", type=int, default=usual.streams, help="recorded streams")
        step.add_argument("--seconds", type=int, default=usual.seconds, help="length of each")
        step.add_argument("--vision-minutes", type=float, default=usual.vision_minutes)
        step.add_argument("--scale", type=float, default=usual.scale, help="more or fewer steps of the decoder")
    page = commands.add_parser("card")
    page.add_argument("--model", type=Path, default=BUNDLED)
    page.add_argument("--figures", type=Path, required=True, help="what eval arcade --json wrote")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
