"""The optimizer: Muon for the matrices inside the blocks, AdamW for everything else, on one scale of rates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(slots=True)
class Optimizer:
    """Both optimizers as one. ``rate`` is AdamW's; Muon's updates are scaled to the same size."""

    muon: torch.optim.Optimizer
    adam: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    clip: float = 1.0
    _zeroed: bool = field(default=False)

    @staticmethod
    def make(named: Iterable[tuple[str, nn.Parameter]], *, muon_decay: float = 0.1) -> Optimizer:
        """``named``: parameters with their names; matrices whose name has ``layers`` or ``blocks`` go to Muon."""
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in named:
            inside = "layers." in name or "blocks." in name
            (matrices if inside and parameter.ndim == 2 else others).append(parameter)
        muon = torch.optim.Muon(matrices, lr=1e-3, weight_decay=muon_decay, adjust_lr_fn="match_rms_adamw")
        adam = torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0)
        return Optimizer(muon, adam, matrices + others)

    def step(self, loss: Tensor, rate: float) -> None:
        """One update at this learning rate."""
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, self.clip)
        for optimizer in (self.muon, self.adam):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
