"""A run that is killed in the middle leaves files that can be read, and the next one goes on in them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

from streamingvlm.core.events import Chunk, Commentary, StepInput
from streamingvlm.sinks.burned import BurnedOutput
from streamingvlm.sinks.outputs import open_outputs, wait_for
from support.subtitles import parse

NAMES = ("out.vtt", "out.srt", "out.jsonl", "out.mp4")
CHILD = """
import sys
from pathlib import Path
import numpy as np

from streamingvlm.core.events import Chunk, Commentary, StepInput
from streamingvlm.sinks.outputs import open_outputs

outputs = open_outputs([Path(name) for name in sys.argv[1:]], patient=True)
frames = np.random.default_rng(0).integers(0, 255, (2, 120, 160, 3)).astype(np.uint8)
for second in range(10**6):
    for output in outputs:
        if hasattr(output, "see"):
            output.see(StepInput(Chunk(frames, (second, second + 0.5), second, second + 1)))
        output.write(Commentary(second, second + 1, f"word{second}."))
"""


def count_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.slow
def test_killed_and_continued(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in NAMES]
    process = subprocess.Popen([sys.executable, "-c", CHILD, *map(str, paths)])
    until = time.monotonic() + 30
    while not (paths[3].exists() and paths[3].stat().st_size > 100_000) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    vtt, srt = (parse(paths[index].read_text(), srt=index == 1) for index in (0, 1))
    records = [json.loads(line) for line in paths[2].read_text().splitlines()]
    assert len(vtt) > 3 < len(srt)
    assert [record["text"] for record in records] == [f"word{second}." for second in range(len(records))]
    assert count_frames(paths[3]) >= 4
    outputs = open_outputs(paths, resume=True, patient=True)
    for second in range(len(records) + 3):  # all of it is told again, and a little more
        for output in outputs:
            if isinstance(output, BurnedOutput):
                output.see(StepInput(Chunk(np.zeros((1, 9, 9, 3), np.uint8), (second,), second, second + 1)))
            output.write(Commentary(second, second + 1, f"word{second}."))
    for output in outputs:
        output.close()
    assert wait_for(outputs, 10) == []
    words = [f"word{second}." for second in range(len(records) + 3)]
    for index in (0, 1):
        assert [cue.text for cue in parse(paths[index].read_text(), srt=index == 1)] == words
    assert [json.loads(line)["text"] for line in paths[2].read_text().splitlines()] == words
    with av.open(str(paths[3])) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    assert len(times) == len(set(times))
    assert times == sorted(times)
    assert times[-1] == len(words) - 1, "what was told again is not there twice, what is new follows"
    assert outputs[3].dropped == 0  # type: ignore[attr-defined]
