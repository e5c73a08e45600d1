"""From the options of ``watch`` to the streams that it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import EndedError, OptionError
from .naming import expand, output_paths, stream_names

if TYPE_CHECKING:
    from ..core.events import Sink, Source, StepSource
    from ..runtime.rules import RuleSpec
    from ..runtime.runtime import Runtime, Stream
    from ..runtime.state_folder import StateFolder, StreamFolder
    from ..sinks.outputs import Output
    from ..sinks.webhook import Webhook


#: Events of an earlier run that are looked through for what its files have not been told.
CATCH_UP = 4096
#: Two ends closer than this, seconds, are of the same step: files have whole milliseconds.
EPS = 1e-3


@dataclass(frozen=True, slots=True)
class Watched:
    """One stream of a command.

    ``options``: as :meth:`Engine.open` takes them; ``outputs``: files and the like. ``kept``: where it is kept, so that
    it goes on after a restart (None: nowhere); ``reopen``: opens its source at a second of the stream; ``until``: the
    second at which it ends, if it is live (None: it does not).
    """

    name: str
    video: Source | StepSource
    options: Mapping[str, Any]
    outputs: Sequence[Sink] = ()
    rules: Sequence[RuleSpec] = ()
    kept: StreamFolder | None = None
    reopen: Callable[[float | None], Source | StepSource] | None = None
    until: float | None = None

    def start(self, runtime: Runtime, screen: Sink, **options: Any) -> Stream | None:
        """Start the stream, or let it go on; None if an earlier run has watched it to its end."""
        # Files first: what a person has seen is on the disk.
        options |= {"sinks": [*self.outputs, screen], "name": self.name, "rules": self.rules, **self.options}
        if self.kept is None or self.reopen is None:
            return runtime.start(self.video, **options)
        if self.kept.past is not None:
            self._catch_up(self.kept)
        if not self.kept.complete:
            self._send_again(self.kept)
        stream = self.kept.start(runtime, self.reopen, until=self.until, **options)
        if stream is None:
            for output in self.outputs:
                output.close()
        return stream

    def _catch_up(self, kept: StreamFolder) -> None:
        """Tell the files what an earlier run has told behind the last words that they have, films what is raised."""
        from ..core.events import Alert, Commentary, Gap, RuleChanged
        from ..sinks.burned import BurnedOutput
        from ..sinks.files import FileOutput
        from ..sinks.lasting import LastingOutput

        outputs = [output.output if isinstance(output, LastingOutput) else output for output in self.outputs]
        files = [output for output in outputs if isinstance(output, FileOutput)]
        films = [output for output in outputs if isinstance(output, BurnedOutput)]
        events = kept.journal.after(max(kept.journal.number - CATCH_UP, 0)) if files or films else []
        rules = [RuleChanged(rule.name, rule.summary) for rule in self.rules]
        for film in films:
            for told in [*rules, *(event for event in events if isinstance(event, Alert | RuleChanged))]:
                film.write(told)
        for file in files:
            timed = [place for place, event in enumerate(events) if isinstance(event, Commentary | Gap)]
            there = [place for place in timed if events[place].end <= file.done_until + EPS]  # type: ignore[union-attr]
            for event in events[there[-1] + 1 if there else 0 :]:
                file.write(event)

    def _send_again(self, kept: StreamFolder) -> None:
        """Send what an earlier run has told and a webhook's receiver has not got."""
        from ..runtime.journal import number_of
        from ..sinks.webhook import Webhook

        newest = kept.journal.number
        for hook in [output for output in self.outputs if isinstance(output, Webhook)]:
            if (settled := hook.settled) is None:  # what was told before there was one is not sent
                hook.settle(f"{kept.journal.epoch}-{newest}")
            else:
                hook.go_on(self.video.name, kept.journal.after(max(number_of(settled)[1], newest - CATCH_UP)))


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

    def reopener(
        self, locator: str, video: Source | StepSource, kept: StreamFolder | None
    ) -> Callable[[float | None], Source | StepSource]:
        """Opens ``video`` again at a second of it; a live one only goes on, for what is left of the duration."""
        from ..sources.live import LiveSource

        def reopen(at: float | None) -> Source | StepSource:
            if video.live and kept is not None and kept.past is not None and kept.past.began:
                at = kept.past.elapsed()[0]
            if at is None or (video.live and self.duration is None):
                return video
            left = None if self.duration is None else self.start + self.duration - at
            if left is not None and left <= 0:
                raise EndedError(f"{video.name} was watched for {self.duration:g} s")
            if not video.live:
                return replace(self, start=at, duration=left).open(locator, 1)[0]
            # One decoder for all that share it.
            hub = video.hub if isinstance(video, LiveSource) else None
            return video if hub is None else hub.subscribe(fps=self.fps, step=self.step, duration=left)

        return reopen


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """Where events are sent. ``secret``: what they are signed with; ``private``: the server may be on this network."""

    url: str
    secret: str | None
    kinds: Sequence[str] = field(default_factory=list)
    private: bool = False

    @staticmethod
    def of(url: str | None, secret: str | None, kinds: Sequence[str], private: bool) -> WebhookRequest | None:
        """As the options say it; None without ``url``. OptionError for options that then mean nothing."""
        if url is not None:
            return WebhookRequest(url, secret, kinds, private)
        given = {"secret": secret is not None, "kind": bool(kinds), "private": private}
        if unused := [f"--webhook-{option}" for option, there in given.items() if there]:
            raise OptionError(f"{', '.join(unused)}: only with --webhook URL")
        return None

    def open(self, kept: StreamFolder | None) -> Webhook:
        """A sink for one stream; it is kept in mind what has arrived, if the stream is ``kept``."""
        from ..sinks.webhook import DEFAULT_KINDS, Webhook

        if not self.secret:
            raise OptionError("--webhook needs --webhook-secret, with which requests are signed: '${WEBHOOK_SECRET}'")
        return Webhook(
            expand(self.url),
            expand(self.secret),
            kinds=self.kinds or DEFAULT_KINDS,
            allow_private=self.private,
            on_problem=_warn,
            mark=None if kept is None else kept.folder / "webhook",
        )


