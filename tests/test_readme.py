"""The README's Python runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamingvlm.models import BUNDLED

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.skipif(not (BUNDLED / "model.safetensors").is_file(), reason="the bundled model is not here")
def test_the_five_lines_run(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ale_py", reason="the arcade extra is not installed")
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert code
    exec(compile(code[1].replace("duration=30", "duration=8"), "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert any("serve" in line for line in lines)
