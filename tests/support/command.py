"""The command line as real processes, with a stand-in where the model would be."""

from __future__ import annotations

import os
import subprocess
import sys

#: Runs the command line with a session that says which step it sees; each step takes FAKE_SECONDS.
DRIVER = """
import os, sys, time
from streamingvlm import cli
from streamingvlm.cli import watch
from streamingvlm.core.events import Commentary, Timing

class Session:
    capacity, count = 100, 0
    def __init__(self, *arguments, **options):
        print("opened", options["context"], file=sys.stderr)
    def step(self, chunk, *, on_text=None):
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
        self.count += 1
        text = "" if self.count % 5 == 0 else f"step {self.count} sees {len(chunk.frames)}"
        text += "." * (self.count % 3 == 0)
        for word in text.split():
            on_text(" " + word)
        timing = Timing(read=chunk.read_seconds, decode=0.25, lag=time.perf_counter() - chunk.ready_at)
        return Commentary(chunk.start, chunk.end, text, timing=timing, rows={"vision": 40, "commentary": 10},
                          capacity=100, dropped=chunk.dropped)
    part = 2
    def prepare(self, chunk, *, encode=False):
        return chunk
    def close(self):
        print("closed", file=sys.stderr)

watch.open_session = Session
sys.exit(cli.main(sys.argv[1:]))
"""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", DRIVER, *map(str, arguments)]


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=30, env={**os.environ, **environment}
    )
