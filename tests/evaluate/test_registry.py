"""Benchmarks are opened by name, built in or of another package."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from streamingvlm.core import plugins
from streamingvlm.core.errors import OptionError, SourceError
from streamingvlm.evaluate.commentary.inf_streams import InfStreams
from streamingvlm.evaluate.commentary.livesports import LiveSports
from streamingvlm.evaluate.registry import BUILT_IN, known_benchmarks, open_benchmark
from support.benchmark_data import write_inf_streams, write_livesports


class Chess:
    """A benchmark of another package."""

    def __init__(self, data: Path, videos: Path | None, level: str = "1") -> None:
        self.data, self.videos, self.level = data, videos, level


def register(monkeypatch: pytest.MonkeyPatch, *entries: tuple[str, str]) -> None:
    group = "streamingvlm.benchmarks"
    points = [EntryPoint(name, value, group) for name, value in entries]
    monkeypatch.setattr(plugins, "entry_points", lambda *, group: [one for one in points if one.group == group])


def test_built_in_benchmarks_are_opened_with_their_options(tmp_path: Path) -> None:
    write_inf_streams(tmp_path)
    found = open_benchmark("inf-streams?start=7&games=20", tmp_path)
    assert isinstance(found, InfStreams)
    assert (found.start, found.counts[0].expected) == (7.0, 20)
    write_livesports(tmp_path / "live")
    assert isinstance(open_benchmark("livesports", tmp_path / "live", tmp_path), LiveSports)
    assert {"ovo", "streamingbench", "longvideobench", "videomme", "mvbench"} < set(BUILT_IN)


def test_another_package_adds_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, ("chess", f"{__name__}:Chess"), ("inf-streams", "no.such:module"), ("gone", "no.such:thing"))
    assert known_benchmarks() == [*BUILT_IN, "chess", "gone"]
    found = open_benchmark("chess?level=3", tmp_path, tmp_path)
    assert isinstance(found, Chess)
    assert (found.data, found.videos, found.level) == (tmp_path, tmp_path, "3")
    # A name of this package stays what it was.
    write_inf_streams(tmp_path)
    assert isinstance(open_benchmark("inf-streams", tmp_path), InfStreams)
    with pytest.raises(OptionError, match=r"'gone' .* cannot be loaded: ModuleNotFoundError"):
        open_benchmark("gone", tmp_path)
    with pytest.raises(OptionError, match=r"^'chess\?size=3': chess has the options level$"):
        open_benchmark("chess?size=3", tmp_path)


@pytest.mark.parametrize(
    ("locator", "why"),
    [
        ("draughts", r"^unknown benchmark 'draughts'; known: inf-streams, livesports, ovo, .*mvbench"),
        ("inf-streams?start=1&start=2", "has an option twice"),
        ("livesports?data=x", r"^'livesports\?data=x': livesports has no options$"),
    ],
)
def test_what_cannot_be_meant(locator: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=why):
        open_benchmark(locator, tmp_path)


def test_data_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file or folder; the data of livesports"):
        open_benchmark("livesports", tmp_path / "gone")
    write_livesports(tmp_path)
    with pytest.raises(SourceError, match="is not a folder; the videos of livesports"):
        open_benchmark("livesports", tmp_path, tmp_path / "LiveSports-3K-CC.json")
