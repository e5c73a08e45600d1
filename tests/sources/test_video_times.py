"""Times: whatever a container means by its stamps, each picture is shown when it was."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from streamingvlm.cli.follow import report
from streamingvlm.core.run_stats import RunStats
from streamingvlm.sources.file import FileSource
from streamingvlm.sources.timestamps import Clock
from support import media

#: B-frames, so that pictures are decoded in another order than they are shown.
REORDERED = {"bf": "3", "b-adapt": "0", "preset": "medium"}


def seen(path: Path, fps: float = 5, **arguments: float) -> tuple[list[int], list[float]]:
    """Which frames were taken, and their times."""
    chunks = list(FileSource(path, fps=fps, **arguments))  # type: ignore[arg-type]
    frames = [media.index_of(frame) for chunk in chunks for frame in chunk.frames]
    return frames, [round(time, 3) for chunk in chunks for time in chunk.times]


def every(count: int, fps: float = 5) -> list[float]:
    return [round(index / fps, 3) for index in range(count)]


@pytest.mark.parametrize("name", ["b.avi", "b.asf", "b.mkv", "b.mp4", "b.ts", "b.flv", "b.nut", "b.mov"])
def test_reordered_frames_in_every_container(tmp_path: Path, name: str) -> None:
    path = media.write_clip(tmp_path / name, count=40, fps=5, codec_options=REORDERED)
    assert seen(path) == (list(range(40)), every(40))
    assert seen(path, start=5) == (list(range(25, 40)), every(40)[25:])


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("m.avi", "mpeg4"),
        ("m.m4v", "mpeg4"),
        ("m.avi", "mpeg2video"),
        ("m.m2v", "mpeg2video"),
        ("m.vob", "mpeg2video"),
        ("m.mpg", "mpeg1video"),
        ("m.h264", "libx264"),
    ],
)
def test_formats_that_mean_the_order_of_decoding_or_none(tmp_path: Path, name: str, codec: str) -> None:
    options = {"bf": "2", "g": "12"}
    with av.open(str(tmp_path / name), "w", format="m4v" if name == "m.m4v" else None) as output:
        stream = output.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(50):
            frame = av.VideoFrame.from_ndarray(media.flat(index, 64, 48), format="rgb24")
            frame.pts = index
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    frames, times = seen(tmp_path / name)
    assert times == every(10)
    assert frames == pytest.approx(list(range(0, 50, 5)), abs=1)
    frames, times = seen(tmp_path / name, start=1)
    assert times == every(10)[5:]
    assert frames == pytest.approx(list(range(25, 50, 5)), abs=1)


def test_a_bare_stream_has_the_rate_that_its_codec_tells(tmp_path: Path) -> None:
    for fps in (10, 30):
        path = tmp_path / f"{fps}.h264"
        path.write_bytes(b"".join(bytes(packet) for packet in media.encode("libx264", 2 * fps, fps, bf="2")))
        assert seen(path) == (list(range(0, 2 * fps, fps // 5)), every(10))


def test_packed_frames_of_old_encoders(tmp_path: Path) -> None:
    """DivX put two frames into one packet of an AVI, and an empty one behind it."""

    def head(data: bytes) -> int:
        return data.rindex(b"\0\0\1\xb6")

    plain = [bytes(packet) for packet in media.encode("mpeg4", 40, 5, bf="1", b_strategy="0", g="12")]
    packets: list[bytes] = []
    for data in plain:
        if data[head(data) + 4] >> 6 == 2:  # a B-frame goes with the one before it
            packets[-1] += data[head(data) :]
            packets.append(b"\0\0\1\xb6\x53\x17\x7f")
        else:
            packets.append(data)
    at = head(packets[0])
    packets[0] = packets[0][:at] + b"\0\0\1\xb2DivX503b1393p" + packets[0][at:]
    path = media.write_packets(
        tmp_path / "packed.avi", [(data, index, index) for index, data in enumerate(packets)], 5, "mpeg4"
    )
    frames, times = seen(path)
    assert times == every(40)
    assert frames == pytest.approx(range(40), abs=1)


def test_a_muxer_that_wrote_the_order_of_decoding_as_that_of_showing(tmp_path: Path) -> None:
    packets = media.encode("libx264", 40, 5, bf="2", g="40", **{"b-adapt": "0"})
    path = media.write_packets(
        tmp_path / "liar.nut", [(bytes(packet), index, index) for index, packet in enumerate(packets)], 5
    )
    frames, times = seen(path)
    assert (frames[0], frames[5:], len(frames)) == (0, list(range(5, 40)), 40)
    assert times == every(40)


def test_a_picture_that_stays_is_an_empty_packet(tmp_path: Path) -> None:
    data = [bytes(packet) for packet in media.encode("mpeg4", 10, 5, g="1")]
    data[3] = data[4] = b""
    path = media.write_packets(tmp_path / "drop.avi", [(d, i, i) for i, d in enumerate(data)], 5, "mpeg4")
    source = FileSource(path, fps=5)
    frames = [media.index_of(frame) for chunk in source for frame in chunk.frames]
    assert frames == pytest.approx([0, 1, 2, 2, 2, 5, 6, 7, 8, 9], abs=1)
    assert (source.broken, source.breaks) == (0, 0)


@pytest.mark.parametrize("seconds", [12, 40, 3000, 7200])
@pytest.mark.parametrize("name", ["jump.ts", "jump.flv"])
def test_a_jump_of_a_broadcast_is_a_break(tmp_path: Path, name: str, seconds: float) -> None:
    stamps = every(20) + [4 + seconds + time for time in every(20)]
    path = media.write_clip(tmp_path / name, stamps=stamps, fps=5)
    source = FileSource(path, fps=5)
    frames = [media.index_of(frame) for chunk in source for frame in chunk.frames]
    assert (frames, source.breaks) == (list(range(40)), 1)
    assert seen(path, start=5) == (list(range(25, 40)), every(40)[25:])


def test_watch_tells_of_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    report(RunStats(), 0, 2)
    out, err = capsys.readouterr()
    assert not out
    assert "breaks   2 times" in err
    report(RunStats(), 3)
    assert "breaks" not in capsys.readouterr().err


def test_a_jump_within_reordered_frames_is_one_break(tmp_path: Path) -> None:
    stamps = every(20) + [44 + time for time in every(20)]
    source = FileSource(media.write_clip(tmp_path / "b.ts", stamps=stamps, fps=5, codec_options=REORDERED), fps=5)
    assert [media.index_of(frame) for chunk in source for frame in chunk.frames] == list(range(40))
    assert source.breaks == 1


def test_program_streams_break_too(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "jump.vob"), "w") as output:
        stream = output.add_stream("mpeg2video", rate=25, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(100):
            frame = av.VideoFrame.from_ndarray(media.flat(index, 64, 48), format="rgb24")
            frame.pts = index if index < 50 else index + 40 * 25
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    source = FileSource(tmp_path / "jump.vob", fps=5)
    times = [round(time, 3) for chunk in source for time in chunk.times]
    assert (times[:20], len(times) // 20, source.breaks) == (every(20), 1, 1)


@pytest.mark.parametrize(("name", "seconds"), [("pause.ts", 8), ("pause.mkv", 8), ("pause.mkv", 40), ("pause.mp4", 40)])
def test_a_pause_is_none(tmp_path: Path, name: str, seconds: int) -> None:
    path = media.write_clip(tmp_path / name, stamps=[0, 0.2, 0.4, 0.6, seconds, seconds + 0.2], fps=5)
    source = FileSource(path, fps=1, step=1)
    assert len(list(source)) == seconds + 1
    assert source.breaks == 0


def test_slides_in_a_broadcast_are_no_jumps(tmp_path: Path) -> None:
    path = media.write_clip(tmp_path / "slides.ts", stamps=[15 * index for index in range(20)], fps=1 / 15)
    source = FileSource(path, fps=1)
    assert len(list(source)) >= 15 * 19
    assert source.breaks == 0


def test_joined_broadcasts_go_on_and_can_be_started_in(tmp_path: Path) -> None:
    late = media.write_clip(tmp_path / "late.ts", stamps=[50 + time for time in every(20)], fps=5)
    early = media.write_clip(tmp_path / "early.ts", stamps=[20 + time for time in every(20)], fps=5)
    for one, two in ((late, early), (early, late), (early, early)):
        joined = tmp_path / "joined.ts"
        joined.write_bytes(one.read_bytes() + two.read_bytes())
        assert seen(joined) == ([*range(20), *range(20)], every(40))
        assert seen(joined, start=5) == (list(range(5, 20)), every(40)[25:])
        source = FileSource(joined)
        assert (len(list(source)), source.breaks) == (8, 1)


@pytest.mark.parametrize("before", [2, 143])
def test_the_33_bits_of_mpeg_start_again(tmp_path: Path, before: float) -> None:
    first, count = 2**33 / 90000 - before, int(before) + 20
    path = media.write_clip(tmp_path / "wrap.ts", stamps=[first + index for index in range(count)], fps=1)
    source = FileSource(path, fps=1)
    assert [round(time, 3) for chunk in source for time in chunk.times] == every(count, 1)
    assert source.breaks == 0
    assert seen(path, fps=1, start=count - 5)[1] == every(count, 1)[-5:]


def test_a_clock_that_wraps_is_no_break() -> None:
    clock = Clock(1.0, gap=10, wrap=100)
    assert [clock.read(stamp) for stamp in (97, 98, 99, 0, 1)] == [0, 1, 2, 3, 4]
    assert clock.breaks == 0
    assert [clock.read(stamp) for stamp in (50, 51, 3)] == [5, 6, 7]
    assert clock.breaks == 2


@pytest.mark.parametrize("name", ["s.mp4", "s.mov", "s.mkv", "s.webm", "s.ts", "s.flv", "s.avi", "s.asf", "s.nut"])
def test_a_later_start_sees_what_a_whole_pass_sees(tmp_path: Path, name: str) -> None:
    codec = "libvpx-vp9" if name == "s.webm" else "libx264"
    path = media.write_clip(tmp_path / name, count=150, width=32, height=32, codec=codec)
    frames, times = seen(path)
    for start in (0.4, 3.2, 12.0, 14.8):
        at = round(start * 5)
        assert seen(path, start=start) == (frames[at:], times[at:])


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts", "v.flv"])
def test_variable_rate_keeps_each_time(tmp_path: Path, name: str) -> None:
    stamps = [0, 0.1, 0.25, 1.5, 1.6, 3.1, 3.2, 4.0]
    frames, times = seen(media.write_clip(tmp_path / name, stamps=stamps, codec_options={"bf": "0"}), fps=20)
    first = [next(time for frame, time in zip(frames, times, strict=True) if frame == index) for index in range(8)]
    assert first == pytest.approx(stamps, abs=2e-3)


@pytest.mark.parametrize(("name", "first"), [("n.mkv", -2), ("n.ts", -2), ("n.mp4", 7), ("n.mkv", 7), ("n.mov", 7)])
def test_the_first_frame_is_at_0_wherever_its_stamp_lies(tmp_path: Path, name: str, first: float) -> None:
    path = media.write_clip(tmp_path / name, stamps=[first + index / 5 for index in range(20)], fps=5)
    assert seen(path) == (list(range(20)), every(20))


def test_an_edit_list_cuts_the_beginning(tmp_path: Path) -> None:
    path = media.write_clip(tmp_path / "cut.mp4", count=20, fps=5, codec_options={"bf": "0", "g": "5"})
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 16  # behind the name, version and count, and the length of the only edit
    scale = int.from_bytes(data[data.index(b"mdhd") + 16 :][:4], "big")
    data[at : at + 4] = (scale * 2).to_bytes(4, "big")
    path.write_bytes(data)
    frames, times = seen(path)
    assert frames[:10] == list(range(10, 20))
    assert times[:10] == every(10)
