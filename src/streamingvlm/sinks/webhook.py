"""Events as signed HTTP requests to somebody's server, as https://www.standardwebhooks.com tells.

Each request is a POST of one JSON record (see :mod:`.records`; ``stream`` is its stream's name) with these headers:

- ``Webhook-Id``: of the event, the same whenever it is sent again;
- ``Webhook-Timestamp``: when it was sent, whole seconds since 1970;
- ``Webhook-Signature``: ``v1,`` and the Base64 of HMAC-SHA256 over ``ID.TIMESTAMP.BODY`` with the secret as its key.

A receiver checks them with :func:`verify`, or with any library for Standard Webhooks.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import ipaddress
import os
import random
import re
import socket
import ssl
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

from ..core.errors import OptionError
from ..core.events import Alert, AnswerDelta, Answered, Closed, Delta, Event, Gap, SourceStatus, StreamOpened, Told
from .limits import WEBHOOK_EVENTS
from .records import TYPES, record_of
from .text import json_text, printable

#: Types of the records that are sent if nothing else is asked for.
DEFAULT_KINDS = tuple(TYPES[one] for one in (Alert, Answered, SourceStatus, Gap, Closed))
#: Seconds that one request may take, from resolving the name to the status.
TIMEOUT = 5.0
#: Seconds before each further try; each is changed by up to a fifth, so that many programs do not come at once.
RETRIES = (1.0, 5.0, 30.0, 300.0)
JITTER = 0.2
#: Seconds behind the end of a stream in which what waits is still sent, and between two tries then.
DRAIN, DRAIN_RETRY = 5.0, 0.5
#: Seconds by which the clocks of sender and receiver may differ, and a request may be old.
TOLERANCE = 300.0
#: What is told of a server that must not be connected to.
NOT_PUBLIC = "its address is not public; such a server must be allowed (--webhook-private, allow_private=True)"
#: An IPv4 address in the last four bytes of an IPv6 one (RFC 6052), as it also is behind twelve zeros.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(slots=True)
class Deliveries:
    """Events that were sent, given up (refused, or tried in vain), and lost since the queue was full or time was up."""

    delivered: int = 0
    failed: int = 0
    dropped: int = 0


class _DeliveryError(Exception):
    """A request that has come to nothing. ``again``: it may be sent again; ``after``: not before, seconds."""

    def __init__(self, reason: str, again: bool = True, after: float = 0.0) -> None:
        super().__init__(reason)
        self.again, self.after = again, after


class Webhook:
    """A sink that sends events to ``url`` in a thread of its own: it never waits and never ends a stream.

    ``secret``: what requests are signed with; one that begins with ``whsec_`` is Base64 behind that. ``kinds``: types
    of records to send (see :data:`.records.TYPES`). ``allow_private``: the server may have an address that is not
    public; else such a name is never connected to. ``cafile``: certificates that sign the server's (None: the
    system's). ``on_problem`` is told, in the sending thread, one line when something goes wrong for the first time
    since it went well; no line ever has the secret, or more of the URL than its host.

    ``mark``: a file with the id of the newest event that has arrived or was given up, so that a later run can send
    those behind it (:attr:`settled`, :meth:`go_on`). After a crash it can be a little old: ``Webhook-Id`` then tells a
    receiver what it has.

    Events keep their order: while one is tried again the others wait, and of more than ``WEBHOOK_EVENTS`` the oldest
    are lost. What a receiver refuses (4xx, but 408 and 429) and redirects are not sent again. Raises OptionError for a
    URL, a secret or kinds that cannot be meant.
    """

    def __init__(
        self,
        url: str,
        secret: str,
        *,
        kinds: Iterable[str] = DEFAULT_KINDS,
        allow_private: bool = False,
        cafile: Path | None = None,
        on_problem: Callable[[str], None] = lambda _: None,
        retries: Sequence[float] = RETRIES,
        timeout: float = TIMEOUT,
        mark: Path | None = None,
    ) -> None:
        self._mark = mark
        self._target = _Target.of(url, allow_private)
        self._key = _key(secret)
        self._kinds = _kinds(kinds)
        self._retries, self._timeout, self._on_problem = tuple(retries), timeout, on_problem
        self._context = _tls(cafile) if self._target.tls else None
        self.deliveries = Deliveries()
        self._stream = ""
        self._events: deque[Event] = deque()
        self._changed = threading.Condition()
        self._until: float | None = None  # of the clock, when draining ends
        self._in_time = True  # nothing was given up since the stream has ended
        self._well = True
        self._tell_at = 1  # events that are dropped: then that is told
        self._thread = threading.Thread(target=self._run, name="streamingvlm-webhook", daemon=True)

    def write(self, event: Event) -> None:
        """See :meth:`Sink.write`; never waits."""
        if isinstance(event, StreamOpened):
            self._stream = event.name
        if type(event) not in self._kinds:
            return
        with self._changed:
            if self._until is not None:
                return
            if len(self._events) >= WEBHOOK_EVENTS:
                self._events.popleft()
                self.deliveries.dropped += 1
            self._events.append(event)
            if self._thread.ident is None:
                self._thread.start()
            self._changed.notify_all()

    def close(self) -> None:
        """See :meth:`Sink.close`: returns at once. What waits is still sent for ``DRAIN`` seconds, see :meth:`wait`."""
        with self._changed:
            self._until = time.monotonic() + DRAIN
            self._changed.notify_all()

    @property
    def settled(self) -> str | None:
        """What stands in the file ``mark`` (None: there is none)."""
        if self._mark is None or not self._mark.exists():
            return None
        with suppress(OSError):
            return self._mark.read_text(encoding="ascii", errors="replace")
        return None

    def settle(self, identity: str) -> None:
        """All up to the event with this id are done with."""
        if self._mark is not None and identity:
            with suppress(OSError):  # then they are sent again
                part = self._mark.with_name(self._mark.name + ".part")
                part.write_text(identity, encoding="ascii")
                os.replace(part, self._mark)

    def go_on(self, name: str, events: Iterable[Event]) -> None:
        """Send events of stream ``name`` that an earlier run has told and not sent."""
        self._stream = name
        for event in events:
            self.write(event)

    @property
    def loss(self) -> str:
        """What did not arrive, in one line ("": nothing)."""
        done = self.deliveries
        lost = done.failed + done.dropped
        return f"{lost} of {lost + done.delivered} events did not reach {self._target}" if lost else ""

    def wait(self, seconds: float = DRAIN) -> bool:
        """Behind :meth:`close`: until all is sent or time is up; whether nothing is left to do."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def give_up(self) -> None:
        """What is not sent by now is lost, the request under way too: nobody waits for its status any more."""
        with self._changed:
            self._until = time.monotonic()
            if self._thread.is_alive():
                self.deliveries.dropped += len(self._events) + 1
                self._events.clear()
            self._changed.notify_all()

    # The sending thread.

    def _run(self) -> None:
        while (event := self._next()) is not None:
            if sent := self._send(event):
                self.deliveries.delivered += 1
            else:
                self.deliveries.failed += 1
            self._in_time &= sent or self._until is None
            if self._in_time:
                self.settle(event.id)
            self._tell_loss()

    def _tell_loss(self) -> None:
        """One line at the first event that is dropped, and whenever they are twice as many."""
        if (dropped := self.deliveries.dropped) >= self._tell_at:
            self._tell_at = 2 * dropped
            self._say(f"{dropped} events are lost so far: it is too slow, and only {WEBHOOK_EVENTS} wait")

    def _send(self, event: Event) -> bool:
        """Whether it was taken; a fault of the program takes this event alone."""
        try:
            body = json_text({**record_of(event), "stream": self._stream}).encode()
            return self._deliver(event.id or uuid.uuid4().hex, body)
        except Exception as error:
            self._tell(f"an event cannot be sent ({type(error).__name__})")
            return False

    def _tell(self, problem: str) -> None:
        """One line, if it went well before."""
        if self._well:
            self._well = False
            self._say(problem)

    def _say(self, line: str) -> None:
        with suppress(Exception):  # whoever listens may be gone; the events go on
            self._on_problem(f"webhook {self._target}: {printable(line)}")

    def _next(self) -> Event | None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._events) or self._until is not None)
            if self._left() <= 0:
                self.deliveries.dropped += len(self._events)
                self._events.clear()
            return self._events.popleft() if self._events else None

    def _deliver(self, identity: str, body: bytes) -> bool:
        """Send it until it is taken; false if that is given up."""
        for delay in (*self._retries, None):
            try:
                self._target.post(self._signed(identity, body), body, min(self._timeout, self._left()), self._context)
            except _DeliveryError as problem:
                self._tell(str(problem))
                if delay is None or not problem.again:
                    return False
                if not self._pause(max(delay * random.uniform(1 - JITTER, 1 + JITTER), problem.after)):
                    return False
            else:
                self._well = True
                return True
        return False

    def _signed(self, identity: str, body: bytes) -> dict[str, str]:
        stamp = str(int(time.time()))
        return {
            "Content-Type": "application/json",
            "User-Agent": "streamingvlm",
            "Webhook-Id": identity,
            "Webhook-Timestamp": stamp,
            "Webhook-Signature": f"v1,{_sign(self._key, identity, stamp, body)}",
        }

    def _pause(self, seconds: float) -> bool:
        """Wait for the next try, shortly if the stream has ended; false if there is no time for one."""
        with self._changed:
            if self._until is None:
                self._changed.wait_for(lambda: self._until is not None, seconds)
            else:
                self._changed.wait(min(seconds, DRAIN_RETRY))
            return self._left() > 0

    def _left(self) -> float:
        """Seconds in which may still be sent."""
        return float("inf") if self._until is None else self._until - time.monotonic()


