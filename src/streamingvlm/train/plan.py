"""What a stage will take: tokens, optimiser steps, hours, bytes. Nothing is decoded and no weight is read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from ..core.errors import OptionError
from .checkpoints import throughput
from .config import TrainConfig
from .examples import TrainingExample
from .weights import start_folder

#: Batches that a worker holds ready (PyTorch's default).
PREFETCHED = 2
#: Bytes on a device of a value of a patch: as it comes from a worker, and normalised.
PATCH_BYTES = 1 + 4
#: What :attr:`ResourceEstimate.memory` leaves out.
NOT_COUNTED = "the tower's activations, what the allocator wastes, CUDA itself: some 2 to 4 GB more"
#: Chunks whose tokens are counted; of more, so many are taken at even distances.
COUNTED = 2000


class Examples(Protocol):
    """Chunks by number."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> TrainingExample: ...


@dataclass(frozen=True, slots=True)
class Lengths:
    """The chunks of a data set: ``mean`` and ``longest`` tokens, ``seen`` and ``most_seen``: mean and most tokens of
    video, ``predicted``: most tokens that are learnt, ``seconds`` of video in all; ``squares``: mean of the squared
    tokens; ``counted``: chunks that this was counted in."""

    chunks: int
    counted: int
    mean: float
    longest: int
    squares: float
    seen: float
    most_seen: int
    predicted: int
    seconds: float


