"""The picture of the README: the live view of the bundled model on a match, as an SVG.

    python scripts/screenshot.py --seconds 34 -o docs/terminal.svg

Records a match of Pong that training never saw (as `streamingvlm demo` does), watches it in this process and exports
what the terminal shows after the last step, with the true commentary in the right column.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from rich.console import Console

import streamingvlm as sv
from streamingvlm.cli import main as streamingvlm
from streamingvlm.core.events import Event, StreamOpened
from streamingvlm.models.load import settle_threads
from streamingvlm.runtime.runtime import Runtime
from streamingvlm.sinks.terminal import Beside, Terminal

WIDTH = 96
COMMAND = "streamingvlm demo"


def truth_of(record: Path) -> Beside:
    """Finds the true commentary of a span of time in what `streamingvlm record` wrote."""
    content = json.loads(record.read_text(encoding="utf-8"))["content"]

    def find(start: float, end: float) -> str:
        middle = (start + end) / 2
        return " ".join(text for lo, hi, text in content if lo <= middle < hi).strip()

    return find


def watch(clip: Path, seconds: float) -> Console:
    """Watch the clip; a console that has recorded the lines and the last status."""
    # A console that is no terminal: what a terminal redraws ten times a second would be recorded as often.
    console = Console(file=io.StringIO(), record=True, width=WIDTH, color_system="truecolor", legacy_windows=False)
    model = sv.load_model()
    settle_threads(model, None)
    video = sv.open_source(str(clip), duration=seconds)
    view = Terminal(truth_of(clip.with_suffix(".jsonl")), console)
    with Runtime(sv.Engine(model)) as runtime:
        runtime.start(video, sinks=[_Last(view, console)], context=video.context).wait()
    return console


class _Last:
    """The view as it stands when the stream ends."""

    def __init__(self, view: Terminal, console: Console) -> None:
        self._view, self._console = view, console

    def write(self, event: Event) -> None:
        self._view.write(StreamOpened(COMMAND, "") if isinstance(event, StreamOpened) else event)

    def close(self) -> None:
        self._console.print(self._view.render())
        self._view.close()


def main() -> None:
    """Record, watch, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=34)
    parser.add_argument("--seed", type=int, default=9_000_777)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/terminal.svg"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "match.mp4"
        code = streamingvlm(
            ["record", "arcade:pong", "--seed", str(args.seed), "--seconds", str(args.seconds), "-o", str(clip)]
        )
        if code:
            raise SystemExit(code)
        console = watch(clip, args.seconds)
    args.output.write_text(console.export_svg(title=COMMAND, unique_id="streamingvlm"), encoding="utf-8")
    print(args.output)


if __name__ == "__main__":
    main()
