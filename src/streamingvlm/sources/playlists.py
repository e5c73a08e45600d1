"""Where a playlist leads: FFmpeg does not follow it into files of this machine, and does not say so either."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import unquote, urljoin, urlsplit

from .certificates import client_context

#: What a playlist may lead to.
WEB = frozenset({"http", "https"})
#: Bytes of a playlist that are looked at.
MOST = 1 << 18
_URI = re.compile(r'URI="([^"]*)"')


def is_playlist(url: str) -> bool:
    """Whether a URL names a playlist."""
    parts = urlsplit(url)
    return parts.scheme in WEB and parts.path.endswith((".m3u8", ".m3u"))


def forbidden(url: str, options: Mapping[str, str], timeout: float) -> str:
    """The first scheme in a playlist that is not of the web; "" if there is none, or if that cannot be found out.

    ``options``: FFmpeg's. ``timeout``: seconds, of a read. Nothing of what it leads to is opened.
    """
    if "http_proxy" in options:
        return ""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    request = parts._replace(netloc=place).geturl()
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, place, unquote(parts.username or ""), unquote(parts.password or ""))
    with suppress(Exception):  # what is wrong with the server itself, FFmpeg tells
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=client_context(options)),
            urllib.request.HTTPBasicAuthHandler(passwords),
            urllib.request.HTTPDigestAuthHandler(passwords),
        )
        with opener.open(request, timeout=timeout) as reply:
            text = reply.read(MOST).decode("utf-8", "replace")
            return next((scheme for scheme in _schemes(text, reply.url) if scheme not in WEB), "")
    return ""


def _schemes(text: str, base: str) -> list[str]:
    if not text.startswith("#EXTM3U"):
        return []
    lines = [line.strip() for line in text.splitlines()]
    places = [line for line in lines if line and not line.startswith("#")]
    places += [found for line in lines if line.startswith("#EXT") for found in _URI.findall(line)]
    return [urlsplit(urljoin(base, place)).scheme for place in places]
