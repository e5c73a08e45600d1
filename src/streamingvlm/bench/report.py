"""How figures are shown to people: tables, and a picture if matplotlib is there."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..core.errors import OptionError
from ..runtime.reports import Metrics, heading
from .measure import STAGES
from .policies import PolicyRun


def show(table: Table, figures: Metrics) -> None:
    """Print a table, as wide as it is where nobody's terminal bounds it, and what it was measured with."""
    _print(table)
    print(heading(figures))


def _print(table: Table) -> None:
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def show_count(figures: Metrics) -> None:
    """Print what was counted: a token, a second of video, where kernels and waits come from, the goals."""
    first, second = count_tables(figures)
    _print(first)
    show(second, figures)
    print("\n".join(count_lines(figures)))


def make_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first column is text and whose others are numbers."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def ms(seconds: float | None) -> str:
    """``12.3`` for 0.0123 s, ``-`` for nothing."""
    return "-" if seconds is None or not math.isfinite(seconds) else f"{seconds * 1000:.1f}"


def mib(count: float) -> str:
    """Bytes in MiB."""
    return f"{count / 2**20:.0f}"


def policy_table(figures: Metrics) -> Table:
    """One line per policy: work and lag in ms, stages in ms per second of video."""
    measured = {name: one for name, one in figures["policies"].items() if "steps" in one}
    columns = [
        "policy",
        "work/s",
        "median",
        *STAGES,
        "lag p50",
        "p95",
        "p99",
        "max",
        "ms/id",
        "tokens/s",
        "rows",
        "cache MiB",
    ]
    if not measured:
        return make_table("Nothing was measured", columns, [])
    base = measured.get("streaming", next(iter(measured.values())))
    rows = []
    for name, one in measured.items():
        lags = [ms(one[key]) for key in ("lag_p50", "lag_p95", "lag_p99", "lag_max")]
        rows.append(
            [
                name,
                ms(one["work_per_second"]),
                f"{ms(one['work_median'])} ({one['work_median'] / base['work_median']:.2f}x)",
                *(ms(one["stages"][stage]) for stage in STAGES),
                *lags,
                ms(one["seconds_per_token"]),
                f"{one['tokens_per_second']:.1f}",
                f"{one['rows']:,}",
                mib(one["cache_bytes"]),
            ]
        )
    return make_table("Work and lag, ms; stages per second of video", columns, rows)


