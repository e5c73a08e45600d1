"""Games as a benchmark in the published form: written, resumed, read by the reader of that form, judged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import pytest
import typer

pytest.importorskip("ale_py")

from arcade_streams.benchmark import inf_streams
from arcade_streams.benchmark.inf_streams import (
    ABOUT,
    BENCHMARK_SEEDS,
    GAMES_FOLDER,
    METADATA,
    WINDOWS,
    BenchmarkForm,
    write_benchmark,
)
from arcade_streams.benchmark.judge_server import running, verdict
from arcade_streams.cli.benchmark import arcade_benchmark
from arcade_streams.worlds.games.pong import PONG
from arcade_streams.worlds.source import ArcadeSource
from streamingvlm.core.errors import OptionError, OutputError, SourceError
from streamingvlm.engine.endpoint import Endpoint
from streamingvlm.evaluate.benchmark import CommentaryBenchmark, Said
from streamingvlm.evaluate.commentary.inf_streams import InfStreams
from streamingvlm.evaluate.judging.calibration import calibration_pairs
from streamingvlm.evaluate.judging.prompts import PROMPTS, parse
from streamingvlm.sources.open import open_source

SEED = BENCHMARK_SEEDS
SHORT = BenchmarkForm(seconds=24, fps=2, begin=4, window=10)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def files(folder: Path) -> dict[str, int]:
    """Name -> when it was written, of all files."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two games of 24 s with videos."""
    path = tmp_path_factory.mktemp("benchmark")
    write_benchmark(path, ["pong", "tennis"], [SEED], SHORT)
    return path


def test_the_published_form(folder: Path) -> None:
    assert list(files(folder)) == [
        ABOUT, METADATA, "games/pong-9100000.json", "games/tennis-9100000.json", WINDOWS,
        "videos/pong-9100000.mp4", "videos/tennis-9100000.mp4",
    ]  # fmt: skip
    pong, tennis = lines(folder / METADATA)
    assert (pong["video"], pong["sport"], tennis["sport"]) == ("videos/pong-9100000.mp4", "pong", "tennis")
    assert pong["title"] == PONG.context(SEED).text
    assert all(0 <= start <= end <= 24 and word == word.strip() for start, end, word in pong["content"])
    ends = [end for _, end, _ in pong["content"]]
    assert ends == sorted(ends)
    for line in lines(folder / WINDOWS):
        first, last = line["content"][0][1], line["content"][-1][1]
        assert (4 < first <= last <= 14 and line["preasr"] != "") or 14 < first <= last <= 24


def test_the_transcript_is_the_announcers(folder: Path) -> None:
    """Word for word what is said of the stream, each in its second, in the wording that the model was trained on."""
    (line, _) = lines(folder / METADATA)
    source = ArcadeSource(PONG, SEED)
    for second in range(24):
        words = " ".join(word for _, end, word in line["content"] if second < end <= second + 1)
        said = PONG.language.parse(source.truth(second, second + 1))
        assert words == PONG.language.say(said, PONG.language.plain)


def test_the_video_shows_the_game(folder: Path) -> None:
    path = folder / "videos/pong-9100000.mp4"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.frames, stream.width, stream.height) == ("h264", 48, 320, 420)
        assert container.metadata["comment"] == f"streamingvlm arcade:pong seed={SEED}"
    recorded, played = open_source(str(path)), open_source(f"arcade:pong?seed={SEED}", duration=24)
    assert (recorded.kind, recorded.context) == (played.kind, played.context)
    for one, other in zip(recorded, played, strict=True):
        assert (one.start, one.end, one.times) == (other.start, other.end, pytest.approx(other.times))
        assert (abs(one.frames.astype(int) - other.frames).max(axis=-1) > 60).mean() < 1e-3


