"""The weights of a stage: loaded for training, saved as an ordinary checkpoint folder, adapters merged.

What is saved carries the stage's windows, sampling and instruction in ``generation_config.json`` (key ``"streaming"``),
so that ``streamingvlm watch --model FOLDER`` runs the checkpoint as it was trained.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..core.errors import OptionError, TrainingError
from ..models.base import Frontend
from ..models.checkpoint import no_bars, quiet_loading, write_streaming
from ..models.edge import library
from ..models.files import list_files
from ..models.hub import find_checkpoint
from ..models.load import load_for_training, load_frontend
from ..models.vision_attention import WINDOWS
from .checkpoints import readable
from .config import TrainConfig

#: Beside the weights, what makes a folder complete: tokenizer, processors, chat template.
SMALL_FILES = ("*.json", "*.txt", "*.jinja", "*.model")


def start_folder(stage: TrainConfig) -> Path:
    """The checkpoint folder that the stage starts from."""
    return find_checkpoint(stage.model or None)


def load_weights(stage: TrainConfig, dtype: torch.dtype | None = None) -> Any:
    """The stock model of transformers, in ``dtype``, ready to be trained.

    By default in float32, the precision in which small steps add up; products run in bf16 if the stage says so. Only
    where adapters are trained the base stays in bf16. :class:`ModelError` for a folder that cannot be loaded.
    """
    frozen_base = stage.method == "lora" and stage.bf16
    dtype = dtype or (torch.bfloat16 if frozen_base else torch.float32)
    model = load_for_training(stage.model or None, dtype, attention_of(stage))
    # The tower's windows run as at inference, in one call.
    model.config.vision_config._attn_implementation = WINDOWS
    if stage.freeze_vision:
        model.model.visual.requires_grad_(False)
    if stage.gradient_checkpointing:
        checkpoint_activations(model)
    return with_adapters(model, stage) if stage.method == "lora" else model


def checkpoint_activations(model: Any) -> None:
    """Compute a layer's activations again in the backward pass; newer transformers has another name for it."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def attention_of(stage: TrainConfig) -> str:
    """The attention of the decoder: flash where it is installed and there is a GPU, unless the stage names one."""
    if stage.attention != "auto":
        return stage.attention
    there = torch.cuda.is_available() and importlib.util.find_spec("flash_attn") is not None
    return "flash_attention_2" if there and stage.bf16 else "sdpa"


def with_adapters(model: Any, stage: TrainConfig) -> Any:
    """``model`` with LoRA adapters on the decoder's linear layers, the only weights that are trained."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(stage.seed)
    names = "|".join(map(re.escape, stage.lora_targets))
    config = LoraConfig(
        r=stage.lora_rank,
        lora_alpha=stage.lora_alpha,
        lora_dropout=stage.lora_dropout,
        target_modules=rf".*language_model\..*\.({names})",
        task_type="CAUSAL_LM",
    )
    try:
        with without_notice():
            return get_peft_model(model, config)
    except ValueError as error:
        raise OptionError(f"lora_targets {list(stage.lora_targets)} name no layer of the decoder: {error}") from None


@contextmanager
def without_notice() -> Iterator[None]:
    """Without the notice that peft asks for a property which transformers is about to rename; with all others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def streaming_block(stage: TrainConfig, front: Frontend) -> dict[str, Any]:
    """How the checkpoint likes to be run, as ``generation_config.json`` says it."""
    instruction = stage.standing_instruction
    return {
        "vision": stage.vision,
        "turns": stage.turns,
        "sink": stage.sink,
        "text": stage.text,
        "max_new_tokens": stage.max_new_tokens,
        "temperature": stage.temperature,
        "repetition_penalty": stage.repetition_penalty,
        "system": front.grammar.system,
        "instruction": front.defaults.instruction if instruction is None else instruction,
    }


