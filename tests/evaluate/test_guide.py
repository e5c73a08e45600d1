"""Every command of the guide on evaluation, on tiny data in the published forms, with a real checkpoint and a judge."""

from __future__ import annotations

import json
import random
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from streamingvlm import cli
from support import benchmark_data, judges, question_data, tiny
from support.chat_server import ChatServer
from support.judges import Request

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "evaluate.md"
COMMANDS = [
    line
    for block in re.findall(r"^```\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    for line in block.replace("\\\n", " ").splitlines()
    if re.match(r"streamingvlm eval (check|generate|judge|score|report)\b", line)
]
#: Seconds at which Inf-Streams-Eval begins, and of a window.
BEGIN, WINDOW = 1000, 100


def content(video: str, begin: float, end: float) -> list[list[Any]]:
    """Words of a game's own, 2.5 a second; one in eight is a number."""
    draw = random.Random(video)
    timed = benchmark_data.timed(begin, end)
    return [
        [a, b, str(draw.randint(1, 99)) if i % 8 == 5 else f"{video}{draw.randint(0, 999)}"]
        for i, (a, b, _) in enumerate(timed)
    ]


def write_games(folder: Path) -> Path:
    games = [
        {"video": f"{name}.mp4", "title": name, "content": content(name, 900, BEGIN + WINDOW)}
        for name in ("red", "blue")
    ]
    return benchmark_data.write_inf_streams(
        folder, games, clips={f"{name}.mp4": BEGIN + WINDOW + 2 for name in ("red", "blue")}
    )


def write_events(folder: Path) -> Path:
    events = []
    for name in ("golf", "darts"):
        words = json.dumps(content(name, 2, 6.5))
        events.append({**benchmark_data.event(0, 2.0, 6.5, name), "event_asr": words, "event_asr_text": ""})
    return benchmark_data.write_livesports(folder, events, clips={f"{name}.mp4": 8 for name in ("golf", "darts")})


def write_questions(folder: Path) -> Path:
    entries = [
        question_data.ovo_choice(1, "EPM", gt=1, realtime=3, video="a/one.mp4"),
        question_data.ovo_choice(2, "OCR", gt=0, realtime=2.2, video="a/one.mp4"),
        question_data.ovo_choice(3, "HLD", gt=2, realtime=4, video="b/two.mp4"),
    ]
    question_data.write_ovo(folder, entries, videos={"a/one.mp4": 5, "b/two.mp4": 5})
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("guide")
    write_games(root / "inf-streams")
    write_events(root / "livesports")
    write_questions(root / "ovo")
    (root / "gpt4o.jsonl").write_text(
        "".join(
            json.dumps({"video_id": name, "event_id": 0, "begin": 2.0, "end": 6.5, "pred": f"{name} wins"}) + "\n"
            for name in ("golf", "darts")
        )
    )
    tiny.write_checkpoint("qwen2_5_vl", root / "model")
    return root


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    def reply(request: Request) -> str:
        return judges.fair(request) if request["model"] == "judge-1" else "a steady game so far"

    with ChatServer(reply) as found:
        yield found


def filled(line: str, folder: Path, server: ChatServer) -> list[str]:
    """A command of the guide with this test's data in the place of its capitals."""
    _, *arguments = shlex.split(line)
    task = arguments[2].partition("?")[0]
    data = folder / (task if task in ("livesports", "ovo") else "inf-streams")
    videos = data / "videos" if (data / "videos").is_dir() else data
    values: Mapping[str, str] = {
        "DATA": str(data),
        "VIDEOS": str(videos),
        "MODEL": str(folder / "model"),
        "URL": server.url,
        "NAME": "judge-1",
    }
    return [values.get(argument, argument) for argument in arguments]


@pytest.mark.slow
def test_every_command_runs_to_checked_values(
    folder: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    printed = {}
    for line in COMMANDS:
        code = cli.main(filled(line, folder, server))
        out = capsys.readouterr()
        assert code == 0, f"{line}\n{out.out}{out.err}"
        printed[line] = out.out
    assert len(COMMANDS) >= 14
    # Two contestants that know nothing of the game: neither is nearer to the human words.
    judged = next(text for line, text in printed.items() if "--out votes.jsonl" in line and "dry-run" not in line)
    assert "calibration: passed" in judged
    assert "50.00" in judged
    asked = next(text for line, text in printed.items() if "dry-run" in line)
    assert "votes: 4 calls" in asked, "two events in both orders"
    scores = json.loads((folder / "ovo.json").read_text())
    assert [one["found"] for one in scores["scores"]][:2] == [3, 3]
    replies = [json.loads(line) for line in (folder / "runs/ovo-yes/predictions.jsonl").read_text().splitlines()]
    assert [reply["reply"] for reply in replies] == ["Yes"] * 3
    for run in ("a", "b"):
        lines = [json.loads(line) for line in (folder / f"runs/{run}/predictions.jsonl").read_text().splitlines()]
        assert [line["video"] for line in lines] == ["red.mp4", "blue.mp4"]
        assert all(len(line["items"]) == WINDOW for line in lines)
        assert all((line["chunk_start"], line["chunk_end"]) == (BEGIN, BEGIN + WINDOW) for line in lines)
    assert len((folder / "runs/gpt/predictions.jsonl").read_text().splitlines()) == 2
    assert (folder / "report/report.html").is_file()
    secrets = [path for path in folder.rglob("*.json*") if "sk-secret" in path.read_text()]
    assert not secrets
