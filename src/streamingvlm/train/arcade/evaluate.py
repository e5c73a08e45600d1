"""The bundled model's figures: unseen streams, free running through the engine, beside chance and ceiling."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ...arcade.ceiling import ceiling
from ...arcade.games.pong import PONG
from ...arcade.record import truth_record
from ...arcade.score import score_many
from ...arcade.source import ArcadeSource
from ...arcade.stream import Stream
from ...engine import Engine
from ...models import load_model


@dataclass(frozen=True, slots=True)
class Task:
    """Some streams to watch in one process, with a policy such as ``streaming`` or ``streaming:vision=8``."""

    model: Path
    seeds: tuple[int, ...]
    seconds: int
    policy: str = "streaming"


def watch(task: Task) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Truth and words of every stream, in the form that the score takes."""
    torch.set_num_threads(1)
    model = load_model(task.model, device="cpu")
    engine = Engine(model, slots=len(task.seeds))
    sources = [ArcadeSource(PONG, seed, duration=task.seconds) for seed in task.seeds]
    sessions = [
        engine.open(policy=task.policy, context=source.context, stream=number) for number, source in enumerate(sources)
    ]
    said: list[list[dict[str, Any]]] = [[] for _ in sources]
    for chunks in zip(*sources, strict=True):
        jobs = [engine.submit(session, chunk) for session, chunk in zip(sessions, chunks, strict=True)]
        for rows, job in zip(said, jobs, strict=True):
            words = engine.wait(job)
            rows.append({"start": words.start, "end": words.end, "text": words.text})
    return [(truth(seed, task.seconds), rows) for seed, rows in zip(task.seeds, said, strict=True)]


def truth(seed: int, seconds: int) -> dict[str, Any]:
    """What is truly said of the first seconds of a stream."""
    stream = Stream(PONG, seed, render=False)
    rows = [(second.start, second.end, second.text) for second in islice(stream, seconds)]
    return truth_record(PONG, f"arcade:pong?seed={seed}", stream.context.text, rows)


def evaluate(
    model: Path, seeds: Sequence[int], seconds: int, policy: str = "streaming", *,
    workers: int | None = None, with_ceiling: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """All figures: ``model``, its ``chance`` inside, ``ceiling``, and the first words of the first stream."""
    count = min(workers or os.cpu_count() or 1, len(seeds))
    tasks = [Task(model, tuple(seeds[i::count]), seconds, policy) for i in range(count)]
    with multiprocessing.get_context("spawn").Pool(count) as pool:
        pairs = [pair for part in pool.map(watch, tasks) for pair in part]
    found: dict[str, Any] = {"seeds": list(seeds), "seconds": seconds, "policy": policy, "model": score_many(pairs)}
    found["by_stream"] = [score_many([pair])["micro_f1_strict"] for pair in pairs]
    if with_ceiling:
        found["ceiling"] = ceiling(PONG, seeds, seconds)
    return found


#: Figure -> what it must reach.
BARS = {
    "micro F1, same second": 0.80,
    "micro F1, within 1 s": 0.84,
    "macro F1, same second": 0.68,
    "colours": 0.97,
    "score": 0.97,
    "names": 0.95,
    "minutes 8-10 less minutes 0-2": -0.05,
}


def headline(figures: Mapping[str, Any]) -> dict[str, float | None]:
    """The figures that have a bar, by the names of :data:`BARS`."""
    early, late = (figures[part]["micro_f1_strict"] for part in ("minutes_0_2", "minutes_8_10"))
    return {
        "micro F1, same second": figures["micro_f1_strict"],
        "micro F1, within 1 s": figures["micro_f1"],
        "macro F1, same second": figures["macro_f1_strict"],
        "colours": figures["colours"],
        "score": figures["score"],
        "names": figures["names"],
        "minutes 8-10 less minutes 0-2": None if None in (early, late) else late - early,
    }


def table(found: Mapping[str, Any]) -> str:
    """The figures as a Markdown table: model, bar, chance, ceiling; then every kind."""
    model, best = found["model"], found.get("ceiling", {})
    chance = {
        "micro F1, same second": model["chance"]["micro_f1_strict"],
        "micro F1, within 1 s": model["chance"]["micro_f1"],
        "macro F1, same second": model["chance"]["macro_f1_strict"],
    }
    most = headline(best) if best else {}
    lines = ["| figure | model | bar | chance | ceiling |", "|---|---|---|---|---|"]
    for name, value in headline(model).items():
        cells = (_show(value), _show(BARS[name]), _show(chance.get(name)), _show(most.get(name)))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name in ("zones", "tally", "streak", "tally_self_consistent", "repetition"):
        lines.append(f"| {name.replace('_', ' ')} | {_show(model[name])} | | | {_show(best.get(name))} |")
    for gap, value in model["tally_steps"].items():
        lines.append(f"| tally steps {gap} | {_show(value)} | | | {_show(best.get('tally_steps', {}).get(gap))} |")
    for gap, value in model["names_by_gap"].items():
        lines.append(f"| names {gap} | {_show(value)} | | | {_show(best.get('names_by_gap', {}).get(gap))} |")
    lines += ["", "| kind | same second | within 1 s | cases | ceiling, same second |", "|---|---|---|---|---|"]
    for kind, part in model["by_kind"].items():
        top = best.get("by_kind", {}).get(kind, {}).get("strict")
        lines.append(
            f"| {kind} | {_show(part['strict'])} | {_show(part['within_1s'])} | {part['n_true']} | {_show(top)} |"
        )
    return "\n".join(lines)


def _show(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def write(found: Mapping[str, Any], path: Path) -> None:
    """The figures as JSON."""
    path.write_text(json.dumps(found, indent=2) + "\n")
