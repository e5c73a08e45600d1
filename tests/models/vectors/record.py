"""Record what transformers' own processor makes of known frames. Needs torchvision (the package does not).

python tests/models/vectors/record.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from models.test_models import frames_of  # noqa: E402

#: seed, frames, height, width, min_pixels, max_pixels
CASES = [
    (11, 2, 210, 160, 128 * 784, 768 * 784),
    (12, 4, 480, 854, 784, 100 * 784),
    (13, 2, 97, 203, 128 * 784, 768 * 784),
    (14, 2, 1080, 1920, 128 * 784, 768 * 784),
]


def main() -> None:
    out = {}
    for index, (seed, count, height, width, low, high) in enumerate(CASES):
        frames = torch.from_numpy(frames_of(seed, count, height, width)).permute(0, 3, 1, 2)
        size = {"shortest_edge": low, "longest_edge": high}
        processor = Qwen2VLVideoProcessor(size=size, cap_pixels_per_frame=False)
        result = processor(frames, return_tensors="pt", do_sample_frames=False)
        pixels = result["pixel_values_videos"].numpy()
        rows = np.sort(np.random.RandomState(index).choice(len(pixels), 40, replace=False))
        out |= {
            f"{index}.arguments": np.array(CASES[index]),
            f"{index}.grid": result["video_grid_thw"][0].numpy(),
            f"{index}.rows": rows,
            f"{index}.pixels": pixels[rows],
        }
    np.savez_compressed(HERE / "qwen2vl_video_processor.npz", **out)


if __name__ == "__main__":
    main()
