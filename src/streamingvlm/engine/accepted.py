"""Which parameters the model at an OpenAI-compatible endpoint takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.errors import OptionError

#: The two names of the bound of a reply: some models take the one, some the other.
LIMITS = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an endpoint takes parameter ``name`` with ``value``, and why not, in the server's words."""

    name: str
    value: Any
    taken: bool
    reason: str = ""

    def covers(self, name: str, value: Any) -> bool:
        """Whether this also holds for ``name`` with ``value``: of bounds any value, of forms any schema of the type."""
        if name != self.name:
            return False
        if name == "response_format":
            return _type(value) == _type(self.value)
        same: bool = value == self.value
        return same or name in LIMITS

    @property
    def shown(self) -> str:
        """The parameter in a line of text."""
        return f"{self.name}={_type(self.value)}"


@dataclass(frozen=True, slots=True)
class Accepted:
    """A table of what was tried with one model at one endpoint: to be kept with results, and given back."""

    url: str
    model: str
    verdicts: tuple[Verdict, ...] = ()

    def takes(self, name: str, value: Any) -> bool | None:
        """Whether the endpoint takes the parameter under this name (None: never tried)."""
        return next((one.taken for one in self.verdicts if one.covers(name, value)), None)

    def rename(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """``params`` with the bound of a reply under the name that the endpoint takes."""
        renamed = dict(params)
        for name, other in (LIMITS, LIMITS[::-1]):
            if name in params and other not in params:
                value = params[name]
                if self.takes(name, value) is False and self.takes(other, value):
                    renamed[other] = renamed.pop(name)
        return renamed

    def refused(self, params: Mapping[str, Any]) -> tuple[Verdict, ...]:
        """The parameters that the endpoint is known not to take, under any name."""
        wanted = self.rename(params).items()
        return tuple(
            one for name, value in wanted for one in self.verdicts if one.covers(name, value) and not one.taken
        )

    def as_json(self) -> dict[str, Any]:
        """The table as a JSON value."""
        rows = [
            {"name": one.name, "value": one.value, "taken": one.taken, "reason": one.reason} for one in self.verdicts
        ]
        return {"url": self.url, "model": self.model, "parameters": rows}

    @classmethod
    def from_json(cls, table: Any) -> Accepted:
        """What :meth:`as_json` made. OptionError for anything else."""
        try:
            url, model = table["url"], table["model"]
            verdicts = tuple(
                Verdict(row["name"], row["value"], row["taken"], row.get("reason", "")) for row in table["parameters"]
            )
        except (KeyError, TypeError, AttributeError):
            raise OptionError(
                "a table of accepted parameters has url, model and parameters, as a probe wrote it"
            ) from None
        texts = [url, model, *(text for one in verdicts for text in (one.name, one.reason))]
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(one.taken, bool) for one in verdicts):
            raise OptionError(
                "a table of accepted parameters has names that are text and verdicts that are true or false"
            )
        return cls(url, model, verdicts)


def _type(form: Any) -> object:
    return form.get("type") if isinstance(form, Mapping) else form
