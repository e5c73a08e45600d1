"""What is refused before a model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingvlm.core.errors import ModelError
from streamingvlm.evaluate import jobs
from streamingvlm.evaluate.shards import Shard
from streamingvlm.runtime import reports
from support import benchmark_data


def test_a_checkpoint_is_not_shown_what_it_does_not_know(tmp_path: Path) -> None:
    """The bundled model knows games of the arcade; it would say something of any video."""
    clips = {"soccer/a.mp4": 30.0, "tennis/b.mp4": 30.0}
    data = benchmark_data.write_inf_streams(tmp_path / "data", clips=clips)
    job = jobs.Job("inf-streams?start=2&windows=grid", data, None, tmp_path / "run")
    with pytest.raises(ModelError, match="the bundled model knows only"):
        jobs.run_job(job, Shard(), reports.progress)
    assert not (tmp_path / "run").exists()
