"""Charts, the table of scores, Markdown, JSON, and the file of scores."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from streamingvlm.core.errors import OutputError, SourceError
from streamingvlm.evaluate.bootstrap import Interval
from streamingvlm.evaluate.page.charts import NARROW, Estimate, bounds, fifths, forest, percent, share_bar
from streamingvlm.evaluate.page.collect import collect
from streamingvlm.evaluate.page.data import Baseline, Questions, Rate, ReportData, ScoreFile
from streamingvlm.evaluate.page.inputs import read_judged, read_run
from streamingvlm.evaluate.page.score_files import read_scores, write_scores
from streamingvlm.evaluate.page.scores_view import score_table, unparsed
from streamingvlm.evaluate.page.tables import markdown, report_json, table
from streamingvlm.evaluate.questions.items import Average, Part, Score
from streamingvlm.evaluate.runs import open_contestant
from support.report_data import NASTY, about, commentary, score_file, scores

SVG = "{http://www.w3.org/2000/svg}"


def made(path: Path, **more: Any) -> ReportData:
    runs, files = commentary(path, games=4, windows=2, **more)
    read = [read_run(open_contestant(one)) for one in runs]
    return collect(read, [read_judged(one) for one in files], [read_scores(one) for one in scores(path, **more)])


def parts(chart: str) -> list[ET.Element]:
    return list(ET.fromstring(chart).iter())


# Charts


@pytest.mark.parametrize(("value", "digits", "says"), [(62.5, 1, "62.5"), (50.0, 0, "50"), (None, 1, "–")])
def test_a_figure_in_percent(value: float | None, digits: int, says: str) -> None:
    assert percent(value, digits) == says


def test_bounds_are_left_out_where_there_are_none() -> None:
    assert bounds(Rate(value=60, low=55.04, high=65)) == "55.0–65.0"
    assert bounds(Rate(value=60)) == ""


@pytest.mark.parametrize(("value", "side"), [(60.0, "a"), (40.0, "b"), (50.0, "tie")])
def test_a_rate_lies_on_its_side_of_the_middle(value: float, side: str) -> None:
    chart = parts(forest([Estimate("n", "", Rate(value=value, low=value - 5, high=value + 5))], "axis", NARROW))
    (dot,) = [one for one in chart if one.get("class") == f"dot {side}"]
    (middle,) = [one for one in chart if one.get("class") == "middle"]
    (band,) = [one for one in chart if one.get("class") == f"band {side}"]
    away = float(dot.get("cx", "")) - float(middle.get("x1", ""))
    assert (away > 0) == (value > 50)
    assert (away == 0) == (value == 50)
    assert float(band.get("x1", "")) < float(dot.get("cx", "")) < float(band.get("x2", ""))


@pytest.mark.parametrize(
    ("high", "ends"), [(55, (40, 60)), (68, (30, 70)), (79, (20, 80)), (81, (10, 90)), (100, (0, 100))]
)
def test_all_bounds_are_on_the_axis(high: float, ends: tuple[int, int]) -> None:
    chart = parts(forest([Estimate("n", "", Rate(value=52, low=51, high=high))], "axis"))
    ticks = [int(one.text or "") for one in chart if one.get("class") == "axis" and (one.text or "").isdecimal()]
    assert (min(ticks), max(ticks), 50 in ticks) == (*ends, True)


def test_charts_are_whole_with_any_name() -> None:
    chart = forest([Estimate(NASTY, NASTY, Rate(value=60)), Estimate("none", "", Rate())], "a <b> & c")
    assert [one.text for one in parts(chart) if one.get("class") == "name"][1] == "none"
    assert ET.fromstring(chart).get("aria-label", "").startswith("a <b> & c. </script>")


def test_fifths_are_bars_from_the_middle() -> None:
    bars = [one for one in parts(fifths([70, 30, None, 50, 90], 20)) if one.get("class") in ("a", "b")]
    assert [one.get("class") for one in bars] == ["a", "b", "b", "a"]
    heights = [float(one.get("height", "")) for one in bars]
    assert heights[0] == heights[1] == heights[3] > heights[2], "more than the chart reaches is drawn as its end"
    assert fifths([]) == ""


def test_votes_share_a_bar() -> None:
    widths = {
        one.get("class"): float(one.get("width", ""))
        for one in parts(share_bar(6, 0, 2, 80))
        if one.get("class") in ("a", "b")
    }
    assert widths == {"a": 59.0, "b": 19.0}
    assert share_bar(0, 0, 0) == ""


# Scores


def file(name: str = "m", skill: float = 0.6, **more: Any) -> ScoreFile:
    return score_file(name, about(name, task="ovo", **more), skill)


def test_cells_hold_both_parsers_and_the_share_without_an_answer() -> None:
    one = file()
    view = score_table(Questions("ovo", "", [one]))
    names = [column.name for column in view.columns]
    assert names == ["total", "backward", "realtime", "forward", "EPM", "HLD", "OCR", "ACR", "SSR", "CRR"]
    assert [(band.name, band.span) for band in view.bands] == [
        ("", 4),
        ("backward", 2),
        ("realtime", 2),
        ("forward", 2),
    ]
    (epm,) = [cell for cell, name in zip(view.rows[0].cells, names, strict=True) if name == "EPM"]
    assert (epm.official, epm.strict, epm.n) == (one.scores[0].parts[0].accuracy, one.scores[1].parts[0].accuracy, 40)
    assert epm.unparsed == pytest.approx(100 * 4 / 40)
    assert unparsed(one) is not None
    assert len(unparsed(one) or ()) == 18


def part(correct: float, name: str = "T") -> Part:
    return Part(name, "", 10, 10, correct, 0)


def simple(name: str, correct: float, *baselines: tuple[str, float], complete: bool = True) -> ScoreFile:
    def score(right: float) -> Score:
        return Score("official", [part(right)], [Average("all", "pooled", 10 * right, complete)], {}, 10, 10, complete)

    base = [Baseline(label, score(right)) for label, right in baselines]
    return replace(file(name), scores=[score(correct)], baselines=base)


def test_best_and_not_above_the_baselines_are_marked() -> None:
    base = (("always Yes", 6), ("always No", 4), ("blind", 5))
    view = score_table(Questions("t", "", [simple("good", 8, *base), simple("poor", 6, *base)]))
    good, poor, constant, blind = view.rows
    assert (good.cells[1].best, good.cells[1].low, poor.cells[1].best, poor.cells[1].low) == (True, False, False, True)
    assert (constant.name, constant.cells[1].official, constant.cells[1].note) == ("best constant answer", 60.0, "Yes")
    assert (blind.name, blind.cells[1].official, blind.baseline) == ("blind", 50.0, True)


def test_baselines_of_one_name_that_differ_are_two_rows() -> None:
    view = score_table(Questions("t", "", [simple("x", 8, ("blind", 5)), simple("y", 8, ("blind", 4))]))
    assert [row.name for row in view.rows if row.baseline] == ["blind", "blind, y"]


@pytest.mark.parametrize(("complete", "count"), [(True, 1), (False, 0)])
def test_only_a_complete_set_has_a_headline(complete: bool, count: int) -> None:
    view = score_table(Questions("t", "", [simple("x", 8, complete=complete)]))
    assert len(view.headlines) == count


# The file of scores


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    bounds = {"official": {"EPM": Interval(50.0, 40.0, None)}}
    one = replace(file(), intervals=bounds)
    write_scores(tmp_path / "deep" / "s.json", one, about("m", task="ovo"))
    read = read_scores(tmp_path / "deep" / "s.json")
    assert [asdict(score) for score in read.scores] == [asdict(score) for score in one.scores]
    assert [(base.name, asdict(base.score)) for base in read.baselines] == [
        (b.name, asdict(b.score)) for b in one.baselines
    ]
    assert (read.items, read.replies, read.parsed, read.intervals, read.label) == (
        list(one.items), one.replies, one.parsed, bounds, one.label,
    )  # fmt: skip


def test_less_than_all_of_it_will_do_and_more_is_passed_over(tmp_path: Path) -> None:
    score = asdict(simple("x", 8).scores[0]) | {"notes": ["new"]}
    score["parts"] = [asdict(part(8)) | {"left_out": 1}]
    value = {"format": "streamingvlm.scores.1", "task": "t", "contestant": "x", "scores": [score]}
    (tmp_path / "s.json").write_text(json.dumps(value))
    read = read_scores(tmp_path / "s.json")
    assert (read.label.name, read.items, read.scores[0].parts[0].accuracy) == ("x", [], 80.0)
    assert unparsed(read) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read as scores"),
        ("[]", "does not hold scores"),
        ('{"format": "other"}', "does not hold scores"),
        ('{"format": "streamingvlm.scores.1", "task": "t"}', "not what `eval score` writes .*contestant"),
        (
            '{"format": "streamingvlm.scores.1", "task": "t", "contestant": "x", "scores": [1]}',
            "TypeError|AttributeError",
        ),
    ],
)
def test_another_file_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(SourceError, match=says):
        read_scores(tmp_path / "s.json")
    with pytest.raises(SourceError, match="no such file"):
        read_scores(tmp_path / "none.json")


def test_scores_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_scores(tmp_path / "file" / "s.json", file(), about("m"))


# Markdown and JSON


@pytest.mark.parametrize("text", ["a|b", "two\nlines", "*bold* <b> [link](x) `code` #1 \\|", NASTY])
def test_any_text_stays_in_its_cell(text: str) -> None:
    lines = table(["head", "n"], [[text, "1"]], right=[1]).split("\n")
    assert len(lines) == 3
    assert lines[1] == "|---|---:|"
    unescaped = lines[2].replace("\\\\", "").replace("\\|", "")
    assert unescaped.count("|") == 3
    assert "<" not in unescaped.replace("\\<", "")


def test_markdown_has_every_table(tmp_path: Path) -> None:
    text = markdown(made(tmp_path), "inf-streams")
    assert "| streamingvlm-7b | livecc-7b | judge-large |" in text
    assert "by sport:" in text
    assert "| streamingvlm-7b | stream | streaming | official | official |" in text
    assert "| best constant answer |" in text
    assert "Partial" not in text


def test_markdown_and_json_say_what_is_partial(tmp_path: Path) -> None:
    data = made(tmp_path, whole=False)
    assert "**Partial set: no headline figure.**" in markdown(data, "t")
    tree = json.loads(json.dumps(report_json(data)))
    assert tree["partial"]
    assert not tree["commentary"]["pairs"][0]["complete"]
    assert not tree["questions"][0]["complete"]


def test_json_has_the_figures_and_no_texts(tmp_path: Path) -> None:
    data = made(tmp_path)
    tree = json.loads(json.dumps(report_json(data)))
    pair = tree["commentary"]["pairs"][0]
    assert data.commentary is not None
    assert pair["figures"]["rate"]["value"] == data.commentary.pairs[0].figures.rate.value
    assert set(pair["windows"]) == {window.id for window in data.commentary.windows}
    assert "Oh, what a pass!" not in json.dumps(tree)
