"""The scan of a data set: how often an epoch sees a file, headers read once and remembered, one process for all."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from socket import socket
from typing import Any

import numpy as np
import pytest
from torch.distributed import DistNetworkError, HashStore

import streamingvlm.data.videos as room
from streamingvlm import cli
from streamingvlm.core.errors import OptionError, SourceError
from streamingvlm.data.report import Reason
from streamingvlm.data.videos import CACHE_HEAD, HeaderCache, Videos
from streamingvlm.models.load import load_frontend
from streamingvlm.train import data as stage_data
from streamingvlm.train import processes
from streamingvlm.train.chunks import ChunkPlan
from streamingvlm.train.collate import ChunkDataset, Collator
from streamingvlm.train.config import DataFile, TrainConfig, read_stage
from streamingvlm.train.onpolicy import segments
from streamingvlm.train.rollouts import OnPolicyDataset, RolloutRecord
from support.train_data import clip, encoding, unknown_codec, words, write_lines
from support.training import make_stage

PLAN = ChunkPlan(window=4.0, overlap=0.0)
OpenTurn = list[str]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films of 40 s and 20 s, a file of words for each, and one for both."""
    root = tmp_path_factory.mktemp("films")
    for name, seconds in (("long", 40.0), ("short", 20.0)):
        clip(root / f"{name}.mp4", seconds)
        write_lines(root / f"{name}.jsonl", [stream(f"{name}.mp4", seconds)])
    return root


def stream(video: str, seconds: float = 8.0) -> dict[str, Any]:
    return {"video": video, "title": "A game", "content": words(0.0, seconds)}


def dataset(root: Path, *files: Path | DataFile, **more: Any) -> ChunkDataset:
    return ChunkDataset(encoding(), PLAN, files, root, **more)


def seen(data: ChunkDataset) -> list[tuple[str, float]]:
    """Which chunks an epoch has, by film and time."""
    return [(one.clip.path.stem, one.start) for one in data]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> OpenTurn:
    """The names of the videos that are opened for their headers, as they are."""
    names: OpenTurn = []
    real = room.open_container

    def noted(path: Path, *rest: Any) -> Any:
        names.append(path.name)
        return real(path, *rest)

    monkeypatch.setattr(room, "open_container", noted)
    return names


# How often an epoch sees a file.


def test_a_file_is_seen_as_often_as_it_says(films: Path) -> None:
    once = seen(dataset(films, films / "long.jsonl", films / "short.jsonl"))
    assert len(once) == 10 + 5
    data = dataset(films, DataFile(str(films / "long.jsonl"), repeat=2), films / "short.jsonl")
    assert Counter(seen(data)) == Counter({chunk: 2 if chunk[0] == "long" else 1 for chunk in once})
    assert (data.report.chunks, data.report.different, data.report.seconds) == (25, 15, 100.0)
    assert data.report.skipped == {}
    told = data.report.to_json()
    assert json.loads(json.dumps(told)) == told
    assert (told["chunks"], told["different_chunks"]) == (25, 15)
    assert told["files"][str(films / "long.jsonl")] == {"chunks": 10, "epoch": 20, "repeat": 2.0, "listed": 1}
    assert "long.jsonl: 10 chunks; 20 in an epoch (repeat 2)" in str(data.report)
    assert "25 chunks in an epoch (15 different ones)" in str(data.report)


@pytest.mark.parametrize("how", ["same", "dotted", "link", "folder"])
def test_a_file_that_is_listed_twice_is_seen_twice(films: Path, tmp_path: Path, how: str) -> None:
    shutil.copy(films / "short.jsonl", tmp_path / "short.jsonl")
    first = tmp_path / "short.jsonl"
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "short.jsonl"
    link.symlink_to(first)
    again = {"same": first, "dotted": tmp_path / "links" / ".." / "short.jsonl", "link": link, "folder": tmp_path}[how]
    data = dataset(films, first, again)
    assert Counter(seen(data)) == Counter(dict.fromkeys(seen(dataset(films, first)), 2))
    assert data.report.skipped == {}
    assert data.report.lines == 1, "it is read once"
    if how == "same":
        assert "short.jsonl: 5 chunks, listed 2 times; 10 in an epoch (repeat 2)" in str(data.report)


