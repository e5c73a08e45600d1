"""A batch holds what a running session would: ids, positions, patches; and its loss is on what is said."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Qwen2_5_VLForConditionalGeneration

from arcade_streams.cli.clips import write_record
from arcade_streams.recipe.stories import words as arcade_words
from arcade_streams.worlds.games import PONG
from streamingvlm.core.errors import OptionError, SourceError
from streamingvlm.core.policy import CachePolicy, KeepAll, StreamingWindow
from streamingvlm.core.sampling_params import Sampling
from streamingvlm.core.spans import Kind, Role
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.request import Trace
from streamingvlm.engine.session import Session
from streamingvlm.models.hub import BUNDLED
from streamingvlm.models.load import load_model
from streamingvlm.models.patches import Patcher
from streamingvlm.models.qwen_vl import QwenVL
from streamingvlm.sources.file import FileSource
from streamingvlm.train.chunks import ChunkPlan
from streamingvlm.train.collate import IGNORED, ChunkDataset, Collator, unpack
from streamingvlm.train.examples import Encoding, TrainingExample
from streamingvlm.train.trainer import weighted_sums
from support import media, tiny
from support.train_data import clip, conversation, encoding, unknown_codec, words, write_lines

WINDOW, SINK, TEXT = 4, 30, 20
TITLE, INSTRUCTION = "A game", "Comment."
PLAN = ChunkPlan(window=WINDOW, overlap=2, min_words=0, sink=SINK, text=TEXT)
FRAME = 84, 56


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of 12 s and its words; seconds 2 and 9 are silent."""
    root = tmp_path_factory.mktemp("collate")
    clip(root / "film.mp4", 12.0, width=FRAME[0], height=FRAME[1])
    said = [word for word in words(0.0, 12.0, 0.5) if not (2 < word[1] <= 3 or 9 < word[1] <= 10)]
    write_lines(root / "film.jsonl", [{"video": "film.mp4", "title": TITLE, "content": said}])
    return root


def dataset(folder: Path, code: Encoding | None = None, plan: ChunkPlan = PLAN, **more: Any) -> ChunkDataset:
    code = encoding(instruction=INSTRUCTION) if code is None else code
    return ChunkDataset(code, plan, [folder / "film.jsonl"], **more)


class Scripted:
    """A tiny model whose every next id is written beforehand: it says what is true. The words are no words of its own,
    all the rest (cache, eviction, positions, the vision tower) is."""

    def __init__(self, family: str) -> None:
        self.model: QwenVL = tiny.model(
            family=family, sampling=Sampling(temperature=0.0, repetition_penalty=1.0, max_new_tokens=200)
        )
        self.script: list[int] = []
        self.seen: list[Tensor] = []
        self._logits = self.model.logits
        self.model.logits = self._scripted  # type: ignore[method-assign]

    def _scripted(self, hidden: Tensor) -> Tensor:
        scores = self._logits(hidden).clone()
        self.seen.append(scores[0].clone())
        scores[0, self.script.pop(0)] = scores.max() + 1
        return scores

    def play(self, policy: CachePolicy, path: Path, said: Sequence[str], **more: Any) -> tuple[Session, Trace]:
        """A session that watches a file and says ``said``; the trace of its last step."""
        code = Encoding.of(self.model)
        session = Engine(self.model).open(policy=policy, instruction=INSTRUCTION, **more)
        for chunk, text in zip(FileSource(path), said, strict=False):
            trace = Trace()
            self.script = list(code.reply(text))
            assert session.step(chunk, trace=trace).text == text
        assert trace.tokens, "the file has a step for everything that is said"
        return session, trace


def said_until(example: TrainingExample, end: float, folder: Path) -> list[str]:
    """What is said in each second from the stream's start."""
    whole = dataset(folder, example.encoding, ChunkPlan(window=12, overlap=0, min_words=0))[0]
    return list(whole.true[: round(end)])


