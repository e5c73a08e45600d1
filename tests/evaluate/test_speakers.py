"""Commentary of a model behind an endpoint, and of a constant: an error is never words, nothing is asked twice."""

from __future__ import annotations

import json
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.errors import EndpointError, OptionError
from streamingvlm.engine import endpoint
from streamingvlm.evaluate import speakers
from streamingvlm.evaluate.commentary.inf_streams import InfStreams
from streamingvlm.evaluate.jobs import Job
from streamingvlm.evaluate.record import Record
from support import media
from support.benchmark_data import game, window, write_inf_streams
from support.chat_server import ChatServer, broken, images, refusal, texts, too_many
from support.generate_tools import (
    NAMES,
    SECONDS,
    START,
    WINDOWS,
    comment,
    predictions,
    rows,
    say,
    write_clip,
    write_games,
)

KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.001)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_games(tmp_path_factory.mktemp("games"))


def reply(request: Mapping[str, Any]) -> str:
    """Follows from all that was sent."""
    sent = json.dumps(request["messages"])
    return f"reply {sum(map(ord, sent)) % 100_000}"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(reply, key=KEY) as chat:
        yield chat


def remote(server: ChatServer, data: Path, out: Path, **more: Any) -> Job:
    asked = {"model": None, "policy": None, "endpoint": server.url, "remote_model": "remote", "key": KEY}
    return comment(data, out, **{**asked, **more})


def test_paper_is_one_call_a_window(server: ChatServer, data: Path, tmp_path: Path) -> None:
    outcome = say(remote(server, data, tmp_path, preset="paper"))
    assert (outcome.name, outcome.found, outcome.expected) == ("remote", 3, 3)
    assert len(server.requests) == len(NAMES) * len(WINDOWS)
    for request in server.requests:
        assert 1 <= len(images(request)) <= 60
        assert "You have said" not in " ".join(texts(request))
        assert any("Title of" in text for text in texts(request))
    # The second window begins in the last second of the first, and gets none of its words.
    found = InfStreams(data, start=str(START)).texts(tmp_path / "predictions.jsonl")
    assert len(found) == 6
    assert all(re.fullmatch(r"reply \d+", text) for text in found.values())


