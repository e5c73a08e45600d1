"""How FFmpeg opens each kind of live source: the table of schemes, with the options that go with them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ..core.errors import SourceError
from .certificates import CHECK, with_authorities
from .live_options import DEFAULTS, LiveOptions
from .pipe import Pipe
from .redact import Address, spellings

#: A first look at a stream that is short: half a second or 64 kB. What it does not find is looked for at leisure.
#: Four frames tell their rate: with FFmpeg's 20, a playlist of 10 a second waits for a segment that is not there yet.
#: Not ``fflags=nobuffer``: it throws away what was looked at, and with it the first key frame.
SHORT_PROBE = {"analyzeduration": "500000", "probesize": "65536", "fpsprobesize": "4"}
#: Packets that are known to be damaged only make grey pictures.
SOUND = {"fflags": "discardcorrupt"}
#: What a playlist may lead to: other addresses, no files of this machine.
WEB_PROTOCOLS = "http,https,tcp,tls,httpproxy,crypto"
TRANSPORTS = ("tcp", "udp", "auto")
#: The web has certificates that can be checked; a camera made its own. FFmpeg 9 would check both, FFmpeg 8 neither.
CHECKED, UNCHECKED = {CHECK: "1"}, {CHECK: "0"}
TLS_PORTS = {"https": 443, "rtsps": 322, "rtmps": 443}
#: Pictures a second that are asked of a screen.
SCREEN_RATE = "10"
#: Options whose values nobody may see.
_SECRET_OPTION = re.compile(r"header|cookie|pass|key|token|auth", re.IGNORECASE)
#: Cameras: FFmpeg's device and how it calls number N, by system.
CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}

#: When the end of the data is the end of the source: always, if it is a file of known length, or never.
Ends = Literal["always", "file", "never"]


@dataclass(frozen=True, slots=True)
class Input:
    """What FFmpeg is given. ``name``: for people. ``url`` may hold a password and is never shown.

    ``host``, ``port``: to look up first ("": none). ``tls``: over a secure connection. ``paced``: it comes faster than
    it is meant to be seen (a segment of HLS, a file), so whoever reads keeps the time. ``ends``: see :data:`Ends`;
    ``once``: it cannot be opened a second time, and an error of opening is for good. ``pipe``: what is read in place
    of a URL. ``kind``: what is shown, in a word (see :class:`~streamingvlm.core.events.Source`).
    """

    name: str
    url: str = field(repr=False)
    format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    host: str = ""
    port: int | None = None
    tls: bool = False
    paced: bool = False
    ends: Ends = "never"
    once: bool = False
    pipe: Pipe | None = None
    kind: str = ""

    @property
    def at_leisure(self) -> Input:
        """The same with FFmpeg's own, longer look at the stream."""
        return replace(self, options={key: value for key, value in self.options.items() if key not in SHORT_PROBE})


def input_of(
    locator: str,
    *,
    options: Mapping[str, str] | None = None,
    user: str | None = None,
    password: str | None = None,
    live: LiveOptions = DEFAULTS,
) -> Input:
    """What FFmpeg is given for a locator of a live source. Raises SourceError, without any password."""
    given = dict(options or {})
    scheme = scheme_of(locator)
    transport, kind = given.pop("transport", None), given.pop("kind", "")
    if transport is not None and scheme not in ("rtsp", "rtsps"):
        raise SourceError(f"{scheme}: has no transport to choose; that is for rtsp://")
    if transport is not None and transport not in TRANSPORTS:
        raise SourceError(f"transport={transport} is unknown; it is one of {', '.join(TRANSPORTS)}")
    if (user is not None or password is not None) and scheme not in URLS:
        raise SourceError(f"{scheme}: takes no user and no password")
    if scheme in URLS:
        address = Address.of(locator, user, password)
        port = address.port or TLS_PORTS.get(scheme)
        found = replace(URLS[scheme](address, live), host=address.host.strip("[]"), port=port)
        found = replace(found, name=address.name, url=address.url, secrets=address.secrets)
    else:
        found = DEVICES[scheme](locator)
    chosen = {} if transport in (None, "auto") else {"rtsp_transport": str(transport)}
    without = {"rtsp_transport"} if transport == "auto" else set()
    merged = {key: value for key, value in (SHORT_PROBE | SOUND | dict(found.options)).items() if key not in without}
    hidden = spellings(value for key, value in given.items() if _SECRET_OPTION.search(key))
    complete = with_authorities(merged | chosen | given)
    return replace(found, options=complete, secrets=(*found.secrets, *hidden), kind=kind)