@dataclass(frozen=True, slots=True)
class _Target:
    """Where requests go. As text it is what may be told: no path, which often is a secret too."""

    host: str
    port: int
    path: str
    tls: bool
    allow_private: bool

    @staticmethod
    def of(url: str, allow_private: bool) -> _Target:
        try:
            parts = urlsplit(url)
            port = parts.port
            host = (parts.hostname or "").encode("idna").decode()
        except ValueError:
            raise OptionError("the URL of a webhook cannot be read; it is like https://host/path") from None
        if parts.scheme not in ("http", "https") or not host:
            raise OptionError("the URL of a webhook begins with https:// (or http://) and a host")
        if parts.username is not None or parts.password is not None:
            raise OptionError("the URL of a webhook holds no user and password; its requests are signed instead")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if re.search(r"[^\x21-\x7e]", path + host):
            raise OptionError("the URL of a webhook has characters that must be written as %XX")
        tls = parts.scheme == "https"
        target = _Target(host, port or (443 if tls else 80), path, tls, allow_private)
        if not allow_private and _is_address(host) and not is_public(host):
            raise OptionError(f"webhook {target}: {NOT_PUBLIC}")
        return target

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def post(self, headers: Mapping[str, str], body: bytes, timeout: float, context: ssl.SSLContext | None) -> None:
        """Send one request; returns when it was taken. Whatever goes wrong is a ``_DeliveryError``."""
        with _failing():
            connection = _Connection(self, timeout, context)
            watch = threading.Timer(timeout, connection.cut)
            watch.daemon = True
            watch.start()
            try:
                connection.request("POST", self.path, body, dict(headers))
                reply = connection.getresponse()
                if connection.was_cut:  # what was there of the reply can look like a whole one
                    raise TimeoutError
            except (OSError, http.client.HTTPException):
                if connection.was_cut:
                    raise TimeoutError from None
                raise
            finally:
                watch.cancel()
                connection.close()
        _check(reply.status, reply.headers.get("Retry-After", ""))

    def addresses(self) -> list[str]:
        """What the name stands for now; none unless all may be connected to."""
        found = [str(one[4][0]) for one in socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)]
        if not self.allow_private and not all(map(is_public, found)):
            raise _DeliveryError(NOT_PUBLIC)
        return found


