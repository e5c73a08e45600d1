"""Whether the data of a benchmark are all there is found out before anything is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from streamingvlm import cli
from streamingvlm.evaluate.benchmark import Benchmark, Count, Defect, Video
from streamingvlm.evaluate.check import VideoState, check
from streamingvlm.evaluate.commentary.inf_streams import InfStreams
from streamingvlm.evaluate.questions.items import Item, Reply, Score
from streamingvlm.evaluate.questions.metrics import AverageOf
from support import media
from support.benchmark_data import game, window, write_inf_streams, write_livesports, write_video


@dataclass
class Quiz:
    """A benchmark of questions that is all there."""

    videos: Sequence[Video] = ()
    items: Sequence[Item] = ()
    counts: Sequence[Count] = (Count("EPM", 1, 1),)
    defects: Sequence[Defect] = ()
    averages: Sequence[AverageOf] = ()
    name: str = "quiz"
    revision: str = "0" * 16

    def replies(self, path: Path) -> dict[str, Reply]:
        raise AssertionError(f"a check reads no replies of {path}")

    def score(self, replies: object, parser: str, *, without_defects: bool = False) -> Score:
        raise AssertionError(f"a check scores nothing: {replies}, {parser}, {without_defects}")


def item(name: str, video: str, time: float, until: float | None = None) -> Item:
    return Item(name, video, "EPM", "backward", time, "what?", "A", "what?", until=until)


def test_each_video_is_looked_at(tmp_path: Path) -> None:
    names = {"whole.mp4": 9.0, "gone.mp4": 5.0, "empty.mp4": 5.0, "text.mp4": 5.0, "short.mp4": 12.0, "frames": 5.0}
    for name in ("whole.mp4", "short.mp4"):
        write_video(tmp_path / name, 8)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("<html>403 Forbidden</html>")
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames/1.jpg").touch()
    (tmp_path / "no frames").mkdir()
    videos = [Video(name, tmp_path / name, seconds) for name, seconds in [*names.items(), ("no frames", 0.0)]]
    items = [item("q1", "short.mp4", 5.0), item("q2", "short.mp4", 12.0), item("q3", "short.mp4", 7.0, until=11.0)]
    quiz = Quiz(videos, [*items, item("q4", "whole.mp4", 9.0)])
    report = check(quiz)
    assert {one.key: one.state for one in report.videos} == {
        "whole.mp4": VideoState.FOUND,  # 8 s of 9: times are rounded up
        "gone.mp4": VideoState.MISSING,
        "empty.mp4": VideoState.EMPTY,
        "text.mp4": VideoState.UNREADABLE,
        "short.mp4": VideoState.SHORT,
        "frames": VideoState.FOUND,
        "no frames": VideoState.EMPTY,
    }
    details = {one.key: one.detail for one in report.videos}
    assert details["short.mp4"] == "8.0 s, needed 12 s by q2 and 1 more"
    assert details["gone.mp4"] == f"no file {tmp_path / 'gone.mp4'}"
    assert (report.found, report.complete, report.exit_status) == (2, False, 1)
    assert check(quiz, allow_missing=True).exit_status == 0
    assert not check(quiz, allow_missing=True).complete
    found = json.loads(json.dumps(report.to_json()))
    assert found["videos"]["states"] == {
        "found": 2,
        "missing": 1,
        "0 bytes": 2,
        "unreadable": 1,
        "shorter than needed": 1,
    }
    assert [one["key"] for one in found["videos"]["problems"]] == [one.key for one in report.problems]


def test_a_part_that_is_missing_is_enough(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", 2)
    videos = [Video("a.mp4", tmp_path / "a.mp4", 2.0)]
    whole = check(Quiz(videos, defects=[Defect("7", "its answer is none of its options")]))
    assert whole.complete
    assert whole.exit_status == 0, "a defect of the data is nothing that is missing"
    assert isinstance(Quiz(), Benchmark)
    for counts in ([Count("EPM", 1, 2)], [Count("EPM", 3, 2)]):
        part = check(Quiz(videos, counts=counts))
        assert (part.complete, part.exit_status) == (False, 1)
    assert check(Quiz(videos, counts=[Count("EPM", 1)])).complete


def test_only_headers_are_read(tmp_path: Path) -> None:
    for name in ("spoilt.mp4", "cut.mp4"):
        write_video(tmp_path / name, 3000)
    media.spoil(tmp_path / "spoilt.mp4", 0.2, 0.5)  # pictures; the index is behind them
    media.cut(tmp_path / "cut.mp4", 0.5)
    names = ("spoilt.mp4", "cut.mp4")
    spoilt, cut = check(Quiz([Video(name, tmp_path / name, 3000.0) for name in names])).videos
    assert (spoilt.state, spoilt.seconds) == (VideoState.FOUND, pytest.approx(3000, abs=1))
    assert cut.state is VideoState.UNREADABLE
    assert cut.detail.startswith(f"{tmp_path / 'cut.mp4'} is not a video that can be read")


def test_commands_tell_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_inf_streams(
        tmp_path,
        [game("soccer/a.mp4", 30), game("tennis/b.mp4", 30), game("tennis/short.mp4", 9)],
        [window("a.mp4", 10, 20), window("b.mp4", 12, 30)],
        clips={"soccer/a.mp4": 30, "tennis/b.mp4": 20},
    )
    target = tmp_path / "found.json"
    arguments = ["eval", "check", "inf-streams?start=10", "--data", str(folder), "--json", str(target)]
    assert cli.main(arguments) == 1
    out = capsys.readouterr().out
    revision = InfStreams(folder).revision
    assert out.splitlines() == [
        f"inf-streams, revision {revision}: incomplete",
        "  part                               found  expected",
        "  games                                  3         3",
        "  games beyond 10 s                      2         -",
        "  windows (score_all_clips.jsonl)        2         2",
        "  repaired words                         0         -",
        "  videos                                 1         2",
        "videos, shorter than needed: 1",
        "  tennis/b.mp4: 20.0 s, needed 30 s by tennis/b.mp4:12-30",
        "defects of the data: 1",
        "  tennis/short.mp4: not evaluated: ends at 8 s, before 10 s",
    ]
    found = json.loads(target.read_text())
    assert (found["task"], found["complete"], found["videos"]["found"]) == ("inf-streams?start=10", False, 1)
    assert cli.main([*arguments, "--allow-missing"]) == 0
    assert "incomplete, as is allowed" in capsys.readouterr().out
    write_video(folder / "tennis/b.mp4", 30)
    assert cli.main(arguments) == 0
    assert "all is there" in capsys.readouterr().out
    assert json.loads(target.read_text())["complete"] is True


def test_videos_may_lie_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_livesports(tmp_path / "data")
    for name in ("vid.mp4", "other.mp4"):
        write_video(tmp_path / "videos" / name, 10)
    arguments = ["eval", "check", "livesports", "--data", str(data)]
    assert cli.main([*arguments, "--videos", str(tmp_path / "videos")]) == 1
    out = capsys.readouterr().out
    assert "  events (LiveSports-3K-CC.json)        3      1702\n" in out
    assert "  videos                                2         2\n" in out
    assert cli.main(arguments) == 1
    assert "videos, missing: 2\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["chess", "--data", "."], "unknown benchmark 'chess'; known: inf-streams, livesports, "),
        (["inf-streams?begin=1", "--data", "."], "inf-streams has the options start, windows, games"),
        (["livesports?start=1", "--data", "."], "livesports has no options"),
        (["inf-streams", "--data", "nowhere"], "nowhere: no such file or folder"),
        (["inf-streams", "--data", ".", "--videos", "nowhere"], "nowhere is not a folder"),
        (["inf-streams", "--data", "."], "has no eval_all_metadata.jsonl"),
        (["inf-streams"], "--data"),
        (["inf-streams", "--data", "DATA", "--json", "no/such/folder.json"], "cannot write"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    arguments: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_inf_streams(tmp_path / "DATA")
    assert cli.main(["eval", "check", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("streamingvlm: error: ")
    assert why in line


def test_nothing_heavy_is_loaded(tmp_path: Path) -> None:
    write_inf_streams(tmp_path)
    code = (
        "import sys; from pathlib import Path; from streamingvlm.cli.eval_check import check;"
        f"check('inf-streams?start=1', Path({str(tmp_path)!r})); print(sorted(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'torch'" not in run.stdout
    assert "'transformers'" not in run.stdout
