"""The table of commands, and how errors become one line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ..core.errors import StreamingVLMError
from . import arcade, bench, eval, train, verify, watch
from .streams import mute_stdout, set_up_streams, settle_stdout

app = typer.Typer(
    help="Watch video without end and say, second by second, what happens.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    *(watch.watch, watch.info),
    *(arcade.record, arcade.score, arcade.demo),
    *(train.train, train.rollout, train.merge),
    verify.verify,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(bench.app, name="bench")
app.add_typer(eval.app, name="eval")


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Without a command: the version, or the help."""
    if version:
        from importlib.metadata import version as installed

        print(f"streamingvlm {installed('streamingvlm')}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


def main(args: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    set_up_streams()
    # Threads that spin while they wait make a small model several times slower on shared cores. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # transformers imports torchao where it is installed, and it reports every kernel library that a machine lacks.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    own = logging.getLogger("streamingvlm")
    if logging.lastResort and logging.lastResort not in own.handlers:
        own.addHandler(logging.lastResort)  # warnings, as plain lines on standard error
    try:
        code = app(args, prog_name="streamingvlm", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        mute_stdout()
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        # typer brings its own copy of click in newer releases; usage errors of both can tell their message.
        tell = getattr(error, "format_message", None)
        if not isinstance(error, StreamingVLMError) and tell is None:
            raise
        from ..sinks.files import printable  # with numpy, which the help does without

        print(f"streamingvlm: error: {printable(str(tell() if tell else error))}", file=sys.stderr)
        settle_stdout()
        return 2
    return code if isinstance(code, int) else 0
