"""The optimizer: Muon for the matrices inside the blocks, AdamW for everything else, on one scale of rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

#: Coefficients of the quintic iteration and how many times it is done, as in Muon's public implementations.
_QUINTIC, _TIMES = (3.4445, -4.775, 2.0315), 5


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, for matrices; Nesterov's form, decoupled weight decay.

    What ``torch.optim.Muon`` does with ``adjust_lr_fn="match_rms_adamw"``, but in the precision of the parameters and
    for all matrices of a shape at once. torch's works in bfloat16, which a processor without instructions for it
    multiplies at a seventh of the pace: the update took longer than the step.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One update of all matrices that have a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for matrices in shapes.values():
                self._update(matrices, group["lr"], group["weight_decay"], group["momentum"])

    def _update(self, matrices: Sequence[nn.Parameter], rate: float, weight_decay: float, momentum: float) -> None:
        updates = []
        for matrix in matrices:
            assert matrix.grad is not None
            state = self.state[matrix]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(matrix)
            kept = state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
            updates.append(matrix.grad.lerp(kept, momentum))
        # An orthogonal matrix then has the root mean square of AdamW's updates.
        size = rate * 0.2 * max(matrices[0].shape) ** 0.5
        for matrix, update in zip(matrices, orthogonal(torch.stack(updates)), strict=True):
            matrix.mul_(1 - rate * weight_decay).sub_(update, alpha=size)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (n, rows, columns) of the same singular vectors, with nearly all singular values between 0.7 and 1.2."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = _QUINTIC
    for _ in range(_TIMES):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


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
        muon = Muon(matrices, weight_decay=muon_decay)
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
