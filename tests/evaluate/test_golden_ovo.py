"""Published replies of eight models on OVO-Bench, rescored to the published averages.

The replies are not part of this repository: ``python scripts/fetch_golden.py`` says how to get them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingvlm.evaluate.questions import baselines
from streamingvlm.evaluate.questions.ovo import OVOBench

GOLDEN = Path(__file__).resolve().parents[2] / "golden-data" / "ovo-bench"
pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"{GOLDEN} is missing; python scripts/fetch_golden.py says how to get it"
)

#: backward, realtime, forward, total: the benchmark's own scorer on the results of its repository.
FIGURES = {
    "Gemini": (62.54, 69.32, 57.15, 63.00),
    "QWen2VL_72B_": (57.58, 61.92, 49.30, 56.27),
    "LLaVA_OneVision": (43.71, 64.02, 50.50, 52.74),
    "LLaVA_Video": (40.40, 63.52, 54.82, 52.91),
    "QWen2VL_7B_": (46.46, 55.98, 48.74, 50.39),
    "InternVL2": (43.44, 60.39, 46.60, 50.15),
    "LongVU": (35.01, 57.61, 47.50, 46.71),
    "FlashVStream": (27.38, 28.37, 45.09, 33.61),
}


@pytest.fixture(scope="module")
def bench() -> OVOBench:
    return OVOBench(GOLDEN / "data")


@pytest.mark.parametrize("model", FIGURES)
def test_the_official_averages(bench: OVOBench, model: str) -> None:
    score = bench.score(bench.replies(GOLDEN / "results" / model), "official")
    assert score.complete
    assert [one.name for one in score.averages if one.headline] == ["backward", "realtime", "forward", "total"]
    values = [one.value for one in score.averages if one.headline]
    assert values == [pytest.approx(figure, abs=0.0051) for figure in FIGURES[model]]


def test_replies_that_are_lists_score_as_those_that_are_texts(bench: OVOBench) -> None:
    lists, texts = (bench.replies(GOLDEN / "results" / model) for model in ("QWen2VL_7B", "QWen2VL_7B_"))
    assert lists.notes
    assert bench.score(lists, "official").right == bench.score(texts, "official").right


def test_the_published_data(bench: OVOBench) -> None:
    assert bench.revision == "dc4a90daf26764dc"
    assert all(count.complete for count in bench.counts)
    assert len(bench.videos) == 644
    assert len(bench.defects) == 10


def test_constant_answers(bench: OVOBench) -> None:
    score = bench.score(baselines.majority(bench.items), "strict")
    found = {part.name: round(part.accuracy or 0, 1) for part in score.parts}
    backward = {"EPM": 40.1, "HLD": 38.2, "ASI": 27.7}
    realtime = {"STU": 29.2, "OJR": 29.3, "ATR": 27.6, "ACR": 29.4, "OCR": 27.5, "FPD": 33.7}
    assert found == {**backward, **realtime, "REC": 20.5, "SSR": 67.2, "CRR": 60.0}
