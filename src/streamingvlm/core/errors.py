"""Errors that a user can act on. Everything else is a bug and stays a traceback."""


class StreamingVLMError(Exception):
    """Base of the tree. The command line prints it as one line and exits with 2."""


class SourceError(StreamingVLMError):
    """A video source cannot be opened or read (missing file, no video track, unknown scheme)."""


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
