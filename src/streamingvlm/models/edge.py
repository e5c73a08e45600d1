"""Where other libraries are called on what a user has: whatever they raise becomes one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..core.errors import ModelError, StreamingVLMError


@contextmanager
def library(what: str) -> Iterator[None]:
    """Turn anything that a library raises inside into ``what: reason``, a :class:`ModelError`.

    No list of exception types: transformers, safetensors, jinja, json and the file system raise too many kinds. For
    that reason only calls of libraries belong inside; a bug of this package must stay a traceback.
    """
    try:
        yield
    except StreamingVLMError:
        raise
    except Exception as error:
        raise ModelError(f"{what}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """The first line of what an exception says, or its name where it says nothing."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines()
    if isinstance(error, KeyError) or not lines:
        return f"{type(error).__name__} {' '.join(lines)}".strip()
    return lines[0]
