"""The README's Python prints what the README shows, and nothing else is heard."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import streamingvlm
from streamingvlm.models.hub import BUNDLED
from streamingvlm.models.quantize import quiet_torchao

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = re.compile(r"```python\n(.*?)```\n\n```\n(.*?)```", re.DOTALL)


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python as a user would: in a fresh process, in a folder that has nothing to do with this checkout."""
    source = str(Path(streamingvlm.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    script = folder / "example.py"
    script.write_text(code, encoding="utf-8")
    return subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=240, cwd=folder, env=environment
    )


@pytest.mark.skipif(not (BUNDLED / "model.safetensors").is_file(), reason="the bundled model is not here")
def test_the_example_prints_what_is_shown(tmp_path: Path) -> None:
    pytest.importorskip("ale_py", reason="the arcade extra is not installed")
    blocks = SHOWN.findall(TEXT)
    assert len(blocks) == 1, "every piece of Python is followed by what it prints"
    done = run(blocks[0][0], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout == blocks[0][1]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
def test_only_what_torchao_reports_while_it_is_imported_is_hidden(tmp_path: Path) -> None:
    code = """
import logging, warnings
import streamingvlm as sv
model = sv.load_model()
import torchao
logging.getLogger("torchao").warning("said later")
logging.getLogger("torch.utils._pytree").warning("said later")
warnings.warn("told later")
"""
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("said later") == 2
    assert "told later" in done.stderr
    assert "Failed to load" not in done.stderr
    assert "register_constant" not in done.stderr


def test_warnings_of_others_are_heard_while_torchao_is_imported(caplog: pytest.LogCaptureFixture) -> None:
    ours, pytree = logging.getLogger("torchao"), logging.getLogger("torch.utils._pytree")
    before = [list(logger.filters) for logger in (ours, pytree)]
    levels = [caplog.at_level(logging.WARNING, name) for name in (None, "torchao", "torch.utils._pytree")]
    with levels[0], levels[1], levels[2], quiet_torchao():
        with pytest.warns(UserWarning, match="mine"):
            warnings.warn("mine", stacklevel=1)
        ours.warning("Failed to load %s: %s", "_C.so", "no such symbol")
        ours.error("something is broken")
        pytree.warning("%s is an Enum subclass and is now natively supported by torch.compile", "<enum 'X'>")
        pytree.warning("another warning")
        logging.getLogger("transformers").warning("a third")
    heard = [record.getMessage() for record in caplog.records]
    assert [text for text in heard if text != "a third"] == ["something is broken", "another warning"]
    assert before == [logger.filters for logger in (ours, pytree)]
