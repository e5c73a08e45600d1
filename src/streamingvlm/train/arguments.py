"""A stage as transformers' TrainingArguments."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from ..core.errors import OptionError
from .config import TrainConfig

#: FSDP2; what is wrapped are the layers that a model of transformers says may not be split.
SHARDING = {
    "version": 2,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "reshard_after_forward": True,
    "state_dict_type": "SHARDED_STATE_DICT",
    # The model does that by itself: FSDP's wrappers rename the layers, and saved adapters are then not found again.
    "activation_checkpointing": False,
}


def training_arguments(stage: TrainConfig, held_out: bool) -> Any:
    """What Trainer is told; ``held_out``: there are chunks to evaluate on.

    The number of batches that are accumulated follows from the processes that ``torchrun`` or ``accelerate launch``
    started. Raises :class:`OptionError` where they do not fit the stage.
    """
    args = TrainingArguments(
        output_dir=stage.output,
        per_device_train_batch_size=stage.device_batch,
        per_device_eval_batch_size=stage.device_batch,
        learning_rate=stage.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=stage.warmup,
        num_train_epochs=stage.epochs,
        max_steps=stage.max_steps or -1,
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.max_grad_norm,
        optim="adamw_torch",
        bf16=stage.bf16,
        tf32=stage.tf32 if torch.cuda.is_available() else None,
        seed=stage.seed,
        data_seed=stage.seed,
        save_strategy="steps",
        save_steps=stage.save_steps,
        save_total_limit=stage.keep,
        eval_strategy="steps" if held_out else "no",
        eval_steps=stage.eval_steps,
        logging_steps=stage.log_steps,
        logging_nan_inf_filter=False,  # a loss that is no number has to be seen
        include_num_input_tokens_seen="non_padding",
        report_to=reports(stage.report_to),
        disable_tqdm=not sys.stderr.isatty(),
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_num_workers=stage.workers,
        dataloader_persistent_workers=stage.workers > 0,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        use_cpu=not torch.cuda.is_available(),
        fsdp=stage.fsdp,
        fsdp_config=dict(SHARDING) if stage.fsdp else None,
        # Shards are reduced after every batch: whole gradients of 7 billion weights would wait on every device.
        accelerator_config={"gradient_accumulation_kwargs": {"sync_each_batch": stage.fsdp}},
    )
    if args.n_gpu > 1:
        raise OptionError(
            f"{args.n_gpu} GPUs but one process: start it with `torchrun --nproc-per-node {args.n_gpu} -m streamingvlm "
            "train ...`, or let it see one GPU (CUDA_VISIBLE_DEVICES=0)"
        )
    if stage.fsdp and args.world_size == 1:
        raise OptionError("fsdp = true needs several processes: torchrun --nproc-per-node N -m streamingvlm train ...")
    args.gradient_accumulation_steps = stage.accumulation(args.world_size)
    if stage.fsdp:
        _keep_positions(args, stage)
    return args


def reports(names: Sequence[str]) -> list[str]:
    """Where the losses go, as transformers has it. :class:`OptionError` for what it does not know or is not there."""
    if unknown := [name for name in names if name not in INTEGRATION_TO_CALLBACK]:
        raise OptionError(
            f"report_to: unknown {unknown[0]!r}; known: {', '.join(sorted(INTEGRATION_TO_CALLBACK))}; [] for none"
        )
    there = get_available_reporting_integrations()
    if missing := [name for name in names if name not in there]:
        raise OptionError(f"report_to: {missing[0]} is not installed: pip install {missing[0]}")
    return list(names)


def _keep_positions(args: Any, stage: TrainConfig) -> None:
    """Mixed precision that leaves the model's inputs alone.

    By default FSDP casts all floating inputs to bf16, and the positions are among them: above 256 bf16 has no odd
    numbers, above 512 no half ones.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy

    if stage.bf16:
        args.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
