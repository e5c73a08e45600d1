"""Passwords in locators: where they stand, how FFmpeg wants them, and how no text that leaves here shows one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote

from ..core.errors import SourceError

HIDDEN = "***"
#: Parameters of a URL whose values are nobody's business. Cameras take them in the path as well, some with a ``_``
#: between them; there a value is hidden up to the next ``/``, since a password may hold a ``_``.
_SECRETS = r"(?:pas|pwd|psw|token|secret|key|auth|sig|cred|session)[^=&;#/?]*="
_IN_PATH = re.compile(f"({_SECRETS})([^&;/]*)", re.IGNORECASE)
_IN_QUERY = re.compile(f"({_SECRETS})([^&;#]*)", re.IGNORECASE)
#: Where the next of them begins.
_NEXT = re.compile(r"_[A-Za-z]+=")
#: What may be user and password in a URL that was mistyped.
_LOGIN = re.compile(r"[^/\s:]*:[^\s@]*@")
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
#: They would end a line of the request, and what follows would be a header of somebody's own.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOST = re.compile(r"(?P<host>\[[0-9a-f:.%]+\]|[^\[\]:@\s]+)(:(?P<port>[0-9]{1,5}))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Address:
    """A URL in parts. ``rest``: path and query, as they were given; ``user`` and ``password`` are not encoded.

    Its representation shows neither.
    """

    scheme: str
    host: str
    port: int | None
    rest: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @staticmethod
    def of(url: str, user: str | None = None, password: str | None = None) -> Address:
        """Take a URL apart; ``user`` and ``password``, plain, go before those in it.

        What stands before the last @ of the authority is user and password, percent-encoded or plain. Raises
        SourceError, which shows nothing behind the scheme.
        """
        found = _URL.fullmatch(url)
        if _CONTROL.search(url):
            raise SourceError(f"{url.partition(':')[0]}://: there is a control character in this URL")
        if found is None:
            raise SourceError(f"{url.partition(':')[0]}: a URL is needed, SCHEME://HOST/PATH")
        scheme, authority, rest = found["scheme"].lower(), found["authority"], found["rest"]
        userinfo, _, place = authority.rpartition("@")
        spot = _HOST.fullmatch(place)
        if spot is None or not 0 < int(spot["port"] or 1) < 65536:
            advice = "; a password with / ? or # must be percent-encoded, or be given by itself" if "@" in url else ""
            raise SourceError(f"{scheme}://: no host, or no number for a port, in this URL{advice}")
        name, _, word = userinfo.partition(":")
        address = Address(scheme, spot["host"], int(spot["port"]) if spot["port"] else None, rest)
        return replace(
            address,
            user=unquote(name) if user is None else user,
            password=unquote(word) if password is None else password,
        )

    @property
    def place(self) -> str:
        """Host and port."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """For FFmpeg, which decodes what is percent-encoded in it."""
        userinfo = quote(self.user, safe="")
        if self.password:
            userinfo += ":" + quote(self.password, safe="")
        return f"{self.scheme}://{userinfo}{'@' if userinfo else ''}{self.place}{self.rest}"

    @property
    def name(self) -> str:
        """For people: no user, no password, no secret parameter."""
        hidden = f"{HIDDEN}@" if self.user or self.password else ""
        return f"{self.scheme}://{hidden}{self.place}{hide_parameters(self.rest)}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown, in every spelling that a library may use."""
        path, _, query = self.rest.partition("?")
        values = [value for _, value in [*_IN_PATH.findall(path), *_IN_QUERY.findall(query)]]
        return spellings([self.password, *values, *(_NEXT.split(value)[0] for value in values)])


def spellings(values: Iterable[str]) -> tuple[str, ...]:
    """Each secret plain, percent-encoded and decoded, the longest first."""
    found = {form for value in values for form in (value, quote(value), quote(value, safe=""), unquote(value))}
    return tuple(sorted(found - {""}, key=lambda one: (-len(one), one)))


def redact(text: str, secrets: Iterable[str]) -> str:
    """``text`` on one line, without any of ``secrets`` and without the user part of any URL."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return re.sub(r"(?<=://)[^/\s]*@", f"{HIDDEN}@", " ".join(text.split()))


def hide_parameters(rest: str) -> str:
    """Path and query of a URL without the values of secret parameters."""
    path, mark, query = rest.partition("?")
    hidden = rf"\1{HIDDEN}"
    return _IN_PATH.sub(hidden, path) + mark + _IN_QUERY.sub(hidden, query)


def hide_login(text: str) -> str:
    """What is no URL, for an error, without what would be user and password in one."""
    return _LOGIN.sub(f"{HIDDEN}@", text)