def scheme_of(locator: str) -> str:
    """The scheme under which a locator stands in the tables here ("": under none)."""
    if locator == "-":
        return "-"
    if re.fullmatch(r"/dev/video[0-9]+", locator):
        return "camera"
    scheme, colon, rest = locator.partition(":")
    scheme = scheme.lower()
    if colon and scheme in DEVICES:
        return scheme
    return scheme if colon and scheme in URLS and rest.startswith("//") else ""


def _micro(seconds: float) -> str:
    return str(round(seconds * 1e6))


def _rtsp(address: Address, live: LiveOptions) -> Input:
    options = {"rtsp_transport": "tcp", "timeout": _micro(live.io_timeout), "allowed_media_types": "video"}
    return Input("", "", options=options | UNCHECKED, tls=address.scheme == "rtsps")


def _http(address: Address, live: LiveOptions) -> Input:
    patience = _micro(live.io_timeout)
    options = {
        "timeout": patience,
        "rw_timeout": patience,
        "protocol_whitelist": WEB_PROTOCOLS,
        "live_start_index": "-1",
        # Without it FFmpeg 8 goes back in a file over a connection that it has asked the server to close.
        "multiple_requests": "1",
        # Only a file of known length is asked for the rest of it; a break of anything else is to be seen.
        "reconnect": "1",
        "reconnect_delay_max": "2",
    }
    tls = address.scheme == "https"
    return Input("", "", options=options | (CHECKED if tls else UNCHECKED), tls=tls, ends="file")


def _rtmp(address: Address, live: LiveOptions) -> Input:
    # Not ``timeout``: for FFmpeg that means to wait for somebody who publishes.
    options = {"rw_timeout": _micro(live.io_timeout)}
    return Input("", "", options=options | UNCHECKED, tls=address.scheme == "rtmps")


def _stdin(locator: str) -> Input:
    pipe = Pipe()
    if pipe.interactive:
        raise SourceError(f"{locator} reads video from a pipe, and nothing is piped in")
    return Input("stdin", "", paced=True, ends="always", once=True, pipe=pipe)


def _camera(locator: str) -> Input:
    number = locator if locator.startswith("/dev/") else locator.partition(":")[2]
    if sys.platform not in CAMERAS:
        raise SourceError(f"{locator}: no way is known to open a camera on {sys.platform}")
    if not number or (sys.platform.startswith("linux") and not (number.isdecimal() or number.startswith("/"))):
        raise SourceError(f"{locator} names no camera; camera:0 is the first one")
    device, pattern = CAMERAS[sys.platform]
    plain = number.startswith("/dev/") or not (number.isdigit() or sys.platform == "win32")
    return Input(locator, number if plain else pattern.format(number), format=device)


def _screen(locator: str) -> Input:
    if not sys.platform.startswith("linux"):
        raise SourceError(f"{locator}: a screen can only be watched under X11, not on {sys.platform}")
    return Input(locator, locator.partition(":")[2], format="x11grab", options={"framerate": SCREEN_RATE})


def _lavfi(locator: str) -> Input:
    graph = locator.partition(":")[2]
    if not graph:
        raise SourceError(f"{locator} has no filter graph; lavfi:testsrc2=size=320x240:rate=25 is one")
    return Input(locator, graph, format="lavfi", paced=True, ends="always", once=True)


#: Scheme of a URL -> how FFmpeg opens it.
URLS: dict[str, Callable[[Address, LiveOptions], Input]] = {
    "rtsp": _rtsp,
    "rtsps": _rtsp,
    "http": _http,
    "https": _http,
    "rtmp": _rtmp,
    "rtmps": _rtmp,
}
#: The same for what is no URL.
DEVICES: dict[str, Callable[[str], Input]] = {"-": _stdin, "camera": _camera, "screen": _screen, "lavfi": _lavfi}
