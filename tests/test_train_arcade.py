"""The bundled model's training: tokenizer, one step, refusal of evaluation seeds, export."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from streamingvlm.arcade.context import EVALUATION_SEEDS, NAMES, TOWNS
from streamingvlm.arcade.games.pong import PONG
from streamingvlm.models import load_model
from streamingvlm.policy import StreamingWindow
from streamingvlm.train.arcade import tower
from streamingvlm.train.arcade.decoder import Probes, collate, hidden_states, losses
from streamingvlm.train.arcade.export import STREAMING, export
from streamingvlm.train.arcade.films import PROBES, Library, Plan
from streamingvlm.train.arcade.optim import Optimizer
from streamingvlm.train.arcade.record import Recording, compress, record
from streamingvlm.train.arcade.rollout import Rollout
from streamingvlm.train.arcade.shape import Shape, config, new_model
from streamingvlm.train.arcade.stories import Scribe
from streamingvlm.train.arcade.texts import example
from streamingvlm.train.arcade.tokens import FRAME, SPECIAL
from train_tools import arcade_grammar, arcade_tokenizer

TINY = Shape(
    hidden=64, layers=2, heads=4, kv_heads=2, intermediate=64, section=(2, 3, 3),
    vision_hidden=32, vision_layers=1, vision_heads=2, vision_intermediate=32,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def model() -> Any:
    tokenizer = arcade_tokenizer()
    special = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    return new_model(config(TINY, len(tokenizer), special), 0)


def _featured(recording: Recording, width: int) -> Recording:
    features = torch.randn(len(recording), tower.TOKENS, width).bfloat16()
    return Recording(recording.seed, recording.context, None, features, recording.labels, recording.events)


@pytest.mark.parametrize("text", ["green scores ; score 5 to 3", "Zeile €, 12345\n\n ... <|im_end|>", "Time=0.5-1.5s"])
def test_any_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = arcade_grammar().tokenizer
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & set(arcade_tokenizer().convert_tokens_to_ids(list(SPECIAL)))


def test_words_of_the_arcade_are_one_token() -> None:
    encode = arcade_grammar().tokenizer.encode
    for text in (*FRAME, *(f" {word}" for word in (*NAMES, *TOWNS, "green", "orange", 0, 21))):
        assert len(encode(text)) == 1, text


def test_a_batched_tower_is_the_stock_tower(model: Any) -> None:
    patches = tower.patchify(torch.randint(0, 255, (2, 2, 3, *tower.SIZE), dtype=torch.uint8))
    stock = model.model.visual(patches.flatten(0, 1), grid_thw=torch.tensor([[1, *tower.PATCHES]] * 2))
    torch.testing.assert_close(tower.encode(model.model.visual, patches).flatten(0, 1), stock.pooler_output)


def test_evaluation_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="evaluation"):
        record(EVALUATION_SEEDS, 1)


def test_distorted_pictures_stay_alike() -> None:
    frames = record(4, 4).frames
    assert frames is not None
    assert frames.shape == (4, 2, 3, *tower.SIZE)
    flat = frames.flatten(0, 1).permute(0, 2, 3, 1).numpy()
    squeezed = compress(flat, crf=20, gop=4)
    assert squeezed.shape == flat.shape
    assert abs(squeezed.astype(int) - flat.astype(int)).mean() < 4


def test_steps_lower_the_loss(model: Any) -> None:
    grammar, rng = arcade_grammar(), random.Random(0)
    scribe, library = Scribe(grammar), Library([_featured(record(5, 120, render=False), 64)])
    plan = Plan(seconds=6, sink=8, text=16)
    batch = collate([library.example(rng, scribe, plan), example(rng, scribe, 8, 16, 8)], 0)
    probes = Probes(64, PROBES)
    model.model.visual.requires_grad_(False)
    trained = [pair for pair in model.named_parameters() if pair[1].requires_grad]
    optimizer = Optimizer.make([*trained, *probes.named_parameters()])
    seen = []
    for _ in range(14):
        loss = losses(model, probes, batch)
        seen.append(loss.words.item())
        optimizer.step(loss.words + loss.probes, 1e-2)
    assert seen[-1] < 0.8 * seen[0]


def test_rollout_says_what_the_training_pass_predicts(model: Any) -> None:
    """The lockstep cache against one pass over the whole text, while nothing has been evicted."""
    from streamingvlm.train.arcade.layout import Turn, lay_out

    grammar = arcade_grammar()
    features = torch.randn(3, tower.TOKENS, 64).bfloat16()
    rollout = Rollout(model, grammar, StreamingWindow(sink=8, text=8), [features], ["first to 2 games"], most=4)
    rollout.run(3)
    spans = rollout.streams[0].timeline.spans
    said = [span.tokens for span in spans if span.role == "assistant" and span.kind == "commentary"]
    turns = [Turn(float(i), ids, ids, (1.0,) * len(ids)) for i, ids in enumerate(said)]
    from streamingvlm.train.arcade.decoder import Example

    laid = lay_out(grammar, grammar.tokenizer.encode("first to 2 games"), turns)
    assert laid.ids.tolist() == rollout.streams[0].timeline.tokens
    batch = collate([Example(laid, features, torch.zeros(3, len(PROBES), dtype=torch.long))], 0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        guess = model.lm_head(hidden_states(model, batch)[0, laid.rows]).argmax(-1)
    sampled = guess[laid.targets != grammar.marks.turn_end]
    right = (sampled == torch.from_numpy(laid.targets)[laid.targets != grammar.marks.turn_end]).float().mean()
    # bf16 may settle a near tie of random weights the other way.
    assert right > 0.8


def test_export_loads_and_speaks(model: Any, tmp_path: Path) -> None:
    export(model, arcade_tokenizer(), tmp_path / "m")
    loaded = load_model(tmp_path / "m", device="cpu")
    assert loaded.grammar.system == STREAMING["system"]
    assert loaded.defaults.policy == {key: STREAMING[key] for key in ("vision", "turns", "sink", "text")}
    assert loaded.patcher.size(420, 320) == tower.SIZE
    assert loaded.tokens_per_second == 2.0
    assert len(PONG.kinds) == 11
