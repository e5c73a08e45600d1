"""A check of a checkpoint on this machine: is the cache right, does it stay bounded, does the model keep up?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cache.batch import Batch
from ..cache.kv_pool import KVPool
from ..core.errors import OptionError, SourceError
from ..core.timeline import IntArray
from ..engine.engine import Engine
from ..engine.request import Trace
from ..models.base import Model
from ..models.reference import reference_forward
from ..runtime.reports import Metrics, provenance
from .policies import compare, default_specs
from .setup import Request

#: Most that logits from the cache may differ from uncached ones, as a share of their spread (root mean squares).
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 6e-2}
#: Steps behind the first eviction whose difference is reported.
AFTER = 3


class Recorder:
    """A model and a class of pools that write down what went into every cache row of one stream.

    ``rows``: embeddings (rows, hidden); ``features``: per layer (rows, hidden), what was added behind it (zeros for
    rows without video; no layers in families that add nothing).
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.rows: Tensor | None = None
        self.features: list[Tensor] = []
        self.evicted = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def forward(self, embeds: Tensor, batch: Batch, *deepstack: Any) -> Tensor:
        """See :meth:`Model.forward`."""
        new = embeds[: batch.segments[-1].last]
        added = [torch.zeros_like(new) for _ in self.features]
        for more in filter(None, deepstack):
            added = [torch.zeros_like(new).index_copy(0, more.pads, part) for part in more.features]
        held = new[:0] if self.rows is None else self.rows
        before = self.features or [torch.zeros_like(held) for _ in added]
        self.rows = torch.cat([held, new])
        self.features = [torch.cat(pair) for pair in zip(before, added, strict=True)]
        return self._model.forward(embeds, batch, *deepstack)

    def keep(self, rows: IntArray) -> None:
        """Only these rows stay, in that order."""
        if self.rows is not None:
            self.evicted |= not np.array_equal(rows, np.arange(len(self.rows)))
            index = torch.from_numpy(rows).to(self.rows.device)
            self.rows, self.features = self.rows[index], [part[index] for part in self.features]

    def pool(self) -> type[KVPool]:
        """Pools that tell this recorder which rows stay."""
        recorder = self

        class Recorded(KVPool):
            def select(self, slot: int, rows: IntArray, *rest: Any) -> None:
                recorder.keep(rows)
                super().select(slot, rows, *rest)

        return Recorded


def differences(ours: Tensor, theirs: Tensor) -> Metrics:
    """How far logits (n, vocabulary) are apart: ``relative`` root mean square, ``largest``, ``same_choice`` share."""
    apart = ours - theirs
    spread = (theirs - theirs.mean(-1, keepdim=True)).square().mean().sqrt()
    return {
        "relative": float(apart.square().mean().sqrt() / spread),
        "largest": float(apart.abs().max()),
        "same_choice": float((ours.argmax(-1) == theirs.argmax(-1)).float().mean()),
    }


def compare_logits(request: Request, model: Model) -> list[Metrics]:
    """Logits from the cache beside uncached ones over the same rows, for some steps of one stream.

    Before the first eviction both must agree (steps 1, 2, 4, 8, ...). Behind it the cache holds states that have seen
    what is gone, which no forward over the rows that stay can give: the difference is information.
    """
    recorder = Recorder(model)
    source = request.make_source()
    engine = Engine(recorder, pool=recorder.pool())
    session = request.open_session(engine, "streaming", context=source.context)
    out: list[Metrics] = []
    with closing(session):
        for index, chunk in enumerate(source):
            trace = Trace()
            session.step(chunk, trace=trace)
            if not recorder.evicted and not math.log2(index + 1).is_integer():
                continue
            assert recorder.rows is not None
            hidden = reference_forward(model, recorder.rows, session.state.positions, recorder.features)
            apart = differences(torch.stack(trace.logits), model.logits(hidden[-len(trace.logits) :]))
            out.append({"step": index, "rows": len(recorder.rows), "evicted": recorder.evicted, **apart})
            if sum(one["evicted"] for one in out) == AFTER:
                break
    if not out:
        raise SourceError(f"{source.name} has no step to check")
    return out