def test_a_run_goes_on_behind_its_whole_games(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = BenchmarkForm(seconds=12, fps=1, begin=0, window=4)
    write = inf_streams.write_video

    def killed(path: Path, *rest: Any, **more: Any) -> int:
        if path.name.startswith("pong-9100001"):
            path.with_name(f".{path.name}.part").write_bytes(b"half")
            raise KeyboardInterrupt
        return write(path, *rest, **more)

    monkeypatch.setattr(inf_streams, "write_video", killed)
    with pytest.raises(KeyboardInterrupt):
        write_benchmark(tmp_path, ["pong"], range(SEED, SEED + 2), form)
    before = files(tmp_path)
    assert METADATA not in before
    monkeypatch.setattr(inf_streams, "write_video", write)
    told: list[tuple[str, bool]] = []
    write_benchmark(tmp_path, ["pong"], range(SEED, SEED + 2), form, lambda *one: told.append(one))
    assert told == [("pong-9100000", False), ("pong-9100001", True)]
    after = files(tmp_path)
    assert after["videos/pong-9100000.mp4"] == before["videos/pong-9100000.mp4"]
    assert not [name for name in after if ".part" in name]
    assert [line["seed"] for line in lines(tmp_path / METADATA)] == [SEED, SEED + 1]
    # A video that has gone is made again; games of a later call are added.
    (tmp_path / "videos/pong-9100000.mp4").unlink()
    write_benchmark(tmp_path, ["pong"], [SEED, SEED + 2], form, lambda *one: told.append(one))
    assert told[2:] == [("pong-9100000", True), ("pong-9100002", True)]
    assert len(lines(tmp_path / METADATA)) == 3


def test_a_locator_in_the_place_of_a_video(tmp_path: Path, folder: Path) -> None:
    form = BenchmarkForm(seconds=24, videos="locator", begin=4, window=10)
    write_benchmark(tmp_path, ["pong"], [SEED], form)
    (line,), (stored, _) = lines(tmp_path / METADATA), lines(folder / METADATA)
    assert line["video"] == f"arcade:pong?seed={SEED}"
    assert line["content"] == stored["content"]
    assert not (tmp_path / "videos").exists()
    chunk = next(iter(open_source(line["video"], start=3, duration=1)))
    assert chunk.frames.shape == (2, 420, 320, 3)
    assert InfStreams(tmp_path, start="4").videos[0].path.name == line["video"]


@pytest.mark.parametrize(
    ("games", "seeds", "form", "error"),
    [
        (["chess"], [SEED], SHORT, SourceError),
        (["pong"], [8_999_999], SHORT, OptionError),
        ([], [SEED], SHORT, OptionError),
        (["pong"], [], SHORT, OptionError),
        (["pong"], [SEED], BenchmarkForm(seconds=60), OptionError),
        (["pong"], [SEED], BenchmarkForm(fps=7), OptionError),
        (["pong"], [SEED], BenchmarkForm(videos="gif"), OptionError),  # type: ignore[arg-type]
        (["pong"], [SEED], BenchmarkForm(begin=-1), OptionError),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    games: Sequence[str], seeds: Sequence[int], form: BenchmarkForm, error: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        write_benchmark(tmp_path / "out", games, seeds, form)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_games_of_another_form_are_kept(folder: Path) -> None:
    before = files(folder)
    with pytest.raises(OutputError, match="another form \\(fps=2\\)"):
        write_benchmark(folder, ["pong"], [SEED], BenchmarkForm(seconds=24, begin=4, window=10))
    assert files(folder) == before


def test_the_reader_of_the_published_form(folder: Path, tmp_path: Path) -> None:
    """What is written is read without a defect, and the truth as a prediction is each window's reference."""
    benchmark = InfStreams(folder, start="4")
    assert isinstance(benchmark, CommentaryBenchmark)
    assert list(benchmark.defects) == []
    assert all(count.complete for count in benchmark.counts)
    assert [(game.group, game.start) for game in benchmark.games] == [("pong", 4.0), ("tennis", 4.0)]
    assert len(benchmark.windows) == 4
    assert all(video.path.is_file() for video in benchmark.videos)
    predictions = tmp_path / "truth.jsonl"
    with predictions.open("w") as file:
        for game in benchmark.games:
            steps = range(int(game.start), int(game.end))
            said = zip(steps, game.words.texts(game.start, len(steps), 1.0), strict=True)
            for line in benchmark.published(game, [Said(at, at + 1.0, text) for at, text in said]):
                file.write(json.dumps(line) + "\n")
    told = benchmark.texts(predictions)
    assert {window.id: window.reference for window in benchmark.windows} == told


def test_the_way_from_windows_to_votes(folder: Path) -> None:
    """The windows, the prompts and the client of the evaluation against the judge that knows the truth."""
    windows = InfStreams(folder, start="4").windows
    pairs = [pair for pair in calibration_pairs(windows) if pair.b]
    assert {pair.group for pair in pairs} >= {"other", "shuffled", "doubled", "same"}
    with running() as url, Endpoint(url, "arcade-facts", key="none") as judge:
        for pair in pairs:
            for a, b, better in ((pair.a, pair.b, "A"), (pair.b, pair.a, "B")):
                messages = PROMPTS["inf-streams/1"].messages(pair.reference, a, b)
                expected = "tie" if pair.group == "same" else better
                assert parse(judge.chat(messages, {"temperature": 0.0, "seed": 42}).text) == expected, pair.group


def test_facts_of_a_window_are_those_of_its_seconds(folder: Path) -> None:
    for window in InfStreams(folder, start="4").windows:
        (line,) = (one for one in lines(folder / METADATA) if one["video"] == window.video)
        seconds = [[word for _, end, word in line["content"] if k < end <= k + 1] for k in range(24)]
        inside = [" ".join(words) for k, words in enumerate(seconds) if window.start <= k < window.end]
        assert verdict(window.reference, " ; ".join(inside), window.reference) == "tie"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()
    app.command()(arcade_benchmark)
    options = [
        "--games", "pong, boxing", "--seconds", "12", "--videos", "locator", "--begin", "0", "--window", "6",
    ]  # fmt: skip
    app([str(tmp_path / "out"), *options], standalone_mode=False)
    out = capsys.readouterr()
    assert out.out.startswith(f"{tmp_path / 'out'}: 2 games of 12 s, ")
    assert out.err == "pong-9100000: written\nboxing-9100000: written\n"
    assert len(list((tmp_path / "out" / GAMES_FOLDER).iterdir())) == 2
    for wrong in (["--hours", "0"], ["--streams", "0"], ["--videos", "gif"]):
        with pytest.raises(OptionError):
            app([str(tmp_path / "other"), *wrong], standalone_mode=False)
