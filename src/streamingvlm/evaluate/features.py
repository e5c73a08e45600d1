"""What the vision tower sees of streams, kept on disk: rows that differ behind the tower need not play and look again.

Every minute of a stream is a file, written when the minute has been seen. Words are the same with and without it, bit
for bit, because a step's pictures alone decide what the tower makes of them; the work that it was is kept beside.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..core.errors import OutputError
from ..core.events import Chunk, StepInput
from ..core.policy import CachePolicy, Recompute
from ..engine.request import StepRequest
from ..engine.session import Session
from ..models.base import Model, Prepared, Vision
from ..models.patches import Patches
from .task import TaskExample

#: Steps of a file.
BLOCK = 60
#: Height and width of the noise that tells one tower from another.
NOISE = (420, 320)
#: Pixels of patches that the tower has seen already.
NOTHING = torch.zeros(0, 0)


@dataclass(frozen=True, slots=True)
class Features:
    """Files under ``folder``, which is of one tower on one kind of device: see :meth:`of`. ``device``: where to."""

    folder: Path
    device: torch.device

    @staticmethod
    def of(model: Model, folder: Path) -> Features:
        """Those of a checkpoint's tower, told from others by what it sees in noise."""
        noise = np.random.default_rng(0).integers(0, 256, (model.patcher.temporal, *NOISE, 3), np.uint8)
        times = tuple(float(frame) for frame in range(len(noise)))
        seen = model.encode([model.patcher(Chunk(noise, times, 0.0, times[-1] + 1))])[0]
        digest = hashlib.sha256()
        for part in (seen.embeds, *seen.deepstack):
            digest.update(part.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return Features(folder / digest.hexdigest()[:16], model.kv_shape.device)

    @staticmethod
    def enough_for(policy: CachePolicy) -> bool:
        """Whether a policy wants nothing of a step but what the tower sees in it, once."""
        return not isinstance(policy.feeding, Recompute)

    def seen(self, example: TaskExample, session: Session, seconds: int) -> Seen:
        """The steps of an example from where ``session`` is up to ``seconds`` from the stream's start."""
        return Seen(self.folder / example.video, self.device, example, session, seconds)


class Seen:
    """A stream whose steps are read where they were seen before, with blank frames, else played.

    :meth:`keep` is told what the tower saw in those that were played, in order.
    """

    live = False

    def __init__(
        self, folder: Path, device: torch.device, example: TaskExample, session: Session, seconds: int
    ) -> None:
        played = example.source(seconds)
        self.name, self.context, self.kind = played.name, example.context, played.kind
        self.folder, self.device = folder, device
        self.example, self.session, self.seconds = example, session, seconds
        self.first = int(session.time)
        #: Steps of the minute that is not written yet.
        self.pending: list[StepInput] = []

    def __iter__(self) -> Iterator[StepInput]:
        second = self.first
        while second < self.seconds:
            known = self._read(second // BLOCK)[second % BLOCK :][: self.seconds - second]
            if not known:
                # A stream may begin between two whole seconds, and every step of it with it.
                begun = max(self.example.start, second + self.example.start % 1)
                source = self.example.source(self.seconds, begun)
                yield from (self.session.prepare(chunk) for chunk in source)
                return
            yield from known
            second += len(known)

    def keep(self, request: StepRequest) -> None:
        """Take what was seen in a step that has ended; a minute that was seen from its beginning is written."""
        before, chunk = request.step.prepared, request.step.chunk
        if isinstance(before, Prepared) and before.vision is not None:
            return
        # A minute of frames and patches of every stream would be gigabytes.
        patches = replace(request.ahead.patches, pixels=NOTHING)
        ready = replace(request.ahead, patches=patches, vision_seconds=request.timing.vision_encode)
        if self.pending or int(chunk.start) % BLOCK == 0:
            blank = replace(chunk, frames=_blank(len(chunk.frames)))
            self.pending.append(StepInput(blank, prepared=ready))
        if int(chunk.end) % BLOCK == 0 or int(chunk.end) == self.seconds:
            self._write(self.pending)
            self.pending = []

    def _path(self, block: int) -> Path:
        return self.folder / f"{block:05d}.safetensors"

    def _read(self, block: int) -> list[StepInput]:
        """The steps of a minute, as far as they are there."""
        path = self._path(block)
        try:
            with safe_open(path, "pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except FileNotFoundError:
            return []
        except (OSError, SafetensorError) as error:
            raise OutputError(f"{path} cannot be read ({error}); remove it to have the stream seen anew") from None
        return _unpack(tensors, self.device)

    def _write(self, steps: Sequence[StepInput]) -> None:
        if not steps:
            return
        path = self._path(int(steps[0].chunk.start) // BLOCK)
        # Another process may be at the same stream: whoever is last replaces a whole file by an equal one.
        part = path.with_suffix(f".{os.getpid()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(_pack(steps), part)
            part.replace(path)
        except (OSError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"cannot write {path} ({error})") from None


def _blank(count: int) -> NDArray[np.uint8]:
    """So many frames of one blank pixel, in the room of one."""
    return np.broadcast_to(np.uint8(0), (count, 1, 1, 3))


def _pack(steps: Sequence[StepInput]) -> dict[str, Tensor]:
    chunks, ready = [step.chunk for step in steps], [step.prepared for step in steps]
    seen = [(one.patches, one.vision, one) for one in ready if isinstance(one, Prepared) and one.vision is not None]
    assert len(seen) == len(chunks), "what is written has been encoded"
    layers = zip(*(vision.deepstack for _, vision, _ in seen), strict=True)
    work = [
        (chunk.read_seconds, one.seconds, one.vision_seconds) for chunk, (*_, one) in zip(chunks, seen, strict=True)
    ]
    return {
        "embeds": torch.stack([vision.embeds for _, vision, _ in seen]).cpu(),
        **{f"deepstack.{layer:02d}": torch.stack(parts).cpu() for layer, parts in enumerate(layers)},
        "grids": torch.tensor([(*patches.grid, *patches.merged) for patches, *_ in seen]),
        "times": torch.tensor([chunk.times for chunk in chunks], dtype=torch.float64),
        "bounds": torch.tensor([(chunk.start, chunk.end) for chunk in chunks], dtype=torch.float64),
        "work": torch.tensor(work, dtype=torch.float64),
    }


def _unpack(tensors: Mapping[str, Tensor], device: torch.device) -> list[StepInput]:
    """What :func:`_pack` packed."""
    layers = [part.to(device) for key, part in sorted(tensors.items()) if key.startswith("deepstack.")]
    embeds = tensors["embeds"].to(device)
    rows = zip(*(tensors[key].tolist() for key in ("times", "bounds", "work", "grids")), strict=True)
    steps = []
    for number, (times, (start, end), (read, preprocess, encode), (t, h, w, *merged)) in enumerate(rows):
        vision = Vision(embeds[number], tuple(layer[number] for layer in layers))
        patches = Patches(NOTHING, (t, h, w), (merged[0], merged[1], merged[2]))
        prepared = Prepared(patches, preprocess, vision, encode)
        chunk = Chunk(_blank(len(times)), tuple(times), start, end, read_seconds=read)
        steps.append(StepInput(chunk, prepared=prepared))
    return steps