def test_a_copy_of_a_file_is_still_a_duplicate(films: Path, tmp_path: Path) -> None:
    shutil.copy(films / "short.jsonl", tmp_path / "copy.jsonl")
    data = dataset(films, films / "short.jsonl", tmp_path / "copy.jsonl")
    assert data.report.skipped == {Reason.DUPLICATE: 1}
    assert "copy.jsonl: 0 chunks; 0 in an epoch" in str(data.report)


def test_a_fraction_is_a_sample_that_the_seed_chooses(films: Path) -> None:
    file = films / "long.jsonl"

    def sample(repeat: float, seed: int = 0, most: int = 0) -> Counter[tuple[str, float]]:
        return Counter(seen(dataset(films, DataFile(str(file), repeat, most), seed=seed)))

    half = sample(0.5)
    assert (len(half), set(half.values())) == (5, {1})
    assert half == sample(0.5)
    assert len({tuple(sorted(sample(0.5, seed))) for seed in range(6)}) > 1
    assert sorted(sample(2.5).values()) == [2] * 5 + [3] * 5
    assert {chunk for chunk, times in sample(2.5).items() if times == 3} == set(half)
    assert set(sample(0.3)) < set(half)
    few = sample(1.0, most=4)
    assert (len(few), set(few.values())) == (4, {1})
    assert sample(2.0, most=4) == Counter(dict.fromkeys(few, 2))
    assert sum(sample(1.0, most=99).values()) == 10


def test_a_repeat_is_the_same_example(films: Path) -> None:
    data = dataset(films, DataFile(str(films / "short.jsonl"), repeat=2))
    one, two = (Collator()([data[i]]) for i in (0, 1))
    assert data[0].start == data[1].start
    assert all(bool((one[name] == two[name]).all()) for name in one)
    with pytest.raises(IndexError):
        data[len(data)]


