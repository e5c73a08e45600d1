"""The part of lmms-eval 0.7 that a plug-in of a chat model meets, as its guide and its base class tell."""

from __future__ import annotations

import abc
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest


class CacheHook:
    def __init__(self) -> None:
        self.added: list[tuple[str, Any, str]] = []

    def add_partial(self, attr: str, req: Any, res: str) -> None:
        self.added.append((attr, req, res))


class lmms(abc.ABC):  # noqa: N801 - its name there
    is_simple: bool = True

    def __init__(self) -> None:
        self._rank, self._world_size = 0, 1
        self.cache_hook = CacheHook()
        self.task_dict: dict[str, Any] = {}

    @abc.abstractmethod
    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]: ...

    @abc.abstractmethod
    def generate_until(self, requests: list[Any]) -> list[str]: ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests: list[Any]) -> list[str]: ...

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> Any:
        told = dict(part.split("=") for part in arg_string.split(",") if part)
        return cls(**told, **{key: value for key, value in (additional_config or {}).items() if value is not None})


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass
class Instance:
    arguments: tuple[Any, ...]
    resps: list[str] = field(default_factory=list)

    @property
    def args(self) -> tuple[Any, ...]:
        return self.arguments


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stub where lmms-eval is imported from."""
    for name, told in {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.model": {"lmms": lmms},
        "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }.items():
        module = ModuleType(name)
        vars(module).update(told)
        monkeypatch.setitem(sys.modules, name, module)


def request(to_messages: Callable[..., Any], settings: dict[str, Any] | None = None, document: int = 0) -> Instance:
    """A chat request of the task ``quiz``, split ``test``."""
    return Instance(("context", to_messages, settings or {}, document, "quiz", "test"))


def open_answerer(pretrained: str, device: str | None) -> tuple[str, str | None]:
    """In place of what opens a model: what it was asked to open."""
    return pretrained, device
