"""The arcade as a source and as a clip."""

from __future__ import annotations

from itertools import islice

import pytest

pytest.importorskip("ale_py")

from arcade_streams.score.score import score
from arcade_streams.worlds.game import Game
from arcade_streams.worlds.games import GAMES
from arcade_streams.worlds.games.pong import PONG
from arcade_streams.worlds.record import frames_and_truth, truth_record
from arcade_streams.worlds.source import ArcadeSource, parse_locator
from arcade_streams.worlds.stream import GameStream
from streamingvlm.core.errors import SourceError
from streamingvlm.core.events import Source


def test_locators() -> None:
    assert parse_locator("arcade:pong?seed=7") == (PONG, 7)
    assert parse_locator("arcade:pong") == (PONG, 0)
    for wrong in ("arcade:chess", "arcade:", "pong", "arcade:pong?seed=x", "arcade:pong?seed=-1", "arcade:pong?a=2"):
        with pytest.raises(SourceError) as caught:
            parse_locator(wrong)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="at least one frame"):
        ArcadeSource(PONG, 1, fps=0.5)


@pytest.mark.parametrize("game", GAMES.values(), ids=lambda game: game.name)
def test_it_shows_what_a_clip_shows(game: Game) -> None:
    source = ArcadeSource(game, 7, duration=8)
    frames, rows = frames_and_truth(GameStream(game, 7), 8)
    clip = list(frames)
    chunks = list(source)
    assert isinstance(source, Source)
    assert len(clip) == 240
    assert clip[0].shape == (420, 320, 3)
    assert [(c.start, c.end, c.times) for c in chunks] == [(float(i), i + 1.0, (i, i + 0.5)) for i in range(8)]
    for i, chunk in enumerate(chunks):
        assert (chunk.frames[0] == clip[30 * i]).all()
        assert (chunk.frames[1] == clip[30 * i + 15]).all()
    assert source.context == GameStream(game, 7).context.text
    assert [source.truth(i, i + 1) for i in range(8)] == [text for _, _, text in rows]


def test_start_step_and_rate() -> None:
    whole = list(islice(ArcadeSource(PONG, 3, fps=4), 6))
    later = list(ArcadeSource(PONG, 3, fps=4, step=2, start=2, duration=3))
    assert [(c.start, c.end, len(c.frames)) for c in later] == [(2.0, 4.0, 8), (4.0, 6.0, 4)]
    assert (later[0].frames[:4] == whole[2].frames).all()
    assert later[1].times == (4.0, 4.25, 4.5, 4.75)
    assert (next(iter(ArcadeSource(PONG, 3))).frames == whole[0].frames[::2]).all()


def test_truth_of_a_clip() -> None:
    frames, rows = frames_and_truth(GameStream(PONG, 4), 20)
    for _ in frames:
        pass
    record = truth_record(PONG, "clip.mp4", "context", rows)
    assert (record["video"], record["game"], record["title"]) == ("clip.mp4", "pong", "context")
    assert len(rows) == 20
    assert [row for row in record["content"] if not row[2]] == []
    assert score(record, record)["micro_f1_strict"] == 1.0