def test_a_window_of_the_paper_shows_sixty_stills_at_most(server: ChatServer, tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", 260)
    windows = [window("a.mp4", 2, 256), window("a.mp4", 256, 258)]
    write_inf_streams(tmp_path, [game("a.mp4", 258.5)], windows)
    say(remote(server, tmp_path, tmp_path / "out", preset="paper"))
    assert [len(images(request)) for request in server.requests] == [60, 1]
    assert "60 pictures of the video, from" in " ".join(texts(server.requests[0]))


def test_ours_is_a_call_a_step_with_its_own_words(server: ChatServer, data: Path, tmp_path: Path) -> None:
    assert say(remote(server, data, tmp_path)).found == 3
    assert len(server.requests) == len(NAMES) * (SECONDS - START)
    by_game = [one for one in server.requests if "final" in str(texts(one)) and len(images(one)) > 2]
    assert by_game
    assert all("You have said so far: reply" in " ".join(texts(one)) for one in by_game)


def test_an_endpoint_gets_the_frames_that_a_local_model_gets(server: ChatServer, tmp_path: Path) -> None:
    """Of most videos: frames of 29.97 a second stand a little before the moments at which they are sampled."""
    media.write_clip(tmp_path / "a.mp4", count=270, fps=30000 / 1001)
    write_inf_streams(tmp_path, [game("a.mp4", 8.5)], [window("a.mp4", 2, 8)])
    say(remote(server, tmp_path, tmp_path / "ours", preset="ours"))
    assert [len(images(request)) for request in server.requests] == [2, 4, 6, 8, 10, 12]
    server.requests.clear()
    say(remote(server, tmp_path, tmp_path / "paper", preset="paper"))
    assert [len(images(request)) for request in server.requests] == [2]


@pytest.mark.parametrize("preset", ["paper", "ours"])
def test_blind_shows_black(server: ChatServer, data: Path, preset: str, tmp_path: Path) -> None:
    say(remote(server, data, tmp_path, preset=preset, blind=True))
    assert len({image for request in server.requests for image in images(request)}) == 1


@pytest.mark.parametrize("preset", ["paper", "ours"])
def test_a_failure_that_passes_is_asked_again(server: ChatServer, data: Path, preset: str, tmp_path: Path) -> None:
    say(remote(server, data, tmp_path / "whole", preset=preset))
    server.faults += [too_many(), broken(500), broken(503)]
    assert say(remote(server, data, tmp_path / "again", preset=preset)).found == 3
    assert predictions(tmp_path / "again") == predictions(tmp_path / "whole")


@pytest.mark.parametrize("preset", ["paper", "ours"])
def test_an_error_is_never_words(server: ChatServer, data: Path, preset: str, tmp_path: Path) -> None:
    say(remote(server, data, tmp_path / "whole", preset=preset))
    server.faults += [refusal(401, f"Incorrect API key provided: {KEY}.", code="invalid_api_key")]
    job = remote(server, data, tmp_path / "run", preset=preset)
    with pytest.raises(EndpointError, match="the key is missing") as error:
        say(job)
    assert "\n" not in str(error.value)
    assert KEY not in str(error.value)
    assert len(rows(tmp_path / "run" / "predictions.jsonl")) == 2, "the other games are done"
    assert say(job).found == 3
    assert predictions(tmp_path / "run") == predictions(tmp_path / "whole")
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


def declining(marks: Callable[[Mapping[str, Any]], bool]) -> Callable[[Mapping[str, Any]], str]:
    """Replies nothing within its bound to some requests."""
    return lambda request: "" if marks(request) else reply(request)


@pytest.mark.parametrize("preset", ["paper", "ours"])
def test_what_is_declined_is_recorded_and_the_run_goes_on(
    data: Path, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each game one window or step is declined: that is no word and no silence, and it is not asked again."""
    declined: Counter[str] = Counter()

    def filtered(self: Any, messages: Any, params: Any, **more: Any) -> Any:
        said = " ".join(texts({"messages": messages}))
        title = next(name for name in ("final", "c") if f"Title of {name}" in said)
        marked = len(images({"messages": messages})) == 1 if preset == "paper" else "from 4 s to 5 s" in said
        answer = normal(self, messages, params, **more)
        if marked:
            declined[title] += 1
            return replace(answer, text="", refusal="I cannot help with that.")
        return answer

    normal = endpoint.Endpoint.chat
    monkeypatch.setattr(endpoint.Endpoint, "chat", filtered)
    with ChatServer(reply) as server:
        job = remote(server, data, tmp_path, preset=preset, key=None)
        outcome = say(job)
        asked, first = len(server.requests), predictions(tmp_path)
        assert (outcome.found, outcome.expected) == (0, 3), "it is done, and not whole"
        assert b"cannot help" not in first
        again = say(job)
        assert (again.found, len(server.requests)) == (0, asked)
        assert predictions(tmp_path) == first
    records = [Record.read(path) for path in (tmp_path / "streams").glob("*.jsonl")]
    assert all(one is not None and one.ended and "declines" in one.errors[0]["error"] for one in records)
    if preset == "ours":
        ends = [[one["end_time"] for one in line["items"]] for line in rows(tmp_path / "predictions.jsonl")]
        assert ends == [[3.0, 4.0, 6.0, 7.0, 8.0, 9.0]] * 3
    else:
        found = InfStreams(data, start=str(START)).texts(tmp_path / "predictions.jsonl")
        assert len(found) < 6, "a window that was declined is missing, not silent"


@pytest.mark.parametrize("preset", ["paper", "ours"])
@pytest.mark.parametrize("at", [1, 4, 6])
@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_run_asks_nothing_twice(
    data: Path, preset: str, at: int, torn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed right behind any line that was written: what is on the disk then is all that the next run has."""
    left, lock, count = tmp_path / "left", threading.Lock(), Counter[str]()
    normal = Record.put
    asked: list[int] = []

    def put(self: Record, row: Any) -> None:
        with lock:
            count["rows"] += 1
            if count["rows"] == at and not torn:
                normal(self, row)
            if count["rows"] == at:
                shutil.copytree(tmp_path / "run", left)
                asked.append(len(server.requests))
            if count["rows"] != at or torn:
                normal(self, row)

    with ChatServer(reply) as server:
        with monkeypatch.context() as patch:
            patch.setattr(Record, "put", put)
            patch.setattr(speakers.RemoteSpeaker, "comment", one_at_a_time(speakers.RemoteSpeaker.comment))
            say(remote(server, data, tmp_path / "run", preset=preset, key=None))
        whole = len(server.requests)
        for record in (left / "streams").glob("*.jsonl"):
            record.write_bytes(record.read_bytes() + b'{"start": 3')
        assert say(remote(server, data, left, preset=preset, key=None)).found == 3
        again = len(server.requests) - whole
    assert predictions(left) == predictions(tmp_path / "run")
    # A window whose reply was not written before the kill has to be asked again; a step is not.
    assert asked[0] + again == whole + (1 if torn and preset == "paper" else 0)


def one_at_a_time(comment: Callable[..., None]) -> Callable[..., None]:
    return lambda self, *arguments: comment(replace(self, workers=1), *arguments)


def test_a_constant_is_said_in_every_window(data: Path, tmp_path: Path) -> None:
    job = comment(data, tmp_path, model=None, policy=None, constant="And it goes on.")
    for _ in range(2):
        assert say(job).found == 3
        found = InfStreams(data, start=str(START)).texts(tmp_path / "predictions.jsonl")
        assert set(found.values()) == {"And it goes on."}
        assert len(found) == 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--remote-model", "m"], "--remote-model is of an --endpoint"),
        (["--endpoint", "http://x/v1"], "--endpoint needs --remote-model"),
        (["--constant", "x", "--policy", "streaming"], "--policy: only of a local model"),
        (["--constant", "x", "--keep-vision", "f", "--dtype", "float32"], "--dtype, --keep-vision: only of"),
        (["--constant", "x", "--blind"], "--blind has no part"),
        (["--constant", "x", "--model", "m"], "one of --model, --endpoint and --constant"),
        (["--ray", "2", "--part", "1/2"], "--part has no part"),
        (["--part", "3/2"], "a part is i/n"),
        (["--words", "both"], "--words is human or none"),
        (["--streams", "0"], "must be 1 or more"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(
    data: Path, arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from streamingvlm import cli

    base = ["eval", "generate", "inf-streams?start=2", "--data", str(data), "--out", str(tmp_path / "out")]
    assert cli.main([*base, *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_no_key_is_asked_for_where_none_is_needed(data: Path, tmp_path: Path) -> None:
    with ChatServer(reply) as server, pytest.raises(OptionError, match="has no user, password"):
        say(remote(server, data, tmp_path, endpoint="http://me:secret@localhost/v1"))


def test_an_interrupt_does_not_wait_for_calls_under_way(data: Path, tmp_path: Path) -> None:
    answer = threading.Event()

    def hang(request: Mapping[str, Any]) -> str:
        if not answer.is_set():
            if not asked:
                # To the main thread: another one may take a signal of the process.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            asked.append(request)
            answer.wait(20)
        return "late"

    asked: list[Mapping[str, Any]] = []
    with ChatServer(hang, key=KEY) as chat:
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            say(remote(chat, data, tmp_path))
        took = time.monotonic() - began
        answer.set()
    assert took < 10
