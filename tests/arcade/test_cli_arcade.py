"""record, watch, score and demo together, with a stand-in that knows the truth where the model would be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import pytest

from arcade_streams.cli import clips
from arcade_streams.worlds.games import GAMES
from arcade_streams.worlds.games.boxing import BOXING
from arcade_streams.worlds.games.pong import PONG
from arcade_streams.worlds.source import ArcadeSource, kind_of
from streamingvlm import cli
from streamingvlm.models import load
from streamingvlm.models.hub import BUNDLED
from streamingvlm.models.knows import read_known_kinds
from streamingvlm.sources.open import open_source
from streamingvlm.testing import ScriptedModel


def knowing(truth: dict[str, Any]) -> ScriptedModel:
    """A model that says what is true."""
    words = {start: text for start, _, text in truth["content"]}
    return ScriptedModel(lambda start, _end, _patches: words.get(start, ""))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    assert cli.main(["record", "arcade:pong", "--seed", "7", "--seconds", "12", "-o", str(path)]) == 0
    return path


def test_a_clip_carries_its_context_and_its_truth(clip: Path) -> None:
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.average_rate, stream.frames) == (30, 360)
        assert (stream.width, stream.height) == (320, 420)
        title, comment = container.metadata["title"], container.metadata["comment"]
    assert comment == "streamingvlm arcade:pong seed=7"
    (line,) = clip.with_suffix(".jsonl").read_text().splitlines()
    record = json.loads(line)
    assert (record["video"], record["game"], record["title"]) == ("clip.mp4", "pong", title)
    assert record["content"]
    assert all(0 <= start < end <= 12 and text for start, end, text in record["content"])
    assert title == ArcadeSource(PONG, 7).context
    assert sorted(path.name for path in clip.parent.iterdir()) == ["clip.jsonl", "clip.mp4"]


def test_a_clip_shows_what_the_arcade_shows(clip: Path) -> None:
    recorded = open_source(str(clip), fps=3, start=2, duration=3)
    direct = open_source("arcade:pong?seed=7", fps=3, start=2, duration=3)
    assert recorded.kind == direct.kind == "arcade:pong"
    assert recorded.context == direct.context
    pairs = list(zip(recorded, direct, strict=True))
    assert len(pairs) == 3
    for one, other in pairs:
        assert one.times == pytest.approx(other.times)
        assert (one.start, one.end) == (other.start, other.end)
        # Where the ball is, a frame of another moment differs by more than what H.264 costs.
        off = abs(one.frames.astype(int) - other.frames).max(axis=-1) > 60
        assert off.mean() < 1e-3


def test_watch_and_score(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = json.loads(clip.with_suffix(".jsonl").read_text())
    monkeypatch.setattr(load, "load_model", lambda *_, **__: knowing(truth))
    said = tmp_path / "out.jsonl"
    assert cli.main(["watch", str(clip), "-o", str(said), "--quiet"]) == 0
    assert cli.main(["score", str(clip.with_suffix(".jsonl")), str(said)]) == 0
    assert json.loads(capsys.readouterr().out)["micro_f1"] == 1.0


def test_a_checkpoint_refuses_a_game_that_it_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "load_model", None)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "generation_config.json").write_text(json.dumps({"streaming": {"knows": ["arcade:pong"]}}))
    path = tmp_path / "fight.mp4"
    assert cli.main(["record", "arcade:boxing?seed=3", "--seconds", "20", "-o", str(path)]) == 0
    truth = path.with_suffix(".jsonl")
    video = open_source(str(path))
    assert (video.kind, video.context) == ("arcade:boxing", ArcadeSource(BOXING, 3).context)
    for source in (str(path), "arcade:boxing?seed=3"):
        assert cli.main(["watch", source, "--model", str(folder)]) == 2
        assert f"{folder} knows only arcade:pong (and" in capsys.readouterr().err
    assert json.loads(truth.read_text())["game"] == "boxing"
    capsys.readouterr()
    assert cli.main(["score", str(truth), str(truth)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["micro_f1_strict"] == 1.0
    assert "miss" in figures["by_kind"]


def test_the_bundled_model_knows_every_game() -> None:
    assert set(read_known_kinds(BUNDLED)) == {kind_of(game) for game in GAMES.values()}


def test_demo_records_once_and_prints_truth_and_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(clips, "DEMO_SECONDS", 8)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def load_model(*_: object, **__: object) -> ScriptedModel:
        (path,) = (tmp_path / "streamingvlm").glob("*.jsonl")
        return knowing(json.loads(path.read_text()))

    monkeypatch.setattr(load, "load_model", load_model)
    assert cli.main(["demo"]) == 0
    first = capsys.readouterr()
    assert "recording" in first.err
    assert "micro_f1 1.000" in first.out
    for line in first.out.splitlines()[:-1]:
        said, truth = line.split("] ")[1].split(" | ")
        assert said.strip() == truth.strip()
    assert cli.main(["demo"]) == 0
    second = capsys.readouterr()
    assert "recording" not in second.err
    assert second.out == first.out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["record", "arcade:chess", "-o", "OUT/a.mp4"], "chess"),
        (["record", "clip.mp4", "-o", "OUT/a.mp4"], "arcade:"),
        (["record", "arcade:pong", "-o", "OUT/a.avi"], ".mp4"),
        (["record", "arcade:pong", "-o", "OUT/none/a.mp4"], "cannot write"),
        (["record", "arcade:pong", "--seconds", "0", "-o", "OUT/a.mp4"], "--seconds"),
        (["record", "arcade:pong", "--seed", "-3", "-o", "OUT/a.mp4"], "--seed"),
        (["score", "OUT/none.jsonl", "OUT/none.jsonl"], "none.jsonl"),
        (["demo", "--folder", "/proc/none"], "/proc/none"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([part.replace("OUT", str(tmp_path)) for part in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert word in captured.err.splitlines()[-1]
    assert captured.err.splitlines()[-1].startswith("streamingvlm: error: ")
    assert list(tmp_path.iterdir()) == []