def check_locators(locators: Sequence[str]) -> None:
    """Raise OptionError for sources that cannot be meant."""
    if not all(locator.strip() for locator in locators):
        raise OptionError("a source is empty; name a file, a folder of pictures, a URL or a device")
    if list(locators).count("-") > 1:
        raise OptionError("- is named twice, but standard input is read once; several --instruct share one source")


def plan(
    locators: Sequence[str],
    instructions: Sequence[str],
    request: SourceRequest,
    *,
    context: str | None = None,
    output: Sequence[Path] = (),
    rules: Sequence[RuleSpec] = (),
    webhook: WebhookRequest | None = None,
    state: StateFolder | None = None,
    options: Callable[[int], Mapping[str, Any]],
) -> list[Watched]:
    """The streams: of every source one for each instruction. No file is changed yet.

    ``options``: of the stream of a number, beside context and instruction.
    """
    texts: list[str | None] = list(instructions) if instructions else [None]
    paths = [expand(locator) for locator in locators]
    wanted = [
        (path, text, video) for path in paths for text, video in zip(texts, request.open(path, len(texts)), strict=True)
    ]
    # A locator may hold a password, the name of a source never does.
    names = stream_names([path if Path(path).exists() else video.name for path, _, video in wanted])
    files = output_paths(output, names)
    streams = []
    for number, (name, (path, text, video), own) in enumerate(zip(names, wanted, files, strict=True)):
        kept = None if state is None else state.stream(path, name)
        texts_of = {"context": video.context if context is None else context, "instruction": text}
        streams.append(
            Watched(
                name,
                video,
                {**options(number), **texts_of},
                [*_outputs(own, paths, video, kept), *([webhook.open(kept)] if webhook is not None else [])],
                rules,
                kept,
                request.reopener(path, video, kept),
                request.duration if video.live else None,
            )
        )
    return streams


def _outputs(
    files: Sequence[Path], inputs: Sequence[str], video: Source | StepSource, kept: StreamFolder | None
) -> list[Output]:
    """The files of a stream; those of one that goes on are continued. A live one outlives a full disk."""
    from ..sinks.lasting import LastingOutput
    from ..sinks.outputs import open_outputs

    goes_on = kept is not None and kept.past is not None
    outputs = open_outputs(files, inputs=inputs, resume=goes_on, patient=not video.live)
    if not video.live:
        return outputs
    return [LastingOutput(one, lambda path=one.path: open_outputs([path], resume=True)[0]) for one in outputs]  # type: ignore[misc]


def read_rules(lines: Sequence[str], files: Sequence[Path]) -> list[RuleSpec]:
    """The rules of ``--rule`` and ``--rules``."""
    from ..runtime import rule_files

    found = [rule_files.parse_rule(line) for line in lines]
    return rule_files.check_rules([*found, *(rule for path in files for rule in rule_files.read_rules(path))])


def are_asked(streams: Sequence[Watched]) -> bool:
    """Whether a rule of a stream is asked of the model, which takes a slot."""
    from ..runtime.rules import AskedRule

    given = any(isinstance(rule, AskedRule) for one in streams for rule in one.rules)
    pasts = [one.kept.past for one in streams if one.kept is not None]
    return given or any(past is not None and past.asks for past in pasts)


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
