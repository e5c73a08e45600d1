"""A stage of training as a TOML file: every key, its default, and what it may be.

A file names what differs from the defaults, which are the paper's (section 3); the command line may override any key
(``learning_rate=2e-5``). Keys that do not exist and values that cannot be meant are one line, before anything is read.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from ..core.errors import OptionError

#: What may change when a run is resumed: how often it reports and saves, and how the same batch is split.
FREE_WHEN_RESUMED = frozenset(
    {
        "output",
        "device_batch",
        "workers",
        "save_steps",
        "save_minutes",
        "eval_steps",
        "log_steps",
        "keep",
        "tflops",
        "report_to",
        "dataloader_timeout",
    }
)


#: Keys that name annotation files.
TABLES = ("data", "eval_data")
#: A file that is to be seen more often than this is a slip: so many epochs of everything else would pass.
MOST_REPEATS = 1000


@dataclass(frozen=True, slots=True)
class DataFile:
    """An annotation file, or a folder of them, and how much of it an epoch sees.

    ``most``: so many of its chunks at most (0: all); ``repeat``: how often each of these is seen. With 0.25 a fourth of
    them is seen, with 2.5 each twice and half of them once more; ``seed`` of the stage chooses which. Raises
    OptionError for numbers that cannot be meant.
    """

    file: str
    repeat: float = 1.0
    most: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.repeat <= MOST_REPEATS:
            raise OptionError(f"repeat of {self.file} must be above 0 and at most {MOST_REPEATS}, not {self.repeat:g}")
        if self.most < 0:
            raise OptionError(f"most of {self.file} must be 0 (all) or more, not {self.most}")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One stage of supervised fine-tuning. Times in seconds, lengths in tokens.

    What it reads and writes
        ``model``: checkpoint folder or hub id to start from (``""``: the bundled model); ``output``: folder of the
        run; ``data`` and ``eval_data``: annotation files, by name or as tables of :class:`DataFile`; ``video_root``:
        folder that their paths count from; ``rollouts``: a file of ``streamingvlm rollout``, for the on-policy stage
        (``""``: histories are true).
    Chunks (paper, section 3.1)
        ``window`` W and ``overlap`` O; ``min_words`` of a chunk (-1: two a second); previous text cut to its first
        ``sink`` and last ``text`` tokens; ``fps`` frames looked at per second; ``max_pixels`` of a frame after the
        resize (0: the checkpoint's, else the paper's 768 tokens) and ``clip_pixels`` of a whole chunk, the frames of a
        temporal patch counted once (0: no bound); ``instruction``: the standing one (``"default"``:
        the checkpoint's); ``silence_weight``: how much the tokens of a silent second count in the loss; ``lead``: what
        stands before the words of a second (the public code: a space); ``recut``: cut published clips into windows
        too; ``longest``: seconds beyond which such a clip is left out (0: no bound); ``titles`` and ``queries``: a
        stream's title is its context, a clip's own query its instruction; ``unreadable``: raise, or blank (black
        frames and no loss, named in the log).
    Optimisation (section 3.2)
        ``learning_rate`` with cosine decay after a ``warmup`` share of all steps; ``global_batch`` chunks per step
        over all devices, of which a device holds ``device_batch`` at a time; ``epochs``, or ``max_steps`` if above 0.
    What is trained
        ``method``: full, or lora with ``lora_rank``, ``lora_alpha``, ``lora_dropout`` and ``lora_targets`` (the
        decoder's linear layers by name); ``freeze_vision``: leave the vision tower as it is.
    How
        ``bf16`` products; ``attention``: sdpa, flash_attention_2, eager or auto (flash where it is installed);
        ``tf32`` products where they are float32 and the GPU can (off: transformers finds the angles
        of positions by such a product, which would round them); ``gradient_checkpointing``; ``fsdp``: shard weights,
        gradients and optimizer over the processes; ``workers`` that read video, and ``dataloader_timeout``: seconds
        after which a worker that gives nothing ends the run (0: never).
    What a run leaves
        A checkpoint every ``save_steps`` steps, and when the last one is ``save_minutes`` old (0: by steps alone), of
        which the newest ``keep`` stay; the held-out loss every ``eval_steps``, the loss every ``log_steps``;
        ``report_to``: where they go, as transformers names it (tensorboard, wandb, ...).
    The checkpoint's habits, for those who run it
        ``vision`` and ``turns`` seconds kept, ``temperature``, ``repetition_penalty``, ``max_new_tokens`` a step.
    Rollouts (on-policy stage)
        ``rollout_seconds`` of a stream in one segment (0: all of it), ``rollout_streams`` in one batch.
    For the dry run
        ``tflops``: sustained TFLOP/s per device that hours are told for (0: none is stated).
    """

    model: str = ""
    output: str = "runs/train"
    data: tuple[str | DataFile, ...] = ()
    eval_data: tuple[str | DataFile, ...] = ()
    video_root: str = "."
    rollouts: str = ""

    window: float = 24.0
    overlap: float = 12.0
    min_words: int = -1
    sink: int = 512
    text: int = 512
    fps: float = 2.0
    max_pixels: int = 0
    clip_pixels: int = 0
    instruction: str = "default"
    silence_weight: float = 1.0
    lead: str = " "
    recut: bool = False
    longest: float = 0.0
    titles: bool = True
    queries: bool = False
    unreadable: str = "raise"

    learning_rate: float = 1e-5
    warmup: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    epochs: float = 1.0
    max_steps: int = 0
    global_batch: int = 512
    device_batch: int = 1
    seed: int = 0

    method: str = "full"
    lora_rank: int = 64
    lora_alpha: float = 128.0
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    freeze_vision: bool = True

    bf16: bool = True
    tf32: bool = False
    attention: str = "auto"
    gradient_checkpointing: bool = True
    fsdp: bool = False
    workers: int = 2
    dataloader_timeout: int = 900

    save_steps: int = 200
    save_minutes: float = 30.0
    eval_steps: int = 200
    log_steps: int = 1
    keep: int = 2
    report_to: tuple[str, ...] = ("tensorboard",)

    vision: float = 16.0
    turns: float = 16.0
    temperature: float = 0.9
    repetition_penalty: float = 1.05
    max_new_tokens: int = 20

    rollout_seconds: float = 600.0
    rollout_streams: int = 8

    tflops: float = 0.0

    def __post_init__(self) -> None:
        for good, message in self._rules():
            if not good:
                raise OptionError(message)

    def _rules(self) -> list[tuple[bool, str]]:
        positive = ("window", "fps", "learning_rate", "epochs", "max_grad_norm", "rollout_streams", "global_batch",
                    "device_batch", "lora_rank", "lora_alpha", "save_steps", "eval_steps", "log_steps", "keep",
                    "max_new_tokens", "repetition_penalty")  # fmt: skip
        not_negative = ("overlap", "sink", "text", "silence_weight", "weight_decay", "max_steps", "workers",
                        "vision", "turns", "max_pixels", "clip_pixels", "longest", "temperature", "rollout_seconds",
                        "tflops", "seed", "save_minutes", "dataloader_timeout")  # fmt: skip
        values = {name: getattr(self, name) for name in (*positive, *not_negative)}
        return [
            *((math.isfinite(v), f"{name} must be a finite number, not {v}") for name, v in values.items()),
            *((values[name] > 0, f"{name} must be above 0, not {values[name]}") for name in positive),
            *((values[name] >= 0, f"{name} must be 0 or more, not {values[name]}") for name in not_negative),
            (self.overlap < self.window, f"overlap must be less than the window of {self.window:g} s"),
            (self.min_words >= -1, f"min_words must be 0 or more (-1: two a second), not {self.min_words}"),
            (0 <= self.warmup < 1, f"warmup is a share of all steps, from 0 to below 1, not {self.warmup}"),
            (0 <= self.lora_dropout < 1, f"lora_dropout must be from 0 to below 1, not {self.lora_dropout}"),
            (self.keep >= 2, f"keep must be 2 or more (the newest may be half written), not {self.keep}"),
            (self.method in ("full", "lora"), f"method must be full or lora, not {self.method!r}"),
            (
                self.attention in ("auto", "sdpa", "flash_attention_2", "eager"),
                f"attention must be auto, sdpa, flash_attention_2 or eager, not {self.attention!r}",
            ),
            (self.unreadable in ("raise", "blank"), f"unreadable must be raise or blank, not {self.unreadable!r}"),
            (bool(self.lora_targets) or self.method != "lora", "lora_targets must name at least one layer"),
            (
                self.freeze_vision or self.method == "full",
                "freeze_vision must be true with method lora: adapters are for the decoder",
            ),
            (
                self.global_batch % self.device_batch == 0,
                f"global_batch {self.global_batch} must be a multiple of device_batch {self.device_batch}",
            ),
        ]

    def accumulation(self, processes: int) -> int:
        """Batches that each of ``processes`` adds up for one step. OptionError if the global batch cannot be split."""
        together = processes * self.device_batch
        if self.global_batch % together:
            raise OptionError(
                f"global_batch {self.global_batch} cannot be split over {processes} processes with {self.device_batch} "
                f"chunks each; it must be a multiple of {together}"
            )
        return self.global_batch // together

    @property
    def standing_instruction(self) -> str | None:
        """The standing instruction; None: the checkpoint's own."""
        return None if self.instruction == "default" else self.instruction

    @property
    def clip_budget(self) -> int | None:
        """Most pixels of a chunk; None: no bound."""
        return self.clip_pixels or None

    @property
    def pixel_budget(self) -> int | None:
        """Most pixels of a frame; None: the checkpoint's own."""
        return self.max_pixels or None

    @staticmethod
    def from_dict(table: Mapping[str, Any], where: str) -> TrainConfig:
        """The stage of :meth:`to_dict`, read back from ``where``."""
        return replace(TrainConfig(), **checked(table, where))

    def to_dict(self) -> dict[str, Any]:
        """All keys, as JSON and TOML have them."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def differs(self, before: Mapping[str, Any]) -> list[str]:
        """Keys in which a run that is to be resumed differs from this, of those that decide what comes out."""
        now = self.to_dict()
        return [key for key in now if key not in FREE_WHEN_RESUMED and key in before and now[key] != before[key]]


def read_stage(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """The stage that a TOML file describes, with overrides such as ``epochs=2`` or ``data=["a.jsonl"]``.

    A value that is no TOML (``model=runs/one/model``) is taken as text. Raises :class:`OptionError`, one line.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"cannot read {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} is not valid TOML: {error}") from None
    told = checked(dict(map(_override, overrides)), "the command line")
    return replace(TrainConfig(), **{**checked(table, str(path)), **told})


