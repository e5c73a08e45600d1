"""transformers' Trainer for chunks: a weighted loss over the words, normalised over all devices.

What is added to :class:`transformers.Trainer`, and why:

- The loss is the mean over the loss tokens of one optimiser step, on all devices and in all accumulated batches
  together, each token counted by its weight. A mean of means would weigh a word more where few are said.
- Batches of a step are taken one by one. Trainer collects all of them first to count their tokens: 512 chunks of
  720p video are 175 GB of patches. Here sums are accumulated and the gradients divided once, before they are clipped.
- Logits are computed only where a token is predicted: 24 s of video are 18,000 positions, some 200 of them words.
- The evaluation loss is the same weighted mean over the held-out chunks.
- A loss or gradient that is not finite ends the run before it reaches the weights: :class:`NotFiniteError`.
- The examples of a step are sorted by length (:class:`StepSampler`), so that processes wait less for each other. Where
  the last step of an epoch has too few for all processes, the repeated ones count nothing.
- A checkpoint is loaded by name, with no weight missing and none left over. Trainer writes the hub's names, looks for
  those in memory, and goes on from the base weights with a warning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from .balance import StepSampler
from .checkpoints import readable
from .collate import unpack
from .weights import load_checkpoint

#: What of a batch the model is given; the rest is for the loss.
MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids", "pixel_values_videos", "video_grid_thw")


def weighted_sums(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Per example of a batch the weighted sum of its losses and the sum of its weights: (B, 2) float32.

    ``batch``: ``input_ids``, ``attention_mask`` (B, n) int64; ``position_ids`` (3, B, n) float32; ``labels`` (B, n)
    int64, -100 where nothing is predicted; ``loss_weights`` (B, n) float32, one per label; patches and grids of the
    video, also as :meth:`Collator.pack` has them. A label is predicted from the position before its own.
    """
    batch = unpack(batch)
    labels, weights = batch["labels"][:, 1:], batch["loss_weights"][:, 1:]
    rows = (labels != -100).any(0).nonzero()[:, 0]
    inputs = {name: batch[name] for name in MODEL_INPUTS if name in batch and batch[name].numel()}
    # A batch without words still runs, so that no process waits for another's gradients.
    keep = rows if len(rows) else torch.zeros(1, dtype=torch.long, device=labels.device)
    logits = model(**inputs, use_cache=False, logits_to_keep=keep).logits.float()
    labels, weights = labels[:, keep], weights[:, keep]
    losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=-100)
    weights = weights * (labels != -100)
    return torch.stack([(losses * weights).sum(1), weights.sum(1)], dim=1)


class Upcoming:
    """The batches of one optimiser step, of which only the first is there already."""

    def __init__(self, batches: Iterator[Any], count: int) -> None:
        # The first now: what the loader draws when it begins must not come after a restored generator (resume).
        first = list(islice(batches, 1))
        self._batches = chain(first, islice(batches, count - 1))
        self._count = count if first else 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return self._batches


class NotFiniteError(Exception):
    """The loss or the gradients of a step are infinite or no numbers; the weights are as they were before it."""


def finite(value: Tensor | float, what: str) -> float:
    """``value`` as a number. :class:`NotFiniteError` if it is none; all processes must ask for the same value."""
    number = float(value)
    if not math.isfinite(number):
        raise NotFiniteError(f"{what} is {number}")
    return number