class _Connection(http.client.HTTPConnection):
    """One to an address that was looked at: the name is resolved once, and never again behind the check."""

    def __init__(self, target: _Target, timeout: float, context: ssl.SSLContext | None) -> None:
        self.default_port = 443 if target.tls else 80  # only another one is named in the header Host
        super().__init__(target.host, target.port, timeout=timeout)
        self._target, self._tls, self._seconds = target, context, timeout
        self.was_cut = False
        self._raw: socket.socket | None = None

    def connect(self) -> None:
        """See :meth:`http.client.HTTPConnection.connect`."""
        self._raw = _first(self._target.addresses(), self.port, self._seconds)
        if self._tls is not None:
            wrapped = self._tls.wrap_socket(self._raw, server_hostname=self.host, do_handshake_on_connect=False)
            self._raw = wrapped
            wrapped.do_handshake()
        if self.was_cut:
            raise TimeoutError
        self.sock = self._raw

    def cut(self) -> None:
        """Time is up, also for a server that sends a byte now and then. From another thread."""
        self.was_cut = True
        if self._raw is not None:
            with suppress(OSError):  # it has ended by itself
                socket.socket.shutdown(self._raw, socket.SHUT_RDWR)  # of TLS: what is below it


def _first(addresses: Sequence[str], port: int, timeout: float) -> socket.socket:
    """A connection to the first address that can be reached. One that does not answer leaves time for the others."""
    until = time.monotonic() + timeout
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        try:
            return socket.create_connection((address, port), max(until - time.monotonic(), 0.1) / left)
        except OSError:
            if left == 1:
                raise
    raise _DeliveryError("its name stands for no address")