def _override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise OptionError(f"an override is KEY=VALUE, not {text!r}")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value


def checked(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values of the types that the keys have. :class:`OptionError` for the first that has not."""
    kinds = get_type_hints(TrainConfig)
    out: dict[str, Any] = {}
    for key, value in table.items():
        if key not in {field.name for field in fields(TrainConfig)}:
            raise OptionError(f"{where}: unknown key {key!r}{_like(key)}")
        kind = kinds[key]
        if kind is float and type(value) is int:
            value = float(value)
        if key in TABLES:
            value = _data_files(value, f"{where}: {key}")
        elif get_origin(kind) is tuple:
            value = (value,) if isinstance(value, str) else value
            if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
                raise OptionError(f"{where}: {key} must be a list of texts, not {value!r}")
            value = tuple(value)
        elif type(value) is not kind:
            raise OptionError(f"{where}: {key} must be {_NAMES[kind]}, not {value!r}")
        out[key] = value
    return out


def _data_files(value: Any, where: str) -> tuple[str | DataFile, ...]:
    """Names and tables of annotation files; a table that says no more than the name is the name."""
    items = value if isinstance(value, list | tuple) else [value] if value != "" else []
    return tuple(_data_file(item, where) for item in items)


def _data_file(item: Any, where: str) -> str | DataFile:
    if isinstance(item, DataFile) or (isinstance(item, str) and item):
        return item
    if not isinstance(item, Mapping):
        raise OptionError(
            f"{where} must be a list of texts or of tables such as {{file = 'a.jsonl', repeat = 2}}, not {item!r}"
        )
    table = dict(item)
    if "weight" in table:
        if "repeat" in table:
            raise OptionError(f"{where}: weight and repeat are the same; name one of them")
        table["repeat"] = table.pop("weight")
    unknown = sorted(set(table) - set(get_type_hints(DataFile)))
    if unknown:
        behind = unknown[0] in {field.name for field in fields(TrainConfig)}
        why = (
            "keys of the stage stand before its first table" if behind else "a table has file, repeat (or weight), most"
        )
        raise OptionError(f"{where}: unknown key {unknown[0]!r}; {why}")
    if not (isinstance(table.get("file"), str) and table["file"]):
        raise OptionError(f"{where}: a table must name its file: file = 'a.jsonl'")
    for key, kinds in (("repeat", (int, float)), ("most", (int,))):
        if type(table.get(key, 1)) not in kinds:
            raise OptionError(f"{where}: {key} of {table['file']} must be {_NAMES[kinds[-1]]}, not {table[key]!r}")
    found = DataFile(table["file"], float(table.get("repeat", 1)), table.get("most", 0))
    return found.file if found == DataFile(found.file) else found


_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _like(key: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(key, [field.name for field in fields(TrainConfig)], n=1)
    return f"; did you mean {close[0]}?" if close else "; docs/guides/fine-tune.md lists them"
