"""Errors that a user can act on. Everything else is a bug and stays a traceback."""

from __future__ import annotations

from typing import Literal

#: What has gone wrong at an endpoint. ``bad_request``: any other refusal (too long, a picture that cannot be read);
#: ``no_text``: a reply without words for another reason than silence (declined, filtered, bound reached too early).
EndpointFailure = Literal[
    "auth",
    "not_found",
    "refused_parameter",
    "bad_request",
    "rate_limit",
    "server",
    "timeout",
    "connection",
    "malformed",
    "no_text",
]


class StreamingVLMError(Exception):
    """Base of the tree. The command line prints it as one line and exits with 2."""


class SourceError(StreamingVLMError):
    """A video source cannot be opened or read (missing file, no video track, unknown scheme)."""


class EndedError(SourceError):
    """A source ends before the second that it was to be read from."""


class ModelError(StreamingVLMError):
    """A checkpoint cannot be loaded, or it is of a kind that no file in ``models/`` knows."""


class OptionError(StreamingVLMError, ValueError):
    """A number or a choice that cannot be meant (a frame rate of 0, a temperature below 0)."""


class PolicyError(OptionError):
    """A cache policy is unknown or its numbers do not fit together."""


class CapacityError(StreamingVLMError):
    """No free slot, or a text is larger than the token budget that was reserved for it."""


class SessionError(StreamingVLMError):
    """A session or its engine is used as it cannot be: closed, from a second thread, or from within a callback."""


class TrainingError(StreamingVLMError):
    """A run cannot go on: gradients that are not finite, or a checkpoint that does not hold the run's weights."""


class OutputError(StreamingVLMError):
    """An output cannot be written (unknown format, unwritable folder)."""


class EndpointError(StreamingVLMError):
    """A call of an OpenAI-compatible endpoint has failed, for good: what may pass was tried again before.

    ``kind``: what has gone wrong; ``reason``: the server's words or the network's; ``parameter``: the one that is
    refused ("" otherwise); ``status``: of the reply (0: there was none); ``tries``: how often the call was sent (0: not
    at all); ``after``: seconds that the server asks to wait before the next call (0: it does not).
    """

    def __init__(
        self,
        message: str,
        kind: EndpointFailure,
        *,
        reason: str = "",
        parameter: str = "",
        status: int = 0,
        tries: int = 0,
        after: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.kind, self.reason, self.parameter = kind, reason, parameter
        self.status, self.tries, self.after = status, tries, after

    def __reduce__(self) -> tuple[type[EndpointError], tuple[str, EndpointFailure], dict[str, object]]:
        return type(self), (str(self), self.kind), vars(self)  # it may come from another process
