"""Where a match is served: ``http://HOST:PORT/PATH`` or ``rtsp://HOST:PORT/PATH``."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from streamingvlm import OptionError

DEFAULT_PATHS = {"http": "/match.ts", "rtsp": "/match"}
USAGE = "--serve takes http://HOST:PORT/match.ts or rtsp://HOST:PORT/match"


@dataclass(frozen=True, slots=True)
class Address:
    """``port`` 0: any free one. ``path`` begins with a slash."""

    scheme: str
    host: str
    port: int
    path: str

    def url(self, port: int) -> str:
        """As a client writes it; ``port``: the one that was taken."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{port}{self.path}"


def parse_address(text: str) -> Address:
    """Raises OptionError for what is no such address."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise OptionError(f"{USAGE}, not {text} ({error})") from None
    if parts.username is not None or parts.password is not None:
        raise OptionError("--serve has no passwords: leave the user out of the address")
    if parts.scheme not in DEFAULT_PATHS or not parts.hostname or port is None or parts.query or parts.fragment:
        raise OptionError(f"{USAGE}, not {text}")
    path = parts.path if parts.path.strip("/") else DEFAULT_PATHS[parts.scheme]
    return Address(parts.scheme, parts.hostname, port, path)
