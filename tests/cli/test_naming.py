"""Names of streams and of their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingvlm.cli.naming import expand, output_paths, stream_names
from streamingvlm.core.errors import OptionError, OutputError


def test_values_of_the_environment() -> None:
    environment = {"CAM_PASSWORD": "a$b{c}", "EMPTY": ""}
    assert expand("rtsp://u:${CAM_PASSWORD}@h/1${EMPTY}", environment) == "rtsp://u:a$b{c}@h/1"
    assert expand("$HOME ${ A} $1", environment) == "$HOME ${ A} $1"
    with pytest.raises(OptionError, match=r"^\$\{CAM\} is not set"):
        expand("${CAM}", environment)


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["rtsp://***@10.0.0.2:554/a b"], ["rtsp-10.0.0.2-554-a-b"]),
        (["arcade:pong?seed=7", "arcade:pong?seed=8"], ["arcade-pong-seed-7", "arcade-pong-seed-8"]),
        (["camera:0", "camera:0"], ["camera-0-1", "camera-0-2"]),
        (["a", "a", "a-1"], ["1-a", "2-a", "3-a-1"]),
        (["-", "..", "/"], ["stream-1", "stream-2", "stream-3"]),
        (["x" * 99], ["x" * 60]),
        (["ж"], ["stream"]),
    ],
)
def test_names_of_streams(sources: list[str], names: list[str]) -> None:
    assert stream_names(sources) == names


def test_a_file_is_called_by_its_stem(tmp_path: Path) -> None:
    clip = tmp_path / "first half.mp4"
    clip.touch()
    assert stream_names([str(clip)]) == ["first-half"]


def test_paths_of_outputs() -> None:
    assert output_paths([Path("a.vtt")], ["one"]) == [[Path("a.vtt")]]
    wanted = [[Path("out/x/a.vtt"), Path("x.srt")], [Path("out/y/a.vtt"), Path("y.srt")]]
    assert output_paths([Path("out/{stream}/a.vtt"), Path("{stream}.srt")], ["x", "y"]) == wanted
    with pytest.raises(OutputError, match=r"2 streams; put \{stream\} into its name: a-\{stream\}\.vtt"):
        output_paths([Path("a.vtt")], ["x", "y"])


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("{stream}-{stream}.vtt", "x-x.vtt"),
        ("{{stream}}.vtt", "{stream}.vtt"),
        ("{{{stream}}}.vtt", "{x}.vtt"),
        ("a{b}}.vtt", None),
        ("a{b.vtt", "a{b.vtt"),
        ("{strem}.vtt", None),
        ("{Stream}.vtt", None),
        ("{}.vtt", None),
        ("{ stream }/a.vtt", None),
    ],
)
def test_what_stands_in_braces(path: str, found: str | None) -> None:
    if found is not None:
        assert output_paths([Path(path)], ["x"]) == [[Path(found)]]
        return
    with pytest.raises(
        OutputError, match=r"only \{stream\} is known; a brace of the name is written \{\{ or \}\}$"
    ) as error:
        output_paths([Path(path)], ["x"])
    assert "\n" not in str(error.value)