@contextmanager
def _failing() -> Iterator[None]:
    """The one place where what the network raises becomes a ``_DeliveryError``."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise _DeliveryError(f"its certificate is refused ({error.verify_message})") from None
    except socket.gaierror as error:
        raise _DeliveryError(f"its name cannot be resolved ({error.strerror})") from None
    except TimeoutError:
        raise _DeliveryError("it does not answer in time") from None
    except OSError as error:
        raise _DeliveryError(f"it cannot be reached ({error.strerror or type(error).__name__})") from None
    except http.client.HTTPException as error:
        raise _DeliveryError(f"it does not speak HTTP ({type(error).__name__})") from None


def _check(status: int, retry_after: str) -> None:
    if 200 <= status < 300:
        return
    if 300 <= status < 400:
        raise _DeliveryError(f"it redirects (HTTP {status}); name the URL that it leads to", again=False)
    again = not 400 <= status < 500 or status in (408, 429)
    raise _DeliveryError(f"it answers HTTP {status}", again, _retry_after(retry_after))


def _retry_after(told: str) -> float:
    """Seconds until a server wants a request again: it tells a number, or a date (0: nothing that can be read)."""
    try:
        seconds = float(told) if told.isdecimal() else parsedate_to_datetime(told).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), RETRIES[-1])


def verify(
    secret: str, headers: Mapping[str, str], body: bytes, *, now: float | None = None, tolerance: float = TOLERANCE
) -> bool:
    """Whether a request is signed with ``secret`` and was sent within ``tolerance`` seconds of ``now``.

    ``headers`` in any case; ``body`` as it was received; ``now``: seconds since 1970 (None: now).
    """
    known = {name.lower(): value for name, value in headers.items()}
    identity, stamp = known.get("webhook-id", ""), known.get("webhook-timestamp", "")
    if not re.fullmatch(r"\d{1,15}", stamp) or abs((time.time() if now is None else now) - int(stamp)) > tolerance:
        return False
    right = f"v1,{_sign(_key(secret), identity, stamp, body)}"
    given = known.get("webhook-signature", "").split()
    return any(hmac.compare_digest(right.encode(), one.encode("utf-8", "replace")) for one in given)


def is_public(address: str) -> bool:
    """Whether an IP address can be that of a server on the internet: not private, local, shared, or for many."""
    one = ipaddress.ip_address(address.partition("%")[0])
    inner: list[ipaddress.IPv4Address] = []
    if isinstance(one, ipaddress.IPv6Address):
        inner = [other for other in (one.ipv4_mapped, one.sixtofour, *(one.teredo or ())) if other is not None]
        if one in _NAT64 or not int(one) >> 32:
            inner.append(ipaddress.IPv4Address(int(one) & 0xFFFFFFFF))
        if one.ipv4_mapped is not None:
            return is_public(str(one.ipv4_mapped))
        if one.is_site_local:
            return False
    return one.is_global and not one.is_multicast and all(is_public(str(other)) for other in inner)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _sign(key: bytes, identity: str, stamp: str, body: bytes) -> str:
    return base64.b64encode(hmac.digest(key, f"{identity}.{stamp}.".encode() + body, hashlib.sha256)).decode()


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret[6:], validate=True) if secret.startswith("whsec_") else secret.encode()
    except (binascii.Error, UnicodeEncodeError):
        raise OptionError("the secret of a webhook cannot be read: behind whsec_ stands Base64") from None
    if not key:
        raise OptionError("a webhook needs a secret; its receiver checks the signature with it")
    return key


def _kinds(kinds: Iterable[str]) -> frozenset[type[Told]]:
    known = {name: one for one, name in TYPES.items() if one not in (Delta, AnswerDelta)}
    wanted = set(kinds)
    if unknown := sorted(wanted - known.keys()):
        raise OptionError(f"a webhook cannot be sent {', '.join(unknown)}; it can be sent {', '.join(known)}")
    return frozenset(known[name] for name in wanted)


def _tls(cafile: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if cafile is None else str(cafile))
    except (OSError, ssl.SSLError) as error:
        raise OptionError(f"cannot read the certificates in {cafile} ({error.strerror or error})") from None
