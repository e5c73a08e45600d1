"""``python -m arcade_streams.recipe``: make the bundled model.

- all: tokenizer, vision, data, decoder and export, one after the other; this is how the bundled model is made
- tokenizer, vision, data, decoder, export: one step; each takes up what the steps before it left
- card: the checkpoint's README.md, with the figures of ``streamingvlm eval arcade --json``
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

from streamingvlm import StreamingVLMError
from streamingvlm.models.hub import BUNDLED

from .card import card
from .work import STEPS, RecipeConfig, Work


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; see the module's text."""
    options = _parser().parse_args(arguments)
    if options.command == "card":
        found = json.loads(options.figures.read_text(encoding="utf-8"))
        (options.model / "README.md").write_text(card(found, options.model), encoding="utf-8")
        return
    try:
        work = Work(RecipeConfig(**{part.name: getattr(options, part.name) for part in fields(RecipeConfig)}), log=_log)
        for name in STEPS if options.command == "all" else (options.command,):
            _log(f"{name}:")
            getattr(work, name)()
    except StreamingVLMError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _log(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _shown(default: object) -> str:
    """A default in the help; the folder of the bundled model is inside the package."""
    if default == BUNDLED:
        return "the bundled model"
    return ",".join(default) if isinstance(default, tuple) else str(default)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m arcade_streams.recipe", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    hints = get_type_hints(RecipeConfig, include_extras=True)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("all", *STEPS):
        step = commands.add_parser(name)
        for part in fields(RecipeConfig):
            about = hints[part.name].__metadata__[0]
            flag, shown = f"--{part.name.replace('_', '-')}", f"{about} [default: {_shown(part.default)}]"
            if part.default is False:
                step.add_argument(flag, action="store_true", help=about)
                continue
            kind = _names if isinstance(part.default, tuple) else type(part.default)
            step.add_argument(flag, type=kind, default=part.default, help=shown)
    page = commands.add_parser("card")
    page.add_argument("--model", type=Path, default=BUNDLED)
    page.add_argument("--figures", type=Path, required=True, help="what eval arcade --json wrote")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
