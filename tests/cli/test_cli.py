"""The command line as a user meets it: real processes, with a stand-in where the model would be."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from streamingvlm import cli
from streamingvlm.cli import watch
from streamingvlm.cli.options import check_numbers
from streamingvlm.cli.plan import SourceRequest
from streamingvlm.core.errors import EndedError, StreamingVLMError
from streamingvlm.sources.live import LiveSource
from support import media
from support.command import command, run


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds that pass for a recording of the arcade."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return media.write_clip(path, count=80, title="Ada vs Boris", comment="streamingvlm arcade:pong seed=7")


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = "import sys; from streamingvlm import cli; cli.main(['--help']); print(sorted(sys.modules))"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - began < 3  # 0.1 s on a quiet machine
    assert "watch" in done.stdout
    for heavy in ("torch", "numpy", "av", "rich.live", "transformers"):
        assert f"'{heavy}'" not in done.stdout


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "streamingvlm")


def test_piped_prints_plain_lines_and_the_summary_apart(clip: Path) -> None:
    done = run("watch", clip)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "[   0.0s] step 1 sees 1"
    assert lines[2] == "[   2.0s] step 3 sees 1."
    assert len(lines) == 7, "a silent step prints nothing"
    assert "\x1b" not in done.stdout
    assert "opened Ada vs Boris" in done.stderr
    assert "watched  8 s of video in 8 steps, 0 dropped" in done.stderr
    for part in ("work ", "decode 0.", "p50", "p95", "max", "rows (markup ", "vision ", "memory"):
        assert part in done.stderr


def test_json_and_outputs(clip: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("out.vtt", "out.srt", "out.jsonl")]
    done = run("watch", clip, "--json", "--context", "none", *(part for path in outputs for part in ("-o", path)))
    assert done.returncode == 0, done.stderr
    assert "opened none" in done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["start"] for event in events if event["type"] == "commentary.done"] == list(range(8))
    assert (events[0]["type"], events[-1]["type"]) == ("stream.opened", "stream.closed")
    assert outputs[2].read_text() == done.stdout
    assert "00:00:00.000 --> 00:00:03.000\nstep 1 sees 1 step 2 sees 1 step 3 sees 1." in outputs[0].read_text()
    assert outputs[1].read_text().startswith("1\n00:00:00,000 --> 00:00:03,000\n")


def test_quiet_start_duration_step(clip: Path) -> None:
    done = run("watch", clip, "--quiet", "--start", 2, "--duration", 3, "--step", 0.5, "--fps", 4)
    assert (done.returncode, done.stdout) == (0, "")
    assert "watched  3 s of video in 6 steps" in done.stderr


def test_live_says_what_it_drops(clip: Path) -> None:
    done = run("watch", clip, "--pace", "live", "--step", 0.25, "--fps", 4, "--duration", 1, FAKE_SECONDS="0.4")
    assert done.returncode == 0, done.stderr
    assert "dropped to keep up)" in done.stdout
    assert "0 dropped" not in done.stderr


def refused(code: int, out: str, err: str, *words: str) -> None:
    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith("streamingvlm: error: ")
    for word in words:
        assert word in err


def test_bad_input_is_one_line_and_leaves_files_alone(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("no model is loaded for bad input")

    monkeypatch.setattr(watch, "load_engine", never)
    old, new = tmp_path / "old.vtt", tmp_path / "new.srt"
    old.write_text("precious")
    (tmp_path / "text.mp4").write_text("no video")
    other = media.write_clip(tmp_path / "other.mp4")
    sound = media.write_audio(tmp_path / "a.m4a")

    def check(words: list[str], *arguments: object) -> None:
        code = cli.main([str(part) for part in (*arguments, "-o", old, "-o", new)])
        refused(code, *capsys.readouterr(), *words)

    check(["none.mp4", "no such file"], "watch", tmp_path / "none.mp4")
    check(["text.mp4"], "watch", tmp_path / "text.mp4")
    check(["has no video track"], "watch", sound)
    check(["magic", "streaming", "recent-frames"], "watch", clip, "--policy", "magic")
    check(["frames", "at least 1"], "watch", clip, "--policy", "recent-frames:frames=0")
    check(["seconds", "above 0"], "watch", clip, "--policy", "sliding-reset:seconds=0")
    check(["no option 'seconds'"], "watch", clip, "--policy", "sliding-recompute:seconds=9")
    check(["cannot write"], "watch", clip, "-o", tmp_path / "none" / "out.vtt")
    check(["ends before 99 s"], "watch", clip, "--start", 99)
    check(["--fps"], "watch", clip, "--fps", "fast")
    check(["--fps", "-2"], "watch", clip, "--fps", "-2")
    check(["--pace"], "watch", clip, "--pace", "slow")
    check(["--quiet", "--json"], "watch", clip, "--quiet", "--json")
    check(["knows only arcade:pong, arcade:boxing", "--model"], "watch", other)
    check(["wach"], "wach", clip)
    assert old.read_text() == "precious"
    assert not new.exists()


def test_unknown_model_is_one_line_within_seconds(clip: Path, tmp_path: Path) -> None:
    code = "import sys; from streamingvlm import cli; sys.exit(cli.main(sys.argv[1:]))"
    old = tmp_path / "old.vtt"
    old.write_text("precious")
    arguments = ["watch", str(clip), "--model", str(tmp_path / "nothing"), "-o", str(old)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    refused(done.returncode, done.stdout, done.stderr, "nothing")
    assert old.read_text() == "precious"


@pytest.mark.parametrize(
    "numbers",
    [
        {"fps": 0},
        {"fps": -1},
        {"fps": 61},
        {"fps": float("nan")},
        {"step": 0},
        {"step": float("inf")},
        {"step": 0.25, "fps": 2},
        {"start": -1},
        {"duration": 0},
        {"duration": float("nan")},
        {"seed": -1},
        {"temperature": -0.1},
        {"temperature": float("inf")},
    ],
)
def test_impossible_numbers(numbers: dict[str, float]) -> None:
    with pytest.raises(StreamingVLMError, match=f"^--{next(iter(numbers))} "):
        check_numbers(**numbers)  # type: ignore[arg-type]


def _hear() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(clip: Path, folder: Path) -> tuple[subprocess.Popen[str], list[Path]]:
    """A run in the middle of a clip, with outputs."""
    outputs = [folder / name for name in ("out.vtt", "out.srt", "out.jsonl")]
    process = subprocess.Popen(
        command("watch", clip, *(part for path in outputs for part in ("-o", path))),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "FAKE_SECONDS": "0.15"},
        # A job of a script's background is born deaf to Ctrl-C, and so are the tests and the children of such a job.
        preexec_fn=_hear,
    )
    assert process.stdout is not None
    for _ in range(4):
        process.stdout.readline()
    return process, outputs


def check_whole(outputs: list[Path], least: int) -> None:
    vtt, srt, lines = (path.read_text() for path in outputs)
    assert vtt.startswith("WEBVTT\n\n")
    assert vtt.endswith("\n\n")
    assert srt == "" or srt.endswith("\n\n")
    assert vtt.count("-->") == srt.count("-->") >= least
    assert len([json.loads(line) for line in lines.splitlines()]) >= 4


def test_killed_leaves_valid_files(clip: Path, tmp_path: Path) -> None:
    process, outputs = start(clip, tmp_path)
    process.kill()
    process.communicate()
    check_whole(outputs, least=1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_interrupted_ends_with_the_summary(clip: Path, tmp_path: Path, number: int, code: int) -> None:
    process, outputs = start(clip, tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == code
    assert "watched" in errors
    assert "Traceback" not in errors
    check_whole(outputs, least=2)


def test_a_reader_that_leaves_ends_it_quietly(clip: Path, tmp_path: Path) -> None:
    process, outputs = start(clip, tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait(10) == 0
    assert "Traceback" not in errors
    assert "Broken" not in errors
    check_whole(outputs, least=2)


def test_terminal_shows_a_live_view(clip: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command("watch", clip, "--duration", 4),
        stdout=slave,
        stderr=slave,
        env={**os.environ, "FAKE_SECONDS": "0.2", "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    assert process.wait(10) == 0
    text = shown.decode()
    for part in ("[   3.0s]", "step 4 sees 1", "p95", "rows: ", "MiB", "█", "clip.mp4", "watched  4 s"):
        assert part in text
    assert "Traceback" not in text


def test_no_arguments_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "Commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "found"), [("", 1), *(pytest.param(*one, marks=pytest.mark.slow) for one in (("2", 2), ("many", 1)))]
)
def test_a_small_model_runs_on_one_thread_unless_asked(asked: str, found: int) -> None:
    code = (
        "import torch; torch.set_num_threads(2); from streamingvlm.cli.loading import load_engine;"
        "load_engine(None); print(torch.get_num_threads())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": asked}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert int(done.stdout) == found


def test_several_streams_of_one_command(clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "{stream}.vtt"
    done = run("watch", clip, clip, "--instruct", "Be brief.", "--instruct", "Count.", "--duration", 3, "-o", target)
    assert done.returncode == 0, done.stderr
    names = [f"clip-{number}" for number in (1, 2, 3, 4)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.vtt" for name in names]
    for name in names:
        assert f"{name} [   0.0s] step " in done.stdout
        assert f"stream   {name}\nwatched  3 s" in done.stderr
    done = run("watch", clip, clip, "-o", tmp_path / "one.vtt")
    refused(done.returncode, done.stdout, done.stderr, "2 streams", "{stream}")


def test_a_source_may_name_a_variable(clip: Path) -> None:
    done = run("watch", "${FOLDER}/clip.mp4", "--duration", 1, FOLDER=str(clip.parent))
    assert done.returncode == 0, done.stderr
    done = run("watch", "${NOBODY_SETS_THIS}/clip.mp4")
    refused(done.returncode, done.stdout, done.stderr, "NOBODY_SETS_THIS")


def test_rules_and_live_sources(tmp_path: Path) -> None:
    """A test picture of FFmpeg that passes for a camera, two instructions on one decode, a rule on the words."""
    target = tmp_path / "{stream}.jsonl"
    done = run(
        *("watch", "lavfi:testsrc2=size=64x48:rate=10", "--kind", "arcade:pong", "--duration", 3, "--json"),
        *("--instruct", "Be brief.", "--instruct", "Count.", "-o", target),
        *("--rule", "steps: says: step [0-9]+; on_after=1"),
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    for name in ("lavfi-testsrc2-size-64x48-rate-10-1", "lavfi-testsrc2-size-64x48-rate-10-2"):
        own = [record for record in records if record["stream"] == name]
        types = [record["type"] for record in own]
        assert types[:3] == ["stream.opened", "rule.changed", "source.status"]
        assert types[-1] == "stream.closed"
        assert {"source.format", "commentary.done", "rule.alert"} <= set(types)
        assert [record["id"].split("-")[1] for record in own] == [str(number + 1) for number in range(len(own))]
        lines = (tmp_path / f"{name}.jsonl").read_text().splitlines()
        assert [json.loads(line)["id"] for line in lines] == [record["id"] for record in own]


@pytest.mark.parametrize(
    ("began", "elapsed", "left"), [(True, 45.0, 15.0), (True, 60.0, None), (True, 1e6, None), (False, 1e6, 60.0)]
)
def test_what_is_left_of_a_duration(began: bool, elapsed: float, left: float | None) -> None:
    """Of a camera: what has passed since its first frame counts, and what passed before that does not."""
    request = SourceRequest(2.0, 1.0, duration=60.0)
    (camera,) = request.open("lavfi:testsrc2", 1)
    kept: Any = SimpleNamespace(past=SimpleNamespace(began=began, elapsed=lambda: (elapsed, True)))
    reopen = request.reopener("lavfi:testsrc2", camera, kept)
    if left is None:
        with pytest.raises(EndedError, match="was watched for 60 s"):
            reopen(None)
        return
    again = reopen(None)
    assert isinstance(again, LiveSource)
    assert isinstance(camera, LiveSource)
    assert (again.duration, again.hub) == (left, camera.hub), "one decoder for all that share it"


@pytest.mark.slow
def test_a_duration_counts_from_the_first_run(tmp_path: Path) -> None:
    """A camera that is watched for 4 s in all: ended behind 2, a pause of 1, the same command, and once more."""
    camera = ["watch", "lavfi:testsrc2=size=64x48:rate=10", "--kind", "arcade:pong", "--duration", 4, "--json"]
    state = ["--state", tmp_path / "state", "--instruct", "Be brief.", "--instruct", "Count."]
    process = subprocess.Popen(command(*camera, *state), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines: list[str] = []
    while sum('"commentary.done", ' in line for line in lines) < 3:
        lines.append(process.stdout.readline())
        assert lines[-1]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    time.sleep(1)
    done = run(*camera, *state)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    for name in {record["stream"] for record in records}:
        steps = [one for one in records if one["type"] == "commentary.done" and one["stream"] == name]
        assert steps[0]["start"] >= 2
        assert steps[-1]["end"] == 4
    done = run(*camera, *state)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.count("was watched to its end by an earlier run") == 2


def test_a_path_that_names_nothing_known_is_one_line(clip: Path, tmp_path: Path) -> None:
    done = run("watch", clip, "-o", tmp_path / "{strem}.vtt")
    refused(done.returncode, done.stdout, done.stderr, "{strem}", "only {stream}")
    assert not list(tmp_path.iterdir())


def test_bad_options_of_live_streams_are_one_line(clip: Path) -> None:
    def check(words: list[str], *arguments: object) -> None:
        done = run("watch", *arguments)
        refused(done.returncode, done.stdout, done.stderr, *words)

    check(["transport=udp"], "rtsp://127.0.0.1/x", "--source-option", "udp")
    check(["takes no", "live"], clip, "--source-option", "transport=udp")
    check(["--webhook-secret"], clip, "--webhook", "https://example.org/x")
    check(["is live", "from now on"], "rtsp://127.0.0.1/x", "--start", 5)
    check(["two rules", "'a'"], clip, "--rule", "a: says: x", "--rule", "a: says: y")
    check(["knows only arcade:pong", "--kind arcade:pong"], "rtsp://127.0.0.1/x")
    check(["CAM_PASSWORD"], "rtsp://127.0.0.1/x", "--user", "u", "--password", "${CAM_PASSWORD}")