def draw_policies(path: Path, runs: Sequence[PolicyRun], figures: Metrics) -> None:
    """Lag of every step, and work by stage, of every policy; the file's ending says in which format."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    drawing, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.5))
    drawn = [run for run in runs if run.steps]
    for run in drawn:
        times = list(accumulate(step.seconds for step in run.steps))
        left.plot(times, [step.lag * 1000 for step in run.steps], label=run.name, linewidth=1)
    left.set(xlabel="seconds of video behind the warm-up", ylabel="lag, ms", yscale="log")
    left.legend()
    bottom = [0.0] * len(drawn)
    for stage in STAGES:
        height = [figures["policies"][run.name]["stages"][stage] * 1000 for run in drawn]
        right.bar([run.name for run in drawn], height, bottom=bottom, label=stage)
        bottom = [low + high for low, high in zip(bottom, height, strict=True)]
    right.set(ylabel="work per second of video, ms")
    right.tick_params(axis="x", rotation=20)
    right.legend()
    drawing.suptitle(heading(figures), fontsize=8)
    drawing.tight_layout()
    try:
        drawing.savefig(path)
    except ValueError as error:
        raise OptionError(f"cannot draw {path}: {str(error).splitlines()[0]}") from None
    finally:
        pyplot.close(drawing)


def stream_table(figures: Metrics) -> Table:
    """One line per count of streams that was tried."""
    rows = []
    for count, trial in figures["trials"].items():
        batch = figures["batches"].get(count)
        rows.append(
            [
                count,
                ms(trial["round_seconds"]),
                f"{batch['ratio']:.2f}" if batch else "-",
                *(ms(trial["stages"][stage]) for stage in STAGES if stage != "read"),
                ms(trial["lag_p95"]),
                str(trial["dropped"]),
                "yes" if trial["real_time"] else "no",
            ]
        )
    stages = [stage for stage in STAGES if stage != "read"]
    columns = ["streams", "round", "ratio to 1", *stages, "lag p95", "dropped", "real-time"]
    return make_table("A step of every stream, ms", columns, rows)


def stream_lines(figures: Metrics) -> list[str]:
    """The answer in words."""
    width, height = figures["size"]
    answer = f"{figures['streams']} real-time streams of {width}x{height} at {figures['fps']:g} FPS"
    bound = " (every slot that was made)" if figures["all_slots"] else ""
    lines = [
        f"{answer}{bound}; {figures['streams_without_preprocess']} were the frames cut into patches elsewhere",
        f"{figures['model']}, {figures['rows']:,} rows a stream; {figures['time']}",
    ]
    return lines if figures["complete"] else [*lines, "the time was up before every count was tried: lower bounds"]


def ask_table(figures: Metrics) -> Table:
    """One line for steps without questions, one with, and their ratio; lag in ms."""
    lag, places = figures["lag"], ("p50", "p95", "p99")
    rows = [
        [f"{name} questions", str(figures["steps"][name]), *(ms(lag[name][place]) for place in places)]
        for name in ("without", "with")
    ]
    for name in ("ratio", "ratio_low", "ratio_high"):
        rows.append([name.replace("_", ", "), "", *(f"{lag[name][place]:.3f}" for place in places)])
    title = f"Lag of {figures['streams']} live streams, ms; a question every {figures['every']:g} s"
    return make_table(title, ["steps", "count", *places], rows)


def ask_line(figures: Metrics) -> str:
    """How soon questions were answered."""
    first, end = figures["first_text"], figures["answer"]
    return (
        f"{figures['answered']} of {figures['questions']} questions answered, "
        f"{figures['answer_tokens']:.0f} tokens each; "
        f"first text {ms(first['p50'])} ms (p95 {ms(first['p95'])}), end {ms(end['p50'])} ms (p95 {ms(end['p95'])})"
    )


def soak_table(figures: Metrics) -> Table:
    """First against last, and the slopes."""
    rows = []
    for name, unit, form in (
        ("lag", "ms", ms),
        ("work", "ms", ms),
        ("memory", "MiB", mib),
        ("device_memory", "MiB", mib),
        ("reference", "ms", ms),
    ):
        first, last = figures[f"{name}_first"], figures[f"{name}_last"]
        slope = figures.get(f"{name}_slope_per_hour")
        ratio = f"{last / first:.3f}" if first else "-"
        trend = form(slope) if slope is not None and math.isfinite(slope) else "-"
        rows.append([f"{name}, {unit}", form(first), form(last), ratio, trend])
    minutes = figures["edge_seconds"] / 60
    title = f"{figures['hours']:.2f} h of video, at most {figures['rows_max']:,} rows"
    return make_table(
        title, ["median", f"first {minutes:.1f} min", f"last {minutes:.1f} min", "ratio", "per hour"], rows
    )


def count_tables(figures: Metrics) -> list[Table]:
    """What a token and a second of video take on a GPU, as counted without one."""
    columns = ["a token", "kernels", "products", "ours", "attention", "choice", "other", "launches", "GB", "floor GB",
               "ratio", "waits"]  # fmt: skip
    tokens = {f"captured, {size} stream{'s' if size != '1' else ''}": one for size, one in figures["token"].items()}
    rows = [
        [
            name,
            *(f"{one[key]:,.0f}" for key in ("kernels", "products", "own", "attention", "choice", "other", "launches")),
            *_against_floor(one),
        ]
        for name, one in {**tokens, "one operation after the other": figures["token_uncaptured"]}.items()
    ]
    title = f"Counted, not measured: {figures['model']} in {figures['dtype']}, {figures['rows']:,} rows held"
    first = make_table(title, columns, rows)
    ways = {"with kernels of ours": figures["second"], "one operation after the other": figures["second_uncaptured"]}
    rows = [
        [f"{stage}, {way}", *(f"{one[key]:,.0f}" for key in ("kernels", "launches")), *_against_floor(one)]
        for way, stages in ways.items()
        for stage, one in stages.items()
    ]
    title = (
        f"A second of video at {figures['fps']:g} FPS: {figures['new_tokens']:,} new tokens, {figures['tokens']} said"
    )
    return [first, make_table(title, ["stage", "kernels", "launches", "GB", "floor GB", "ratio", "waits"], rows)]


def _against_floor(one: Metrics) -> list[str]:
    ratio = "-" if one["ratio"] is None else f"{one['ratio']:.2f}"
    return [f"{one['bytes'] / 1e9:.3f}", f"{one['floor_bytes'] / 1e9:.3f}", ratio, f"{one['waits']:g}"]


def count_lines(figures: Metrics) -> list[str]:
    """Where kernels and waits come from, and which goals are reached."""
    one = figures["token"]["1"]
    lines = ["floors here are bytes of weights and rows; the tower and a prefill are bound by their products besides"]
    lines += ["kernels of a token: " + "; ".join(f"{count:g} {place}" for place, count in one["places"].items())]
    for stage, found in {"a token": one, **figures["second"]}.items():
        lines += [f"waits of {stage}: {count:g} {place}" for place, count in found["waits_by_place"].items()]
        if found.get("incomplete"):
            lines.append(f"{stage} is counted in part: {found['incomplete']}")
    goals = figures["goals"]
    return lines + [
        f"{'reached' if goal['reached'] else 'MISSED'}: {goal['goal']}; counted {goal['counted']:.4g}" for goal in goals
    ]


def roofline_table(figures: Metrics) -> Table:
    """Measured against the floor, per stage, in ms per second of video."""
    rows = [
        [stage, ms(one["measured"]), "-" if one["floor"] is None else f"{one['floor'] * 1000:.3f}",
         "-" if one["ratio"] is None else f"{one['ratio']:.2f}"]
        for stage, one in {**figures["stages"], "on the device": figures["device_stages"]}.items()
    ]  # fmt: skip
    title = (
        f"ms per second of video; copy {figures['bandwidth'] / 1e9:.1f} GB/s, {figures['rate'] / 1e12:.3f} TFLOP/s in "
        f"{figures['dtype']}, {figures['rows']:,.0f} rows"
    )
    return make_table(title, ["stage", "measured", "floor", "measured / floor"], rows)
