"""Calls of an OpenAI-compatible chat endpoint: what was sent and returned, bounded retries, one kind of error.

Endpoints differ in the parameters that they take. :meth:`Endpoint.probe` finds out which, and the table travels with
the results of a run (:class:`Accepted`). No parameter is left out of a request in silence: one that the table says is
refused is an error before the call, one that the endpoint refuses is an error after it.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..core.errors import EndpointError, EndpointFailure, OptionError
from .accepted import LIMITS, Accepted, Verdict

if TYPE_CHECKING:
    import openai

__all__ = ["Accepted", "Completion", "Endpoint", "Usage", "Verdict"]

#: Kinds of failure that may pass.
PASSING = frozenset({"rate_limit", "server", "timeout", "connection"})
#: Seconds: the wait before the first retry, doubled for every further one, and the longest such wait.
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
#: Seconds: a server that asks for a longer wait is not waited for.
PATIENCE = 120.0
#: What a probe asks.
PROBE = ({"role": "user", "content": "Reply with OK, as JSON where a form is asked for."},)
#: How an error says that a bound was obeyed and left no room for a reply.
NO_ROOM = re.compile(r"output limit (was|has been) reached", re.IGNORECASE)
#: Longest part of a server's own words in an error, characters.
QUOTED = 300


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a call as the endpoint counts them (None: not told)."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A reply. ``text`` is as it came.

    ``model``, ``fingerprint`` and ``finish_reason``: as returned ("" if not told); ``sent``: all of the request but
    model and messages, under the names that were sent; ``tries``: requests that it took; ``seconds``: from the call to
    its return, waits included; ``refusal``: what the model returned in place of a text.
    """

    text: str
    model: str = ""
    fingerprint: str = ""
    usage: Usage = Usage()
    sent: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: str = ""
    tries: int = 1
    seconds: float = 0.0
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why one request has failed. ``after``: seconds that the server asks to wait; ``final``: whether not to retry."""

    kind: EndpointFailure
    message: str
    parameter: str = ""
    status: int = 0
    after: float = 0.0
    final: bool = False

    @property
    def passing(self) -> bool:
        return self.kind in PASSING and not self.final and self.after <= PATIENCE


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
        self._client = _connect(self.url, self._key, timeout)
        self._accepted = accepted or Accepted(self.url, model)
        self._probing = threading.Lock()
        self._turns = threading.BoundedSemaphore(in_flight)
        self._sleep, self._random = sleep, random.Random()

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
    ) -> Completion:
        """The reply to ``messages``, each as the protocol has it, with ``params`` in the request as they are.

        Only the bound of a reply is renamed, where the table says so. ``on_text`` receives the text as it comes: the
        reply is then streamed. Rate limits, server errors, timeouts and broken connections are tried again, unless
        ``on_text`` has seen text already; the waits grow and are never shorter than the server asks for. Raises
        :class:`EndpointError`, of kind ``refused_parameter`` before any request where the table has a refusal.
        """
        for refused in self._accepted.refused(params):
            message = f"{self!r} does not take {refused.shown}: {refused.reason}"
            raise EndpointError(message, "refused_parameter", parameter=refused.name)
        sent = self._accepted.rename(params)
        if on_text is not None:
            sent |= {"stream": True, "stream_options": {"include_usage": True}}
        return self._call(messages, sent, on_text)

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
        self, messages: Sequence[Mapping[str, Any]], sent: Mapping[str, Any], on_text: Callable[[str], None] | None
    ) -> Completion:
        began = time.monotonic()
        # The turn is kept while waiting: a server that is overrun must not meet those who wait for theirs as well.
        with self._turns:
            for tries in itertools.count(1):
                reply = self._try(messages, sent, on_text)
                if isinstance(reply, Completion):
                    return replace(reply, sent=sent, tries=tries, seconds=time.monotonic() - began)
                if tries > self.retries or not reply.passing:
                    raise self._error(reply, tries)
                self._sleep(self._wait(reply, tries))
        raise AssertionError("a call ends with a reply or an error")

    def _wait(self, failure: _Failure, tries: int) -> float:
        """Seconds before the next try: at random in the upper half of a bound that doubles, so that callers part."""
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (tries - 1))
        return max(failure.after, longest * (1 + self._random.random()) / 2)

    def _try(
        self, messages: Sequence[Mapping[str, Any]], sent: Mapping[str, Any], on_text: Callable[[str], None] | None
    ) -> Completion | _Failure:
        """One request. All that the SDK or the network raises becomes a failure here, and nowhere else."""
        import openai

        emitted: list[str] = []
        request: dict[str, Any] = {"model": self.model, "messages": list(messages), "extra_body": dict(sent)}
        try:
            if on_text is not None:
                return self._streamed(request, on_text, emitted)
            raw = _sent(self._client.chat.completions.with_raw_response.create, request)
            return _completion(_json(raw.http_response.content))
        except openai.OpenAIError as error:
            failure = _failure(error, sent)
        except (_BrokenError, _MalformedError) as error:
            failure = _Failure(error.kind, str(error))
        return replace(failure, final=failure.final or bool(emitted))

    def _streamed(self, request: dict[str, Any], on_text: Callable[[str], None], emitted: list[str]) -> Completion:
        body: dict[str, Any] = {}
        reason = None
        with _sent(self._client.chat.completions.create, {**request, "stream": True}) as stream:
            for piece in _pieces(stream):
                body |= {name: piece[name] for name in ("model", "system_fingerprint", "usage") if piece.get(name)}
                for choice in piece.get("choices") or ():
                    text = _whole((choice.get("delta") or {}).get("content") or "")
                    reason = choice.get("finish_reason") or reason
                    if text:
                        emitted.append(text)
                        on_text(text)
        if reason is None:
            raise _MalformedError("the stream ended before the reply did")
        return _completion({**body, "choices": [{"message": {"content": "".join(emitted)}, "finish_reason": reason}]})

    def _error(self, failure: _Failure, tries: int) -> EndpointError:
        reason = " ".join(failure.message.split())
        reason = (reason.replace(self._key, "***") if self._key else reason)[:QUOTED]
        again = f" ({tries} tries)" if tries > 1 else ""
        waits = f"; it asks to wait {failure.after:.0f} s" if failure.after > PATIENCE else ""
        return EndpointError(
            f"{self!r}: {_SAYS[failure.kind]}{again}: {reason}{waits}",
            failure.kind,
            reason=reason,
            parameter=failure.parameter,
            status=failure.status,
            tries=tries,
        )


#: What each kind of failure means, in an error.
_SAYS: Mapping[EndpointFailure, str] = {
    "auth": "the key is missing, wrong or may not use this model",
    "not_found": "there is no such model or address (the url ends with the version, as in http://localhost:8000/v1)",
    "refused_parameter": "a parameter is refused",
    "bad_request": "the request is refused",
    "rate_limit": "too many requests",
    "server": "the server has failed",
    "timeout": "no answer in time",
    "connection": "the connection has failed",
    "malformed": "the answer cannot be read",
}


class _MalformedError(Exception):
    """A reply that is not what the protocol says."""

    kind: EndpointFailure = "malformed"


class _BrokenError(Exception):
    """What the SDK lets through of the libraries below it: versions differ in that."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error) or type(error).__name__)
        late = any("Timeout" in one.__name__ for one in type(error).__mro__)
        unsent = isinstance(error, TypeError | ValueError)  # no JSON, no Unicode
        self.kind: EndpointFailure = "bad_request" if unsent else "timeout" if late else "connection"


