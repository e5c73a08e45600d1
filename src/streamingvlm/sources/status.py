"""What has gone wrong at a live source: one table from what a library raises to a code, and one line for each code."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

import av.error as raised

from ..core.errors import SourceError
from ..core.events import SourceCode
from .redact import redact

#: The first type that fits gives the code. PyAV's own come before those of Python that they are built on.
BY_TYPE: tuple[tuple[type[BaseException], SourceCode], ...] = (
    (raised.HTTPUnauthorizedError, "auth"),
    (raised.HTTPForbiddenError, "auth"),
    (raised.HTTPNotFoundError, "not_found"),
    (raised.HTTPClientError, "refused"),
    (raised.HTTPError, "refused"),
    (raised.ExitError, "timeout"),
    (raised.DecoderNotFoundError, "codec"),
    (raised.PatchWelcomeError, "codec"),
    (raised.NotImplementedError, "codec"),
    (raised.LookupError, "format"),
    (raised.InvalidDataError, "format"),
    (raised.ArgumentError, "format"),
    (raised.EOFError, "ended"),
    (socket.gaierror, "dns"),
    (ConnectionRefusedError, "refused"),
    (PermissionError, "refused"),
    (TimeoutError, "timeout"),
    (FileNotFoundError, "not_found"),
    (ConnectionError, "ended"),
    (EOFError, "ended"),
)
#: For system errors that have no type of their own.
BY_NUMBER: dict[int, SourceCode] = {
    errno.EHOSTUNREACH: "refused",
    errno.ENETUNREACH: "refused",
    errno.EHOSTDOWN: "refused",
    errno.ENETDOWN: "refused",
    errno.EADDRNOTAVAIL: "refused",
    errno.EBUSY: "refused",
    errno.ENODEV: "not_found",
    errno.ENXIO: "not_found",
    errno.ENOTCONN: "ended",
}
#: What FFmpeg may call a reply that has not come in time: the errors, and the numbers of those without a type.
LATE = (raised.InvalidDataError, PermissionError)
LATE_NUMBERS = frozenset({errno.EIO, errno.EAGAIN})
#: What a code means, in words.
MEANING: dict[SourceCode, str] = {
    "refused": "it refuses",
    "timeout": "it does not answer in time",
    "dns": "its host name is not found",
    "auth": "user or password is wrong or missing",
    "not_found": "there is no such stream",
    "tls": "no secure connection to it can be made",
    "no_video": "it sends no video",
    "codec": "there is no decoder for its video",
    "stalled": "no frame comes",
    "ended": "it has closed by itself",
    "format": "what it sends is no video that can be read",
}
#: Codes behind which an account may be locked if one tries again at once.
TOUCHY: frozenset[SourceCode] = frozenset({"auth", "not_found"})


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a connection has ended: ``code`` and one line without any password. ``detail``: without the code's meaning.

    ``for_good``: trying again is of no use.
    """

    code: SourceCode
    detail: str = ""
    for_good: bool = False

    @property
    def reason(self) -> str:
        """One line."""
        meaning = MEANING.get(self.code, "")
        return f"{meaning} ({self.detail})" if self.detail and meaning else self.detail or meaning


class TroubleError(SourceError):
    """A :class:`Trouble` on its way to whoever opens the source."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.reason)
        self.trouble = trouble


def code_of(
    error: BaseException,
    *,
    opening: bool = False,
    network: bool = False,
    tls: bool = False,
    waited: bool = False,
) -> SourceCode:
    """The code for what a library has raised.

    ``opening``: while the source was opened; ``network``: it has a host, whose early end FFmpeg calls an error of input
    and output; ``tls``: over a secure connection, where a handshake that fails has no other name either; ``waited``: as
    long as the time-out, which FFmpeg may then call invalid data.
    """
    if isinstance(error, TroubleError):
        return error.trouble.code
    number = getattr(error, "errno", None)
    late = isinstance(error, LATE) or (isinstance(error, OSError) and number in LATE_NUMBERS)
    if opening and waited and late:
        return "timeout"
    if (
        opening and network and isinstance(error, PermissionError) and number == errno.EPERM
    ):  # FFmpeg's number for a fault without a name
        return "tls" if tls else "format"
    for kind, code in BY_TYPE:
        if isinstance(error, kind):
            return code
    if number in BY_NUMBER:
        return BY_NUMBER[number]
    if opening and not network:
        return "refused"
    return "tls" if opening and tls else "ended"


def trouble_of(
    error: BaseException,
    secrets: tuple[str, ...],
    *,
    opening: bool = False,
    network: bool = False,
    tls: bool = False,
    waited: bool = False,
) -> Trouble:
    """Code and line for what a library has raised; of its own words only those without a URL. See :func:`code_of`."""
    if isinstance(error, TroubleError):
        return error.trouble
    words = getattr(error, "strerror", None) or type(error).__name__
    code = code_of(error, opening=opening, network=network, tls=tls, waited=waited)
    return Trouble(code, redact(str(words), secrets))
