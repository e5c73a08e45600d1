"""The order of the examples: steps do not depend on processes, and processes that run together have equal lengths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from streamingvlm.train.balance import StepSampler, waiting
from streamingvlm.train.trainer import ChunkTrainer
from support.training import launch, losses, make_stage, opened, train


def order(lengths: Sequence[int], per_step: int, seed: int = 0, trained: int = 0) -> list[int]:
    return list(StepSampler(lengths.__getitem__, len(lengths), per_step, seed, lambda: trained))


def lengths_of_clips(count: int, most: int, *, least: int = 16_000, seed: int = 0) -> list[int]:
    draw = Random(seed)
    return [draw.randint(least, most) for _ in range(count)]


def test_processes_of_a_step_do_not_wait_for_each_other() -> None:
    """The figure of docs/performance.md: clips of 16 to 64 s, 8 processes, 512 chunks a step."""
    lengths = lengths_of_clips(512 * 20, 64_000)
    shuffled = torch.randperm(len(lengths), generator=torch.Generator().manual_seed(0)).tolist()
    assert waiting([lengths[i] for i in shuffled], 8) == pytest.approx(1.466, abs=0.01)
    assert waiting([lengths[i] for i in order(lengths, 512)], 8) == pytest.approx(1.010, abs=0.005)


@pytest.mark.parametrize(("together", "per_step"), [(2, 16), (4, 64), (8, 64), (16, 128)])
def test_fewer_examples_in_a_step_are_balanced_too(together: int, per_step: int) -> None:
    lengths = lengths_of_clips(per_step * 30, 64_000, seed=together)
    before = waiting([lengths[i] for i in Random(1).sample(range(len(lengths)), len(lengths))], together)
    after = waiting([lengths[i] for i in order(lengths, per_step)], together)
    assert (after - 1) * 2 < before - 1


@pytest.mark.parametrize("count", [1, 5, 12, 13, 50])
def test_a_step_has_what_it_had_without_being_sorted(count: int) -> None:
    lengths = lengths_of_clips(count, 64_000)
    steps = -(-count // 12)
    for epoch in range(3):
        generator = torch.Generator().manual_seed(7 + epoch)
        plain = torch.randperm(count, generator=generator).tolist()
        found = order(lengths, 12, seed=7, trained=epoch * steps)
        assert sorted(found) == list(range(count))
        for start in range(0, count, 12):
            block = found[start : start + 12]
            assert set(block) == set(plain[start : start + 12])
            assert [lengths[i] for i in block] == sorted((lengths[i] for i in block), reverse=True)


def test_equal_lengths_keep_their_random_order() -> None:
    plain = torch.randperm(20, generator=torch.Generator().manual_seed(3)).tolist()
    assert order([5] * 20, 8, seed=3) == plain


def test_a_resumed_run_goes_on_in_the_order_and_measures_nothing_it_skips() -> None:
    lengths, asked = lengths_of_clips(50, 64_000), set()

    def length(number: int) -> int:
        asked.add(number)
        return lengths[number]

    for trained in (1, 3, 4, 5, 7, 12):  # five steps an epoch
        asked.clear()
        resumed = list(StepSampler(length, 50, 12, 0, lambda trained=trained: trained))
        whole = order(lengths, 12, trained=trained // 5 * 5)
        done = trained % 5 * 12
        assert resumed[done:] == whole[done:]
        assert asked == set(whole[done:])


@pytest.mark.parametrize(("size", "world", "batch"), [(13, 2, 2), (13, 4, 1), (15, 1, 4), (5, 4, 1), (16, 2, 2)])
def test_examples_that_only_fill_up_count_nothing(size: int, world: int, batch: int) -> None:
    """Every example counts once an epoch, whatever the number of processes."""
    per_step = 8
    steps, micro = -(-size // per_step), per_step // (world * batch)
    # As accelerate deals them: batches in turn, the first examples again until every process has as many.
    padded = -(-size // (world * batch)) * world * batch
    flat = [number % size for number in range(padded if world > 1 else size)]
    counted = [0.0] * size
    for rank in range(world):
        for step in range(steps):
            batches = []
            for start in range(step * per_step + rank * batch, min((step + 1) * per_step, len(flat)), world * batch):
                numbers = flat[start : start + batch]
                batches.append({"numbers": numbers, "loss_weights": torch.ones(len(numbers), 3)})
            assert len(batches) <= micro
            fake: Any = SimpleNamespace(
                args=SimpleNamespace(per_device_train_batch_size=batch, process_index=rank, world_size=world),
                get_total_train_batch_size=lambda _: per_step,
                train_dataset=range(size),
                state=SimpleNamespace(global_step=2 * steps + step),
            )
            for inputs in ChunkTrainer._without_repeats(fake, iter(batches)):
                for number, weights in zip(inputs["numbers"], inputs["loss_weights"], strict=True):
                    counted[number] += weights.mean().item()
    assert counted == [1.0] * size


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("balance")


@pytest.mark.slow
def test_two_processes_have_the_steps_of_one_over_two_epochs(folder: Path) -> None:
    """Also where the last step of an epoch has fewer examples than the processes take at once."""
    file = make_stage(folder, max_steps=0, epochs=2, device_batch=1, global_batch=4, min_words=1)
    _, chunks, _ = opened(file)
    count = len(chunks)
    assert count % 2 == 1, "an odd number: one process of two has to repeat an example"
    one = train(file, f"output={folder / 'one'}")
    output = folder / "two"
    _, errors = (process := launch(file, f"output={output}", processes=2)).communicate(timeout=280)
    assert process.returncode == 0, errors
    assert [row[:2] for row in losses(output)] == [row[:2] for row in losses(one)]
    for ours, theirs in zip(losses(output), losses(one), strict=True):
        assert ours[2] == pytest.approx(theirs[2], rel=1e-4)