def test_what_an_epoch_does_not_see_is_not_watched_either(films: Path) -> None:
    file = films / "long.jsonl"
    data = dataset(films, DataFile(str(file), repeat=2, most=3))
    assert len(data.places) == 3
    assert sum(round(segment.example.seconds) for segment in segments(data, 4)) == 12
    assert sum(round(segment.example.seconds) for segment in segments(dataset(films, file, file), 4)) == 40
    said = [RolloutRecord("long.jsonl, byte 0", "long.mp4", 0.0, 1.0, ("",) * 40, 0, {"model": "x"})]
    assert len(OnPolicyDataset(data, said)) == 6


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("data = ['a', 'a']", ("a", "a")),
        ("[[data]]\nfile = 'a'\nrepeat = 2\n[[data]]\nfile = 'b'", (DataFile("a", 2.0), "b")),
        ("[[data]]\nfile = 'a'\nweight = 0.5\nmost = 7", (DataFile("a", 0.5, 7),)),
        ("data = ['a', {file = 'b', most = 3}]", ("a", DataFile("b", 1.0, 3))),
        ("data = {file = 'a', repeat = 3}", (DataFile("a", 3.0),)),
        ("data = ''", ()),
    ],
)
def test_tables_and_names_may_be_mixed(tmp_path: Path, text: str, data: tuple[Any, ...]) -> None:
    path = tmp_path / "stage.toml"
    path.write_text(text)
    stage = read_stage(path)
    assert stage.data == data
    again = TrainConfig.from_dict(json.loads(json.dumps(stage.to_dict())), "stage.json")
    assert again == stage
    assert again.differs(stage.to_dict()) == []
    over = read_stage(path, ['eval_data=[{file="v", repeat=2}]'])
    assert over.eval_data == (DataFile("v", 2.0),)
    assert stage.differs({**stage.to_dict(), "data": [{"file": "z", "repeat": 4.0, "most": 0}]}) == ["data"]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("{repeat = 2}", "must name its file"), ("{file = ''}", "must name its file"),
        ("{file = 3}", "must name its file"),
        ("{file = 'a', repeat = 0}", "repeat of a must be above 0"), ("{file = 'a', repeat = -1.5}", "above 0"),
        ("{file = 'a', repeat = nan}", "above 0"), ("{file = 'a', repeat = inf}", "at most 1000"),
        ("{file = 'a', repeat = '2'}", "repeat of a must be a number"),
        ("{file = 'a', repeat = true}", "must be a number"),
        ("{file = 'a', weight = 0}", "above 0"), ("{file = 'a', weight = 1, repeat = 1}", "name one of them"),
        ("{file = 'a', most = -1}", "most of a must be 0 (all) or more"),
        ("{file = 'a', most = 1.5}", "a whole number"),
        ("{file = 'a', times = 2}", "unknown key 'times'"), ("3", "a list of texts or of tables"),
        ("['a']", "a list of texts"),
        ("''", "a list of texts"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_meant_are_one_line(tmp_path: Path, table: str, says: str) -> None:
    path = tmp_path / "stage.toml"
    path.write_text(f"data = [{table}]")
    with pytest.raises(OptionError) as error:
        read_stage(path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_key_behind_a_table_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "stage.toml"
    path.write_text("[[data]]\nfile = 'a'\nepochs = 2")
    with pytest.raises(OptionError, match=r"unknown key 'epochs'; keys of the stage stand before its first table"):
        read_stage(path)


def test_stage_1_has_the_authors_files() -> None:
    stage = read_stage(Path(__file__).parents[2] / "configs" / "train" / "stage-1.toml")
    folder = "data/Inf-Stream-Train"
    assert stage.data == (
        DataFile(f"{folder}/train_s12w24_with_seeks.jsonl", repeat=2.0),
        f"{folder}/train_livecc_with_seeks.jsonl",
    )


# Headers are read once.


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Forty clips of 8 s, with a line each."""
    clip(tmp_path / "0.mp4", 8.0)
    for number in range(1, 40):
        shutil.copy(tmp_path / "0.mp4", tmp_path / f"{number}.mp4")
    write_lines(tmp_path / "all.jsonl", [stream(f"{number}.mp4") for number in range(40)])
    return tmp_path


def test_lines_stay_in_order_whoever_is_ready_first(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = seen(dataset(many, many / "all.jsonl"))
    read, dice = room._read, random.Random(0)
    monkeypatch.setattr(room, "_read", lambda path: (time.sleep(dice.random() / 100), read(path))[1])
    assert seen(dataset(many, many / "all.jsonl")) == order
    assert [name for name, start in order if start == 0] == [str(number) for number in range(40)]


def test_a_video_is_opened_once_however_many_lines_tell_of_it(films: Path, tmp_path: Path, opened: OpenTurn) -> None:
    lines = [{**stream("long.mp4"), "content": words(0.0, 8.0 + number)} for number in range(50)]
    write_lines(tmp_path / "a.jsonl", lines)
    assert dataset(films, tmp_path / "a.jsonl").report.lines == 50
    assert opened == ["long.mp4"]


def test_a_cache_is_only_added_to_and_nothing_is_opened_twice(many: Path, opened: OpenTurn) -> None:
    cache = many / "cache"
    few = many / "few.jsonl"
    few.write_bytes(b"".join((many / "all.jsonl").read_bytes().splitlines(keepends=True)[:15]))
    dataset(many, few, cache=cache)
    before = cache.read_bytes()
    assert before.count(b"\n") == 1 + 15
    dataset(many, many / "all.jsonl", cache=cache)
    after = cache.read_bytes()
    assert after.startswith(before)
    assert after.count(b"\n") == 1 + 40
    assert sorted(opened) == sorted(f"{number}.mp4" for number in range(40))
    dataset(many, many / "all.jsonl", cache=cache)
    assert cache.read_bytes() == after
    assert len(opened) == 40


SCAN = """
import sys, time
from pathlib import Path
import streamingvlm.data.videos as room
read = room._read
room._read = lambda path: (time.sleep(0.05), read(path))[1]
root = Path(sys.argv[1])
videos = room.Videos(root, root / "cache")
for number in range(40):
    videos.header(root / f"{number}.mp4")
"""


def test_a_scan_that_was_killed_goes_on_where_it_stopped(many: Path, opened: OpenTurn) -> None:
    cache = many / "cache"
    scan = subprocess.Popen([sys.executable, "-c", SCAN, str(many)])
    while not (cache.exists() and cache.read_bytes().count(b"\n") > 8):
        assert scan.poll() is None
        time.sleep(0.01)
    scan.send_signal(signal.SIGKILL)
    scan.wait()
    done = cache.read_bytes().count(b"\n") - 1
    assert 8 <= done < 40
    dataset(many, many / "all.jsonl", cache=cache)
    assert len(opened) == 40 - done


def half_written(cache: bytes) -> bytes:
    return cache[:-9]


def garbage_behind(cache: bytes) -> bytes:
    return cache[: cache.rstrip(b"\n").rindex(b"\n") + 1] + b"\0" * 100


def other_json_behind(cache: bytes) -> bytes:
    return (
        cache[: cache.rstrip(b"\n").rindex(b"\n") + 1] + b'["x", 1]\n{"a": 2}\n[[]]\n7\n["39.mp4", "a", "b", 1, 1, 1]\n'
    )


def no_end_of_line(cache: bytes) -> bytes:
    return cache[:-1]


@pytest.mark.parametrize("spoil", [half_written, garbage_behind, other_json_behind, no_end_of_line])
def test_a_last_line_that_is_broken_costs_one_header(
    many: Path, opened: OpenTurn, spoil: Callable[[bytes], bytes]
) -> None:
    cache = many / "cache"
    order = seen(dataset(many, many / "all.jsonl", cache=cache))
    cache.write_bytes(spoil(cache.read_bytes()))
    opened.clear()
    assert seen(dataset(many, many / "all.jsonl", cache=cache)) == order
    assert len(opened) == (0 if spoil is no_end_of_line else 1)
    opened.clear()
    dataset(many, many / "all.jsonl", cache=cache)
    assert opened == []


@pytest.mark.parametrize("head", ["", CACHE_HEAD[:5], CACHE_HEAD[:-1], CACHE_HEAD])
def test_a_head_that_is_half_written_is_written_again(many: Path, opened: OpenTurn, head: str) -> None:
    cache = many / "cache"
    cache.write_text(head)
    for _ in range(2):
        dataset(many, many / "all.jsonl", cache=cache)
    assert len(opened) == 40
    assert cache.read_text().startswith(CACHE_HEAD)


@pytest.mark.parametrize("text", ["[1]", "{}\n", "a file of mine\nwith lines\n", CACHE_HEAD[:5] + "\nmore"])
def test_a_file_that_is_no_cache_is_left_alone(many: Path, text: str) -> None:
    cache = many / "cache"
    cache.write_text(text)
    with pytest.raises(SourceError, match="is not a cache of video headers; remove it"):
        Videos(many, cache)
    assert cache.read_text() == text


def test_what_has_changed_is_read_again(many: Path, opened: OpenTurn) -> None:
    cache = many / "cache"
    unknown_codec(many / "5.mp4")
    dataset(many, many / "all.jsonl", cache=cache)
    opened.clear()
    clip(many / "3.mp4", 16.0)
    stat = (many / "4.mp4").stat()
    os.utime(many / "4.mp4", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    data = dataset(many, many / "all.jsonl", cache=cache)
    # What could not be read then cannot be read now: it is the same file.
    assert sorted(opened) == ["3.mp4", "4.mp4"]
    assert data.report.skipped == {Reason.UNREADABLE: 1, Reason.FEW_WORDS: 2}
    assert "8-12 s of 3.mp4" in data.report.named[Reason.FEW_WORDS][0]
    shutil.copy(many / "0.mp4", many / "5.mp4")
    assert dataset(many, many / "all.jsonl", cache=cache).report.skipped == {Reason.FEW_WORDS: 2}


def test_a_disk_that_failed_once_is_asked_again(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = many / "cache"
    real = room.open_container

    def failing(path: Path, *rest: Any) -> Any:
        if path.name == "7.mp4":
            raise SourceError("no") from OSError(5, "Input/output error")
        return real(path, *rest)

    monkeypatch.setattr(room, "open_container", failing)
    assert dataset(many, many / "all.jsonl", cache=cache).report.skipped == {Reason.UNREADABLE: 1}
    monkeypatch.undo()
    assert not dataset(many, many / "all.jsonl", cache=cache).report.skipped


def test_a_cache_moves_with_its_videos(many: Path, tmp_path_factory: pytest.TempPathFactory, opened: OpenTurn) -> None:
    dataset(many, many / "all.jsonl", cache=many / "cache")
    other = tmp_path_factory.mktemp("other") / "data"
    shutil.copytree(many, other, copy_function=shutil.copy2)
    opened.clear()
    dataset(other, other / "all.jsonl", cache=other / "cache")
    assert opened == []


def test_headers_go_where_they_can_be_written(many: Path, opened: OpenTurn, caplog: pytest.LogCaptureFixture) -> None:
    first, second = many / "first", many / "second"
    first.mkdir()  # a folder: no file can be written there
    for _ in range(2):
        dataset(many, many / "all.jsonl", cache=[first, second])
    assert len(opened) == 40
    assert f"headers of videos are not remembered in {first}" in caplog.text
    assert second.read_text().count("\n") == 41
    # Nowhere at all: it is said, and the data is read all the same.
    second.unlink()
    second.mkdir()
    assert len(dataset(many, many / "all.jsonl", cache=[first, second])) == 80


def test_a_whole_cache_is_used_where_nothing_can_be_written(
    many: Path, opened: OpenTurn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dataset(many, many / "all.jsonl", cache=many / "cache")
    opened.clear()
    monkeypatch.setattr(HeaderCache, "_open", lambda _: pytest.fail("nothing is new"))
    dataset(many, many / "all.jsonl", cache=many / "cache")
    assert opened == []
    assert caplog.text == ""


def test_a_dry_run_pays_for_the_run(tmp_path: Path, opened: OpenTurn) -> None:
    file = make_stage(tmp_path)
    for _ in range(2):
        assert cli.main(["train", str(file), "--dry-run", "--json"]) == 0
    assert opened == ["clip.mp4"]
    assert not (tmp_path / "out").exists()
    stage = read_stage(file)
    chunks = stage_data.training_chunks(stage, load_frontend(stage.model))
    held = stage_data.held_out_chunks(stage, load_frontend(stage.model))
    assert opened == ["clip.mp4"]
    assert held is not None
    assert (len(chunks), len(held)) == (12, 6)


def test_a_folder_of_annotations_may_be_the_video_root(tmp_path: Path) -> None:
    file = make_stage(tmp_path)
    for name in ("held", "stage"):
        (tmp_path / f"{name}.jsonl").unlink(missing_ok=True)
    stage = read_stage(file, [f"data={tmp_path}", "eval_data="])
    for _ in range(2):
        assert stage_data.training_chunks(stage, load_frontend(stage.model)).report.lines == 1


def test_a_long_scan_says_how_far_it_is(
    many: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("streamingvlm.data.reader.TELL_EVERY", 0.0)
    dataset(many, many / "all.jsonl")
    assert "reading annotations: 50%, 2" in capsys.readouterr().err
    monkeypatch.setattr("streamingvlm.data.reader.TELL_EVERY", 30.0)
    dataset(many, many / "all.jsonl")
    assert capsys.readouterr().err == ""


def test_annotations_that_cannot_be_read_are_one_line(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(films, films / "short.jsonl")

    def failing(*_: Any, **__: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(SourceError, match=r"cannot read .*short\.jsonl \(Input/output error\)"):
        data[0]
    with pytest.raises(SourceError, match=r"cannot read .*short\.jsonl"):
        dataset(films, films / "short.jsonl")


# Several processes.

PROCESS = """
import json, os, sys
from pathlib import Path
import streamingvlm.data.videos as room
from streamingvlm.models.load import load_frontend
from streamingvlm.train import data
from streamingvlm.train.config import read_stage
opened = []
real = room.open_container
room.open_container = lambda path, *rest: (opened.append(path.name), real(path, *rest))[1]
stage = read_stage(Path(sys.argv[1]), sys.argv[2:])
front = load_frontend(stage.model)
chunks, held = data.training_chunks(stage, front), data.held_out_chunks(stage, front)
print(json.dumps([len(opened), [chunks[i].start for i in range(len(chunks))], len(held), str(chunks.report)]))
"""


@pytest.mark.slow
def test_one_process_reads_for_all(tmp_path: Path) -> None:
    file = make_stage(tmp_path)
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "WORLD_SIZE": "2", "MASTER_PORT": port}
    table = f'data=[{{file="{tmp_path / "train.jsonl"}", repeat=1.5}}]'
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(file), table],
            stdout=subprocess.PIPE,
            env={**env, "RANK": str(rank), "MASTER_ADDR": "127.0.0.1"},
        )
        for rank in range(2)
    ]
    first, second = (json.loads(one.communicate(timeout=240)[0]) for one in running)
    assert first[0] == 1
    assert len(first[1]) == 18
    assert second == [0, *first[1:]]


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], list[Any]]:
    """Three "processes" that meet in one store; what each gets, an error as it is."""
    store = HashStore()
    rank = threading.local()
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(processes, "_store", lambda: (store, rank.number, 3))
    monkeypatch.setattr(processes, "EVERY", 0.01)

    def call(number: int, make: Callable[[], Any]) -> Any:
        rank.number = number
        try:
            return processes.from_first("it", make if number == 0 else lambda: pytest.fail("the first one does that"))
        except BaseException as error:
            return error

    def run(make: Callable[[], Any]) -> list[Any]:
        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(call, range(3), [make] * 3))

    return run


def test_what_the_first_process_finds_all_have(together: Callable[[Callable[[], Any]], list[Any]]) -> None:
    found = np.random.default_rng(0).bytes(3 << 20)  # more than one part of the store
    assert together(lambda: (time.sleep(0.1), {"found": found})[1]) == [{"found": found}] * 3


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (SourceError("a.jsonl: no annotations there"), "a.jsonl: no annotations there"),
        (OptionError("half a surrogate \ud800"), "half a surrogate ?"),
        (IndexError("a bug"), "the first process has stopped"),
        (KeyboardInterrupt(), "the first process has stopped"),
    ],
)
def test_what_stops_the_first_process_stops_all(
    together: Callable[[Callable[[], Any]], list[Any]], error: BaseException, says: str
) -> None:
    def make() -> Any:
        raise error

    first, *others = together(make)
    assert first is error
    assert all(type(other) is SourceError and str(other) == says for other in others)


def test_a_store_that_has_gone_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def check(self, _: Any) -> bool:
            raise DistNetworkError("failed to recv, got 0 bytes\nmore")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(processes, "_store", lambda: (Gone(), 1, 2))
    with pytest.raises(SourceError, match=r"^the first training process has gone \(failed to recv, got 0 bytes\)$"):
        processes.from_first("it", list)


def test_alone_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_store", lambda: pytest.fail("there is nobody to meet"))
    for size in (None, "1"):
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        if size:
            monkeypatch.setenv("WORLD_SIZE", size)
        assert processes.from_first("it", lambda: 7) == 7


def test_numbers_are_plain(films: Path) -> None:
    data = dataset(films, films / "short.jsonl")
    assert data.numbers.dtype == np.int64
    assert data.place(0) == data.places[0]
