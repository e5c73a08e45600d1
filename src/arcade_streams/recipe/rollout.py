"""Streams run free by the model itself: many in lockstep, through the timeline, policy and positions of inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamingvlm import StreamingWindow
from streamingvlm.core.grammar import Grammar
from streamingvlm.core.positions import FloatArray, positions
from streamingvlm.core.spans import Kind, Span
from streamingvlm.core.timeline import IntArray, Timeline, newly_archived

from .incremental import LockstepCache
from .layout import TOKENS_PER_SECOND
from .tower import GRID


@dataclass(slots=True)
class _Stream:
    """One stream's timeline and the words of every second so far."""

    preamble: list[Span]
    features: Tensor
    offset: float
    timeline: Timeline = field(default_factory=Timeline)
    texts: list[str] = field(default_factory=list)
    reply: list[int] = field(default_factory=list)

    def evict(self, policy: StreamingWindow, second: int) -> tuple[IntArray, range]:
        """Rows that stay, and where the words are that move into the history block."""
        plan = policy.plan(self.timeline.spans, self.offset + second + 1.0, 1.0)
        archived = newly_archived(self.timeline.spans, plan)
        return self.timeline.rearrange(plan), archived

    def begin(self, grammar: Grammar, second: int) -> list[Span]:
        spans = [] if self.timeline.spans else list(self.preamble)
        if self.timeline.spans and self.timeline.spans[-1].kind is Kind.COMMENTARY:
            spans.append(grammar.separator(second - 1))
        start = self.offset + second
        self.timeline.append(*spans, *grammar.turn(second, start, start + 1.0, GRID))
        return self.timeline.pending_spans()


class StoryRollout:
    """``features``: (seconds, tokens, hidden) of each stream; ``histories``: what stands in the history block at the
    start, as text or ids; ``offsets``: time of the first second."""

    def __init__(
        self,
        model: Any,
        grammar: Grammar,
        policy: StreamingWindow,
        features: Sequence[Tensor],
        histories: Sequence[str | Sequence[int]],
        offsets: Sequence[float] | None = None,
        most: int = 40,
    ) -> None:
        self.model, self.grammar, self.policy, self.most = model, grammar, policy, most
        starts = offsets or [0.0] * len(features)
        self.streams = [
            _Stream(grammar.preamble(history), part, start)
            for history, part, start in zip(histories, features, starts, strict=True)
        ]
        rows = policy.sink + policy.text + 64 + (int(policy.turns) + 1) * (64 + most + 2)
        self.cache = LockstepCache(model, len(features), rows)

    @torch.inference_mode()
    def run(self, seconds: int) -> list[list[str]]:
        """Greedy words of each stream for each second."""
        for second in range(len(self.streams[0].texts), seconds):
            self._evict(second)
            self._step(second)
        return [stream.texts for stream in self.streams]

    def _evict(self, second: int) -> None:
        kept, archived = zip(*(stream.evict(self.policy, second) for stream in self.streams), strict=True)
        numbered = [
            positions(stream.timeline.spans, TOKENS_PER_SECOND)[:, : len(rows)]
            for stream, rows in zip(self.streams, kept, strict=True)
        ]
        self.cache.select(kept, _stack(numbered))
        if self.policy.history_kv == "recompute" and any(archived):
            self._renew(archived, numbered)

    def _renew(self, archived: Sequence[range], numbered: Sequence[FloatArray]) -> None:
        """PrefillInput words once more where they stand in the history block from now on."""
        ids = [
            torch.from_numpy(stream.timeline.tokens_at(rows))
            for stream, rows in zip(self.streams, archived, strict=True)
        ]
        embeds = self.model.model.language_model.embed_tokens(torch.nn.utils.rnn.pad_sequence(ids, batch_first=True))
        places = [part[:, rows.start : rows.stop] for part, rows in zip(numbered, archived, strict=True)]
        counts, at = torch.tensor([len(rows) for rows in archived]), torch.tensor([rows.start for rows in archived])
        self.cache.forward(embeds, _stack(places), counts, at)

    def _step(self, second: int) -> None:
        feeds = [stream.begin(self.grammar, second) for stream in self.streams]
        places = [
            positions(stream.timeline.spans, TOKENS_PER_SECOND)[:, stream.timeline.cached :] for stream in self.streams
        ]
        embeds = [self._embed(feed, stream.features[second]) for feed, stream in zip(feeds, self.streams, strict=True)]
        counts = torch.tensor([len(part) for part in embeds])
        hidden = self.cache.forward(torch.nn.utils.rnn.pad_sequence(embeds, batch_first=True), _stack(places), counts)
        for stream, part in zip(self.streams, embeds, strict=True):
            stream.timeline.commit(len(part))
        self._reply(second, hidden, torch.tensor([float(part[0, -1]) for part in places]))

    def _reply(self, second: int, hidden: Tensor, last: Tensor) -> None:
        """Decode until every stream has ended its turn. The last id of a reply is fed with the next turn."""
        end = self.grammar.marks.turn_end
        for stream in self.streams:
            stream.reply = []
        active = torch.ones(len(self.streams), dtype=torch.bool)
        while True:
            tokens = self.model.lm_head(hidden.float()).argmax(-1)
            for i, stream in enumerate(self.streams):
                if active[i]:
                    stream.reply.append(int(tokens[i]))
                    active[i] = int(tokens[i]) != end and len(stream.reply) < self.most
            if not active.any():
                break
            last = last + active
            embeds = self.model.model.language_model.embed_tokens(tokens)[:, None]
            places = last[None, :, None].expand(3, -1, -1)
            hidden = self.cache.forward(embeds, places, active.long())
        for stream in self.streams:
            self._close(stream, second, end)

    def _close(self, stream: _Stream, second: int, end: int) -> None:
        fed = len(stream.reply) - 1
        ids = stream.reply if stream.reply[-1] == end else [*stream.reply, end]
        start = stream.offset + second
        stream.timeline.append(self.grammar.commentary(second, start, start + 1.0, ids))
        stream.timeline.commit(fed)
        stream.texts.append(self.grammar.text(ids))

    def _embed(self, feed: Sequence[Span], features: Tensor) -> Tensor:
        ids = torch.tensor([token for span in feed for token in span.tokens])
        embeds: Tensor = self.model.model.language_model.embed_tokens(ids).clone()
        at = 0
        for span in feed:
            if span.kind is Kind.VISION:
                embeds[at + 1 : at + len(span) - 1] = features.to(embeds.dtype)
            at += len(span)
        return embeds


def _stack(parts: Sequence[FloatArray]) -> Tensor:
    """(3, n) arrays to (3, streams, longest), zeros behind."""
    longest = max(part.shape[1] for part in parts)
    out = np.zeros((3, len(parts), longest), np.float32)
    for i, part in enumerate(parts):
        out[:, i, : part.shape[1]] = part
    return torch.from_numpy(out)
