"""How probable each option of a question is to a model behind an endpoint, where its server tells ``logprobs``.

The model is asked for a letter. The tokens that might have begun its reply say how probable each option was. Servers
differ in what they take, so what is asked for beside the letter is found out with the first questions.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..core.errors import EndpointError
from .accepted import LIMITS
from .chat_protocol import THOUGHTS, Token, without_thoughts
from .endpoint import CallLimit, Completion, Endpoint
from .remote_prompt import most_pictures, option_of_token, plain_word

_LOG = logging.getLogger(__name__)

#: Likely tokens that are asked for: the most that OpenAI and vLLM give, and what older and smaller servers give.
MANY, FEW = 20, 5
#: Tokens of a reply that is a letter with its marks; those of the longest option come on top, as some add it.
LETTER_TOKENS = 8
#: Least probability that the likely first tokens that name an option have together. With less the model has begun to
#: say something else, and what is left says nothing about the options.
COVERED = 0.5
#: The logarithm of the probability of an option that is not among the likely tokens, as the protocol has it.
UNLIKELY = -9999.0


@dataclass(frozen=True, slots=True)
class Form:
    """What is asked for beside the letter. ``top``: likely tokens (0: no ``logprobs``); ``limit``: the parameter that
    bounds the reply ("": it has no bound)."""

    top: int = MANY
    limit: str = LIMITS[0]

    def params(self, options: Sequence[str]) -> dict[str, Any]:
        """The parameters for a question with ``options``."""
        told: dict[str, Any] = {"logprobs": True, "top_logprobs": self.top} if self.top else {}
        bound = LETTER_TOKENS + max(map(len, options)) // 2
        return told | ({self.limit: bound} if self.limit else {})

    def behind_error(self, error: EndpointError) -> Form | None:
        """What is asked for next, if a server may have refused this one (None: it is about something else)."""
        if error.kind == "refused_parameter" and error.parameter in LIMITS:
            return replace(self, limit=LIMITS[1] if self.limit == LIMITS[0] else "") if self.limit else None
        if self.top and "logprob" in f"{error.parameter} {error.reason}".casefold():  # 400, 403, 422, 500
            return replace(self, top=FEW if self.top > FEW else 0)
        if error.kind != "bad_request" or most_pictures(error.reason, MANY) is not None:
            return None
        if self.top:  # a refusal that names nothing
            return replace(self, top=0)
        return replace(self, limit="") if self.limit else None

    def behind_reply(self, reply: Completion) -> Form | None:
        """What is asked for next, if a bound has ended a reply within its thoughts (None: it has not)."""
        cut = reply.finish_reason == "length" and not without_thoughts(reply.text).strip()
        return replace(self, limit="") if cut and self.limit else None


class Weighing:
    """Asks the model behind one endpoint to choose, and weighs the options. Safe to use from several threads."""

    def __init__(self) -> None:
        self._form = Form()
        self._lock = threading.Lock()

    def choose(
        self,
        endpoint: Endpoint,
        messages: Sequence[Mapping[str, Any]],
        params: Mapping[str, Any],
        options: Sequence[str],
        limit: CallLimit | None = None,
    ) -> tuple[Completion, tuple[float, ...]]:
        """The reply, and of each option the logarithm of its probability, in nats; none where these are not known.

        ``params``: of the call; they stand over what is asked for here. Raises :class:`EndpointError`.
        """
        known = self._form
        bounded = any(name in params for name in LIMITS)  # by the caller
        first = form = replace(known, limit="") if bounded else known
        why = ""
        while True:
            try:
                reply = endpoint.chat(messages, {**form.params(options), **params}, limit=limit)
            except EndpointError as error:
                lesser, why = form.behind_error(error), error.reason
                if lesser is None:
                    raise
            else:
                lesser = form.behind_reply(reply)
                if lesser is None:
                    break
                why = "its replies begin with thoughts"
            form = lesser
        if form.top and reply.text.strip() and not reply.tokens:
            form, why = replace(form, top=0), "it leaves them out"
        if form != first:
            self._learn(endpoint, known, replace(form, limit=known.limit) if bounded else form, why)
        return reply, weights(reply, options)

    def _learn(self, endpoint: Endpoint, known: Form, form: Form, why: str) -> None:
        """From now on it is asked so. That there are no probabilities is told once."""
        with self._lock:
            if self._form != known:  # another thread was faster
                return
            self._form = form
        if known.top and not form.top:
            _LOG.warning(
                "%r tells no logprobs (%s): what rules find has no probability, their threshold means nothing",
                endpoint,
                why,
            )


def weights(reply: Completion, options: Sequence[str]) -> tuple[float, ...]:
    """Of each option the logarithm of the probability that ``reply`` names it, if it names one of them.

    None where the server has not told it, or where the reply has not begun with an option.
    """
    token = _first(reply)
    if token is None:
        return ()
    seen = [0.0] * len(options)
    for text, value in token.likely:
        place = option_of_token(options, text)
        if place is not None:
            seen[place] += math.exp(min(value, 0.0))
    whole = sum(seen)
    if whole < COVERED:
        return ()
    return tuple(math.log(one / whole) if one > 0 else UNLIKELY for one in seen)


def _first(reply: Completion) -> Token | None:
    """The token that the answer begins with: the first one with a letter in it, behind the thoughts."""
    tokens = reply.tokens
    ends = [place for place, token in enumerate(tokens) if THOUGHTS[1] in token.text]
    begins = tokens[ends[-1] + 1 :] if ends else tokens
    token = next((one for one in begins if plain_word(one.text)), None)
    # Thoughts may be among the tokens and not in the text, without a mark where they end.
    answer = plain_word(without_thoughts(reply.text))
    return token if token is not None and answer.startswith(plain_word(token.text)) else None