def save_checkpoint(
    model: Any, folder: Path, stage: TrainConfig, front: Frontend, state: Mapping[str, Any] | None = None
) -> None:
    """Write an ordinary checkpoint folder: weights (bf16 if the stage ran in it), tokenizer, processors, habits.

    ``state``: the weights where ``model`` holds only shards of them.
    """
    dtype = torch.bfloat16 if stage.bf16 else torch.float32
    weights = {key: part.to(dtype) for key, part in (state or model.state_dict()).items()}
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)  # no longer the embedding's own memory: it would be written twice
    model.config.dtype = dtype
    with whole_folder(folder) as draft:
        with no_bars():
            model.save_pretrained(draft, state_dict=weights)
        for path in sorted(p for pattern in SMALL_FILES for p in start_folder(stage).glob(pattern)):
            if not (draft / path.name).exists() and not path.name.endswith(".index.json"):
                shutil.copyfile(path, draft / path.name)
        write_streaming(draft, streaming_block(stage, front), front.patcher.with_budget(stage.pixel_budget))


@torch.no_grad()
def load_checkpoint(model: Any, folder: Path) -> None:
    """Put a run's checkpoint into its model, full or adapters: every weight by name, none missing and none left over.

    Raises :class:`TrainingError` where the two do not fit, or the files cannot be read.
    """
    from peft import PeftModel, get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict

    adapters = isinstance(model, PeftModel)
    with readable(folder):
        if adapters:
            saved = load_peft_weights(str(folder), device="cpu")
        else:
            # from_pretrained turns the hub's names into those of the model in memory.
            with quiet_loading():
                other, report = type(model).from_pretrained(
                    folder, dtype=model.dtype, attn_implementation="sdpa", output_loading_info=True
                )
            _nothing_apart(folder, report["missing_keys"], report["unexpected_keys"])
            saved = other.state_dict()
    own = get_peft_model_state_dict(model) if adapters else model.state_dict()
    _nothing_apart(folder, own.keys() - saved.keys(), saved.keys() - own.keys())
    if wrong := [name for name in sorted(own) if own[name].shape != saved[name].shape]:
        raise TrainingError(f"{folder} does not fit the run: {wrong[0]} has another shape")
    if adapters:
        set_peft_model_state_dict(model, saved)
    else:
        model.load_state_dict(saved, strict=True)


def _nothing_apart(folder: Path, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    for names, what in ((sorted(missing), "lacks"), (sorted(unexpected), "has")):
        if names:
            beyond = "" if what == "lacks" else " that the run does not have"
            raise TrainingError(f"{folder} {what} {len(names)} weights{beyond}, such as {names[0]}")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A draft of ``folder``, moved into its place file by file when it is whole: a reader never sees half of one."""
    draft = folder.with_name(folder.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    yield draft
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(draft.iterdir()):
        path.chmod(0o644)
        path.replace(folder / path.name)
    draft.rmdir()


def merge(run: Path, folder: Path) -> None:
    """Merge the adapter of a finished run into the weights it started from; ``folder`` becomes a checkpoint folder.

    Merged in float32, saved as the stage says. :class:`OptionError` if there is no adapter,
    :class:`ModelError` if it is damaged or not one of this model.
    """
    from peft import PeftModel

    if list_files(folder, "adapter_*"):
        raise OptionError(f"{folder} holds an adapter; a checkpoint cannot be written beside one")
    adapter = run / "adapter"
    if not (adapter / "adapter_config.json").is_file():
        raise OptionError(f"{run} has no adapter: a folder is needed in which a run with method lora has ended")
    stage = stage_of(run)
    plain = replace(stage, method="full", gradient_checkpointing=False, attention="sdpa")
    base = load_weights(plain, torch.float32)
    with library(f"{adapter} cannot be merged"), without_notice():
        # peft only warns where weights of the adapter are missing, and merges the rest.
        warnings.filterwarnings("error", message=".*missing adapter keys")
        merged = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    save_checkpoint(merged, folder, stage, load_frontend(stage.model or None))


def stage_of(run: Path) -> TrainConfig:
    """The stage that a run's folder was made with. :class:`OptionError` if it is no such folder."""
    try:
        table = json.loads((run / "stage.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise OptionError(f"{run} is not the folder of a run: it has no readable stage.json") from None
    return TrainConfig.from_dict(table, str(run / "stage.json"))