class ChunkTrainer(Trainer):  # type: ignore[misc]
    """Trains on chunks; see the module. ``data_collator`` gives what :func:`weighted_sums` takes.

    ``loader_timeout``: seconds after which a worker that gives no batch ends the run (0: never).
    """

    def __init__(self, *args: Any, loader_timeout: float = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loader_timeout = loader_timeout
        self.model_accepts_loss_kwargs = True  # the loss is normalised here: Trainer shall not divide it again
        self._sums = torch.zeros(2, device=self.args.device)
        self._step_loss = torch.zeros((), device=self.args.device)

    def create_accelerator_and_postprocess(self) -> None:
        """accelerate shards on GPUs only and says nothing where there are none; several CPU processes shard too."""
        super().create_accelerator_and_postprocess()
        state = self.accelerator.state
        if self.args.fsdp_plugin_args is not None and state.distributed_type == DistributedType.MULTI_CPU:
            plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, plugin
            self.is_fsdp_enabled = True
        assert self.is_fsdp_enabled == (self.args.fsdp_plugin_args is not None), "sharded if and only if asked to"

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """A loader that does not wait for ever; Trainer has no argument for that."""
        loader = super()._get_dataloader(*args, **kwargs)
        if self.args.dataloader_num_workers:
            getattr(loader, "base_dataloader", loader).timeout = self._loader_timeout
        return loader

    def _get_train_sampler(self, train_dataset: Any = None) -> StepSampler:
        """The order of the examples; where it goes on follows from the steps that were taken."""
        examples = self.train_dataset if train_dataset is None else train_dataset
        return StepSampler(
            lambda number: examples[number].length,
            len(examples),
            self.get_total_train_batch_size(self.args),
            self.args.data_seed,
            lambda: self.state.global_step,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[Upcoming, Tensor]:
        """The batches of one step, and a count that is not used."""
        return Upcoming(self._without_repeats(epoch_iterator), num_batches), torch.ones((), device=device)

    def _without_repeats(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches of one step; examples that only fill up the last step of an epoch have no weight.

        accelerate repeats the first examples until every process has as many: how many depends on the processes.
        """
        per_step, size = self.get_total_train_batch_size(self.args), len(self.train_dataset)
        batch = self.args.per_device_train_batch_size
        left = size - self.state.global_step % math.ceil(size / per_step) * per_step - self.args.process_index * batch
        for inputs in batches:
            inputs["loss_weights"][max(left, 0) :] = 0
            yield inputs
            left -= self.args.world_size * batch

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002
    ) -> Any:
        """The weighted sum of a batch's losses; :meth:`training_step` divides what became of it."""
        sums = weighted_sums(model, inputs)
        self._sums += sums.detach().sum(0)
        loss = sums[:, 0].sum()
        return (loss, None) if return_outputs else loss

    def training_step(
        self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One batch. The last of a step makes a mean of the accumulated gradients and returns the step's loss."""
        super().training_step(model, inputs, num_items_in_batch)
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        self._step_loss, total = self.accelerator.reduce(self._sums, "sum")
        total = total.clamp_min(torch.finfo(torch.float32).tiny)
        # Gradients were averaged over the processes; reported losses will be.
        share = self.accelerator.num_processes / total
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        torch._foreach_mul_(grads, share.item())
        loss: Tensor = self._sums[0] * share
        self._sums = torch.zeros_like(self._sums)
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        """Clip, and look at the norm and the loss of all processes before the optimizer does."""
        norm = super()._clip_grad_norm(model)
        finite(norm, f"the gradient norm of step {self.state.global_step + 1}")
        finite(self._step_loss, f"the loss of step {self.state.global_step + 1}")
        return norm

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """See the module; shards are loaded by name by ``torch.distributed.checkpoint`` itself."""
        if self.is_fsdp_enabled:
            with readable(resume_from_checkpoint):
                super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            load_checkpoint(self.model if model is None else model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Trainer's, with one line for files that cannot be read."""
        with readable(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Trainer's, with one line for files that cannot be read."""
        with readable(checkpoint):
            super()._load_rng_state(checkpoint)

    @torch.no_grad()
    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,  # noqa: ARG002
        prediction_loss_only: bool | None = None,  # noqa: ARG002
        ignore_keys: list[str] | None = None,  # noqa: ARG002
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The weighted mean loss over all held-out chunks, as ``eval_loss``."""
        model = self.model_wrapped.eval()
        total = torch.zeros(2, device=self.args.device)
        for inputs in dataloader:
            # Without the chunks that were repeated to give every process as many.
            total += self.accelerator.gather_for_metrics(weighted_sums(model, self._prepare_inputs(inputs))).sum(0)
            self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        loss = finite(
            total[0] / total[1].clamp_min(torch.finfo(torch.float32).tiny),
            f"the held-out loss after step {self.state.global_step}",
        )
        return EvalLoopOutput(None, None, {f"{metric_key_prefix}_loss": loss}, self.num_examples(dataloader))
