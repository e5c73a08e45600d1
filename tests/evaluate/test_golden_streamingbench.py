"""The published question files of StreamingBench; ``python scripts/fetch_golden.py`` says how to get them."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamingvlm.evaluate.questions import baselines
from streamingvlm.evaluate.questions.items import Reply
from streamingvlm.evaluate.questions.streamingbench import StreamingBench

GOLDEN = Path(__file__).resolve().parents[2] / "golden-data" / "streamingbench" / "src" / "data"
pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"{GOLDEN} is missing; python scripts/fetch_golden.py says how to get it"
)


@pytest.mark.parametrize(("proactive", "items"), [("250", 4500), ("50", 4301)])
def test_every_published_question_is_read(proactive: str, items: int) -> None:
    bench = StreamingBench(GOLDEN, None, proactive=proactive)
    assert len(bench.items) == items
    assert all(count.complete for count in bench.counts)
    assert len(bench.videos) == 899
    right = {item.id: Reply(item.id, item.answer, item.truth_time) for item in bench.items}
    score = bench.score(right, "official")
    assert score.complete
    assert [one.value for one in score.averages if one.headline] == [100.0] * 4


def test_what_is_mended() -> None:
    bench = StreamingBench(GOLDEN)
    times = {item.id: item.time for item in bench.items}
    stamps = {"real_276_1": 765.0, "real_580_0": 24.0, "real_1041_0": 8.0, "omni_1024_0": 311.0}
    assert {id: times[id] for id in stamps} == stamps
    assert len(bench.defects) == 20
    assert sum("options: " in defect.what for defect in bench.defects) == 13
    assert {len(item.options) for item in bench.items} == {0, 4}


def test_the_files_that_are_grouped_by_video_lack_five_questions() -> None:
    bench = StreamingBench(GOLDEN, None, layout="stream", subset="real")
    assert {count.part: count.found for count in bench.counts if not count.complete} == {
        "Attribute Recognition": 303,
        "Event Understanding": 159,
    }


@pytest.mark.parametrize(("proactive", "share"), [("250", 4.4), ("50", 0.0)])
def test_yes_at_the_first_poll(proactive: str, share: float) -> None:
    bench = StreamingBench(GOLDEN, None, proactive=proactive)
    score = bench.score(baselines.at_once(bench.items), "official")
    assert score.averages[-1].value == pytest.approx(share)
