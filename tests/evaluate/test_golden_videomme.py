"""Published replies of LiveCC-7B-Instruct to Video-MME, rescored to the published figures.

The replies are not part of this repository: ``python scripts/fetch_golden.py`` says how to get them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingvlm.evaluate.questions.videomme import VideoMME

GOLDEN = Path(__file__).resolve().parents[2] / "golden-data" / "livecc" / "evaluation" / "videomme" / "results"
pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"{GOLDEN} is missing; python scripts/fetch_golden.py says how to get it"
)

#: Overall, short, medium, long; and of the log beside the replies: domains and the hardest task type.
FIGURES = {
    "no": {"overall": 64.11, "short": 74.78, "medium": 63.89, "long": 53.67},
    "with": {
        **{"overall": 70.33, "short": 76.56, "medium": 70.33, "long": 64.11},
        **{"Knowledge": 74.3, "Film & Television": 74.7, "Sports Competition": 67.8, "Artistic Performance": 65.8},
        **{"Life Record": 68.1, "Counting Problem": 48.9, "Information Synopsis": 87.3, "Basketball": 58.9},
    },
}


@pytest.mark.parametrize("subtitles", FIGURES)
def test_the_official_figures(subtitles: str) -> None:
    file = GOLDEN / f"LiveCC-7B-Instruct_{subtitles}_subtitles.json"
    benchmark = VideoMME(file)  # the result file also holds the questions
    assert all(count.complete for count in benchmark.counts)
    assert len(benchmark.videos) == 900
    assert not benchmark.defects
    for parser in ("official", "strict"):
        score = benchmark.score(benchmark.replies(file), parser)
        assert score.complete
        assert [one.name for one in score.averages if one.headline] == ["overall"]
        found = {part.name: part.accuracy for part in score.parts} | {one.name: one.value for one in score.averages}
        digits = 0.0051 if subtitles == "no" else 0.051
        assert {name: found[name] for name in FIGURES[subtitles]} == {
            name: pytest.approx(figure, abs=digits) for name, figure in FIGURES[subtitles].items()
        }


def test_no_reply_of_these_lacks_a_letter() -> None:
    file = GOLDEN / "LiveCC-7B-Instruct_no_subtitles.json"
    benchmark = VideoMME(file)
    score = benchmark.score(benchmark.replies(file), "official")
    assert sum(part.left_out for part in score.parts) == 0
    assert len(score.right) == 2700
