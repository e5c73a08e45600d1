"""Calls of an OpenAI-compatible chat endpoint: what was sent and returned, bounded retries, one kind of error.

Endpoints differ in the parameters that they take. :meth:`Endpoint.probe` finds out which, and the table travels with
the results of a run (:class:`Accepted`). No parameter is left out of a request in silence: one that the table says is
refused is an error before the call, one that the endpoint refuses is an error after it.
"""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..core.errors import EndpointError, OptionError
from .accepted import LIMITS, Accepted, Verdict
from .chat_protocol import (
    NO_ROOM,
    PATIENCE,
    SAYS,
    Completion,
    Enough,
    Failure,
    ProtocolError,
    Token,
    Usage,
    call,
    read_completion,
    read_failure,
    read_json,
    read_stream,
)

if TYPE_CHECKING:
    import openai

__all__ = ["Accepted", "CallLimit", "Completion", "Endpoint", "Token", "Usage", "Verdict"]

#: Seconds: the wait before the first retry, doubled for every further one, and the longest such wait.
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
#: What a probe asks.
PROBE = ({"role": "user", "content": "Reply with OK, as JSON where a form is asked for."},)
#: How a reply is asked for that is taken as it comes: the next way where a server refuses one. These parameters are
#: not the caller's: nothing but the count of tokens, or the first words' earlier coming, is lost.
WAYS: tuple[Mapping[str, Any], ...] = (
    {"stream": True, "stream_options": {"include_usage": True}},
    {"stream": True},
    {},
)
#: Longest part of a server's own words in an error, characters.
QUOTED = 300
#: Where there is no such model: seconds to ask for the names of those that are there, and how many are told.
NAMES_SECONDS, NAMES = 3.0, 8


@dataclass(slots=True)
class CallLimit:
    """How long one call may go on.

    ``seconds``: from its start, with all its tries and waits (None: as long as these take); ``retries``: further tries
    (None: the endpoint's); ``silence``: seconds that a request may stay without an answer (None: the endpoint's);
    ``given_up``: set by whoever no longer waits for the reply: no further try is begun.
    """

    seconds: float | None = None
    retries: int | None = None
    silence: float | None = None
    given_up: threading.Event = field(default_factory=threading.Event)
    began: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float | None:
        """Seconds that are left (None: no bound)."""
        return None if self.seconds is None else max(self.seconds - (time.monotonic() - self.began), 0.0)

    def allows(self, wait: float) -> bool:
        """Whether a further try, ``wait`` seconds from now, makes sense."""
        left = self.left
        return not self.given_up.is_set() and (left is None or wait < left)


