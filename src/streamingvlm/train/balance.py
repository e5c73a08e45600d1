"""The order of the examples: which a step has, and which of them run at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil

import torch
from torch.utils.data import Sampler


class StepSampler(Sampler[int]):
    """The numbers of all examples of an epoch in random order, the longest of each optimizer step first.

    Processes take their batches from this order in turn, so those that run at the same time have nearly the same
    length and no process waits long for another. The order follows from the seed, the epoch and the lengths: what a
    step has does not depend on the number of processes.

    ``length``: tokens of an example, asked for once a step; ``size``: examples; ``per_step`` of them in an optimizer
    step; ``trained``: optimizer steps that have been taken when an epoch is begun. Steps of the epoch that were taken
    before the run was resumed are not sorted: they are skipped, and lengths take time.
    """

    def __init__(
        self, length: Callable[[int], int], size: int, per_step: int, seed: int, trained: Callable[[], int]
    ) -> None:
        self.length, self.size, self.per_step, self.seed = length, size, per_step, seed
        self._trained = trained

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        epoch, done = divmod(self._trained(), ceil(self.size / self.per_step))
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(self.seed + epoch)).tolist()
        for step, start in enumerate(range(0, self.size, self.per_step)):
            numbers = order[start : start + self.per_step]
            yield from numbers if step < done else sorted(numbers, key=self.length, reverse=True)


def waiting(lengths: Sequence[float], together: int) -> float:
    """How much longer steps take because processes wait: the longest of each ``together`` neighbours, by their mean.

    1.0: nobody waits. Time is taken to grow with the length.
    """
    groups = [lengths[start : start + together] for start in range(0, len(lengths), together)]
    return sum(max(group) * len(group) for group in groups) / sum(lengths)
