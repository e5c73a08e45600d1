"""The command line as real processes, with a stand-in where the model would be."""

from __future__ import annotations

import os
import subprocess
import sys

#: Runs the command line with a model that says which step it sees; each step takes FAKE_SECONDS.
DRIVER = """
import os, sys
from streamingvlm import cli
from streamingvlm.engine.engine import Engine
from streamingvlm.models import load
from streamingvlm.testing import ScriptedModel

steps = []

def script(start, end, patches):
    steps.append(start)
    count = len(steps)
    text = "" if count % 5 == 0 else f"step {count} sees {patches}"
    return text + "." * (count % 3 == 0)

def answer(turn):
    return "forty-two"

def load_model(*arguments, **options):
    return ScriptedModel(script, prefill_seconds=float(os.environ.get("FAKE_SECONDS", "0")), answer=answer)

def opened(self, **options):
    print("opened", options["context"], file=sys.stderr)
    return normal(self, **options)

normal, Engine.open, load.load_model = Engine.open, opened, load_model
sys.exit(cli.main())
"""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", DRIVER, *map(str, arguments)]


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=30, env={**os.environ, **environment}
    )
