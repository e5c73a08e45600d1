"""Qwen2-VL: one video block a step, M-RoPE in three runs; its t counts temporal patches, whatever the frame rate."""

from __future__ import annotations

from transformers import Qwen2VLForConditionalGeneration

from .qwen_vl import QwenVL


class Qwen2VL(QwenVL):
    """A Qwen2-VL checkpoint; see :class:`streamingvlm.models.base.Model`."""

    hf_class = Qwen2VLForConditionalGeneration
    title = "Qwen2-VL"


load = Qwen2VL.load
frontend = Qwen2VL.frontend
load_for_training = Qwen2VL.load_for_training