# A training chunk is what a session holds.


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.slow), 4])
def test_a_chunk_has_the_ids_and_positions_of_the_session_that_replays_it(
    folder: Path, family: str, number: int
) -> None:
    example = dataset(folder, encoding(family, instruction=INSTRUCTION))[number]
    batch = Collator()([example])
    policy = StreamingWindow(vision=WINDOW, turns=WINDOW, sink=SINK, text=TEXT)
    said = said_until(example, example.start + WINDOW, folder)
    session, trace = Scripted(family).play(policy, folder / "film.mp4", said, context=TITLE)
    ids, places = batch["input_ids"][0].tolist(), batch["position_ids"][:, 0].numpy()
    assert ids == session.state.timeline.tokens
    assert session.state.timeline.rows_by_kind[Kind.HISTORY] == len(example.history)
    assert number == 0 or len(example.history) > len(TITLE)
    if number == 4:
        assert len(example.history) == SINK + TEXT
    # The last step fed what follows the retained ids, up to the reply's header.
    fed = trace.prefill_positions.shape[1]
    assert ids[: len(trace.retained)] == trace.retained
    assert ids[fed:] == trace.tokens
    np.testing.assert_array_equal(places[:, :fed], trace.prefill_positions)
    # The end of the turn is still pending: every id before it has a row.
    np.testing.assert_array_equal(places[:, :-1], session.state.positions)
    np.testing.assert_array_equal(places[:, -1:], session.state.next_position)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_chunk_shows_the_patches_that_the_session_saw(folder: Path, family: str) -> None:
    model = tiny.model(family=family)
    example = dataset(folder, Encoding.of(model))[2]
    batch = Collator()([example])
    watched = [chunk for chunk in FileSource(folder / "film.mp4") if 4 <= chunk.start < 8]
    patches = [model.patcher(chunk) for chunk in watched]
    assert torch.equal(batch["pixel_values_videos"], torch.cat([one.pixels for one in patches]))
    assert batch["video_grid_thw"].tolist() == [list(one.grid) for one in patches]
    assert int((batch["input_ids"] == model.grammar.marks.vision_pad).sum()) == sum(
        np.prod(one.merged) for one in patches
    )


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_stock_transformers_sees_in_a_batch_what_the_engine_computes(folder: Path, family: str) -> None:
    """Position ids, grids and patches mean in a training step what they mean at inference."""
    scripted = Scripted(family)
    code = Encoding.of(scripted.model, instruction=INSTRUCTION)
    example = dataset(folder, code, titles=False)[0]
    scripted.play(KeepAll(seconds=WINDOW), folder / "film.mp4", example.true)
    batch = Collator()([example])
    stock = tiny.stock(family)
    with torch.inference_mode():
        logits = stock(
            **{key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values_videos", "video_grid_thw")},
            position_ids=batch["position_ids"],
        ).logits[0]
    learnt = (batch["labels"][0] != IGNORED).nonzero()[:, 0]
    engine = torch.stack(scripted.seen)
    assert len(learnt) == len(engine)
    torch.testing.assert_close(logits[learnt - 1], engine, rtol=0, atol=2e-4)


def test_the_bundled_model_is_right_about_a_clip_as_the_data_lays_it_out(tmp_path: Path) -> None:
    """Words, seconds, frames, previous text and positions together: a trained model sees at once if one is off."""
    write_record("arcade:pong", 9_000_123, 32, tmp_path / "clip.mp4")
    truth = json.loads((tmp_path / "clip.jsonl").read_text())
    # A recorded stream has a wording of its own; the model knows one.
    truth["content"] = [
        [start, end, arcade_words(PONG, PONG.language.parse(text))] for start, end, text in truth["content"]
    ]
    write_lines(tmp_path / "clip.jsonl", [truth])
    code = Encoding.of(load_model(device="cpu"), lead="")
    data = ChunkDataset(code, ChunkPlan(16, 0, min_words=1, sink=96, text=256), [tmp_path / "clip.jsonl"])
    batch = Collator()([data[0], data[1]])
    assert len(data) == 2
    stock = Qwen2_5_VLForConditionalGeneration.from_pretrained(BUNDLED, dtype=torch.float32).eval()
    labels, weights = batch.pop("labels"), batch.pop("loss_weights")
    with torch.inference_mode():
        said = stock(**batch).logits[:, :-1].argmax(-1)
    learnt = weights[:, 1:] > 0
    assert (said == labels[:, 1:])[learnt].float().mean() > 0.95


def test_three_temporal_patches_a_step_and_steps_of_two_seconds(folder: Path) -> None:
    for family in tiny.FAMILIES:
        code = encoding(family, fps=2.5, step=2.0)
        plan = replace(PLAN, window=4, overlap=2, step=2.0)
        example = dataset(folder, code, plan)[1]
        batch = Collator()([example])
        blocks = batch["video_grid_thw"].tolist()
        assert sum(t for t, _, _ in blocks) == 2 * 3
        assert example.length == batch["input_ids"].shape[1]
        assert [len(chunk.frames) for chunk in example.chunks()] == [5, 5]


# The loss.


def test_the_loss_is_exactly_on_commentary_and_end_of_turn(folder: Path) -> None:
    example = dataset(folder)[1]
    batch = Collator()([example])
    code = example.encoding
    labels, ids = batch["labels"][0], batch["input_ids"][0]
    learnt = labels != IGNORED
    assert torch.equal(labels[learnt], ids[learnt])
    replies = [code.reply(text) for text in example.true]
    assert ids[learnt].tolist() == [token for reply in replies for token in reply]
    assert all(reply[-1] == code.grammar.marks.turn_end for reply in replies)
    assert replies[0] == code.grammar.reply("")
    # A reply begins behind its header, and nothing of the user's turn is learnt.
    header = code.grammar.header(Role.ASSISTANT).tokens
    first = int(learnt.nonzero()[0])
    assert tuple(ids[first - len(header) : first].tolist()) == header
    assert torch.equal(batch["loss_weights"][0] > 0, learnt)
    assert set(batch["loss_weights"][0].tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("weight", [0.0, 0.25, 3.0])
def test_silence_has_a_weight_of_its_own(folder: Path, weight: float) -> None:
    example = dataset(folder)[1]
    assert example.true[0] == ""
    plain, weighted = Collator()([example]), Collator(silence_weight=weight)([example])
    silent = len(example.encoding.reply(""))
    first = int((plain["labels"][0] != IGNORED).nonzero()[0])
    expected = plain["loss_weights"].clone()
    expected[0, first : first + silent] = weight
    assert torch.equal(weighted["loss_weights"], expected)
    # What counts nothing has no label either.
    assert ((weighted["labels"] != IGNORED) == (expected > 0)).all()


def test_no_space_follows_the_time_stamp_and_the_instruction_stands(folder: Path) -> None:
    code = encoding(instruction=INSTRUCTION)
    batch = Collator()([dataset(folder, code)[3]])
    text = "".join(chr(i - 1000) if 1000 <= i < 60000 else "|" for i in batch["input_ids"][0].tolist())
    assert "Time=6.0-7.0s|" in text
    assert f"user\n{INSTRUCTION}|" in text
    assert "assistant\n\n w12 w13 ...|" in text


def test_a_history_of_the_models_own_is_learnt_up_to_where_it_leaves_the_truth(folder: Path) -> None:
    example = dataset(folder)[0]
    own = replace(example, said=("w0 wrong", *example.said[1:]))
    batch = Collator()([own])
    code = own.encoding
    learnt = (batch["labels"][0] != IGNORED).nonzero()[:, 0].tolist()
    true, said = code.reply(own.true[0]), code.reply("w0 wrong")
    apart = next(i for i, (a, b) in enumerate(zip(true, said, strict=False)) if a != b)
    first = learnt[: apart + 1]
    assert batch["labels"][0, first].tolist() == list(true[: apart + 1])
    assert batch["input_ids"][0, first].tolist() == list(said[: apart + 1])
    # The next label is the first of the second reply.
    assert learnt[apart + 1] > first[0] + len(said)


# The batch.


def test_a_batch_is_padded_behind(folder: Path) -> None:
    data = dataset(folder)
    examples = [data[0], data[4]]
    batch = Collator()(examples)
    n = max(example.length for example in examples)
    assert examples[0].length != examples[1].length
    shapes = {name: (tuple(part.shape), part.dtype) for name, part in batch.items()}
    patches = 2 * WINDOW * 4 * 6
    assert shapes == {
        "input_ids": ((2, n), torch.int64), "attention_mask": ((2, n), torch.int64),
        "position_ids": ((3, 2, n), torch.float32), "labels": ((2, n), torch.int64),
        "loss_weights": ((2, n), torch.float32), "pixel_values_videos": ((patches, 1176), torch.float32),
        "video_grid_thw": ((2 * WINDOW, 3), torch.int64),
    }  # fmt: skip
    short = examples[0].length
    assert batch["attention_mask"].sum(1).tolist() == [example.length for example in examples]
    assert (batch["input_ids"][0, short:] != tiny.MARKS.vision_pad).all()
    assert (batch["labels"][0, short:] == IGNORED).all()
    alone = Collator()(examples[:1])
    assert torch.equal(batch["input_ids"][0, :short], alone["input_ids"][0])
    assert (Collator(pad=7)(examples)["input_ids"][0, short:] == 7).all()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_length_and_seconds_are_known_without_decoding(
    folder: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(folder, encoding(family, instruction=INSTRUCTION))
    true = [Collator()([example])["input_ids"].shape[1] for example in data]
    monkeypatch.setattr(TrainingExample, "chunks", lambda self: pytest.fail(f"{self} was decoded"))
    fresh = dataset(folder, encoding(family, instruction=INSTRUCTION))
    assert [example.length for example in fresh] == true
    assert [example.seconds for example in fresh] == [WINDOW] * len(true)


def test_pixels_are_bounded(tmp_path: Path) -> None:
    clip(tmp_path / "film.mp4", 4.0, width=640, height=360)
    write_lines(tmp_path / "film.jsonl", [{"video": "film.mp4", "content": words(0.0, 4.0)}])
    tokens = {}
    for budget in (28 * 28 * 12, 28 * 28 * 48):
        data = dataset(tmp_path, encoding(max_pixels=budget))
        batch = Collator()([data[0]])
        tokens[budget] = int((batch["input_ids"] == tiny.MARKS.vision_pad).sum()) / WINDOW
        assert tokens[budget] <= budget / 28**2
        assert data[0].length == batch["input_ids"].shape[1]
    assert tokens[28 * 28 * 48] > 2 * tokens[28 * 28 * 12]


def test_only_the_chunk_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import streamingvlm.sources.decode as decode

    media.write_clip(tmp_path / "film.mp4", count=600, fps=5, width=FRAME[0], height=FRAME[1])
    write_lines(tmp_path / "film.jsonl", [conversation("film.mp4", 100.0, 104.0, words(100, 104))])
    decoded: list[float] = []
    stamp = decode.frame_stamp

    def counted(frame: Any) -> float | None:
        decoded.append(1)
        return stamp(frame)

    monkeypatch.setattr(decode, "frame_stamp", counted)
    (example,) = dataset(tmp_path)
    frames = [media.index_of(frame) for chunk in example.chunks() for frame in chunk.frames]
    # Half-seconds of a film of five frames a second whose greys repeat after 55.
    assert frames == [(500 + round(k * 2.5 - 0.5 * (k % 2))) % 55 for k in range(8)]
    assert len(decoded) < 100


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("fps", [2.0, 3.0, 5.0])
def test_a_worker_hands_over_bytes_that_become_the_patches_of_inference(folder: Path, family: str, fps: float) -> None:
    model = tiny.model(family=family)
    data = dataset(folder, Encoding.of(model, fps=fps, max_pixels=model.patcher.factor**2 * 4))
    packed, batch = Collator().pack([data[0], data[3]]), Collator()([data[0], data[3]])
    assert packed["patches"].dtype == torch.uint8
    assert 4 * packed["patches"].nbytes == batch["pixel_values_videos"].nbytes
    others = batch.keys() - {"pixel_values_videos"}
    assert packed.keys() == others | {"patches", "pixel_scale"}
    seen = [model.patcher.with_budget(model.patcher.factor**2 * 4)(one) for i in (0, 3) for one in data[i].chunks()]
    unpacked = unpack(packed)
    assert unpacked["pixel_values_videos"].dtype == torch.float32
    assert torch.equal(unpacked["pixel_values_videos"], torch.cat([one.pixels for one in seen]))
    assert all(torch.equal(unpacked[name], batch[name]) for name in batch)
    assert "patches" in packed, "unpacking leaves the batch as it was"


def test_what_a_worker_sends_is_a_fourth(tmp_path: Path) -> None:
    """At the sizes of real frames, where ids and positions are next to nothing."""
    clip(tmp_path / "film.mp4", 4.0, width=640, height=360)
    write_lines(tmp_path / "film.jsonl", [{"video": "film.mp4", "content": words(0.0, 4.0)}])
    data = dataset(tmp_path, encoding(max_pixels=768 * 28 * 28))
    loader = DataLoader(data, num_workers=1, collate_fn=Collator().pack, multiprocessing_context="fork")
    (sent,) = loader
    whole = Collator()([data[0]])
    assert sum(part.nbytes for part in sent.values()) < 0.26 * sum(part.nbytes for part in whole.values())
    assert torch.equal(unpack(sent)["pixel_values_videos"], whole["pixel_values_videos"])


def test_the_loss_is_the_same_on_what_a_worker_sends(folder: Path) -> None:
    data = dataset(folder)
    stock = tiny.stock(tiny.GOLDEN)
    with torch.inference_mode():
        sent, whole = (weighted_sums(stock, batch) for batch in (Collator().pack([data[1]]), Collator()([data[1]])))
    assert torch.equal(sent, whole)


def test_a_chunk_is_decoded_once_by_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import streamingvlm.sources.decode as decode

    media.write_clip(tmp_path / "film.mp4", count=300, fps=5, codec_options={"g": "250"}, width=FRAME[0], height=48)
    write_lines(tmp_path / "film.jsonl", [conversation("film.mp4", 40.0, 44.0, words(40, 44))])
    (example,) = dataset(tmp_path)
    threads: list[Any] = []
    decoded: list[Any] = []
    opened, stamp = decode.open_container, decode.frame_stamp

    def noted(path: Path, *rest: Any) -> Any:
        container, stream = opened(path, *rest)
        threads.append(stream.codec_context.thread_count)
        return container, stream

    monkeypatch.setattr(decode, "open_container", noted)
    monkeypatch.setattr(decode, "frame_stamp", lambda frame: (decoded.append(1), stamp(frame))[1])
    assert sum(len(chunk.frames) for chunk in example.chunks()) == 2 * WINDOW
    # OpenTurn once; 220 frames from the only key frame on.
    assert threads == [1]
    assert len(decoded) < 230


# What cannot be read.


@pytest.mark.parametrize(
    "error", [AttributeError, RuntimeError, KeyError, MemoryError, ZeroDivisionError, OverflowError]
)
@pytest.mark.parametrize("where", ["open_container", "frame_stamp"])
def test_whatever_a_clip_makes_the_decoder_raise_is_one_kind_of_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], where: str
) -> None:
    data = dataset(folder)

    def broken(*_: Any) -> Any:
        raise error("odd")

    monkeypatch.setattr(f"streamingvlm.sources.decode.{where}", broken)
    with pytest.raises(SourceError, match=r"film\.mp4 cannot be read") as caught:
        Collator()([data[1]])
    assert isinstance(caught.value.__cause__, error)
    batch = Collator(unreadable="blank")([data[1]])
    assert (batch["labels"] == IGNORED).all()
    assert batch["input_ids"].shape[1] == data[1].length


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_is_one_line(tmp_path: Path, workers: int) -> None:
    clip(tmp_path / "film.mp4", 12.0, width=FRAME[0], height=FRAME[1])
    write_lines(tmp_path / "film.jsonl", [{"video": "film.mp4", "content": words(0.0, 12.0)}])
    data = dataset(tmp_path)

    def failure() -> str:
        context = "fork" if workers else None
        loader = DataLoader(data, num_workers=workers, collate_fn=Collator().pack, multiprocessing_context=context)
        with pytest.raises(SourceError) as caught:
            list(loader)
        return str(caught.value)

    unknown_codec(tmp_path / "film.mp4")
    assert failure().startswith(f"{tmp_path / 'film.mp4'}: no decoder for its video")
    (tmp_path / "film.mp4").unlink()
    assert failure() == f"{tmp_path / 'film.mp4'}: no such file"
    (tmp_path / "film.jsonl").write_text("{}")
    data.forget()
    assert failure().startswith("film.jsonl, byte 0: the annotations have changed since they were read")
    (tmp_path / "film.jsonl").unlink()
    assert failure() == f"cannot read {tmp_path / 'film.jsonl'} (No such file or directory)"


@pytest.mark.slow
def test_a_bug_of_ours_is_no_broken_video(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(folder)
    monkeypatch.setattr(TrainingExample, "lay_out", lambda *_: [][1])
    with pytest.raises(IndexError):
        Collator(unreadable="blank")([data[1]])


@pytest.mark.slow
def test_a_clip_of_an_unknown_codec_is_black(tmp_path: Path) -> None:
    clip(tmp_path / "film.mp4", 12.0, width=FRAME[0], height=FRAME[1])
    write_lines(tmp_path / "film.jsonl", [{"video": "film.mp4", "content": words(0.0, 12.0)}])
    data = dataset(tmp_path)
    unknown_codec(tmp_path / "film.mp4")
    with pytest.raises(SourceError, match=r"film\.mp4"):
        Collator()([data[1]])
    assert (Collator(unreadable="blank")([data[1]])["labels"] == IGNORED).all()


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(784, 768 * 784))
def test_every_budget_leaves_a_frame_at_least_a_token(height: int, width: int, budget: int) -> None:
    assume(max(height, width) <= 200 * min(height, width))
    h, w = Patcher().with_budget(budget).size(height, width)
    assert h % 28 == w % 28 == 0
    assert 0 < h * w <= budget


def test_workers_can_decode(folder: Path) -> None:
    data = dataset(folder)
    assert len(pickle.loads(pickle.dumps(data))) == len(data)
    loader = DataLoader(data, batch_size=2, num_workers=1, collate_fn=Collator(), multiprocessing_context="fork")
    batches = list(loader)
    assert sum(len(batch["input_ids"]) for batch in batches) == len(data) == 5
    assert torch.equal(batches[0]["input_ids"], Collator()([data[0], data[1]])["input_ids"])


def test_frames_that_cannot_be_read_are_an_error_or_black(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip(tmp_path / "film.mp4", 12.0, width=FRAME[0], height=FRAME[1])
    write_lines(tmp_path / "film.jsonl", [{"video": "film.mp4", "content": words(0.0, 12.0)}])
    data = dataset(tmp_path)
    clip(tmp_path / "film.mp4", 5.0, width=FRAME[0], height=FRAME[1])
    assert len(Collator()([data[0]])["pixel_values_videos"]) == WINDOW * 24
    with pytest.raises(SourceError, match=r"film.mp4 ends at 5 s; film.jsonl, byte 0 tells more"):
        Collator()([data[1]])
    with pytest.raises(SourceError, match="ends before 6 s"):
        Collator()([data[3]])
    batch = Collator(unreadable="blank")([data[0], data[3]])
    assert "black frames and no loss" in caplog.text
    assert (batch["labels"][1] == IGNORED).all()
    assert (batch["labels"][0] != IGNORED).any()
    assert len(batch["pixel_values_videos"]) == 2 * WINDOW * 24
    assert batch["attention_mask"].sum(1).tolist() == [data[0].length, data[3].length]


@pytest.mark.parametrize("wrong", [{"silence_weight": -1.0}, {"unreadable": "swap"}])
def test_options_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        Collator(**wrong)


def test_steps_and_frames_must_fit(folder: Path) -> None:
    with pytest.raises(OptionError, match="at least one frame"):
        encoding(fps=0.5)
    with pytest.raises(OptionError, match=r"cut in steps of 1 s and encoded in 2 s"):
        dataset(folder, encoding(step=2.0))


def test_a_clips_own_query_may_be_its_instruction(tmp_path: Path) -> None:
    clip(tmp_path / "film.mp4", 4.0, width=FRAME[0], height=FRAME[1])
    record = conversation("film.mp4", 0.0, 4.0, words(0, 4), title=TITLE, previous="before")
    write_lines(tmp_path / "film.jsonl", [record])
    assert dataset(tmp_path)[0].instruction == INSTRUCTION
    example = dataset(tmp_path, queries=True)[0]
    assert example.instruction == "What happens?"
    tokenizer = example.encoding.grammar.tokenizer
    assert tokenizer.decode(example.history) == f"{TITLE}\n before"
    assert tokenizer.decode(dataset(tmp_path, titles=False)[0].history) == "\n before"
