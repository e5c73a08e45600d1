"""Frames to patches, as transformers' Qwen2VLVideoProcessor does it: uint8 resize, normalise, patch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..core.errors import OptionError, SourceError
from ..core.events import Chunk
from ..kernels.plain import upload

#: Mean and standard deviation per channel (of values from 0 to 1) that frames are normalised with.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Patches:
    """What the vision tower eats, or what :meth:`Patcher.finish` makes that of.

    ``pixels``: patches (t * h * w, channels * temporal * patch * patch), or the resized frames that they are cut from,
    (t * temporal, channels, height, width). Patches may be float32, which is what the tower eats, or uint8, as frames
    are: then they are not normalised. ``grid``: (t, h, w) in patches; ``merged``: the same after spatial merging, which
    is the grid of the language model's tokens.
    """

    pixels: Tensor
    grid: tuple[int, int, int]
    merged: tuple[int, int, int]


def normalize(pixels: Tensor, scale: Tensor) -> Tensor:
    """Patches (k, channels * ...) uint8 as float32, given :attr:`Patcher.scale` on the same device.

    Inference and training both end with it, so they see the same numbers; training calls it on the device.
    """
    mean, std = scale.unsqueeze(-1)
    values = pixels.view(len(pixels), len(mean), -1).float()
    return values.sub_(mean).div_(std).view(pixels.shape)


@dataclass(frozen=True, slots=True)
class Patcher:
    """Turns frames into patches. ``min_pixels`` and ``max_pixels`` bound a frame's area after the resize.

    ``cut_on_device``: leave frames as they are after the resize, uint8, for a model on a device, which ends with
    :meth:`finish` there. They have a fourth of the bytes; what the tower eats is the same.
    """

    patch: int = 14
    temporal: int = 2
    merge: int = 2
    min_pixels: int = 128 * 28 * 28
    max_pixels: int = 768 * 28 * 28
    mean: Sequence[float] = CLIP_MEAN
    std: Sequence[float] = CLIP_STD
    #: No option: it says where work is done, not what comes of it.
    cut_on_device: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if not self.factor**2 <= self.max_pixels:
            raise OptionError(f"max_pixels must be at least {self.factor**2} (one token), not {self.max_pixels}")

    @property
    def factor(self) -> int:
        """Pixels along one side of a language-model token."""
        return self.patch * self.merge

    def with_budget(self, max_pixels: int | None) -> Patcher:
        """The same with another pixel budget per frame (None: this one)."""
        if max_pixels is None:
            return self
        return replace(self, max_pixels=max_pixels, min_pixels=min(self.min_pixels, max_pixels))

    def patches(self, frames: int) -> int:
        """Temporal patches of ``frames`` frames."""
        return math.ceil(frames / self.temporal)

    def max_tokens(self, frames: int) -> int:
        """Most tokens of a video block of ``frames`` frames, its two marks included."""
        return self.patches(frames) * (self.max_pixels // self.factor**2) + 2

    def times(self, times: Sequence[float]) -> tuple[float, ...]:
        """When each temporal patch of frames at ``times`` stands: halfway between its first and its last; seconds."""
        last = len(times) - 1
        firsts = range(0, last + 1, self.temporal)
        return tuple((times[i] + times[min(i + self.temporal - 1, last)]) / 2 for i in firsts)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after the resize: multiples of :attr:`factor`, area inside the bounds, aspect kept.

        Frames longer than 200 to 1 are refused (SourceError), as the processor does.
        """
        if max(height, width) > 200 * min(height, width):
            raise SourceError(f"a frame of {width}x{height} is too long: at most 200 to 1")
        factor = self.factor
        new_h, new_w = (max(round(side / factor), 1) * factor for side in (height, width))
        if new_h * new_w > self.max_pixels:
            shrink = math.sqrt(height * width / self.max_pixels)
            new_h, new_w = (max(math.floor(side / shrink / factor), 1) * factor for side in (height, width))
        elif new_h * new_w < self.min_pixels:
            stretch = math.sqrt(self.min_pixels / (height * width))
            new_h, new_w = (math.ceil(side * stretch / factor) * factor for side in (height, width))
        # Beyond the processor: a side raised to one token, or rounded up, may not push the area over the budget.
        most = self.max_pixels // factor // factor * factor
        new_h, new_w = min(new_h, most), min(new_w, most)
        if new_h >= new_w:
            return min(new_h, self.max_pixels // new_w // factor * factor), new_w
        return new_h, min(new_w, self.max_pixels // new_h // factor * factor)

    def __call__(self, chunk: Chunk) -> Patches:
        """Patches of a chunk; the last frame is repeated to fill the last temporal patch."""
        frames = self._resized(chunk)
        if self.cut_on_device:
            # Whoever made the chunk may write over its frames before they are seen.
            return Patches(frames.clone(), *self._grids(frames))
        patches = self.patchify(frames)
        return replace(patches, pixels=self.finish(patches.pixels))

    def finish(self, pixels: Tensor) -> Tensor:
        """What the tower eats, (k, patch dim) float32, of a :attr:`Patches.pixels` in any form, on its device."""
        if pixels.ndim == 4:
            pixels = self.patchify(pixels).pixels
        if pixels.dtype != torch.uint8:
            return pixels
        return normalize(pixels, upload(self.scale, pixels.device))

    def fills(self, patches: Patches) -> bool:
        """Whether the pixels have a form of :class:`Patches`, and are as many as the grids say."""
        pixels, (t, h, w), channels = patches.pixels, patches.grid, len(self.mean)
        cut = (t * h * w, channels * self.temporal * self.patch**2)
        frames = (t * self.temporal, channels, h * self.patch, w * self.patch)
        kept = (torch.uint8,) if pixels.ndim == len(frames) else (torch.uint8, torch.float32)
        same = patches.merged == (t, h // self.merge, w // self.merge) and h % self.merge == w % self.merge == 0
        return same and tuple(pixels.shape) in (cut, frames) and pixels.dtype in kept

    @property
    def scale(self) -> Tensor:
        """Mean and standard deviation per channel, of values from 0 to 255: (2, 3) float32, for :func:`normalize`."""
        return torch.tensor([tuple(self.mean), tuple(self.std)]) * 255

    def unnormalized(self, chunk: Chunk) -> Patches:
        """Patches of a chunk before :func:`normalize`: ``pixels`` are uint8, a fourth of the bytes."""
        return self.patchify(self._resized(chunk))

    def _resized(self, chunk: Chunk) -> Tensor:
        """Frames (n, 3, height, width) uint8 that fill whole temporal patches."""
        frames = torch.from_numpy(np.ascontiguousarray(chunk.frames)).permute(0, 3, 1, 2)
        missing = -len(frames) % self.temporal
        if missing:
            frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
        size = self.size(frames.shape[2], frames.shape[3])
        if size != tuple(frames.shape[2:]):
            # On uint8: in float the result differs from the processor's by up to 0.4.
            frames = F.interpolate(frames, size, mode="bicubic", antialias=True)
        return frames

    def stretch(self, frames: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
        """Frames (n, h, w, 3) uint8 in another size, so that they can share a video block with frames of that size."""
        if frames.shape[1:3] == (height, width):
            return frames
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        pixels = F.interpolate(pixels, (height, width), mode="bicubic", antialias=True)
        stretched: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).numpy()
        return stretched

    def patchify(self, frames: Tensor) -> Patches:
        """Patches of frames (n, 3, height, width), of their dtype; n must fill whole temporal patches."""
        p, m, tp, channels = self.patch, self.merge, self.temporal, frames.shape[1]
        (t, h, w), merged = self._grids(frames)
        x = frames.view(t, tp, channels, h // m, m, p, w // m, m, p)
        x = x.permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
        return Patches(x.reshape(t * h * w, -1), (t, h, w), merged)

    def _grids(self, frames: Tensor) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Both grids of :class:`Patches` for frames (n, 3, height, width)."""
        count, _, height, width = frames.shape
        t, h, w = count // self.temporal, height // self.patch, width // self.patch
        return (t, h, w), (t, h // self.merge, w // self.merge)
