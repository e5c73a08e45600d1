"""The edge to FFmpeg: pictures upright and in their colours, and one line for whatever goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamingvlm.core.errors import SourceError
from streamingvlm.sources import container, decode
from streamingvlm.sources.file import FileSource
from support import media

#: Where the white quarter of ``media.corner`` lies in a photo of each orientation, and whether it stands upright.
UPRIGHT = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}


def quarter(frame: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Row and column of the white quarter of a picture."""
    height, width = frame.shape[:2]
    means = frame.reshape(2, height // 2, 2, width // 2, 3).mean(axis=(1, 3, 4))
    assert (means > 128).sum() == 1
    row, column = np.unravel_index(means.argmax(), (2, 2))
    return int(row), int(column)


def refused(path: Path) -> str:
    with pytest.raises(SourceError) as error:
        list(FileSource(path))
    message = str(error.value)
    assert "\n" not in message
    assert path.name in message
    return message


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_phones_photo_stands_upright(tmp_path: Path, orientation: int) -> None:
    path = media.write_photo(tmp_path / "photo.jpg", orientation, media.corner(64, 48))
    frame = next(iter(FileSource(path))).frames[0]
    assert frame.shape == ((64, 48, 3) if orientation > 4 else (48, 64, 3))
    assert quarter(frame) == UPRIGHT[orientation]


@pytest.mark.parametrize(
    ("name", "pix_fmt"),
    [("a.png", "rgb24"), ("a.png", "gray"), ("a.png", "rgba"), ("a.png", "rgb48be"), ("a.apng", "rgb24")],
)
def test_a_named_colour_profile_ends_no_process(tmp_path: Path, name: str, pix_fmt: str) -> None:
    """In a process of its own: where it goes wrong, memory is freed twice."""
    codec, count = ("apng", 10) if name == "a.apng" else ("png", 1)
    container = "apng" if count > 1 else "image2"
    path = media.write_clip(tmp_path / name, count=count, codec=codec, pix_fmt=pix_fmt, container=container)
    code = """
import sys
from streamingvlm import open_source
for chunk in list(open_source(sys.argv[1], fps=10)):
    print(*(round((float(frame.mean()) - 16) / 4) for frame in chunk.frames))
"""
    call = [sys.executable, "-c", code, str(media.profiled(path))]
    found = [str(Path(decode.__file__).parents[2]), *sys.path]
    ended = subprocess.run(
        call, env={**os.environ, "PYTHONPATH": os.pathsep.join(found)}, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout.split()) == (0, [str(index) for index in range(count)])


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_picture_with_a_profile_stands_upright(tmp_path: Path, orientation: int) -> None:
    path = media.write_clip(
        tmp_path / "a.png", count=1, codec="png", pix_fmt="rgb24", container="image2", picture=media.corner(64, 48)
    )
    frame = next(iter(FileSource(media.profiled(path, orientation)))).frames[0]
    assert frame.shape == ((64, 48, 3) if orientation > 4 else (48, 64, 3))
    assert quarter(frame) == UPRIGHT[orientation]


def test_a_turn_without_its_matrix() -> None:
    """What is left if unknown side data hides the matrix: the angle."""
    picture = media.corner(64, 48)
    for degrees, where in ((0, (0, 0)), (-90, (0, 1)), (180, (1, 1)), (-180, (1, 1)), (90, (1, 0))):
        flip_y, flip_x, transposed = decode.turn_of(degrees)
        turned = picture.swapaxes(0, 1) if transposed else picture
        assert quarter(turned[:: -1 if flip_y else 1, :: -1 if flip_x else 1]) == where


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "kr", "kb"), [(1, 0.2126, 0.0722), (5, 0.299, 0.114)])
def test_colours_follow_the_matrix_and_the_range(tmp_path: Path, matrix: int, kr: float, kb: float, full: bool) -> None:
    y, u, v = 120, 90, 170
    path = tmp_path / "c.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        planes = np.stack([np.full((48, 64), value, np.uint8) for value in (y, u, v)])
        frame = av.VideoFrame.from_ndarray(planes, format="yuv444p")
        frame.colorspace, frame.color_range, frame.pts = matrix, 2 if full else 1, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    luma, scale = (y, 1.0) if full else ((y - 16) * 255 / 219, 255 / 224)
    red, blue = luma + 2 * (1 - kr) * (v - 128) * scale, luma + 2 * (1 - kb) * (u - 128) * scale
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    pixel = next(iter(FileSource(path))).frames[0][24, 32]
    assert pixel.tolist() == pytest.approx([red, green, blue], abs=1.5)


