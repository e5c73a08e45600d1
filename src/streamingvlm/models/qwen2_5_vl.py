"""Qwen2.5-VL: one video block a step, positions along t in seconds, M-RoPE in three runs."""

from __future__ import annotations

from typing import Any

from transformers import Qwen2_5_VLForConditionalGeneration

from .qwen_vl import QwenVL


class Qwen25VL(QwenVL):
    """A Qwen2.5-VL checkpoint; see :class:`streamingvlm.models.base.Model`."""

    hf_class = Qwen2_5_VLForConditionalGeneration
    title = "Qwen2.5-VL"

    @classmethod
    def _tokens_per_second(cls, config: Any) -> float:
        return float(config.vision_config.tokens_per_second)


load = Qwen25VL.load
frontend = Qwen25VL.frontend
load_for_training = Qwen25VL.load_for_training
