"""One table from an address's scheme to what serves there."""

from __future__ import annotations

from .address import Address
from .http import HttpMatch
from .rtsp import RtspMatch

SERVERS: dict[str, type[HttpMatch] | type[RtspMatch]] = {"http": HttpMatch, "rtsp": RtspMatch}


def open_server(address: Address) -> HttpMatch | RtspMatch:
    """Take the address; OutputError if that cannot be."""
    return SERVERS[address.scheme](address)