def test_interlaced_pictures_are_whole(tmp_path: Path) -> None:
    path = media.write_clip(tmp_path / "i.ts", count=20, codec_options={"x264-params": "interlaced=1"})
    frames = [media.index_of(frame) for chunk in FileSource(path, fps=10) for frame in chunk.frames]
    assert frames == list(range(20))


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), [("a.gif", "gif", "rgb8"), ("a.apng", "apng", "rgb24")])
def test_moving_pictures(tmp_path: Path, name: str, codec: str, pix_fmt: str) -> None:
    path = media.write_clip(tmp_path / name, count=20, codec=codec, pix_fmt=pix_fmt)
    chunks = list(FileSource(path, fps=10))
    assert len(chunks) == 2
    assert [media.index_of(f) for c in chunks for f in c.frames] == pytest.approx(range(20), abs=4)


@pytest.mark.parametrize(
    "name", ["a b.mp4", "-x.mp4", "ä 新.mp4", "a:b.mp4", "50% #1?.mp4", "a%03d.mp4", "[1].mp4", b"\xff\xfe.mp4"]
)
def test_odd_names(tmp_path: Path, name: str | bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + os.fsencode(name)))
    path.write_bytes(media.write_clip(tmp_path / "clip.mp4", count=10).read_bytes())
    assert len(list(FileSource(path))) == 1


def test_a_title_that_is_no_text(tmp_path: Path) -> None:
    path = media.write_clip(tmp_path / "t.mkv", count=5, title="Zoe XXX")
    path.write_bytes(path.read_bytes().replace(b"Zoe XXX", b"Zo\xe9 \xff\xc3!"))
    assert FileSource(path).context == "Zo\ufffd \ufffd\ufffd!"
    path = media.write_clip(tmp_path / "t.mp4", count=5, title="Zoë")
    assert FileSource(path).context == "Zoë"