def count(examples: Examples, most: int = COUNTED) -> Lengths:
    """Measure at most ``most`` chunks at even distances."""
    size = len(examples)
    numbers = sorted({i * size // min(size, most) for i in range(min(size, most))})
    rows = [(one.length, one.video_tokens, one.predicted, one.seconds) for one in map(examples.__getitem__, numbers)]
    lengths, seen, predicted, seconds = zip(*rows, strict=True)
    return Lengths(
        chunks=size,
        counted=len(rows),
        mean=sum(lengths) / len(rows),
        longest=max(lengths),
        squares=sum(length**2 for length in lengths) / len(rows),
        seen=sum(seen) / len(rows),
        most_seen=max(seen),
        predicted=max(predicted),
        seconds=sum(seconds) * size / len(rows),
    )


class ResourceEstimate:
    """A stage on ``devices`` devices. ``measured``: the throughput that a run into the same output left, if any."""

    def __init__(self, stage: TrainConfig, lengths: Lengths, devices: int) -> None:
        self.stage, self.lengths, self.devices = stage, lengths, devices
        self.accumulation = stage.accumulation(devices)
        if stage.fsdp and devices == 1:
            raise OptionError("fsdp = true needs several devices: --devices 8")
        config = AutoConfig.from_pretrained(start_folder(stage))
        with torch.device("meta"):
            self._model: Any = AutoModelForImageTextToText.from_config(config)
        self._text: Any = config.text_config
        self.measured = throughput(Path(stage.output))

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        per_epoch = math.ceil(
            math.ceil(self.lengths.chunks / self.devices / self.stage.device_batch) / self.accumulation
        )
        return self.stage.max_steps or math.ceil(per_epoch * self.stage.epochs)

    @property
    def chunks(self) -> float:
        """Chunks that are trained on, repeats counted."""
        most = self.steps * self.stage.global_batch
        return min(most, self.lengths.chunks * self.stage.epochs) if not self.stage.max_steps else most

    @property
    def tokens(self) -> int:
        """Tokens that go through the decoder, repeats counted."""
        return round(self.lengths.mean * self.chunks)

    @cached_property
    def parameters(self) -> dict[str, int]:
        """Parameters: ``all``, ``vision`` tower, ``decoder`` layers, and those that are ``trained``."""
        model = self._model.model
        every, tower = _count(self._model), _count(model.visual)
        if self.stage.method == "lora":
            trained = sum(
                self.stage.lora_rank * (module.in_features + module.out_features)
                for name, module in model.language_model.named_modules()
                if name.rpartition(".")[2] in self.stage.lora_targets
            )
        else:
            trained = every - tower if self.stage.freeze_vision else every
        return {"all": every, "vision": tower, "decoder": _count(model.language_model.layers), "trained": trained}

    @property
    def flops(self) -> float:
        """Floating-point operations of the whole stage, multiply and add counted as two."""
        p, text, mean = self.parameters, self._text, self.lengths
        forward = 2 * p["decoder"] * mean.mean + 2 * text.num_hidden_layers * mean.squares * _width(text)
        # Backward costs a forward for the activations and one for the weights; checkpointing computes forward again.
        passes = (3 if self.stage.method == "full" else 2) + self.stage.gradient_checkpointing
        merge = self._model.config.vision_config.spatial_merge_size**2
        tower = 2 * p["vision"] * mean.seen * merge * (1 if self.stage.freeze_vision else passes)
        return float((forward * passes + tower) * self.chunks)

    @property
    def hours(self) -> tuple[float | None, str]:
        """Hours, and what they were told from; None if neither a throughput nor TFLOP/s are known."""
        if self.measured is not None:
            rate = self.measured["tokens_per_second_per_device"]
            what = (
                f"measured: {rate:,.0f} tokens/s a device ({self.measured['device']}, {self.measured['steps']} steps)"
            )
            return self.tokens / rate / self.devices / 3600, what
        if self.stage.tflops:
            what = f"stated: {self.stage.tflops:g} TFLOP/s a device (tflops)"
            return self.flops / (self.stage.tflops * 1e12) / self.devices / 3600, what
        return None, "unknown: state tflops=..., or run a few steps into this output first"

    @property
    def memory(self) -> dict[str, int]:
        """Bytes on a device, for the longest chunks. Weights, gradients, optimizer and patches are counted, the others
        are estimates; :data:`NOT_COUNTED` is left out."""
        stage, p = self.stage, self.parameters
        shards = self.devices if stage.fsdp else 1
        half, whole = (2 if stage.bf16 else 4), 4
        if stage.method == "lora":
            weights = half * p["all"] + whole * p["trained"]
        else:
            # Without sharding, bf16 copies of all matrices stay for the length of a step.
            weights = whole * p["all"] // shards + (half * p["all"] if stage.bf16 and not stage.fsdp else 0)
        return {
            "weights": weights if stage.method == "full" else weights // shards,
            "gradients": whole * p["trained"] // shards,
            "optimizer": 2 * whole * p["trained"] // shards,
            "communication": self._communication(half),
            "activations": self._activations(half),
            "logits": self._logits(half),
            "patches": self._patches(PATCH_BYTES),
        }

    @property
    def shared_memory(self) -> int:
        """Bytes of /dev/shm for each device: the batches that its workers hold ready, uint8, of the longest chunks."""
        return self.stage.workers * PREFETCHED * self._patches(1)

    def _communication(self, size: int) -> int:
        """What several devices gather and reduce at a time, in bytes.

        With FSDP the weights outside of the layers (embedding, head, merger) stay gathered, two layers are, and the
        gradient of the former is whole before it is reduced in float32. Without, DDP's buckets are the gradients again.
        """
        if self.devices == 1:
            return 0
        if not self.stage.fsdp:
            return 4 * self.parameters["trained"]
        p, model = self.parameters, self._model.model
        blocks = _count(model.visual.blocks)
        root = p["all"] - p["decoder"] - blocks
        learnt = 0 if self.stage.method == "lora" else root - (p["vision"] - blocks if self.stage.freeze_vision else 0)
        layer = p["decoder"] // self._text.num_hidden_layers
        return int(size * (root + 2 * layer) + (size + 4) * learnt)

    def _logits(self, size: int) -> int:
        """Logits of the rows that are learnt, in bytes: as they are computed, in float32, and twice for the loss."""
        batch = self.stage.device_batch
        # The rows of a batch are those of any of its chunks.
        rows = batch * min(batch * self.lengths.predicted, self.lengths.longest)
        return int(rows * self._text.vocab_size) * ((size if size < 4 else 0) + 3 * 4)

    def _patches(self, size: int) -> int:
        """Bytes of a batch's patches, ``size`` a value. A token is merged from several patches."""
        vision = self._model.config.vision_config
        values = 3 * vision.temporal_patch_size * (vision.patch_size * vision.spatial_merge_size) ** 2
        return int(self.lengths.most_seen * self.stage.device_batch * values * size)

    def _activations(self, size: int) -> int:
        """A rough count of what the backward pass needs of the longest chunks in the decoder, in bytes."""
        stage, text, rows = self.stage, self._text, self.lengths.longest * self.stage.device_batch
        layer = rows * (8 * text.hidden_size + 2 * _width(text) + 3 * text.intermediate_size) * size
        if stage.method == "lora":
            layer += rows * self._adapted * 4  # adapters are float32, and so are the copies of what they read
        # Weights in float32 under autocast: what runs from layer to layer is float32.
        kept = rows * text.hidden_size * (4 if stage.method == "full" and not stage.fsdp else size)
        layers = text.num_hidden_layers
        return int(layers * kept + layer if stage.gradient_checkpointing else layers * layer)

    @cached_property
    def _adapted(self) -> int:
        """Values a token that the adapters of one layer read."""
        layer = self._model.model.language_model.layers[0]
        return sum(
            module.in_features
            for name, module in layer.named_modules()
            if name.rpartition(".")[2] in self.stage.lora_targets
        )

    def to_dict(self) -> dict[str, Any]:
        """All figures."""
        hours, source = self.hours
        return {
            "chunks": self.lengths.chunks,
            "tokens": self.tokens,
            "tokens_counted_in": self.lengths.counted,
            "longest_chunk": self.lengths.longest,
            "video_hours": round(self.lengths.seconds / 3600, 2),
            "steps": self.steps,
            "accumulation": self.accumulation,
            "devices": self.devices,
            "parameters": self.parameters,
            "flops": self.flops,
            "hours": hours,
            "hours_from": source,
            "bytes_per_device": self.memory,
            "bytes_not_counted": NOT_COUNTED,
            "shared_memory_per_device": self.shared_memory,
        }

    def lines(self) -> list[str]:
        """The figures for people."""
        counted = self.lengths.counted
        how = "" if counted == self.lengths.chunks else f" (from {counted:,} of the chunks)"
        hours, source = self.hours
        memory = self.memory
        parts = ", ".join(f"{name} {_bytes(size)}" for name, size in memory.items() if size)
        rows = {
            "chunks": f"{self.lengths.chunks:,}, {self.lengths.seconds / 3600:,.1f} h of video, overlaps counted",
            "tokens": f"{self.tokens:,}{how}; {self.lengths.mean:,.0f} a chunk, {self.lengths.longest:,} the longest",
            "steps": f"{self.steps:,} of {self.stage.global_batch} chunks: {self.devices} devices x "
            f"{self.stage.device_batch} x {self.accumulation} accumulated",
            "parameters": f"{self.parameters['all']:,}, {self.parameters['trained']:,} of them trained",
            "hours": ("unknown" if hours is None else f"{hours:,.2f}") + f" ({source})",
            "memory": f"{_bytes(sum(memory.values()))} a device: {parts} ",
            "": f"without {NOT_COUNTED}",
            "/dev/shm": f"{_bytes(self.shared_memory)} a device: batches that {self.stage.workers} workers hold ready",
        }
        return [f"{name:10} {text}" for name, text in rows.items()]


def _count(module: Any) -> int:
    return sum(p.numel() for p in module.parameters())


def _width(text: Any) -> int:
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(head_dim * text.num_attention_heads)


def _bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
