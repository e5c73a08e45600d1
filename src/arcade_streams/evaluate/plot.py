"""Pictures of claims: the fifths of the video, and the figures that show the claim, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamingvlm.runtime.reports import heading

from ..score.table import look

#: Metrics that are not shares: they would hide the others.
_APART = ("work_per_second", "drift")


def draw(path: Path, found: Mapping[str, Any]) -> None:
    """Draw one claim's results (see :meth:`Comparison.test`); the file's ending says in which format."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    drawing, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5))
    figures = [key for key in found["figures"] if key[0] not in _APART]
    width = 0.8 / len(found["rows"])
    for number, (name, row) in enumerate(found["rows"].items()):
        fifths = [part["micro_f1_strict"] for part in row["fifths"]]
        left.errorbar(range(1, 6), *_points(fifths), label=name, capsize=3)
        places = [place + number * width for place in range(len(figures))]
        values, errors = _points([look(row, key) for key in figures])
        right.bar(places, values, width, yerr=errors, label=name, capsize=2)
    left.set(xlabel="fifth of the video", ylabel="micro F1, same second", ylim=(0, 1.02), xticks=range(1, 6))
    left.legend()
    right.set_xticks(
        [place + 0.4 - width / 2 for place in range(len(figures))],
        ["\n".join(key).replace("_", "\n") for key in figures],
    )
    right.set(ylim=(0, 1.02))
    drawing.suptitle(f"{found['claim']}\n{heading(dict(found))}", fontsize=8)
    drawing.tight_layout()
    drawing.savefig(path)
    pyplot.close(drawing)


def _points(figures: list[Mapping[str, float | None] | None]) -> tuple[list[float], list[list[float]]]:
    """Values, and how far the intervals reach below and above them; nan where there is no case."""
    values, below, above = [], [], []
    for figure in figures:
        value, low, high = (figure or {}).get("value"), (figure or {}).get("low"), (figure or {}).get("high")
        values.append(float("nan") if value is None else value)
        below.append(0.0 if value is None or low is None else max(value - low, 0.0))
        above.append(0.0 if value is None or high is None else max(high - value, 0.0))
    return values, [below, above]