def test_playlists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One with an end is a film; one without would be waited for."""
    monkeypatch.setattr(container, "OPEN_SECONDS", 5.0)
    media.write_clip(tmp_path / "0.ts", count=20)
    media.write_clip(tmp_path / "1.ts", count=20, stamps=[100 + index / 10 for index in range(20)])
    head, parts = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n", "#EXTINF:2,\n0.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:2,\n1.ts\n"
    (tmp_path / "film.m3u8").write_text(f"{head}{parts}#EXT-X-ENDLIST\n")
    frames = [media.index_of(frame) for chunk in FileSource(tmp_path / "film.m3u8") for frame in chunk.frames]
    assert frames == [0, 5, 10, 15] * 2
    (tmp_path / "live.m3u8").write_text(head + parts)
    refused(tmp_path / "live.m3u8")
    (tmp_path / "gone.m3u8").write_text(f"{head}#EXTINF:2,\nhttp://127.0.0.1:9/none.ts\n")
    refused(tmp_path / "gone.m3u8")


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "not a file" in refused(tmp_path / "pipe.mp4")
    code = "from streamingvlm import open_source; open_source('/dev/stdin')"
    path = [str(Path(decode.__file__).parents[2]), *sys.path]
    run = subprocess.run(
        [sys.executable, "-c", code], input=b"x", capture_output=True, timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    )  # fmt: skip
    assert b"SourceError: /dev/stdin is not a file" in run.stderr


def test_names_and_folders_that_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot be looked at" in refused(tmp_path / ("x" * 300 + ".mp4"))
    refused(tmp_path / "a\0b.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    refused(tmp_path / "loop.mp4")
    (tmp_path / "file").touch()
    refused(tmp_path / "file" / "a.mp4")
    closed = tmp_path / "closed"
    closed.mkdir()
    media.write_clip(closed / "a.mp4", count=5)
    closed.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:  # to the superuser nothing is closed
            os.seteuid(65534)
        assert "Permission denied" in refused(closed / "a.mp4")
    finally:
        os.seteuid(user)
        closed.chmod(0o700)
    (closed / "a.mp4").chmod(0)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    refused(Path("a.mp4"))


@pytest.mark.parametrize(
    "error",
    [ValueError("x\ny"), OverflowError("big"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), AttributeError],
)
def test_whatever_the_library_raises_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception] | Exception
) -> None:
    path = media.write_clip(tmp_path / "a.mp4", count=25)

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(container.av, "open", fail)
        refused(path)
    with monkeypatch.context() as patch:
        patch.setattr(decode, "to_rgb", fail)
        assert "its pictures cannot be shown" in refused(path)


def test_a_picture_that_cannot_be_converted_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, convert = media.write_clip(tmp_path / "a.mp4", count=25), decode.to_rgb

    def fail(frame: Any, *rest: Any) -> Any:
        if media.index_of(picture := convert(frame, *rest)) == 10:
            raise MemoryError
        return picture

    monkeypatch.setattr(decode, "to_rgb", fail)
    source = FileSource(path)
    assert [media.index_of(frame) for chunk in source for frame in chunk.frames] == [0, 5, 5, 15, 20]
    assert source.broken == 1


def test_a_file_that_goes_away_or_shrinks_in_the_middle(tmp_path: Path) -> None:
    path = media.write_clip(tmp_path / "a.ts", count=100, width=128, height=96, codec_options={"qp": "1"})
    source = FileSource(path)
    chunks = iter(source)
    next(chunks)
    path.unlink()
    assert len(list(chunks)) == 9
    assert "no such file" in refused_again(source)
    path = media.write_clip(tmp_path / "b.ts", count=3000, width=32, height=32)
    chunks = iter(FileSource(path))
    next(chunks)
    os.truncate(path, path.stat().st_size // 2)
    assert 100 < len(list(chunks)) < 200


def refused_again(source: FileSource) -> str:
    with pytest.raises(SourceError) as error:
        list(source)
    return str(error.value)


def test_a_file_that_is_let_go_is_closed_at_once(tmp_path: Path) -> None:
    """Not by the garbage collector some time: in a process that was forked meanwhile its threads would be missing."""
    path = media.write_clip(tmp_path / "a.ts", count=25)
    folder = Path("/proc/self/fd")

    def held() -> int:
        return sum(os.path.realpath(entry) == str(path) for entry in folder.iterdir())

    source = FileSource(path)
    assert held() == 1
    chunks = iter(source)
    next(chunks)
    del chunks
    assert held() == 0
    source = FileSource(path)
    assert held() == 1
    del source
    assert held() == 0


@pytest.mark.parametrize("start", [0.0, 1.2])
def test_one_pass_opens_the_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: float) -> None:
    opened: list[int | None] = []
    real = container.open_container

    def spy(path: Path, number: int | None = None, threads: int | None = None) -> Any:
        opened.append(threads)
        found = real(path, number, threads)
        assert threads is None or found[1].codec_context.thread_count == threads
        return found

    monkeypatch.setattr(decode, "open_container", spy)
    for name in ("a.mp4", "a.ts"):
        path = media.write_clip(tmp_path / name, count=25)
        source = FileSource(path, start=start, threads=1)
        first = [media.index_of(frame) for chunk in source for frame in chunk.frames]
        assert (first[0], opened) == (round(start * 10), [1])
        assert [media.index_of(frame) for chunk in source for frame in chunk.frames] == first
        assert opened == [1, 1]
        opened.clear()


def outcome(path: Path, start: float) -> str:
    try:
        frames = [frame for chunk in FileSource(path, start=start) for frame in chunk.frames]
    except SourceError as error:
        message = str(error)
        return "refused" if str(path) in message and "\n" not in message else message
    return "frames" if frames else "nothing"


@pytest.mark.parametrize("name", ["f.mp4", "f.frag.mp4", "f.mkv", "f.ts", "f.avi", "f.webm", "f.flv", "f.gif"])
def test_a_damaged_file_gives_frames_or_one_line(tmp_path: Path, name: str) -> None:
    codec = {"f.webm": "libvpx-vp9", "f.gif": "gif"}.get(name, "libx264")
    flags = {"f.mp4": "faststart", "f.frag.mp4": "frag_keyframe+empty_moov"}.get(name)
    path = media.write_clip(
        tmp_path / name, count=20, codec=codec, pix_fmt="rgb8" if codec == "gif" else "yuv420p",
        options={"movflags": flags} if flags else {}, codec_options={"bf": "2"},
    )  # fmt: skip
    whole = path.read_bytes()
    outcomes: set[str] = set()

    def read() -> None:
        for seed in range(60):
            path.write_bytes(media.damage(whole, seed))
            outcomes.add(outcome(path, 0.5 if seed % 4 == 0 else 0.0))
        outcomes.add("done")

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(120)
    assert outcomes == {"frames", "refused", "done"}


FORKED = """
import os, sys, time
from streamingvlm.sources.file import FileSource
path = sys.argv[1]
sum(len(chunk.frames) for chunk in FileSource(path))
child = os.fork()
if not child:
    os._exit(sum(len(chunk.frames) for chunk in FileSource(path)))
until = time.monotonic() + 30
while not (done := os.waitpid(child, os.WNOHANG))[0]:
    if time.monotonic() > until:
        os.kill(child, 9)
        sys.exit("the child waits for threads that only its parent has")
    time.sleep(0.05)
print(os.waitstatus_to_exitcode(done[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_has_read_may_fork_one_that_reads(tmp_path: Path) -> None:
    path = media.write_clip(tmp_path / "a.mp4", count=50, width=320, height=240)
    done = subprocess.run([sys.executable, "-c", FORKED, str(path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, done.stdout.strip()) == (0, "", "10")
