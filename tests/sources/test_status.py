"""One table from what a library raises to a code."""

from __future__ import annotations

import errno
import socket

import av.error as raised
import pytest

from streamingvlm.core.events import SourceCode
from streamingvlm.sources.status import Trouble, TroubleError, code_of, trouble_of


def av_error(kind: type[BaseException], number: int = 1) -> BaseException:
    return kind(number, "what FFmpeg says", "rtsp://u:hunter22@camera/1")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (av_error(raised.HTTPUnauthorizedError), "auth"),
        (av_error(raised.HTTPForbiddenError), "auth"),
        (av_error(raised.HTTPNotFoundError), "not_found"),
        (av_error(raised.HTTPBadRequestError), "refused"),
        (av_error(raised.HTTPServerError), "refused"),
        (av_error(raised.ConnectionRefusedError, errno.ECONNREFUSED), "refused"),
        (av_error(raised.TimeoutError, errno.ETIMEDOUT), "timeout"),
        (av_error(raised.ExitError), "timeout"),
        (av_error(raised.FileNotFoundError, errno.ENOENT), "not_found"),
        (av_error(raised.PermissionError, errno.EACCES), "refused"),
        (av_error(raised.InvalidDataError), "format"),
        (av_error(raised.DemuxerNotFoundError), "format"),
        (av_error(raised.DecoderNotFoundError), "codec"),
        (av_error(raised.PatchWelcomeError), "codec"),
        (av_error(raised.EOFError), "ended"),
        (av_error(raised.BrokenPipeError, errno.EPIPE), "ended"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "ended"),
        (socket.gaierror(-2, "unknown"), "dns"),
        (OSError(errno.EHOSTUNREACH, "no route"), "refused"),
        (OSError(errno.ENETUNREACH, "no route"), "refused"),
        (OSError(errno.EBUSY, "in use"), "refused"),
        (OSError(errno.ENODEV, "unplugged"), "not_found"),
        (av_error(raised.OSError, errno.EIO), "ended"),
        (RuntimeError("whatever"), "ended"),
        (TroubleError(Trouble("no_video")), "no_video"),
    ],
)
def test_each_kind_of_error_has_a_code(error: BaseException, code: SourceCode) -> None:
    assert code_of(error) == code


@pytest.mark.parametrize(
    ("kind", "number", "around", "code"),
    [
        (raised.OSError, errno.EIO, {"network": True, "tls": True}, "tls"),
        (raised.OSError, errno.EIO, {"network": True}, "ended"),
        (raised.OSError, errno.EIO, {}, "refused"),  # a device
        (raised.PermissionError, errno.EPERM, {"network": True}, "format"),
        (raised.PermissionError, errno.EPERM, {"network": True, "tls": True}, "tls"),
        (raised.PermissionError, errno.EPERM, {}, "refused"),
        (raised.InvalidDataError, 1, {"network": True, "waited": True}, "timeout"),
        (raised.OSError, errno.EIO, {"network": True, "tls": True, "waited": True}, "timeout"),
        (raised.HTTPUnauthorizedError, 1, {"network": True, "tls": True, "waited": True}, "auth"),
        (raised.ConnectionRefusedError, errno.ECONNREFUSED, {"network": True, "tls": True}, "refused"),
    ],
)
def test_what_an_error_of_opening_means_depends_on_the_kind_of_source(
    kind: type[BaseException], number: int, around: dict[str, bool], code: SourceCode
) -> None:
    assert code_of(av_error(kind, number), opening=True, **around) == code


def test_the_line_has_no_url_and_no_secret() -> None:
    trouble = trouble_of(av_error(raised.HTTPUnauthorizedError), ("hunter22",), opening=True)
    assert trouble.reason == "user or password is wrong or missing (what FFmpeg says)"
    assert trouble_of(RuntimeError("rtsp://u:hunter22@camera/1"), ("hunter22",)).detail == "RuntimeError"
    assert Trouble("stalled").reason == "no frame comes"
