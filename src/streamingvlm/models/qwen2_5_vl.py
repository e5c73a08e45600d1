"""Qwen2.5-VL: one video block a step, positions along t in seconds, M-RoPE in three runs."""

from __future__ import annotations

from transformers import Qwen2_5_VLForConditionalGeneration

from .stock import StockModel


class Qwen25VL(StockModel):
    """A Qwen2.5-VL checkpoint; see :class:`streamingvlm.models.base.Model`."""

    hf_class = Qwen2_5_VLForConditionalGeneration
    title = "Qwen2.5-VL"

    def _tokens_per_second(self) -> float:
        return float(self.hf.config.vision_config.tokens_per_second)


load = Qwen25VL.load
