"""Charts as inline SVG: no library, no script, colours of the page around them.

Shapes carry classes (``a``, ``b``, ``tie``, ``axis``, ``grid``, ``band``) that the style sheet of the page colours.
Each chart has a title that a screen reader speaks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from .data import Rate

#: Height of a row of the forest chart, and the room for figures beside it, pixels.
ROW, VALUES = 34, 126
#: Width of a wide and of a narrow one, and the room for names in it.
WIDE, NARROW = (860, 250), (400, 104)
MIDDLE = 50.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A row of the forest chart: a rate in percent with its interval, and a second one beside it (hollow)."""

    name: str
    note: str
    rate: Rate
    other: Rate | None = None


def percent(value: float | None, digits: int = 1) -> str:
    """A figure in percent, without the sign; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def bounds(rate: Rate, digits: int = 1) -> str:
    """The interval as two figures; nothing where there is none."""
    if rate.low is None or rate.high is None:
        return ""
    return f"{rate.low:.{digits}f}–{rate.high:.{digits}f}"


def forest(rows: Sequence[Estimate], axis: str, size: tuple[int, int] = WIDE) -> Markup:
    """Rates with their intervals, one below the other, around a line at 50 percent."""
    (width, left), right = size, size[0] - VALUES
    reach, step = _reach([row.rate for row in rows])
    low, high = MIDDLE - reach, MIDDLE + reach
    height = ROW * len(rows) + 40

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    parts = [_grid(reach, step, x, height - 34)]
    parts += [_estimate(row, x, ROW * number + ROW / 2 + 4, size) for number, row in enumerate(rows)]
    parts.append(
        Markup('<text class="axis" x="{:.0f}" y="{}" text-anchor="middle">{}</text>').format(
            x(MIDDLE), height - 2, axis
        )
    )
    told = "; ".join(f"{row.name}: {percent(row.rate.value)} ({bounds(row.rate)})" for row in rows)
    return _svg(width, height, f"{axis}. {told}", parts, "forest" if size == WIDE else "forest narrow")


def fifths(values: Sequence[float | None], reach: float = MIDDLE, width: int = 132, height: int = 44) -> Markup:
    """Small bars around 50 percent: how a rate changes from the first fifth of the videos to the last.

    ``reach``: the largest difference from 50 that is drawn: the same for all charts that are compared.
    """
    if not values:
        return Markup("")
    each, half = width / len(values), height / 2
    parts: list[Markup] = []
    for number, value in enumerate(values):
        if value is None:
            continue
        size = max(min(abs(value - MIDDLE) / reach, 1) * (half - 1), 1)
        top = half - size if value > MIDDLE else half
        parts.append(
            Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1.5"/>').format(
                "a" if value > MIDDLE else "b", number * each + 2, top, each - 4, size
            )
        )
    parts.append(Markup('<line class="middle" x1="0" x2="{}" y1="{}" y2="{}"/>').format(width, half, half))
    told = ", ".join(percent(value, 0) for value in values)
    return _svg(width, height, f"Win rate of A by fifth of the video, percent: {told}", parts, "spark")


def levels(
    values: Sequence[float | None], what: str, most: float = 100.0, width: int = 132, height: int = 34
) -> Markup:
    """Small bars from 0 to ``most``."""
    if not values:
        return Markup("")
    each, bar = width / len(values), Markup('<rect class="tie" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
    sizes = [max(min((value or 0) / most, 1) * (height - 1), 1) for value in values]
    parts = [bar.format(place * each + 2, height - size, each - 4, size) for place, size in enumerate(sizes)]
    return _svg(width, height, f"{what}: {', '.join(percent(value, 0) for value in values)}", parts, "spark low")


def share_bar(a: float, tie: float, b: float, width: int = 160, height: int = 12) -> Markup:
    """How votes are shared between A, neither and B."""
    total = a + tie + b
    if not total:
        return Markup("")
    parts, at = [], 0.0
    for kind, count in (("a", a), ("tie", tie), ("b", b)):
        size = count / total * width
        parts.append(
            Markup('<rect class="{}" x="{:.1f}" y="0" width="{:.1f}" height="{}"/>').format(
                kind, at, max(size - 1, 0), height
            )
        )
        at += size
    return _svg(width, height, f"A {a:g}, tie {tie:g}, B {b:g} votes", parts, "share")


def _reach(rates: Sequence[Rate]) -> tuple[float, float]:
    """How far from 50 the axis goes on both sides, so that all bounds are on it, and the step of its grid."""
    known = [end for rate in rates for end in (rate.value, rate.low, rate.high) if end is not None]
    most = max([abs(end - MIDDLE) for end in known], default=0.0)
    return next(
        ((reach, step) for reach, step in ((10.0, 5.0), (20.0, 10.0), (30.0, 10.0), (40.0, 20.0)) if most <= reach),
        (50.0, 25.0),
    )


def _grid(reach: float, step: float, x: Callable[[float], float], bottom: float) -> Markup:
    lines, count = [], int(reach / step)
    for value in [MIDDLE + step * number for number in range(-count, count + 1)]:
        kind = "middle" if value == MIDDLE else "grid"
        lines.append(
            Markup(
                '<line class="{}" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{}"/>'
                '<text class="axis" x="{at:.1f}" y="{}" text-anchor="middle">{:g}</text>'
            ).format(kind, bottom, bottom + 15, value, at=x(value))
        )
    return Markup("").join(lines)


def _estimate(row: Estimate, x: Callable[[float], float], y: float, size: tuple[int, int]) -> Markup:
    width, names = size
    name = Markup('<text class="name" x="0" y="{:.1f}">{}</text><text class="axis" x="0" y="{:.1f}">{}</text>')
    parts = [name.format(y - 1, _short(row.name, names // 8), y + 12, _short(row.note, names // 7))]
    rate = row.rate
    if rate.value is None:
        return parts[0]
    side = "a" if rate.value > MIDDLE else "b" if rate.value < MIDDLE else "tie"
    if rate.low is not None and rate.high is not None:
        band = Markup('<line class="band {}" x1="{:.1f}" x2="{:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(band.format(side, x(rate.low), x(rate.high), y=y))
    if row.other is not None and row.other.value is not None:
        hollow = Markup('<circle class="other {}" cx="{:.1f}" cy="{:.1f}" r="4"/>')
        parts.append(hollow.format(side, x(row.other.value), y))
    parts.append(Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="5.5"/>').format(side, x(rate.value), y))
    told = Markup('<text class="value" x="{}" y="{:.1f}" text-anchor="end">{}<tspan class="axis"> {}</tspan></text>')
    parts.append(told.format(width, y + 4, percent(rate.value), bounds(rate)))
    return Markup("").join(parts)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _svg(width: float, height: float, title: str, parts: Sequence[Markup], kind: str) -> Markup:
    return Markup('<svg class="chart {}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        kind, round(width), round(height), escape(title), Markup("").join(parts)
    )
