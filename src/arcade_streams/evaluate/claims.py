"""The claims: what the paper says of each part of the cache, as rows that are compared on the same streams.

To add one, write it into :data:`CLAIMS`. The paper's figures are win rates in per cent against GPT-4o mini on
Inf-Streams-Eval (arXiv 2510.09608, figures 1 and 8, tables 4 to 7): another question than F1 on the arcade, they stand
there for their order.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamingvlm.evaluate.bootstrap import MetricPath

STRICT: MetricPath = ("micro_f1_strict",)
MACRO: MetricPath = ("macro_f1_strict",)
NAMES: MetricPath = ("names",)
SAID: MetricPath = ("names_said",)
PLAY: MetricPath = ("play",)
FAR: MetricPath = ("tally_steps", ">16s")
WORK: MetricPath = ("work_per_second",)
LAST_FIFTH: MetricPath = ("fifths", 4, "micro_f1_strict")
DRIFT: MetricPath = ("drift",)

REFERENCE = "streaming"


@dataclass(frozen=True, slots=True)
class Row:
    """One way to run: a policy, on the checkpoint under test or on one given by name. ``paper``: its figure there."""

    name: str
    policy: str = "streaming"
    checkpoint: str = ""
    paper: str = ""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What must be seen for a claim to hold.

    ``how``: "fall": the reference's ``figure`` less the row's is at least ``least``; "times": the row's is at least
    ``least`` times the reference's; "value": the row's own is at least ``least``.
    """

    text: str
    row: str
    figure: MetricPath
    least: float = 0.0
    how: str = "fall"


@dataclass(frozen=True, slots=True)
class Claim:
    """A question and the rows that answer it, the reference among them. ``long``: over hours instead of minutes."""

    name: str
    question: str
    rows: tuple[Row, ...]
    expectations: tuple[Expectation, ...]
    figures: tuple[MetricPath, ...] = (STRICT, MACRO, PLAY, NAMES, SAID, FAR, WORK)
    long: bool = False

    @property
    def checkpoints(self) -> list[str]:
        """Names of the checkpoints that it needs besides the one under test."""
        return [row.checkpoint for row in self.rows if row.checkpoint]


OURS = Row(REFERENCE, paper="66.18")


def _recompute(row: str) -> tuple[Expectation, ...]:
    return (
        Expectation("streaming is at most 1 point below recompute", row, STRICT, -0.01),
        Expectation("recompute takes at least 5 times the work", row, WORK, 5.0, "times"),
    )


CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for claim in (
        Claim(
            "full-attention",
            "Can everything be kept? Full attention grows until memory or time runs out; how good is it until then?",
            (OURS, Row("full", "full", paper="3.89 (by fifths 15.2/3.1/1.1/0/0)")),
            (Expectation("in the last fifth of what it ran, full attention is below streaming", "full", LAST_FIFTH),),
        ),
        Claim(
            "sliding-reset",
            "Is a window enough that starts again every 100 s, without overlap?",
            (OURS, Row("reset", "sliding-reset:seconds=100", paper="23.54")),
            (
                Expectation("counts that need earlier words fall", "reset", FAR),
                Expectation("the same-second F1 falls", "reset", STRICT),
            ),
        ),
        Claim(
            "sliding-recompute",
            "Is reusing states as good as computing the same window anew in every second?",
            (OURS, Row("recompute", "sliding-recompute", paper="66.54")),
            _recompute("recompute"),
        ),
        Claim(
            "recent-frames",
            "Are the newest four frames enough, without any earlier word (SimpleStream, arXiv 2604.02317)?",
            (OURS, Row("recent frames", "recent-frames", paper="-")),
            (
                Expectation("the mean over the kinds falls", "recent frames", MACRO),
                Expectation("counts that need earlier words fall", "recent frames", FAR),
            ),
        ),
        Claim(
            "history",
            "May words that move into the history block keep the states that they were said with (the paper), or have "
            "they to be read once more there, as training saw them (beyond the paper)?",
            (
                OURS,
                Row("history reused", "streaming:history_kv=reuse"),
                Row("history renewed", "streaming:history_kv=recompute"),
            ),
            (
                Expectation("with states kept, counts that need earlier words fall", "history reused", FAR),
                Expectation("with states kept, the same-second F1 falls", "history reused", STRICT),
            ),
        ),
        Claim(
            "positions",
            "Must positions be made contiguous after every eviction, or may they go on counting?",
            (OURS, Row("append", "streaming:positions=append", paper="25.09")),
            (Expectation("the same-second F1 falls with positions that go on counting", "append", STRICT),),
        ),
        Claim(
            "text-windows",
            "What are the sink and the window of old words good for?",
            (
                Row(REFERENCE, paper="73.64 (512/512, basketball)"),
                Row("sink 0", "streaming:sink=0", paper="66.76 (0/512)"),
                Row("text 0: words of the last 16 s only", "streaming:text=0", paper="69.68 (512/0)"),
                Row("sink 0, text 0", "streaming:sink=0,text=0"),
                Row("sink 512, text 512", "streaming:sink=512,text=512", paper="73.64 (512/512)"),
            ),
            (
                Expectation("without the sink, roster facts fall by 50 points", "sink 0", NAMES, 0.50),
                Expectation("without the sink, those of them that are said fall by 50 points", "sink 0", SAID, 0.50),
                Expectation(
                    "with words of the last 16 s only, tally steps over longer gaps fall by 30 points",
                    "text 0: words of the last 16 s only",
                    FAR,
                    0.30,
                ),
            ),
        ),
        Claim(
            "vision-window",
            "How many seconds of video must stay? (0: only the second that is being told. States that are kept saw the "
            "pictures that were there then; recomputed, only the words tell of them.)",
            (
                OURS,
                *(
                    Row(f"vision {seconds} s", f"streaming:vision={seconds}", paper=paper)
                    for seconds, paper in (
                        (0, "52.90"), (1, "63.46"), (4, "66.08"), (8, "65.66"), (16, "66.18"), (32, "65.49"),
                    )
                ),
                Row("vision 0 s, recomputed", "sliding-recompute:vision=0"),
            ),
            (
                Expectation(
                    "without earlier pictures, and without states that have seen them, play falls by 20 points",
                    "vision 0 s, recomputed",
                    PLAY,
                    0.20,
                ),
                Expectation(
                    "without earlier pictures, but with the states of words said while they were there, play falls by "
                    "20 points",
                    "vision 0 s",
                    PLAY,
                    0.20,
                ),
            ),
        ),
        Claim(
            "endurance",
            "Is it as good in the third hour as in the first minutes, and still as good as recompute?",
            (
                Row(REFERENCE, paper="64.3 to 68.5 in every fifth"),
                Row("recompute", "sliding-recompute", paper="64.3 to 68.5 in every fifth"),
            ),
            (
                Expectation(
                    "the last half hour is within 2 points of the first 10 minutes", REFERENCE, DRIFT, -0.02, "value"
                ),
                *_recompute("recompute"),
            ),
            (STRICT, MACRO, PLAY, NAMES, SAID, FAR, DRIFT, WORK),
            long=True,
        ),
        Claim(
            "overlapping-training",
            "Does training on overlapping chunks with earlier words in front help?",
            (OURS, Row("non-overlapping", checkpoint="non-overlapping", paper="62.51")),
            (Expectation("without overlap the same-second F1 falls", "non-overlapping", STRICT),),
        ),
        Claim(
            "corruption",
            "Does training on spoiled histories help a model that reads its own words? (beyond the paper)",
            (OURS, Row("no corruption", checkpoint="no-corruption")),
            (Expectation("without it the same-second F1 falls", "no corruption", STRICT),),
        ),
        Claim(
            "on-policy",
            "Does a last stage on the model's own words help? (beyond the paper)",
            (OURS, Row("no on-policy stage", checkpoint="no-on-policy")),
            (Expectation("without it the same-second F1 falls", "no on-policy stage", STRICT),),
        ),
    )
}  # fmt: skip

#: Names that checkpoints may be given by.
CHECKPOINTS = tuple(dict.fromkeys(name for claim in CLAIMS.values() for name in claim.checkpoints))
