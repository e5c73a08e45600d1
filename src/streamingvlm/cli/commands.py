"""The table of commands, and how errors become one line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer
from typer.models import CommandInfo

from ..core.errors import OptionError, StreamingVLMError
from ..core.plugins import load, owner, registered
from . import bench, eval, info, train, verify, watch
from .streams import mute_stdout, set_up_streams, settle_stdout

COMMANDS = (*(watch.watch, info.info), *(train.train, train.rollout, train.merge), verify.verify)
#: What a command that cannot be loaded is called with does not matter.
ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
_LOG = logging.getLogger("streamingvlm")


def make_app() -> typer.Typer:
    """The command line: the commands of this package, and those that installed packages have registered.

    An entry point of the group ``streamingvlm.commands`` is named ``NAME`` or ``eval.NAME`` and gives a function as
    typer takes it. All of them are imported for the help, so what they need comes in when they are called.
    """
    app = typer.Typer(
        help="Watch video without end and say, second by second, what happens.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(top)
    for command in COMMANDS:
        app.command()(command)
    groups = {"": app, "bench": bench.app, "eval": eval.make_app()}
    _add_others({"": app, "eval": groups["eval"]})
    for name in ("bench", "eval"):
        app.add_typer(groups[name], name=name)
    return app


def _add_others(groups: Mapping[str, typer.Typer]) -> None:
    """Add what packages have registered. One that cannot be loaded says why when it is called."""
    names = {key: {_name(info) for info in app.registered_commands} for key, app in groups.items()}
    names[""] |= {"bench", "eval"}
    for full, entry in registered("commands").items():
        group, _, name = full.rpartition(".")
        if group not in groups or name in names[group]:
            why = f"there is no group {group}" if group not in groups else "there is one already"
            _LOG.warning("the command %r of %s is left out: %s", full, owner(entry), why)
            continue
        try:
            groups[group].command(name)(load(entry, OptionError))
        except OptionError as error:
            groups[group].command(name, context_settings=ANYTHING)(_broken(error))


def _name(info: CommandInfo) -> str:
    return info.name or str(getattr(info.callback, "__name__", ""))


def _broken(error: OptionError) -> Callable[[], None]:
    def broken() -> None:
        """Cannot be loaded; call it to see why."""
        raise error

    return broken


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
    """Run a command; returns the exit code. KeyboardInterrupt and :class:`Stopped` are the caller's."""
    set_up_streams()
    # Threads that spin while they wait make a small model several times slower on shared cores. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # transformers imports torchao where it is installed, and it reports every kernel library that a machine lacks.
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if logging.lastResort and logging.lastResort not in _LOG.handlers:
        _LOG.addHandler(logging.lastResort)  # warnings, as plain lines on standard error
    command = typer.main.get_command(make_app())
    try:
        try:  # typer's own main() makes an exit code of an interrupt, as if a command had settled it
            with command.make_context("streamingvlm", list(sys.argv[1:] if args is None else args)) as context:
                code = command.invoke(context)
        except typer.Exit as end:  # behind the help
            code = end.exit_code
        sys.stdout.flush()
    except BrokenPipeError:
        mute_stdout()
        return 0
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
