"""From the options of ``watch`` to the streams that it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import OptionError
from .naming import expand, output_paths, stream_names

if TYPE_CHECKING:
    from ..core.events import Sink, Source, StepSource
    from ..runtime.rules import RuleSpec
    from ..sinks.webhook import Webhook


@dataclass(frozen=True, slots=True)
class Watched:
    """One stream of a command. ``options``: as :meth:`Engine.open` takes them; ``outputs``: files and the like."""

    name: str
    video: Source | StepSource
    options: Mapping[str, Any]
    outputs: Sequence[Sink] = ()
    rules: Sequence[RuleSpec] = ()


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """How every source is opened. ``options``: ``KEY=VALUE`` of live ones; see :func:`open_source` for the rest."""

    fps: float
    step: float
    start: float = 0.0
    duration: float | None = None
    video_stream: int | None = None
    options: Sequence[str] = ()
    user: str | None = None
    password: str | None = None

    def open(self, locator: str, streams: int) -> list[Source | StepSource]:
        """A source for each of ``streams`` streams: a live one is decoded once for all of them."""
        from ..sources.live import share
        from ..sources.open import open_source

        def one() -> Source | StepSource:
            return open_source(
                locator,
                fps=self.fps,
                step=self.step,
                start=self.start,
                duration=self.duration,
                video_stream=self.video_stream,
                options=_pairs(self.options),
                user=None if self.user is None else expand(self.user),
                password=None if self.password is None else expand(self.password),
            )

        first = one()
        return [*share(first, streams)] if first.live else [first, *(one() for _ in range(streams - 1))]


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """Where events are sent. ``secret``: what they are signed with; ``private``: the server may be on this network."""

    url: str
    secret: str | None
    kinds: Sequence[str] = field(default_factory=list)
    private: bool = False

    def open(self) -> Webhook:
        """A sink for one stream."""
        from ..sinks.webhook import DEFAULT_KINDS, Webhook

        if not self.secret:
            raise OptionError("--webhook needs --webhook-secret, with which requests are signed: '${WEBHOOK_SECRET}'")
        return Webhook(
            expand(self.url),
            expand(self.secret),
            kinds=self.kinds or DEFAULT_KINDS,
            allow_private=self.private,
            on_problem=_warn,
        )


def plan(
    locators: Sequence[str],
    instructions: Sequence[str],
    request: SourceRequest,
    *,
    context: str | None = None,
    output: Sequence[Path] = (),
    rules: Sequence[RuleSpec] = (),
    webhook: WebhookRequest | None = None,
    options: Mapping[str, Any],
) -> list[Watched]:
    """The streams: of every source one for each instruction. Nothing is written yet."""
    from ..sinks.outputs import open_outputs

    texts: list[str | None] = list(instructions) if instructions else [None]
    paths = [expand(locator) for locator in locators]
    wanted = [(path, text, video) for path in paths for text, video in _with(texts, request.open(path, len(texts)))]
    # A locator may hold a password, the name of a source never does.
    names = stream_names([path if Path(path).exists() else video.name for path, _, video in wanted])
    files = [open_outputs(own, inputs=paths) for own in output_paths(output, names)]
    return [
        Watched(
            name,
            video,
            {**options, "context": video.context if context is None else context, "instruction": text},
            [*own, *([webhook.open()] if webhook is not None else [])],
            rules,
        )
        for name, (_, text, video), own in zip(names, wanted, files, strict=True)
    ]


def read_rules(lines: Sequence[str], files: Sequence[Path]) -> list[RuleSpec]:
    """The rules of ``--rule`` and ``--rules``."""
    from ..runtime import rule_files

    found = [rule_files.parse_rule(line) for line in lines]
    return rule_files.check_rules([*found, *(rule for path in files for rule in rule_files.read_rules(path))])


def are_asked(streams: Sequence[Watched]) -> bool:
    """Whether a rule of a stream is asked of the model, which takes a slot."""
    from ..runtime.rules import AskedRule

    return any(isinstance(rule, AskedRule) for one in streams for rule in one.rules)


def _with(
    texts: Sequence[str | None], videos: Sequence[Source | StepSource]
) -> list[tuple[str | None, Source | StepSource]]:
    return list(zip(texts, videos, strict=True))


def _pairs(options: Sequence[str]) -> dict[str, str]:
    """``KEY=VALUE`` texts as a mapping."""
    found = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise OptionError(f"--source-option is KEY=VALUE, such as transport=udp, not {option!r}")
        found[key] = expand(value)
    return found


def _warn(line: str) -> None:
    import logging

    logging.getLogger("streamingvlm").warning("webhook: %s", line)
