"""Qwen3-VL: a stamped video block for every temporal patch, deepstack features, interleaved M-RoPE.

Time stands in the text (``<0.2 seconds>`` in front of each block), so a block's positions along t never move.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration

from ..core.grammar import StampedGrammar
from .patches import HALF
from .qwen_vl import QwenVL


class Qwen3VL(QwenVL):
    """A Qwen3-VL checkpoint; see :class:`streamingvlm.models.base.Model`."""

    hf_class = Qwen3VLForConditionalGeneration
    title = "Qwen3-VL"
    grammar_class = StampedGrammar
    mean = std = HALF

    def _axes(self, sections: Sequence[int]) -> Tensor:
        """The axes take turns (t, h, w, t, h, w, ...); where h and w have had their share, t has the rest."""
        axes = torch.zeros(sum(sections), dtype=torch.long)
        for axis in (1, 2):
            axes[axis : 3 * sections[axis] : 3] = axis
        return axes


load = Qwen3VL.load
frontend = Qwen3VL.frontend
load_for_training = Qwen3VL.load_for_training
