"""The chat protocol of OpenAI-compatible servers: what replies say, and what each failure means."""

from __future__ import annotations

import itertools
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from ..core.errors import EndpointFailure

if TYPE_CHECKING:
    import openai

#: Kinds of failure that may pass.
PASSING = frozenset({"rate_limit", "server", "timeout", "connection"})
#: Seconds: a server that asks for a longer wait is not waited for.
PATIENCE = 120.0
#: How an error says that a bound was obeyed and left no room for a reply.
NO_ROOM = re.compile(r"output limit (was|has been) reached", re.IGNORECASE)
#: How an error with status 200 says that nothing is at the address.
NO_ADDRESS = re.compile(r"unexpected endpoint|not found", re.IGNORECASE)
#: What a model writes around its thoughts, where its server leaves them in the text.
THOUGHTS = ("<think>", "</think>")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a call as the endpoint counts them (None: not told)."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a reply. ``likely``: the likeliest tokens at its place, it among them, each with the natural logarithm
    of its probability."""

    text: str
    likely: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """A reply. ``text`` is as it came.

    ``model``, ``fingerprint`` and ``finish_reason``: as returned ("" if not told); ``sent``: all of the request but
    model and messages, under the names that were sent; ``tries``: requests that it took; ``seconds``: from the call to
    its return, waits included; ``refusal``: what the model returned in place of a text; ``tokens``: where ``logprobs``
    were asked for and told, of a reply that was not streamed.
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
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one request has failed. ``after``: seconds that the server asks to wait; ``final``: whether not to retry."""

    kind: EndpointFailure
    message: str
    parameter: str = ""
    status: int = 0
    after: float = 0.0
    final: bool = False

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later."""
        return self.kind in PASSING and not self.final and self.after <= PATIENCE


