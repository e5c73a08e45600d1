"""The bundled model's training: tokenizer, tower, one step, refusal of evaluation seeds, export."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb

from arcade_streams.recipe import habits, reader, stories, tower, vision
from arcade_streams.recipe import work as arcade_work
from arcade_streams.recipe.__main__ import main
from arcade_streams.recipe.card import card
from arcade_streams.recipe.decoder import Probes, StoryExample, collate, hidden_states, losses
from arcade_streams.recipe.drills import lines, roll_call
from arcade_streams.recipe.export import STREAMING, TRAINING, export
from arcade_streams.recipe.films import LEAD, SILENT, STEER, FilmPlan, Library, Own
from arcade_streams.recipe.fit import GLANCES, GROWS, PARTS, SILENTS, Fit, FitStage, stages
from arcade_streams.recipe.habits import happening
from arcade_streams.recipe.lookup import look_up
from arcade_streams.recipe.optim import Muon, Optimizer, orthogonal
from arcade_streams.recipe.probes import probes, shown
from arcade_streams.recipe.record import Recording, compress, rare, record
from arcade_streams.recipe.retell import happenings, retold
from arcade_streams.recipe.rollout import StoryRollout
from arcade_streams.recipe.shape import FRONT, ModelShape, config, grown, hold_front, new_model
from arcade_streams.recipe.stories import Scribe
from arcade_streams.recipe.texts import example
from arcade_streams.recipe.tokens import FRAME, SPECIAL, arcade_corpus, build, save
from arcade_streams.recipe.work import RecipeConfig, Work
from arcade_streams.worlds.announcer import Announcer
from arcade_streams.worlds.context import EVALUATION_SEEDS, NAMES, TOWNS
from arcade_streams.worlds.game import Game
from arcade_streams.worlds.games.pong import PONG
from streamingvlm.core.errors import OptionError
from streamingvlm.core.policy import StreamingWindow
from streamingvlm.core.spans import PREAMBLE, Kind
from streamingvlm.models.hub import BUNDLED
from streamingvlm.models.knows import example_source, read_known_kinds
from streamingvlm.models.load import load_model
from support.train_tools import ALL, arcade_grammar, arcade_tokenizer, recorded

TINY = ModelShape(
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
    return replace(recording, features=features)


@pytest.mark.parametrize("text", ["green scores ; score 5 to 3", "Zeile €, 12345\n\n ... <|im_end|>", "Time=0.5-1.5s"])
def test_any_text_survives_the_tokenizer(text: str) -> None:
    tokenizer = arcade_grammar().tokenizer
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & set(arcade_tokenizer().convert_tokens_to_ids(list(SPECIAL)))


def test_words_of_the_arcade_are_one_token() -> None:
    encode = arcade_grammar().tokenizer.encode
    said = {word for game in ALL for kind in game.kinds for wording in kind.wordings for word in wording.split()}
    said = {word for word in said if not word.startswith("{")}
    said |= {zone for game in ALL for kind in game.kinds for zone in kind.zones}
    said |= {colour for game in ALL for colour in game.colours} | {game.rules.games for game in ALL}
    for text in (*FRAME, *(f" {word}" for word in (*NAMES, *TOWNS, *sorted(said), 0, 21))):
        assert len(encode(text)) == 1, text
    for game in ALL:
        for colour in game.colours:
            assert len(encode(f"{colour} scores")) == 2


def test_a_batched_tower_is_the_stock_tower(model: Any) -> None:
    patches = tower.patchify(torch.randint(0, 255, (2, 2, 3, *tower.SIZE), dtype=torch.uint8))
    stock = model.model.visual(patches.flatten(0, 1), grid_thw=torch.tensor([[1, *tower.PATCHES]] * 2))
    torch.testing.assert_close(tower.encode(model.model.visual, patches).flatten(0, 1), stock.pooler_output)


def test_evaluation_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="evaluation"):
        record(PONG, EVALUATION_SEEDS, 1)


def test_distorted_pictures_stay_alike() -> None:
    frames = record(PONG, 4, 4).frames
    assert frames is not None
    assert frames.shape == (4, 2, 3, *tower.SIZE)
    flat = frames.flatten(0, 1).permute(0, 2, 3, 1).numpy()
    squeezed = compress(flat, crf=20, gop=4)
    assert squeezed.shape == flat.shape
    assert abs(squeezed.astype(int) - flat.astype(int)).mean() < 4


@pytest.mark.parametrize("game", ALL, ids=lambda game: game.name)
def test_sights_are_the_labels(game: Game) -> None:
    labels = recorded(game.name).labels
    want, cell = reader.sights(labels), torch.tensor(reader.CELL)
    seen = want.cell < tower.TOKENS
    assert (seen.numpy() == (labels.places[..., 0] >= 0)).all()
    corner = torch.stack([want.cell // tower.GRID[2], want.cell % tower.GRID[2]], dim=-1) * cell
    edges = (corner + want.local[..., :2]).flip(-1)
    assert (edges[seen].numpy() == labels.places[seen.numpy()]).all()
    assert (want.facts[..., -1].numpy() == labels.playing).all()
    assert want.scores.max() <= game.most


def test_rare_facts_are_drawn_in_half_of_the_seconds() -> None:
    facts = torch.zeros(100, 2, 2, dtype=torch.int64)
    facts[7, 1, 0] = 1
    facts[::3, 0, 1] = 1
    assert rare(facts, share=0.1).tolist() == [7]
    boxing = recorded("boxing")
    numbers = torch.arange(2 * len(boxing), dtype=torch.uint8).view(2, -1, 1, 1, 1, 1)
    pool = vision.Pool.of([replace(boxing, frames=part.expand(-1, 2, 3, 4, 4)) for part in numbers])
    torch.manual_seed(0)
    frames, want = pool.draw(400)
    assert torch.equal(want.cell, pool.want.cell[frames[:, 0, 0, 0, 0].long()])
    stretched = (want.facts[..., :4] > 1).flatten(1).any(1).float().mean()
    assert stretched > 0.5
    assert (pool.want.facts[..., :4] > 1).flatten(1).any(1).float().mean() < 0.45


def test_a_game_with_more_streams_has_more_of_a_batch() -> None:
    assert vision.shares({"pong": 60, "tennis": 60}, 48) == {"pong": 24, "tennis": 24}
    assert vision.shares({"pong": 25, "boxing": 400, "tennis": 25}, 48) == {"pong": 8, "boxing": 32, "tennis": 8}


@pytest.mark.parametrize("shape", [(24, 72), (72, 24), (32, 32)])
def test_muon_is_torchs_in_float32(shape: tuple[int, int]) -> None:
    """The same update as torch's, whose products are bfloat16; the state has its names. Two matrices at once."""
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape) * 0.02) for _ in range(2)]
    theirs = [torch.nn.Parameter(matrix.detach().clone()) for matrix in ours]
    began = [matrix.detach().clone() for matrix in ours]
    optimizers = (
        Muon(ours, lr=1e-2, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(shape)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other, before in zip(ours, theirs, began, strict=True):
        assert (one - other).norm() < 0.02 * (other - before).norm()
    assert optimizers[0].state_dict()["state"].keys() == optimizers[1].state_dict()["state"].keys()
    sizes = torch.linalg.svdvals(orthogonal(torch.randn(3, *shape)))
    assert 0.6 < sizes.quantile(0.1) <= sizes.max() < 1.3


def test_one_tower_is_read_by_heads_of_every_game(model: Any) -> None:
    """A few steps on one batch of all games lower the loss; every place, fact and the score is read."""
    torch.manual_seed(0)
    readers = torch.nn.ModuleDict({game.name: reader.FrameReader(game, 64) for game in ALL})
    optimizer = Optimizer.make([*model.model.visual.named_parameters(), *readers.named_parameters()])
    batch = {
        game.name: (shown.frames, reader.sights(shown.labels))
        for game in ALL
        if (shown := record(game, 4, 6)).frames is not None
    }
    losses = []
    for _ in range(8):
        loss, right = vision.read(model.model.visual, readers, batch)
        losses.append(loss.item())
        optimizer.step(loss, 1e-2)
    assert losses[-1] < 0.8 * losses[0]
    for game in ALL:
        named = {name.removesuffix(" cell") for name in right[game.name]}
        assert named >= {*game.places, *game.facts, "in play", "scores"}
        here = {name for name in right[game.name] if not name.startswith(reader.MEAN) and not name.endswith(" cell")}
        assert right[game.name].keys() >= {reader.MEAN + name for name in here}


def _library() -> Library:
    return Library([_featured(recorded(game.name), 64) for game in ALL])


def test_chunks_are_steered_by_how_rare_the_games_own_events_are() -> None:
    library, rng = _library(), random.Random(0)
    for game in ALL:
        share, places = library.steer[game.name], library.places
        own = [kind for kind in share if kind not in STEER]
        assert sum(share[kind] for kind in own) == pytest.approx(0.2)
        assert sorted(own, key=lambda kind: share[kind]) == sorted(own, key=lambda kind: -len(places[game.name, kind]))
        for _ in range(20):
            number, first = library.pick(rng, game.name, 20)
            assert library.recordings[number].name == game.name
            assert 0 <= first <= len(library.recordings[number]) - 20


@pytest.mark.parametrize("game", ALL, ids=lambda game: game.name)
def test_a_glance_is_one_picture_with_what_it_shows(game: Game) -> None:
    library, rng, scribe = _library(), random.Random(0), Scribe(arcade_grammar())
    (number,), names = library.numbers[game.name], list(probes(game))
    own, rare = library.probes[number], {second for _, second in library.rare[game.name]}
    features = library.recordings[number].features
    assert features is not None
    asked = {name for name, one in zip(names, shown(game).tolist(), strict=True) if one}
    assert asked >= {f"fact {name}" for name in game.facts} | {f"score {colour}" for colour in game.colours}
    assert not asked & {*game.language.kinds}
    assert not any(name.endswith(("still", "ahead", "count")) for name in asked)
    often = 0
    for _ in range(200):
        glance = library.glance(rng, scribe, game.name)
        assert glance.features is not None
        assert glance.labels is not None
        assert len(glance.features) == len(glance.labels) == len(glance.laid.ends) == 1
        assert not len(glance.laid.rows)
        (second,) = {int(i) for i in (features == glance.features).flatten(1).all(1).nonzero()}
        often += second in rare
        part = glance.labels[0, library.board.parts[game.name]]
        for i, name in enumerate(names):
            assert part[i] == (own[second, i] if name in asked else -1)
        assert (glance.labels >= 0).sum() == (part >= 0).sum()
    assert (often > 90) == bool(rare)


@pytest.mark.parametrize("game", ALL, ids=lambda game: game.name)
def test_a_silent_film_is_around_a_rare_play_and_counts_nothing(game: Game) -> None:
    library, rng, scribe = _library(), random.Random(0), Scribe(arcade_grammar())
    (number,), names = library.numbers[game.name], list(probes(game))
    features, one = library.recordings[number].features, shown(game)
    assert features is not None
    counted = {counted.kind for counted in game.rules.counted}
    masked = {f"{kind}{what}" for kind in counted for what in ("", " count", " ahead")}
    played = [kind for kind in habits.plays(game) if (game.name, kind) in library.places and kind not in counted]
    told = torch.zeros(len(names))
    for _ in range(100):
        film = library.silent(rng, scribe, game.name)
        assert film.features is not None
        assert film.labels is not None
        assert len(film.features) == len(film.labels) == len(film.laid.ends) == SILENT
        first = int((features == film.features[0]).flatten(1).all(1).nonzero()[0])
        assert torch.equal(film.features, features[first : first + SILENT])
        part = film.labels[:, library.board.parts[game.name]]
        true = library.probes[number][first : first + SILENT]
        assert torch.equal(part[:, one], true[:, one])
        lead = LEAD if first else 0
        assert (part[:lead, ~one] == -1).all()
        for i, name in enumerate(names):
            if not one[i]:
                want = torch.full_like(true[lead:, i], -1) if name in masked else true[lead:, i]
                assert torch.equal(part[lead:, i], want)
        told += (part > 0).any(0)
    seen = [told[names.index(kind)].item() for kind in played]
    assert min(seen) > 0
    assert sum(seen) >= 90


@pytest.mark.slow
@pytest.mark.parametrize("game", ALL, ids=lambda game: game.name)
def test_films_of_verdicts_end_with_a_game_that_wins_a_short_match_only(
    game: Game, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording, rng, scribe = recorded(game.name, 200), random.Random(0), Scribe(arcade_grammar())
    library, told = Library([_featured(recording, 64)]), []
    monkeypatch.setattr(library, "_told", lambda *given: told.append(given[-2:]))
    for overlapping in (True, False) * 10:
        library.verdict(rng, scribe, game.name, FilmPlan(seconds=8, overlapping=overlapping))
        (_, first), other = told[-1]
        last = [
            max(event.numbers)
            for events in other.events[first : first + 8]
            for event in events
            if event.kind == "tally"
        ]
        assert 2 in last
        assert overlapping or first % 8 == 0
    assert {other.context.games_to_win for _, other in told} == {2, 3}
    # Where no game is told any chunk does.
    library.places = {}
    monkeypatch.setattr(library, "example", lambda *_: "any")
    assert library.verdict(rng, scribe, game.name, FilmPlan(seconds=8)) == "any"


@pytest.mark.parametrize("game", ALL, ids=lambda game: game.name)
def test_what_happened_is_found_again_in_what_was_said(game: Game) -> None:
    recording = recorded(game.name)
    announcer = Announcer(game, recording.context)
    for what in happenings(game, recording.events):
        announcer.hear(what)
    for second, events in enumerate(recording.events):
        assert game.language.in_order(announcer.take(second)) == game.language.in_order(events)


@pytest.mark.parametrize("game", ALL, ids=lambda game: game.name)
def test_a_film_retold_shows_the_same_and_says_other_words(game: Game) -> None:
    recording, rng = recorded(game.name, 200), random.Random(0)
    seen = happening(game) | {"score", "streak", "game_point"} | {counted.kind for counted in game.rules.counted}
    tallies: list[set[tuple[int, ...]]] = [set(), set()]
    for first in (0, 200):
        for _ in range(12):
            other = retold(rng, recording, first)
            assert other.context != recording.context
            for events, told in zip(other.events, recording.events, strict=True):
                assert [e for e in events if e.kind in seen] == [e for e in told if e.kind in seen]
                for event in events:
                    if event.name is not None:
                        assert event.name == other.context.player(str(event.colour)).name
            said = [event.numbers for events in other.events for event in events if event.kind == "tally"]
            tallies[first > 0].add(said[0])
    # From the start of a stream the tally is what it was; later it may be any, which the words so far tell.
    assert len(tallies[0]) == 1 < len(tallies[1])


def test_parts_of_the_recipe_can_be_left_out() -> None:
    whole, bare = stages(8, 16), stages(8, 16, without=PARTS)
    assert [stage.steps for stage in whole] == [stage.steps for stage in bare]
    assert any(stage.own and stage.roll[0] for stage in whole)
    assert not any(stage.own or stage.roll[0] or stage.plan.spoiled for stage in bare)
    library, rng = _library(), random.Random(0)
    firsts = [{library.cut(rng, "pong", stages_[3].plan)[1] % 12 for _ in range(40)} for stages_ in (whole, bare)]
    assert len(firsts[0]) > 1
    assert firsts[1] == {0}
    number = library.numbers["pong"][0]
    recording = library.recordings[number]
    library.own = {number: Own(recording, 10, [stories.words(recording.game, events) for events in recording.events])}
    scribe, seen = Scribe(arcade_grammar()), []
    library._film = lambda *parts: seen.append(parts[3])  # type: ignore[method-assign,assignment,return-value]
    for _ in range(20):
        library.own_example(rng, scribe, "pong", bare[3].plan)
    assert {first % 12 for _, first in seen} == {0}


def test_streams_without_points_are_refused() -> None:
    short = recorded("pong")
    with pytest.raises(OptionError, match="pong have no two points"):
        Library([replace(short, events=short.events[:5])])


def test_batches_hold_all_games_alike(model: Any, tmp_path: Path) -> None:
    scribe, library = Scribe(arcade_grammar()), _library()
    lines: list[str] = []
    policy = StreamingWindow(vision=4, turns=4, sink=8, text=16)
    fit = Fit(model, scribe, library, library.recordings, tmp_path, policy, log=lines.append, checked=3)
    dealt = [fit._deal().game.name for _ in range(4 * len(ALL))]
    assert all(dealt.count(game.name) == 4 for game in ALL)
    stage = FitStage(
        2, films=2, texts=1, plan=FilmPlan(seconds=4, sink=8, text=16), text_seconds=6, own=1.0, roll=(2, 6, 3)
    )
    for pictures, count in (((1.0, 0.0), GLANCES), ((0.0, 1.0), SILENTS * SILENT)):
        looked = fit.batch(replace(stage, pictures=pictures))
        assert looked.labels is not None
        for part in library.board.parts.values():
            assert (looked.labels[:, part] >= 0).any(1).sum() == count / len(ALL)
        loss = losses(model, fit.probes, looked)
        assert loss.words == 0 < loss.probes
    fit.run([stage])
    assert {name for game in ALL for line in lines if (name := game.name) in line} == {game.name for game in ALL}
    again = Fit(model, scribe, library, library.recordings, tmp_path, policy, log=lines.append)
    again.load(tmp_path / "state.pt")
    assert (again.steps, again.at, again.rng.getstate()) == (2, (1, 0), fit.rng.getstate())
    assert again._deck == fit._deck
    other = Fit(model, scribe, Library(library.recordings[:1]), library.recordings, tmp_path, policy)
    with pytest.raises(OptionError, match="same games"):
        other.load(tmp_path / "state.pt")


def test_bad_settings_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["--games", "pong,chess"], "unknown arcade game 'chess'"),
        (["--games", "pong,pong"], "every game once"),
        (["--seconds", "5"], "seconds: 28 or more, not 5"),
        (["--vision-streams", "1"], "vision streams: 2 or more"),
        (["--vision-more", "chess=3"], "NAME=COUNT with one of pong, boxing, tennis, hockey, not 'chess=3'"),
        (["--vision-more", "boxing"], "NAME=COUNT"),
        (["--scale", "0"], "must be above 0"),
        (["--without", "words"], "can be left out: corruption, on-policy, overlap, not words"),
        (["--first-stage", "6"], "first stage: 0 to 5, not 6"),
        (["--first-stage", "2", "--last-stage", "1"], "last stage: 2 to 5, not 1"),
        (["--precision", "int8"], "float32 or bfloat16"),
        ([], "run the step 'tokenizer' first"),
    ):
        with pytest.raises(SystemExit) as raised:
            main(["vision", "--folder", str(tmp_path), *arguments])
        assert raised.value.code == 2
        shown = capsys.readouterr().err
        assert words in shown
        assert shown.count("\n") == 1


def _looks(seconds: int, layer: int, group: int) -> tuple[torch.Tensor, list[int]]:
    """Attention (heads, n, n) of a new model of the bundled shape in a chunk, and where the ids behind pictures are."""
    tokenizer = arcade_tokenizer()
    special = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    model: Any = new_model(config(ModelShape(), len(tokenizer), special), 0)
    library, scribe, rng = _library(), Scribe(arcade_grammar()), random.Random(0)
    widened = [_featured(recording, 256) for recording in library.recordings]
    batch = collate([Library(widened).example(rng, scribe, "pong", FilmPlan(seconds=seconds, sink=8, text=16))], 0)
    attention, seen = model.model.language_model.layers[layer].self_attn, {}
    attention.register_forward_pre_hook(lambda _, __, inputs: seen.update(inputs), with_kwargs=True)
    with torch.no_grad():
        hidden_states(model, batch)
    x, (cos, sin), d = seen["hidden_states"], seen["position_embeddings"], attention.head_dim
    heads = attention.num_key_value_groups
    query = attention.q_proj(x).view(1, len(x[0]), -1, d).transpose(1, 2)[:, group * heads : (group + 1) * heads]
    key = attention.k_proj(x).view(1, len(x[0]), -1, d).transpose(1, 2)[:, group : group + 1]
    query, key = apply_rotary_pos_emb(query, key, cos, sin)
    logits = (query @ key.transpose(-1, -2))[0] / d**0.5
    return logits.masked_fill(~torch.ones_like(logits[0]).tril().bool(), float("-inf")).softmax(-1), batch.ends.tolist()


def test_a_new_model_looks_at_the_newest_picture() -> None:
    seen, ends = _looks(seconds=5, layer=0, group=0)
    for end in ends:
        share = seen[:, end, end - tower.TOKENS : end].sum(-1)
        assert (share > 0.8).all(), share


@pytest.mark.parametrize("layer", [2, 3])
def test_a_new_model_looks_at_the_ids_behind_the_last_pictures(layer: int) -> None:
    (near, far), ends = _looks(seconds=14, layer=layer, group=1)
    for here in (ends[-1], ends[-1] + 4):
        assert near[here, ends].sum() > 0.7
        assert far[here, ends].sum() > 0.7
        assert near[here, ends[-2:]].sum() > 0.5
        assert far[here, ends[-4:]].sum() > 0.5
        assert far[here, ends[-1]] < near[here, ends[-1]]


@pytest.mark.slow
def test_names_are_looked_up_at_any_distance() -> None:
    """Layers put in front of a model find a colour's name in the context, 700 positions away and behind pictures."""
    tokenizer, scribe, library, rng = arcade_tokenizer(), Scribe(arcade_grammar()), _library(), random.Random(1)
    special = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    old: Any = new_model(config(ModelShape(), len(tokenizer), special), 0)
    model = grown(old, config(ModelShape(layers=ModelShape().layers + FRONT), len(tokenizer), special), 0)
    decoder, mixed = model.model.language_model, torch.randn(128, 256)
    # Pictures are many and large, and do not fill the space of states; so are those of the bundled tower.
    seen = [replace(r, features=torch.randn(len(r), tower.TOKENS, 128) @ mixed) for r in library.recordings]
    assert torch.equal(
        decoder.layers[FRONT].self_attn.k_proj.weight, old.model.language_model.layers[0].self_attn.k_proj.weight
    )

    def drilled() -> list[StoryExample]:
        return [roll_call(rng, scribe, library.habits[game.name], 96, 256, 12) for game in ALL]

    def filmed() -> list[StoryExample]:
        return [Library(seen).example(rng, scribe, game.name, FilmPlan(seconds=6, sink=96, text=64)) for game in ALL]

    near = [lines(rng, scribe, game) for game in ALL for _ in range(24)]
    kinds = (near, filmed(), filmed(), *(drilled() for _ in range(6)))
    look_up(model, scribe, ALL, [collate(examples, 0) for examples in kinds])
    found: list[torch.Tensor] = []
    decoder.layers[FRONT - 1].self_attn.o_proj.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    values = [[tokenizer.encode(f" {word}")[0] for word in words] for words in (NAMES, TOWNS)]
    for examples in (drilled(), [_behind(call, film) for call, film in zip(drilled(), filmed(), strict=True)]):
        wanted, right = collate(examples, 0), []
        with torch.no_grad():
            hidden_states(model, wanted)
        for state, target in zip(found.pop().flatten(0, 1)[wanted.rows], wanted.targets.tolist(), strict=True):
            group = int(target in values[1])
            told = state[128 * group :][: len(values[group])]
            right.append(values[group][int(told.argmax())] == target)
        assert len(right) > 15
        assert sum(right) >= 0.9 * len(right)
    hold_front(model)
    learnt = {name for name, weight in model.named_parameters() if weight.requires_grad and "language_model" in name}
    assert any("layers.2." in name for name in learnt)
    assert not any("layers.0." in name or "layers.1." in name or "embed" in name for name in learnt)


def _behind(call: StoryExample, film: StoryExample) -> StoryExample:
    """The calls of names behind their history and the pictures of a film."""
    laid, first, start = call.laid, int(call.laid.rows.min()) - 4, int(film.laid.video.min())
    seen, far = film.laid.ids[start:], film.laid.positions.max() + 1
    ids = np.concatenate([laid.ids[:first], seen, laid.ids[first:]])
    places = np.concatenate(
        [laid.positions[:, :first], film.laid.positions[:, start:], laid.positions[:, first:] + far], axis=1
    )
    rows = np.where(laid.rows >= first, laid.rows + len(seen), laid.rows)
    return StoryExample(
        replace(laid, ids=ids, positions=places, rows=rows, video=film.laid.video - start + first), film.features
    )


def test_steps_lower_the_loss(model: Any) -> None:
    scribe, rng, library = Scribe(arcade_grammar()), random.Random(0), _library()
    plan, probes = FilmPlan(seconds=6, sink=8, text=16), Probes(64, library.board.sizes)
    examples = [library.example(rng, scribe, game.name, plan) for game in ALL]
    examples += [example(rng, scribe, library.habits[game.name], 8, 16, 8) for game in ALL]
    batch = collate(examples, 0)
    model.model.visual.requires_grad_(False)
    trained = [pair for pair in model.named_parameters() if pair[1].requires_grad]
    optimizer = Optimizer.make([*trained, *probes.named_parameters()])
    seen = []
    for _ in range(14):
        loss = losses(model, probes, batch)
        seen.append(loss.words.item())
        optimizer.step(loss.words + loss.probes, 1e-2)
    assert seen[-1] < 0.8 * seen[0]


def test_what_a_picture_shows_is_asked_of_the_middle_layer_as_well(model: Any) -> None:
    library, rng, scribe = _library(), random.Random(0), Scribe(arcade_grammar())
    batch = collate([library.silent(rng, scribe, "boxing")], 0)
    last, early = hidden_states(model, batch)
    assert last.shape == early.shape
    assert not model.model.language_model.layers[1]._forward_pre_hooks
    probes = Probes(64, library.board.sizes, shown=library.board.shown)
    losses(model, probes, batch).probes.backward()  # type: ignore[no-untyped-call]
    asked = torch.split(probes.early.weight.grad.abs().sum(1), list(probes.sizes))
    told = torch.split(probes.head.weight.grad.abs().sum(1), list(probes.sizes))
    part = library.board.parts["boxing"]
    assert any((own > 0).any() for own in told[part])
    for one, own in zip(library.board.shown[part], asked[part], strict=True):
        assert one or not own.any()
    assert any(own.any() for own in asked[part])


def test_rollout_says_what_the_training_pass_predicts(model: Any) -> None:
    """The lockstep cache against one pass over the whole text, while nothing has been evicted."""
    from arcade_streams.recipe.layout import ArcadeTurn, lay_out

    grammar = arcade_grammar()
    features = torch.randn(3, tower.TOKENS, 64).bfloat16()
    rollout = StoryRollout(model, grammar, StreamingWindow(sink=8, text=8), [features], ["first to 2 games"], most=4)
    rollout.run(3)
    spans = rollout.streams[0].timeline.spans
    said = [span.tokens for span in spans if span.role == "assistant" and span.kind == "commentary"]
    turns = [ArcadeTurn(float(i), ids, ids, (1.0,) * len(ids)) for i, ids in enumerate(said)]
    from arcade_streams.recipe.decoder import StoryExample

    laid = lay_out(grammar, grammar.tokenizer.encode("first to 2 games"), turns)
    assert laid.ids.tolist() == rollout.streams[0].timeline.tokens
    batch = collate([StoryExample(laid, features, torch.zeros(3, 1, dtype=torch.long))], 0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        guess = model.lm_head(hidden_states(model, batch)[0][0, laid.rows]).argmax(-1)
    sampled = guess[laid.targets != grammar.marks.turn_end]
    right = (sampled == torch.from_numpy(laid.targets)[laid.targets != grammar.marks.turn_end]).float().mean()
    # bf16 may settle a near tie of random weights the other way.
    assert right > 0.8


def test_a_renewed_history_has_the_states_of_a_chunks(model: Any) -> None:
    """Words that are read once more in the history block, while nothing was cut from it, are what training computes."""
    from arcade_streams.recipe.layout import ArcadeTurn, lay_out

    grammar, features = arcade_grammar(), [torch.randn(7, tower.TOKENS, 64) for _ in range(2)]
    policy = StreamingWindow(vision=3, turns=3, sink=64, text=64, history_kv="recompute")
    rollout = StoryRollout(model, grammar, policy, features, ["first to 2 games", "first to 3"], most=4)
    rollout.run(7)
    for number, stream in enumerate(rollout.streams):
        (history,) = (span.tokens for span in stream.timeline.spans if span.kind is Kind.HISTORY)
        assert len(history) > 8, "words were archived"
        laid = lay_out(grammar, list(history), [ArcadeTurn(0.0, (), (), ())])
        rows = sum(len(span) for span in stream.timeline.spans if span.turn == PREAMBLE)
        assert laid.ids[:rows].tolist() == stream.timeline.tokens[:rows]
        batch = collate([StoryExample(laid, features[number][:1])], 0)
        with torch.no_grad():
            seen = model.model.language_model(
                inputs_embeds=model.model.language_model.embed_tokens(batch.ids[:, :rows]),
                position_ids=batch.positions[:, :, :rows],
                attention_mask={"full_attention": None},
                use_cache=True,
            ).past_key_values
        for layer in range(len(seen)):
            for held, computed in (
                (rollout.cache.view, seen.layers[layer].keys),
                (rollout.cache.values, seen.layers[layer].values),
            ):
                torch.testing.assert_close(held[layer, number, :, :rows], computed[0])


def test_export_loads_and_speaks(model: Any, tmp_path: Path) -> None:
    export(model, arcade_tokenizer(), tmp_path / "m", games=["pong"], training={"games": ["pong"]})
    loaded = load_model(tmp_path / "m", device="cpu")
    assert loaded.grammar.system == STREAMING["system"]
    assert loaded.defaults.knows == ("arcade:pong",)
    assert loaded.defaults.policy == {key: STREAMING[key] for key in ("vision", "turns", "sink", "text", "history_kv")}
    assert loaded.patcher.size(420, 320) == tower.SIZE
    assert loaded.tokens_per_second == 2.0
    assert json.loads((tmp_path / "m" / TRAINING).read_text()) == {"games": ["pong"]}


def test_a_run_begins_with_the_weights_of_another(tmp_path: Path) -> None:
    work = Work(RecipeConfig(folder=tmp_path / "one", seed=1))
    save(arcade_tokenizer(), tmp_path / "one" / "tokenizer")
    model = work.model(tower=False)
    export(model, work.vocabulary, tmp_path / "out", torch.float32, games=["pong"], training={})
    again = Work(replace(work.settings, begin=str(tmp_path / "out"), seed=2)).model(tower=False)
    for name, weight in again.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name
    for folder, words in ((tmp_path / "one", "no config.json"), (BUNDLED.parent / "none", "no config.json")):
        with pytest.raises(OptionError, match=words):
            Work(replace(work.settings, begin=str(folder))).model(tower=False)
    (tmp_path / "two").mkdir()
    corpus, words = arcade_corpus(ALL[:1], lines=500)
    save(build(corpus, words, 2048), tmp_path / "two" / "tokenizer")
    with pytest.raises(OptionError, match="begin anew"):
        Work(RecipeConfig(folder=tmp_path / "two", begin=str(tmp_path / "out"))).model(tower=False)


@pytest.mark.slow
def test_a_run_grows_its_decoder_and_goes_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    recordings = [_featured(recorded(game.name), 256) for game in ALL]
    plan = FilmPlan(seconds=4, sink=8, text=16)
    bare = FitStage(1, films=0, texts=2, plan=plan, text_seconds=4)
    recipe = [*[bare] * (GROWS + 1), replace(bare, steps=2)]
    monkeypatch.setattr(arcade_work, "stages", lambda *_: recipe)
    monkeypatch.setattr(arcade_work, "SAMPLES", 1)
    monkeypatch.setattr(Work, "_recordings", lambda _: (recordings, recordings))

    def log(line: str) -> None:
        lines.append(line)
        if line.startswith(f"stage {GROWS + 1}") and len(lines) < 10:
            raise KeyboardInterrupt

    settings = RecipeConfig(folder=tmp_path, games=tuple(game.name for game in ALL))
    save(arcade_tokenizer(), tmp_path / "tokenizer")
    work = Work(settings, log)
    torch.save(work.model(tower=False).model.visual.state_dict(), tmp_path / "tower.pt")
    Work(replace(settings, last_stage=GROWS - 1), lines.append).decoder()
    assert torch.load(tmp_path / "state.pt", weights_only=False)["at"] == (GROWS, 0)
    assert not any("more layers" in line for line in lines)
    with pytest.raises(KeyboardInterrupt):
        work.decoder()
    assert sum("more layers" in line for line in lines) == 1
    state = torch.load(tmp_path / "state.pt", weights_only=False)
    assert (state["at"], state["steps"]) == ((GROWS + 1, 0), GROWS + 1)
    Work(settings, lines.append).decoder()
    assert sum("more layers" in line for line in lines) == 1
    after = torch.load(tmp_path / "state.pt", weights_only=False)
    assert (after["at"], after["steps"]) == ((GROWS + 2, 0), GROWS + 3)
    front, learnt = (f"model.language_model.layers.{n}.self_attn.q_proj.weight" for n in (0, FRONT))
    assert torch.equal(after["model"][front], state["model"][front])
    assert not torch.equal(after["model"][learnt], state["model"][learnt])


def test_the_card_says_how_the_weights_came_about(model: Any, tmp_path: Path) -> None:
    names = tuple(game.name for game in ALL)
    settings = RecipeConfig(games=names, vision_more=("boxing=9",))
    how = {**asdict(settings), "steps": 7, "decoder_hours": 0.25, "date": "2026-01-02"}
    del how["folder"], how["out"]
    export(model, arcade_tokenizer(), tmp_path / "m", games=["pong"], training=how)
    part = {"value": 0.5, "low": None, "high": None}
    kinds = {"by_kind": {"streak": {"strict": part, "within_1s": part}}, "cases": {"streak": 30}}
    found = {
        "seeds": (9_000_000, 9_000_008), "seconds": 60, "command": "eval", "dtype": "float32", "device": "cpu",
        "date": "2026-01-03", "fifths": [{"micro_f1_strict": part}] * 5,
        "games": {name: {**kinds, "micro_f1_strict_by_stream": [0.5]} for name in names},
    }  # fmt: skip
    text = card(found, tmp_path / "m")
    assert f"on {', '.join(names)}: of each game" in text
    assert "61 streams (and more: boxing=9) of 240 s" in text
    assert "7 steps, 0.2 hours" in text or "7 steps, 0.3 hours" in text
    for game in ALL:
        assert f"- {game.name}, streak: 0.500" in text
        assert f"- {game.name}: `" in text
    (tmp_path / "m" / TRAINING).unlink()
    assert "before the recipe knew several games" in card(found, tmp_path / "m")


def test_the_bundled_weights_know_the_games_that_are_watched_with_them() -> None:
    training = json.loads((BUNDLED / TRAINING).read_text())
    assert {f"arcade:{game}" for game in training["games"]} == set(read_known_kinds(BUNDLED))
    assert example_source(BUNDLED) == STREAMING["example_source"]


def test_the_bundled_shape_is_small_enough_to_ship() -> None:
    tokenizer = arcade_tokenizer()
    special = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL}
    with torch.device("meta"):
        large = Qwen2_5_VLForConditionalGeneration(config(ModelShape(), len(tokenizer), special))
    assert 2 * sum(parameter.numel() for parameter in large.parameters()) < 30e6
