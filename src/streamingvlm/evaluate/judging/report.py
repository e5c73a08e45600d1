"""What a votes file says, as JSON and as text for people: what may be printed, and what is withheld and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..bootstrap import RESAMPLES
from .calibration import table as calibration_table
from .votes_file import Judged
from .win_rates import WORTH, counts, win_rates

#: The rule behind each figure, as it is printed; ``win_rate`` is the one that is called the result.
RULES: Mapping[str, str] = {
    "win_rate": "votes for a, ties half, of all votes",
    "without_empty": "the same, without pairs that have an empty text",
    "win_rate_consistent": "the same, of pairs whose two orders agree",
    "length_controlled": "the same, lengths being equal (logistic model)",
    "consistent": "pairs whose two orders agree",
    "flips": "pairs in which the order alone has decided",
    "first_position": "decisive votes for the first text; 50 is fair",
    "repeat_stability": "repeats of one vote that agree",
}
#: Figures that are told for each of several parts.
PARTS: Mapping[str, str] = {
    "length": "win rate, quartile {} of length (1: a is shortest)",
    "fifths": "win rate, fifth {} of the video",
}
WIDTH = 52


def summary(
    judged: Judged,
    calibration: Mapping[str, Any] | None,
    *,
    without_calibration: bool = False,
    partial: bool = False,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """The tree of all that is known.

    ``calibration``: of this judge (None: it has none). Without one that was passed there are no figures, unless
    ``without_calibration``: then they are marked. ``headline`` is None while votes are missing, unless ``partial``.
    """
    passed = bool(calibration and calibration["passed"])
    tree: dict[str, Any] = {
        "settings": dict(judged.settings),
        "counts": counts(judged) | {"returned": _returned(judged)},
        "calibration": dict(calibration) if calibration else None,
        "calibrated": passed,
        "headline": None,
        "withheld": "",
    }
    if not passed and not without_calibration:
        why = "has failed its calibration" if calibration else "was not calibrated"
        tree["withheld"] = f"all figures: the judge {why}; --without-calibration prints them, marked"
        return tree
    tree |= {name: part for name, part in win_rates(judged, resamples=resamples).items() if name != "counts"}
    if judged.judged < judged.expected and not partial:
        missing = judged.expected - judged.judged
        tree["withheld"] = f"the headline: {missing} of {judged.expected} votes are missing; --partial prints it"
    elif judged.judged:
        tree["headline"] = {"win_rate": tree["figures"]["win_rate"], "rule": RULES["win_rate"], "calibrated": passed}
    return tree


def report(tree: Mapping[str, Any]) -> str:
    """:func:`summary` as plain text."""
    settings, found = tree["settings"], tree["counts"]
    a, b = settings["a"]["name"], settings["b"]["name"]
    lines = [
        f"{settings['task']} (data {settings['revision']}): a = {a}, b = {b}",
        f"judge {settings['judge']} at {settings['host']}, prompt {settings['prompt']}, "
        + ", ".join(f"{name} {value}" for name, value in settings["parameters"].items()),
        *_count_lines(found),
    ]
    if tree["calibration"]:
        verdict = "passed" if tree["calibrated"] else "FAILED"
        lines += ["", f"calibration: {verdict}", calibration_table(tree["calibration"])]
    if "figures" in tree:
        lines += ["", *_figure_lines(tree["figures"], tree["calibrated"])]
    if tree["headline"]:
        mark = "" if tree["calibrated"] else "   (judge not calibrated)"
        lines += ["", f"win rate of {a} against {b}: {_value(tree['headline']['win_rate'])} %{mark}"]
    if tree["withheld"]:
        lines += ["", f"withheld: {tree['withheld']}"]
    return "\n".join(lines)


def _returned(judged: Judged) -> dict[str, int]:
    """What endpoints called the model that has answered, with its fingerprint: votes of each."""
    found: dict[str, int] = {}
    for vote in judged.votes:
        if vote.choice is not None and not vote.empty:
            name = " ".join(filter(None, (vote.call.get("model"), vote.call.get("fingerprint")))) or "not told"
            found[name] = found.get(name, 0) + 1
    return found


def _count_lines(found: Mapping[str, Any]) -> list[str]:
    empty = ", ".join(f"{number} of {who}" for who, number in found["empty"].items() if number) or "none"
    errors = ", ".join(f"{number} {kind}" for kind, number in found["errors_by_kind"].items()) or "none"
    lines = [
        f"{found['windows']} windows of {found['videos']} videos, {found['judged']} of {found['expected']} votes given",
        f"errors: {errors}; not asked: {found['not_asked']}; decided by rule, empty text: {empty}; "
        f"asked again: {found['asked_again']}",
    ]
    if len(found["returned"]) > 1:
        models = ", ".join(f"{name}: {number}" for name, number in found["returned"].items())
        lines.append(f"NOTE: votes come from more than one model or version ({models})")
    return lines


def _figure_lines(figures: Mapping[str, Any], calibrated: bool) -> list[str]:
    mark = "" if calibrated else "  JUDGE NOT CALIBRATED"
    lines = [f"{'percent, with 95 % interval over videos':{WIDTH}} {'value':>6} {'interval':>14} {'n':>6}{mark}"]
    for name, rule in RULES.items():
        figure = figures.get(name, {})
        if name == "length_controlled":
            reason = figure.get("reason")
            lines.append(f"{rule:{WIDTH}} {'-':>6}  {reason}" if reason else _line(rule, figure["win_rate"]))
        elif figure:
            lines.append(_line(rule, figure))
    shares = figures.get("shares", {})
    lines += [_line(f"share of votes: {choice}", shares[choice]) for choice in WORTH if choice in shares]
    for name, what in PARTS.items():
        lines += [_line(what.format(key), figure) for key, figure in figures.get(name, {}).items()]
    groups: Mapping[str, Any] = figures.get("groups", {})
    if len(groups) > 1:
        lines += [_line(f"win rate, {group}", figure) for group, figure in groups.items()]
    return lines


def _line(what: str, figure: Mapping[str, Any]) -> str:
    return f"{what:{WIDTH}} {_number(figure['value']):>6} {_bounds(figure):>14} {figure['n']:6}"


def _value(figure: Mapping[str, Any]) -> str:
    bounds = _bounds(figure)
    return _number(figure["value"]) + (f" ({bounds})" if bounds else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _bounds(figure: Mapping[str, Any]) -> str:
    both: Sequence[float | None] = (figure["low"], figure["high"])
    return "" if None in both else " - ".join(f"{bound:.1f}" for bound in both if bound is not None)