#: What each kind of failure means, in an error.
SAYS: Mapping[EndpointFailure, str] = {
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


class ProtocolError(Exception):
    """A request or a reply that is not what the protocol says, or a connection that breaks: no error of the SDK's."""

    def __init__(self, kind: EndpointFailure, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    @classmethod
    def of(cls, error: Exception) -> ProtocolError:
        """What the SDK lets through of the libraries below it, in which its versions differ."""
        late = any("Timeout" in one.__name__ for one in type(error).__mro__)
        return cls("timeout" if late else "connection", str(error) or type(error).__name__)


class Enough(Exception):  # noqa: N818
    """Raised by whoever takes a streamed reply as it comes: no more of it is wanted. The reply ends there."""


def call(create: Callable[..., Any], request: Mapping[str, Any]) -> Any:
    """What the SDK returns for a request. Raises its errors, and :class:`ProtocolError` for all others."""
    import openai

    try:
        return create(**request)
    except openai.OpenAIError:
        raise
    except (TypeError, ValueError) as error:  # what is no JSON or no Unicode
        raise ProtocolError("bad_request", f"it cannot be written: {error}") from None
    except Exception as error:
        raise ProtocolError.of(error) from None


def read_json(content: bytes) -> Any:
    """The JSON value of a body."""
    try:
        return json.loads(content)
    except ValueError as error:
        raise ProtocolError("malformed", f"it is no JSON: {error}") from None


@dataclass(frozen=True, slots=True)
class Piece:
    """One event of a streamed reply. ``about``: the facts of the reply as a whole that it tells."""

    text: str
    refusal: str
    finish_reason: str
    about: Mapping[str, Any]


def read_stream(chunks: Iterator[bytes]) -> Iterator[Piece]:
    """The events of a streamed reply, of its bytes as they come. Raises :class:`ProtocolError`, and nothing else.

    Read here and not by the SDK, for which an event without data is an error; servers and proxies send such to keep
    a connection alive.
    """
    try:
        for data in _events(chunks):
            if data == "[DONE]":
                return
            yield _piece(read_json(data.encode()))
    except ProtocolError:
        raise
    except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise ProtocolError("malformed", f"an event cannot be read: {error}") from None
    except Exception as error:
        raise ProtocolError.of(error) from None


def _events(chunks: Iterator[bytes]) -> Iterator[str]:
    """The data of server-sent events that have any. Comments, names and ids of events say nothing here."""
    rest, data = b"", list[str]()
    for chunk in itertools.chain(chunks, [b"\n\n"]):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            name, _, value = line.rstrip(b"\r").decode("utf-8", "replace").partition(":")
            if name in {"data", "error"}:  # the latter is llama.cpp's own
                data.append(f'{{"error": {value}}}' if name == "error" else value.removeprefix(" "))
            elif not name and not value and (text := "\n".join(data).strip()):
                data.clear()
                yield text


def _piece(event: Mapping[str, Any]) -> Piece:
    if event.get("error"):
        raise ProtocolError("server", _words(event["error"]))
    choice = (event.get("choices") or [{}])[0]
    delta = choice.get("delta") or {}
    told = (_text(delta.get("content")), delta.get("refusal") or "", choice.get("finish_reason") or "")
    if not all(isinstance(one, str) for one in told):
        raise TypeError("its text is none")
    about = {name: event[name] for name in ("model", "system_fingerprint", "usage") if event.get(name)}
    return Piece(*told, about)


def read_completion(body: Any) -> Completion:
    """What the JSON of a reply says."""
    if isinstance(body, Mapping) and body.get("error") and not body.get("choices"):
        words = _words(body["error"])  # some servers tell errors with status 200
        raise ProtocolError("not_found" if NO_ADDRESS.search(words) else "server", words)
    try:
        choice = body["choices"][0]
        message, usage = choice["message"], body.get("usage") or {}
        text, refusal = _text(message.get("content")), message.get("refusal") or ""
        counts = Usage(usage.get("prompt_tokens"), usage.get("completion_tokens"))
        told = [body.get("model") or "", body.get("system_fingerprint") or "", choice.get("finish_reason") or ""]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ProtocolError("malformed", "it has no message") from None
    if not all(isinstance(one, str) for one in (text, refusal, *told)):
        raise ProtocolError("malformed", "its message is no text")
    tokens = _tokens(choice.get("logprobs"))
    return Completion(text, told[0], told[1], counts, finish_reason=told[2], refusal=refusal, tokens=tokens)


def _tokens(logprobs: Any) -> tuple[Token, ...]:
    """The tokens of a reply, as far as a server tells them in the protocol's form."""
    tokens = []
    with suppress(KeyError, TypeError, AttributeError):
        for row in logprobs["content"]:
            tokens.append(_token(row))
    return tuple(tokens)


def _token(row: Mapping[str, Any]) -> Token:
    likely = {one["token"]: one["logprob"] for one in (row, *row["top_logprobs"])}
    if len(likely) < 2 or not all(isinstance(text, str) for text in likely):
        raise TypeError("what else is likely is not told")
    return Token(row["token"], tuple((text, value) for text, value in likely.items() if math.isfinite(value)))


def _text(content: Any) -> Any:
    """Of a message: plain, in parts, or none at all."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    return _whole(content) if isinstance(content, str) else content or ""


def without_thoughts(text: str) -> str:
    """``text`` behind the thoughts that it begins with; none of it while these have not ended."""
    begin, end = THOUGHTS
    rest = text.lstrip()
    if rest.startswith(begin):
        return rest.partition(end)[2]
    return "" if rest and begin.startswith(rest) else text


def _whole(text: str) -> str:
    """``text`` without halves of characters, which a bound may leave: they can be neither sent nor written."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def read_failure(error: openai.OpenAIError, sent: Mapping[str, Any]) -> Failure:
    """What an exception of the SDK means."""
    import openai

    if isinstance(error, openai.APITimeoutError):
        return Failure("timeout", "the server is slow, or cannot be reached")
    if isinstance(error, openai.APIConnectionError):
        return Failure("connection", str(error.__cause__ or error))
    if isinstance(error, openai.APIStatusError):
        return _refusal(error, sent)
    return Failure("malformed", str(error), final=True)


def _refusal(error: openai.APIStatusError, sent: Mapping[str, Any]) -> Failure:
    """What a reply with a status of an error means."""
    status, words = error.status_code, _words(error.body)
    if status in {401, 403}:
        return Failure("auth", words, status=status)
    if status == 404 or error.param == "model" or error.code == "model_not_found":
        return Failure("not_found", words, status=status)
    if status == 429:
        # A budget that is spent does not come back by waiting.
        spent = error.code == "insufficient_quota"
        return Failure("rate_limit", words, status=status, after=_asked_wait(error), final=spent)
    if status == 408:
        return Failure("timeout", words, status=status, after=_asked_wait(error))
    if status >= 500:
        return Failure("server", words, status=status, after=_asked_wait(error))
    name = _refused_name(error, words, sent) if status in {400, 422} else ""
    return Failure("refused_parameter" if name else "bad_request", words, name, status)


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