def _sent(create: Callable[..., Any], request: Mapping[str, Any]) -> Any:
    """What the SDK returns for a request."""
    import openai

    try:
        return create(**request)
    except openai.OpenAIError:
        raise
    except Exception as error:
        raise _BrokenError(error) from None


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
    return url.rstrip("/")


def _checked_key(key: str | None) -> str:
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise OptionError("the key of an endpoint has characters that no key has")
    return key


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise _MalformedError(f"no JSON: {error}") from None


def _pieces(stream: openai.Stream[Any]) -> Iterator[dict[str, Any]]:
    """The events of a streamed reply as JSON values."""
    import openai

    events = iter(stream)
    while True:
        try:
            event = next(events)
        except StopIteration:
            return
        except ValueError as error:
            raise _MalformedError(f"no JSON: {error}") from None
        except openai.OpenAIError:
            raise
        except Exception as error:
            raise _BrokenError(error) from None
        yield event.to_dict(mode="json", warnings=False)


def _completion(body: Any) -> Completion:
    """What the JSON of a reply says."""
    try:
        choice = body["choices"][0]
        message, usage = choice["message"], body.get("usage") or {}
        text, refusal = _text(message.get("content")), message.get("refusal") or ""
        counts = Usage(usage.get("prompt_tokens"), usage.get("completion_tokens"))
        told = [body.get("model") or "", body.get("system_fingerprint") or "", choice.get("finish_reason") or ""]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise _MalformedError("it has no message") from None
    if not all(isinstance(one, str) for one in (text, refusal, *told)):
        raise _MalformedError("its message is no text")
    return Completion(text, told[0], told[1], counts, finish_reason=told[2], refusal=refusal)