class Endpoint:
    """One model at one OpenAI-compatible endpoint. Safe to use from several threads.

    ``url``: its base, with the version (``https://api.openai.com/v1``, ``http://localhost:8000/v1``); ``key``: None for
    a server that asks for none; ``timeout``: seconds that a request may stay without an answer; ``retries``: further
    tries after the first; ``in_flight``: calls at once, others wait for their turn; ``accepted``: the table of an
    earlier :meth:`probe`; ``sleep``: how to wait, for tests. Raises OptionError for arguments that cannot be meant, and
    where the ``openai`` package is missing.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None,
        timeout: float = 60.0,
        retries: int = 3,
        in_flight: int = 8,
        accepted: Accepted | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not model.strip():
            raise OptionError("an endpoint needs the name of a model")
        if not (math.isfinite(timeout) and timeout > 0) or retries < 0 or in_flight < 1:
            raise OptionError("timeout must be above 0, retries 0 or more, in_flight 1 or more")
        self.url, self.model, self.retries = _checked_url(url), model, retries
        if accepted is not None and (accepted.url, accepted.model) != (self.url, model):
            raise OptionError(f"the accepted parameters are of {accepted.model} at {accepted.url}, not of {self!r}")
        self._key = _checked_key(key)
        self._client, self._timeout = _connect(self.url, self._key, timeout), timeout
        self._accepted = accepted or Accepted(self.url, model)
        self._probing = threading.Lock()
        self._turns = threading.BoundedSemaphore(in_flight)
        self._sleep, self._random = sleep, random.Random()
        self._way = 0  # in which a reply is asked for that is taken as it comes

    def __repr__(self) -> str:
        return f"{self.model} at {self.url}"

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; no call works after this."""
        self._client.close()

    @property
    def accepted(self) -> Accepted:
        """What is known of the parameters: given, or probed."""
        return self._accepted

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        params: Mapping[str, Any],
        *,
        on_text: Callable[[str], None] | None = None,
        limit: CallLimit | None = None,
    ) -> Completion:
        """The reply to ``messages``, each as the protocol has it, with ``params`` in the request as they are.

        Only the bound of a reply is renamed, where the table says so. ``on_text`` receives the text as it comes: the
        reply is then streamed. Rate limits, server errors, timeouts and broken connections are tried again, unless
        ``on_text`` has seen text already; the waits grow and are never shorter than the server asks for. Where
        ``on_text`` raises :class:`.chat_protocol.Enough`, the reply ends there (``finish_reason``: ``length``).
        ``limit``: how long all that may take, for callers for whom a late reply is worth nothing. Raises
        :class:`EndpointError`, of kind ``refused_parameter`` before any request where the table has a refusal.
        """
        for refused in self._accepted.refused(params):
            message = f"{self!r} does not take {refused.shown}: {refused.reason}"
            raise EndpointError(message, "refused_parameter", parameter=refused.name)
        sent = self._accepted.rename(params)
        if on_text is None:
            return self._call(messages, sent, None, limit)
        for number in range(self._way, len(WAYS)):
            way = WAYS[number]
            try:
                reply = self._call(messages, {**sent, **way}, on_text if way else None, limit)
            except EndpointError as error:
                if error.parameter not in way:
                    raise
            else:
                break
        self._way = max(self._way, number)
        if not way and reply.text:
            with suppress(Enough):
                on_text(reply.text)
        return reply

    def probe(self, params: Mapping[str, Any]) -> Accepted:
        """Find out which of ``params`` the endpoint takes: a short call for each that the table does not have yet.

        Where the bound of a reply is refused under one name, the other is tried. Raises :class:`EndpointError` for
        whatever is no refusal of a parameter.
        """
        with self._probing:
            for name, value in params.items():
                if not self._probe(name, value) and name in LIMITS:
                    self._probe(LIMITS[1 - LIMITS.index(name)], value)
            return self._accepted

    def _probe(self, name: str, value: Any) -> bool:
        known = self._accepted.takes(name, value)
        if known is not None:
            return known
        reason = self._objection(name, value)
        verdict = Verdict(name, value, not reason, reason)
        self._accepted = replace(self._accepted, verdicts=(*self._accepted.verdicts, verdict))
        return verdict.taken

    def _objection(self, name: str, value: Any) -> str:
        """What the endpoint says against a parameter ("": nothing)."""
        try:
            self._call(PROBE, {name: value}, None)
        except EndpointError as error:
            if error.kind not in {"refused_parameter", "bad_request"}:
                raise
            kind, reason = error.kind, error.reason
        else:
            return ""
        if NO_ROOM.search(reason):
            return ""
        if kind == "bad_request":  # names no parameter: the same call without it has to pass
            self._call(PROBE, {}, None)
        return reason

    def _call(
        self,
        messages: Sequence[Mapping[str, Any]],
        sent: Mapping[str, Any],
        on_text: Callable[[str], None] | None,
        limit: CallLimit | None = None,
    ) -> Completion:
        began = time.monotonic()
        if not self._turns.acquire(timeout=None if limit is None else limit.left):
            raise self._error(Failure("timeout", "too many other calls of this program are under way"), 0)
        # The turn is kept while waiting: a server that is overrun must not meet those who wait for theirs as well.
        try:
            for tries in itertools.count(1):
                reply = self._try(messages, sent, on_text, limit)
                if isinstance(reply, Completion):
                    return replace(reply, sent=sent, tries=tries, seconds=time.monotonic() - began)
                if not self._tries_again(reply, tries, wait := self._wait(reply, tries), limit):
                    raise self._error(reply, tries, self._models() if reply.kind == "not_found" else ())
                self._sleep(wait) if limit is None else limit.given_up.wait(wait)
        finally:
            self._turns.release()
        raise AssertionError("a call ends with a reply or an error")

    def _tries_again(self, failure: Failure, tries: int, wait: float, limit: CallLimit | None) -> bool:
        most = self.retries if limit is None or limit.retries is None else limit.retries
        return tries <= most and failure.passing and (limit is None or limit.allows(wait))

    def _wait(self, failure: Failure, tries: int) -> float:
        """Seconds before the next try: at random in the upper half of a bound that doubles, so that callers part."""
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (tries - 1))
        return max(failure.after, longest * (1 + self._random.random()) / 2)

    def _try(
        self,
        messages: Sequence[Mapping[str, Any]],
        sent: Mapping[str, Any],
        on_text: Callable[[str], None] | None,
        limit: CallLimit | None = None,
    ) -> Completion | Failure:
        """One request. All that the SDK or the network raises becomes a failure here, and nowhere else."""
        import openai

        emitted: list[str] = []
        request: dict[str, Any] = {"model": self.model, "messages": list(messages), "extra_body": dict(sent)}
        if limit is not None and (left := limit.left) is not None:
            if limit.given_up.is_set() or not left:
                return Failure("timeout", "the call was given up", final=True)
            request["timeout"] = min(self._timeout if limit.silence is None else limit.silence, left)
        try:
            if on_text is not None:
                return self._streamed(request, on_text, emitted)
            raw = call(self._client.chat.completions.with_raw_response.create, request)
            return read_completion(read_json(raw.http_response.content))
        except openai.OpenAIError as error:
            failure = read_failure(error, sent)
        except ProtocolError as error:
            failure = Failure(error.kind, str(error))
        return replace(failure, final=failure.final or bool(emitted))

    def _streamed(self, request: dict[str, Any], on_text: Callable[[str], None], emitted: list[str]) -> Completion:
        """A reply as it comes; ``emitted`` is filled with what ``on_text`` has seen of it."""
        body: dict[str, Any] = {}
        refusal = reason = ""
        with call(self._client.chat.completions.create, {**request, "stream": True}) as stream:
            if "json" in stream.response.headers.get("content-type", ""):  # whole, or an error with status 200
                reply = read_completion(read_json(call(stream.response.read, {})))
                if reply.text:
                    emitted.append(reply.text)
                    with suppress(Enough):
                        on_text(reply.text)
                return reply
            for piece in read_stream(stream.response.iter_bytes()):
                body |= piece.about
                refusal, reason = refusal + piece.refusal, piece.finish_reason or reason
                if piece.text:
                    emitted.append(piece.text)
                    try:
                        on_text(piece.text)
                    except Enough:
                        reason = "length"
                        break
        if not reason:
            raise ProtocolError("malformed", "the stream ended before the reply did")
        message = {"content": "".join(emitted), "refusal": refusal}
        return read_completion({**body, "choices": [{"message": message, "finish_reason": reason}]})

    def _models(self) -> Sequence[str]:
        """The names of the models that are there, to be told with an error; none where the server does not tell."""
        import openai

        try:
            page = call(self._client.with_options(timeout=NAMES_SECONDS).models.list, {})
            return [" ".join(str(one.id).split()) for one in page.data or ()][:NAMES]
        except (openai.OpenAIError, ProtocolError, AttributeError, TypeError):
            return ()

    def _error(self, failure: Failure, tries: int, models: Sequence[str] = ()) -> EndpointError:
        reason = " ".join(failure.message.split())
        reason = (reason.replace(self._key, "***") if self._key else reason)[:QUOTED]
        again = f" ({tries} tries)" if tries > 1 else ""
        waits = f"; it asks to wait {failure.after:.0f} s" if failure.after > PATIENCE else ""
        names = f"; its models: {', '.join(models)}" if models else ""
        return EndpointError(
            f"{self!r}: {SAYS[failure.kind]}{again}: {reason}{waits}{names[:QUOTED]}",
            failure.kind,
            reason=reason,
            parameter=failure.parameter,
            status=failure.status,
            tries=tries,
            after=failure.after,
        )


def _connect(url: str, key: str, timeout: float) -> openai.OpenAI:
    try:
        import openai
    except ImportError:
        raise OptionError("an endpoint needs openai: pip install 'streamingvlm[endpoint]'") from None
    # With no key at all the SDK would look for one in its process and send it to whoever listens at the URL.
    client = openai.OpenAI(base_url=url, api_key=key or "none", timeout=timeout, max_retries=0)
    client.organization = client.project = None
    return client


def _checked_url(url: str) -> str:
    """``url`` without a slash at its end. OptionError for what is no address, and for one that holds a secret."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound:
        raise OptionError("the url of an endpoint is http(s)://HOST[:PORT]/v1 or alike")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise OptionError("the url of an endpoint has no user, password or query: it is written into results")
    if url.rstrip("/").endswith("/chat/completions"):
        raise OptionError(
            "the url of an endpoint is its base, as in http://localhost:8000/v1, without /chat/completions"
        )
    return url.rstrip("/")


def _checked_key(key: str | None) -> str:
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise OptionError("the key of an endpoint has characters that no key has")
    return key