def verify(
    request: Request,
    *,
    seconds: float = 60.0,
    specs: Sequence[str] | None = None,
    on_second: Callable[[float], None] = lambda _: None,
    model: Model | None = None,
) -> Metrics:
    """Everything that ``streamingvlm verify`` reports; ``ok`` is whether all ``checks`` hold.

    ``checks``: list of ``{"name", "ok", "found", "wanted"}``; ``logits``: see :func:`compare_logits`; ``policies``:
    see :func:`compare`. ``seconds`` of the clip are run under every policy, the first tenth as warm-up.
    """
    if not seconds > 0:
        raise OptionError(f"--seconds must be above 0, not {seconds:g}")
    model = model or request.make_model()
    logits = compare_logits(request, model)
    warm_up = int(min(seconds / request.step / 10, 20))
    measured, _ = compare(
        request,
        seconds=seconds - warm_up * request.step,
        warm_up=warm_up,
        specs=specs or default_specs(),
        on_block=on_second,
        model=model,
    )
    checks = [_logits_check(logits, model.kv_shape.dtype), *_policy_checks(measured["policies"], request.step)]
    return {
        "ok": all(check["ok"] for check in checks),
        "checks": checks,
        "logits": logits,
        "policies": measured["policies"],
        "model": request.model_name,
        "parameters": model.parameters,
        "dtype": str(model.kv_shape.dtype).removeprefix("torch."),
        "source": request.source,
        **provenance(model.kv_shape.device),
    }


def _check(name: str, ok: bool, found: str, wanted: str) -> Metrics:
    return {"name": name, "ok": bool(ok), "found": found, "wanted": wanted}


def _logits_check(logits: Sequence[Metrics], dtype: torch.dtype) -> Metrics:
    worst = max((one["relative"] for one in logits if not one["evicted"]), default=float("nan"))
    bound = TOLERANCE[dtype]
    found = f"{worst:.2g} of their spread"
    return _check("logits from the cache equal uncached ones", worst <= bound, found, f"at most {bound:g}")


def _policy_checks(policies: Metrics, step: float) -> list[Metrics]:
    checks = []
    for name, one in policies.items():
        ran = "steps" in one and not one["ended"]
        checks.append(_check(f"{name}: runs to the end", ran, one["ended"] or f"{one['steps']} steps", "to the end"))
        if not ran:
            continue
        rows, bound = one["rows"], one["capacity"]
        checks.append(_check(f"{name}: cache rows stay bounded", rows <= bound, f"{rows:,}", f"at most {bound:,}"))
        if name.partition(":")[0] == "streaming":
            lag = one["lag_p95"]
            checks.append(_check(f"{name}: keeps up, p95 of the lag", lag < step, f"{lag:.3f} s", f"below {step:g} s"))
    return checks


def to_markdown(figures: Metrics) -> str:
    """The report."""
    versions = ", ".join(f"{name} {number}" for name, number in figures["versions"].items())
    lines = [
        f"# {figures['model']}: {'all checks hold' if figures['ok'] else 'NOT all checks hold'}",
        "",
        f"{figures['parameters'] / 1e9:.2f} billion parameters, {figures['dtype']}, on {figures['device']}; "
        f"{versions}; {figures['date']}; source {figures['source'] or 'synthetic frames'}.",
        "",
        "| check | holds | found | wanted |",
        "|---|---|---|---|",
        *(f"| {c['name']} | {'yes' if c['ok'] else 'NO'} | {c['found']} | {c['wanted']} |" for c in figures["checks"]),
        "",
        "## Logits from the cache against one uncached forward",
        "",
        "Behind the first eviction the cache holds states that have seen what is gone, so the difference to a forward "
        "over the rows that stay is information and no error.",
        "",
        "| step | rows | evicted | difference / spread | largest | same choice |",
        "|---|---|---|---|---|---|",
        *(
            f"| {one['step']} | {one['rows']} | {'yes' if one['evicted'] else 'no'} | {one['relative']:.2g} | "
            f"{one['largest']:.2g} | {one['same_choice']:.2f} |"
            for one in figures["logits"]
        ),
        "",
        "## Policies",
        "",
        "| policy | work per second, ms | lag p50, ms | lag p95, ms | tokens per second | rows | bound |",
        "|---|---|---|---|---|---|---|",
        *(_policy_line(name, one) for name, one in figures["policies"].items()),
        "",
    ]
    return "\n".join(lines)


def _policy_line(name: str, one: Metrics) -> str:
    if "steps" not in one:
        return f"| {name} | {one['ended']} | | | | | |"
    times = (f"{one[key] * 1000:.1f}" for key in ("work_per_second", "lag_p50", "lag_p95"))
    return f"| {name} | {' | '.join(times)} | {one['tokens_per_second']:.1f} | {one['rows']:,} | {one['capacity']:,} |"
