"""Recorded runs of the public code, replayed through ``Session.step``.

The cases are in ``tests/engine/golden``; ``STREAMINGVLM_GOLDEN`` names another folder. Cases without answers are
run but compare nothing. ``STREAMINGVLM_GOLDEN_OUT`` names a folder that receives what our engine did.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streamingvlm.core.events import Chunk
from streamingvlm.core.policy import CachePolicy, PublicCode, PublicCodeKeepAll
from streamingvlm.core.sampling_params import Sampling
from streamingvlm.engine.engine import Engine
from streamingvlm.engine.request import Trace
from streamingvlm.models.patches import Patcher, Patches
from support import tiny

FOLDER = Path(os.environ.get("STREAMINGVLM_GOLDEN") or Path(__file__).parent / "golden")
OUT = os.environ.get("STREAMINGVLM_GOLDEN_OUT")
CASES = sorted(path.stem for path in FOLDER.glob("*.npz"))
LOGIT_TOLERANCE = 2e-4
NEWLINE = 198


@dataclass
class Case:
    name: str

    @cached_property
    def meta(self) -> dict[str, Any]:
        return json.loads((FOLDER / f"{self.name}.json").read_text())

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(FOLDER / f"{self.name}.npz") as stored:
            return {key: stored[key] for key in stored.files}

    def get(self, chunk: int, name: str) -> np.ndarray | None:
        return self.arrays.get(f"c{chunk:03d}.{name}")

    @cached_property
    def chunks(self) -> int:
        return 1 + max(int(key[1:4]) for key in self.arrays if key.endswith(".processor_ids"))

    @property
    def arguments(self) -> dict[str, Any]:
        return self.meta["streaming_inference_kwargs"] | self.meta["case_args"]

    def policy(self) -> CachePolicy:
        a = self.arguments
        mode = {"shrink": "contiguous", "append": "append"}[a.get("pos_mode", "shrink")]
        rounds = max(a["window_size"], a["text_round"])
        if a["text_sink"] is None and rounds >= self.chunks:
            return PublicCodeKeepAll(seconds=self.chunks, positions=mode)
        # No cut asked for: budgets that a case of this length never reaches.
        sink, text = (10_000, 10_000) if a["text_sink"] is None else (a["text_sink"], a["text_sliding_window"])
        return PublicCode(a["window_size"], a["text_round"], sink, text, mode)

    def patches(self, chunk: int) -> Patches:
        grid = self.get(chunk, "grid_thw")
        t, h, w = self.arguments["grid"] if grid is None else (int(n) for n in grid[0])
        pixels = self.get(chunk, "pixel_values_videos")
        if pixels is None:
            random = np.random.RandomState([self.arguments["seed"], chunk])
            pixels = (random.randint(-127, 128, size=(t * h * w, 1176)) / 64).astype(np.float32)
        return Patches(torch.from_numpy(pixels), (t, h, w), (t, h // 2, w // 2))


class RecordedTokenizer:
    """Knows exactly the texts of one case, with the ids that were recorded for them."""

    def __init__(self, case: Case) -> None:
        self.ids: dict[str, list[int]] = {"\n": [NEWLINE], " ...": [tiny.ELLIPSIS]}
        a = case.arguments
        system, previous, user, assistant = self._messages(case.get(0, "processor_ids"))
        self._learn_header("system\n", "You are a helpful assistant.", system)
        self._learn_header("previous text\n", a.get("previous_text", ""), previous)
        self._learn_header("assistant\n", "", assistant)
        self.ids["user\n"] = user[: user.index(NEWLINE) + 1]
        self.ids[a["query"]] = user[user.index(tiny.MARKS.vision_end) + 1 :]
        for index in range(case.chunks):
            turn = case.get(index, "processor_ids").tolist()
            end = turn.index(tiny.MARKS.vision_start)
            start = max(i for i in range(end) if turn[i] == NEWLINE) + 1
            self.ids[f"Time={index:.1f}-{index + 1:.1f}s"] = turn[start:end]

    @staticmethod
    def _messages(ids: np.ndarray) -> list[list[int]]:
        """Ids of the messages of a prompt, without their marks and what follows these."""
        parts: list[list[int]] = []
        inside = False
        for token in ids.tolist():
            if token == tiny.MARKS.turn_start:
                parts.append([])
                inside = True
            elif token == tiny.MARKS.turn_end:
                inside = False
            elif inside:
                parts[-1].append(token)
        return parts

    def _learn_header(self, header: str, content: str, ids: list[int]) -> None:
        split = ids.index(NEWLINE) + 1
        self.ids[header] = ids[:split]
        self.ids[content] = ids[split:]

    def encode(self, text: str) -> list[int]:
        if text.startswith("Time=") and text not in self.ids:
            return [0] * len(text)  # only its length matters: the longest stamp there can be
        return self.ids[text]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))


@dataclass(frozen=True, slots=True)
class RecordedPatcher(Patcher):
    """Frames carry the number of their chunk; the patches are the recorded ones."""

    case: Case | None = None

    def __call__(self, chunk: Chunk) -> Patches:
        return self.case.patches(int(chunk.frames[0, 0, 0, 0]))

    def patches(self, frames: int) -> int:
        del frames
        return self.case.patches(0).merged[0]

    def max_tokens(self, frames: int) -> int:
        del frames  # the recorded grid is the same in every chunk
        patches = self.case.patches(0)
        return int(np.prod(patches.merged)) + 2


def replay(case: Case) -> list[Trace]:
    a = case.arguments
    model = tiny.model(
        RecordedTokenizer(case),
        patcher=RecordedPatcher(case=case),
        sampling=Sampling(temperature=0.0, repetition_penalty=a["rp"], max_new_tokens=a["max_new"]),
    )
    traces = []
    with Engine(model).open(policy=case.policy(), context=a["previous_text"], instruction=a["query"]) as session:
        for index in range(case.chunks):
            frames = np.full((2, 2, 2, 3), index, np.uint8)
            trace = Trace()
            session.step(Chunk(frames, (index, index + 0.5), index, index + 1), trace=trace)
            # Keep what is compared, not 152,064 scores per token.
            probes = torch.from_numpy(case.arrays["probe_ids"].astype(np.int64))
            traces.append(replace(trace, logits=[scores[probes] for scores in trace.logits]))
    return traces


def write_out(case: Case, traces: list[Trace], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for index, trace in enumerate(traces):
        arrays[f"c{index:03d}.retained_ids"] = np.array(trace.retained, np.int32)
        arrays[f"c{index:03d}.prefill_position_ids"] = trace.prefill_positions
        arrays[f"c{index:03d}.generated_ids"] = np.array(trace.tokens, np.int32)
        arrays[f"c{index:03d}.probe_logits"] = torch.stack(trace.logits).numpy()
    np.savez_compressed(folder / f"{case.name}.npz", **arrays)


@pytest.mark.parametrize("name", CASES)
def test_session_reproduces_the_public_code(name: str) -> None:
    case = Case(name)
    traces = replay(case)
    if OUT:
        write_out(case, traces, Path(OUT))
    for index, trace in enumerate(traces):
        generated = case.get(index, "generated_ids")
        if generated is None:
            continue
        assert trace.retained == case.get(index, "retained_ids").tolist(), f"retained ids, chunk {index}"
        assert trace.tokens == generated.tolist(), f"generated ids, chunk {index}"
        wanted = case.get(index, "prefill_position_ids")
        if wanted is not None:
            np.testing.assert_array_equal(trace.prefill_positions, wanted, f"positions, chunk {index}")
        np.testing.assert_allclose(
            torch.stack(trace.logits).numpy(), case.get(index, "probe_logits"), rtol=0, atol=LOGIT_TOLERANCE
        )


def test_there_are_cases() -> None:
    assert CASES, f"no golden cases in {FOLDER}"