def _text(content: Any) -> Any:
    """Of a message: plain, in parts, or none at all."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    return _whole(content) if isinstance(content, str) else content or ""


def _whole(text: str) -> str:
    """``text`` without halves of characters, which a bound may leave: they can be neither sent nor written."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _failure(error: openai.OpenAIError, sent: Mapping[str, Any]) -> _Failure:
    """What an exception of the SDK means."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return _Failure("timeout", "the server is slow, or cannot be reached")
    if isinstance(error, openai.APIConnectionError):
        return _Failure("connection", str(error.__cause__ or error))
    if isinstance(error, openai.APIStatusError):
        return _refusal(error, sent)
    if isinstance(error, openai.APIError) and isinstance(error.body, Mapping):
        return _Failure("server", _words(error.body))  # an error in the middle of a stream
    return _Failure("malformed", str(error), final=True)


def _refusal(error: openai.APIStatusError, sent: Mapping[str, Any]) -> _Failure:
    """What a reply with a status of an error means."""
    status, words = error.status_code, _words(error.body)
    if status in {401, 403}:
        return _Failure("auth", words, status=status)
    if status == 404 or error.param == "model" or error.code == "model_not_found":
        return _Failure("not_found", words, status=status)
    if status == 429:
        # A budget that is spent does not come back by waiting.
        spent = error.code == "insufficient_quota"
        return _Failure("rate_limit", words, status=status, after=_asked_wait(error), final=spent)
    if status == 408:
        return _Failure("timeout", words, status=status, after=_asked_wait(error))
    if status >= 500:
        return _Failure("server", words, status=status, after=_asked_wait(error))
    name = _refused_name(error, words, sent) if status in {400, 422} else ""
    return _Failure("refused_parameter" if name else "bad_request", words, name, status)


def _refused_name(error: openai.APIStatusError, words: str, sent: Mapping[str, Any]) -> str:
    """Which of the parameters sent a server refuses ("": none of them)."""
    if NO_ROOM.search(words):
        return ""
    if isinstance(error.param, str) and error.param:
        name = re.split(r"[.\[]", error.param)[0]
        return name if name in sent else ""
    named = [name for name in sent if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", words)]
    return max(named, key=len, default="")


def _words(body: object) -> str:
    """A server's own words in the body of an error."""
    if isinstance(body, Mapping):
        told = next((body[name] for name in ("message", "detail", "error") if body.get(name)), body)
        return told if isinstance(told, str) else json.dumps(told, ensure_ascii=False, default=str)
    return str(body or "no reason given")


def _asked_wait(error: openai.APIStatusError) -> float:
    """Seconds of ``Retry-After``, which is a number or a date (0: not asked)."""
    headers = error.response.headers
    text = headers.get("retry-after", "")
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0
