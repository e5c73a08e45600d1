"""The plug-in for lmms-eval: what is registered, which frames a request shows, what is refused."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamingvlm.core.errors import ModelError, OptionError, SourceError, StreamingVLMError
from streamingvlm.evaluate import lmms
from streamingvlm.evaluate.lmms import Frames, FrameSampling, Request, read_messages
from support import lmms_stub, media


class Echo:
    """Answers with what it was asked, and keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[Frames, list[float], int]] = []

    def answer(
        self, frames: Frames, times: Sequence[float], prompt: str, *, choices: Sequence[str], max_new_tokens: int
    ) -> str:
        assert not choices
        self.shown.append((frames, list(times), max_new_tokens))
        return f"answer to {prompt}"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    lmms_stub.install(monkeypatch)
    chosen = lmms.StreamingVLM(answerer=Echo())
    chosen.task_dict = {"quiz": {"test": [{"question": f"q{number}"} for number in range(3)]}}
    return chosen


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.write_clip(tmp_path_factory.mktemp("lmms") / "clip.mp4", count=40, fps=5)


def turn(*parts: Any, role: str = "user") -> list[dict[str, Any]]:
    return [
        {"role": role, "content": [{"type": "text", "text": one} if isinstance(one, str) else one for one in parts]}
    ]


def test_without_lmms_eval_there_is_one_line_and_no_other_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmms_eval", None)
    with pytest.raises(ModelError, match="lmms-eval is not installed here"):
        lmms.StreamingVLM  # noqa: B018
    with pytest.raises(AttributeError):
        lmms.StreamingVLM2  # noqa: B018


def test_the_manifest_names_a_chat_class_that_lmms_eval_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    lmms_stub.install(monkeypatch)
    told = lmms.manifest()
    module, _, name = told.chat_class_path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert told.model_id == "streamingvlm"
    assert told.simple_class_path is None
    assert issubclass(found, lmms_stub.lmms)
    assert not found.is_simple
    assert not found.__abstractmethods__
    assert found is lmms.StreamingVLM  # made once


def test_replies_come_in_the_order_of_the_requests_and_are_cached(model: Any, clip: Path) -> None:
    def to_messages(document: dict[str, str]) -> list[dict[str, Any]]:
        return turn({"type": "video", "url": str(clip)}, document["question"])

    requests = [lmms_stub.request(to_messages, {"max_new_tokens": 7}, number) for number in (2, 0)]
    assert model.generate_until(requests) == ["answer to q2", "answer to q0"]
    assert [tokens for *_, tokens in model.answerer.shown] == [7, 7]
    assert model.cache_hook.added[1] == (
        "generate_until",
        ("context", {"max_new_tokens": 7}),
        "answer to q0",
    )


def test_rounds_go_on_until_the_task_ends_them(model: Any, clip: Path) -> None:
    asked: list[tuple[Any, ...]] = []

    def to_messages(_: Any, round_idx: int | None = None, previous_output: Any = None, **told: Any) -> Any:
        asked.append((round_idx, previous_output, told))
        message = turn({"type": "video", "url": str(clip)}, f"round {round_idx or 0}")
        return message if round_idx is None else (message, round_idx == 2, previous_output, f"info {round_idx}")

    assert model.generate_until_multi_round([lmms_stub.request(to_messages)]) == [
        ["answer to round 0", "answer to round 1"]
    ]
    assert asked[1] == (1, ["answer to round 0"], {"previous_round_info": None})
    assert asked[2] == (2, ["answer to round 0", "answer to round 1"], {"previous_round_info": "info 1"})


def test_a_task_without_further_rounds_is_an_error(model: Any, clip: Path) -> None:
    request = lmms_stub.request(lambda *_, **__: turn({"type": "video", "url": str(clip)}, "again"))
    with pytest.raises(ModelError, match="no question for round 1"):
        model.generate_until_multi_round([request])


@pytest.mark.parametrize(
    ("sampling", "stretch", "times"),
    [
        (FrameSampling(), (), [0, 1, 2, 3, 4, 5, 6, 7]),
        (FrameSampling(2.0), (1.0, 3.0), [1, 1.4, 2, 2.4]),
        (FrameSampling(1.0, 3), (), [0, 4, 7]),
        (FrameSampling(5.0, 4), (), [0, 2.6, 5.2, 7.8]),
        (FrameSampling(1.0, 1), (), [0]),
        (FrameSampling(1.0, 2), (5.0, 90.0), [5, 7]),
        (FrameSampling(0.25), (), [0, 4]),
    ],
)
def test_frames_are_even_over_the_clip_and_keep_their_times(
    clip: Path, sampling: FrameSampling, stretch: tuple[float, ...], times: list[float]
) -> None:
    frames, found = sampling.read(clip, *stretch)
    assert found == pytest.approx(times)
    assert [media.index_of(frame) for frame in frames] == [round(time * 5) for time in times]
    assert frames.shape == (len(times), 48, 64, 3)


@pytest.mark.parametrize(
    ("video", "times"),
    [
        ({"url": "CLIP", "start_time": 1.0, "end_time": 3.0}, [1, 2]),
        ({"url": {"path": "CLIP", "video_start": 6.0}}, [6, 7]),
        ({"url": {"type": "video", "url": "CLIP", "video_end": 2}}, [0, 1]),
    ],
)
def test_a_stretch_of_a_video_may_be_told_in_both_ways(clip: Path, video: Any, times: list[float]) -> None:
    told = json.loads(json.dumps(video).replace("CLIP", str(clip)))
    prompt, _, found = read_messages(turn("first", {"type": "video", **told}, "last"), FrameSampling())
    assert (prompt, found) == ("first\nlast", times)


def test_pictures_follow_each_other(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(2):
        Image.fromarray(media.flat(number, 8, 6)).save(tmp_path / f"{number}.png")
    shown = [
        {"type": "image", "url": Image.open(tmp_path / "0.png")},
        {"type": "image", "url": str(tmp_path / "1.png")},
    ]
    prompt, frames, times = read_messages(turn(*shown, "which?"), FrameSampling(2.0))
    assert (prompt, times) == ("which?", [0.0, 0.5])
    assert np.array_equal(frames, np.stack([media.flat(number, 8, 6) for number in range(2)]))


VIDEO = {"type": "video", "url": "none.mp4"}


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        (turn("only words"), "not 0 and 0"),
        (turn(VIDEO, VIDEO), "not 2 and 0"),
        (turn(VIDEO, "q") + turn("a", role="assistant"), "num_fewshot 0"),
        (turn({"type": "audio", "url": "a.wav"}), "no use for 'audio'"),
        (turn(VIDEO, "q"), "none.mp4"),
        (turn({"type": "video", "url": object()}), "not by object"),
        (turn({"type": "video", "url": {"frames": []}}), "not by NoneType"),
        (turn({"type": "video", "url": "none.mp4", "start_time": 3, "end_time": 3}), "not behind its start"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(messages: Any, error: str) -> None:
    with pytest.raises(StreamingVLMError, match=error):
        read_messages(messages, FrameSampling())


def test_pictures_of_different_sizes_are_refused() -> None:
    from PIL import Image

    shown = [{"type": "image", "url": Image.new("RGB", (8, size))} for size in (6, 8)]
    with pytest.raises(OptionError, match="different sizes"):
        read_messages(turn(*shown), FrameSampling())


def test_an_unreadable_video_is_no_empty_answer(model: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    request = lmms_stub.request(lambda _: turn({"type": "video", "url": str(tmp_path / "empty.mp4")}, "q"))
    with pytest.raises(SourceError, match=r"empty\.mp4"):
        model.generate_until([request])


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({}, 128),
        ({"max_new_tokens": 16, "temperature": 0, "do_sample": False, "top_p": 1.0, "num_beams": 1}, 16),
        ({"temperature": 0.0, "do_sample": True}, 128),
        ({"temperature": 0.7}, None),
        ({"do_sample": True}, None),
        ({"num_beams": 4}, None),
    ],
)
def test_only_greedy_answers(settings: dict[str, Any], tokens: int | None) -> None:
    request = Request.of(lmms_stub.request(lambda _: [], settings))
    if tokens is not None:
        assert request.check_settings() == tokens
        return
    with pytest.raises(OptionError, match="greedy"):
        request.check_settings()


@pytest.mark.parametrize(
    ("until", "reply"),
    [
        (None, "A.\n\nBecause"),
        ("\n\n", "A."),
        (["use", "."], "A"),
        ([], "A.\n\nBecause"),
        (["absent", ""], "A.\n\nBecause"),
    ],
)
def test_a_reply_ends_where_the_task_says(until: Any, reply: str) -> None:
    assert Request.of(lmms_stub.request(lambda _: [], {"until": until})).cut("A.\n\nBecause") == reply


@pytest.mark.parametrize("values", [(), ("context", {}, print, 0, "quiz"), ("context", {}, print, 0, "quiz", "test")])
def test_requests_of_another_form_are_refused(values: tuple[Any, ...]) -> None:
    with pytest.raises(ModelError, match="six values"):
        Request.of(lmms_stub.Instance(values))


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ("", "pretrained=PATH"),
        ("pretrained=x,frames=8", "unknown --model_args frames"),
        ("pretrained=x,fps=0", "fps is above 0"),
        ("pretrained=x,max_frames=0", "max_frames at least 1"),
        ("pretrained=x,batch_size=8", "--batch_size 1"),
    ],
)
def test_arguments_are_checked_before_a_model_is_opened(model: Any, told: str, error: str) -> None:
    with pytest.raises(OptionError, match=error):
        type(model).create_from_arg_string(told)


def test_the_checkpoint_and_device_are_handed_on(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmms, "OPENER", "support.lmms_stub:open_answerer")
    opened = type(model).create_from_arg_string("pretrained=x,fps=2,max_frames=8", {"device": "cpu", "batch_size": 1})
    assert opened.answerer == ("x", "cpu")
    assert opened.sampling == FrameSampling(2.0, 8)


def test_likelihoods_are_refused(model: Any) -> None:
    with pytest.raises(ModelError, match="2 requests ask for likelihoods"):
        model.loglikelihood([None, None])
