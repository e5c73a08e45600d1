"""The folder of a checkpoint: one that is here, or one that the hub serves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, set_client_factory, snapshot_download
from huggingface_hub import errors as hub
from huggingface_hub.utils import _http as hub_http

from ..core.errors import ModelError, StreamingVLMError
from .edge import library, reason

#: The small model that comes with the package. Its own config says what it knows.
BUNDLED = Path(__file__).parent.parent / "assets" / "arcade"

#: Seconds to wait for a connection to the hub, and for its next byte.
CONNECT, READ = 8.0, 10.0

_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
_LOG = logging.getLogger(__name__)
_ONE_AT_A_TIME = threading.Lock()


class SilentHubError(Exception):
    """The hub took a connection and then said nothing; its library would go on asking for a quarter of an hour."""


class BusyHubError(Exception):
    """The hub wants fewer requests; its library would sleep for as long as the hub says."""


def find_checkpoint(name: str | Path | None) -> Path:
    """The folder of a checkpoint, fetched from the hub if need be. Raises :class:`ModelError`."""
    if name is None:
        return BUNDLED
    path = Path(name)
    with library(f"{name} cannot be read"):
        is_folder, is_file = path.is_dir(), path.is_file()
    if is_folder:
        return path
    if path.suffix == ".gguf":
        raise ModelError(f"{name} is a GGUF file, which llama.cpp runs; name the checkpoint that it was made of")
    if is_file:
        raise ModelError(f"{name} is a file; a checkpoint is a folder with config.json and *.safetensors")
    if str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise ModelError(f"no checkpoint folder {name}; give one, or a hub id like Qwen/Qwen2.5-VL-7B-Instruct")
    return _fetch(str(name))


def _fetch(name: str) -> Path:
    """A checkpoint of the hub: its newest version, or where that cannot be had an earlier download (and a warning)."""
    try:
        with _hub(name):
            info = HfApi().model_info(name, timeout=READ)
            files = [file.rfilename for file in info.siblings or ()]
    except ModelError as error:
        if kept := _downloaded(name):
            _LOG.warning("%s; what was downloaded before is used", error)
            return kept
        raise
    if not any(file.endswith(".safetensors") for file in files):
        kind = "only GGUF files" if any(file.endswith(".gguf") for file in files) else "no *.safetensors"
        raise ModelError(f"{name} has {kind} on the hub; a checkpoint with config.json and *.safetensors is needed")
    with _hub(name):
        return Path(snapshot_download(name, allow_patterns=_PATTERNS))


def _downloaded(name: str) -> Path | None:
    try:
        return Path(snapshot_download(name, local_files_only=True, allow_patterns=_PATTERNS))
    except (hub.LocalEntryNotFoundError, hub.HFValidationError, OSError):
        return None


@contextmanager
def _hub(name: str) -> Iterator[None]:
    """Everything that talks to the hub: it does not wait for ever, and what goes wrong is one line."""
    with _ONE_AT_A_TIME:
        before = hub_http._GLOBAL_CLIENT_FACTORY
        set_client_factory(lambda: _patient(before()))
        try:
            yield
        except StreamingVLMError:
            raise
        except Exception as error:
            raise ModelError(f"{name}: {_what_is_wrong(error)}") from error
        finally:
            set_client_factory(before)


def _patient(client: Any) -> Any:
    """A client of httpx (or httpx2) for which a silence is final: the hub's library neither waits nor tries again."""
    send = client.send

    def patient_send(request: Any, **options: Any) -> Any:
        own = request.extensions.get("timeout") or {}
        bounds = {"connect": CONNECT, "read": READ, "write": READ}
        request.extensions["timeout"] = own | {key: min(own.get(key) or bound, bound) for key, bound in bounds.items()}
        with _final():
            response = send(request, **options)
        if response.status_code == 429:
            raise BusyHubError
        response.iter_raw = _patient_reading(response.iter_raw)
        return response

    client.send = patient_send
    return client


def _patient_reading(iter_raw: Callable[..., Iterator[bytes]]) -> Callable[..., Iterator[bytes]]:
    def read(*arguments: Any, **options: Any) -> Iterator[bytes]:
        with _final():
            yield from iter_raw(*arguments, **options)

    return read


@contextmanager
def _final() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if _is(error, "TimeoutException"):
            raise SilentHubError from error
        raise


def _is(error: Exception, kind: str) -> bool:
    """Whether an exception is of that class of httpx or httpx2, whichever the hub's library runs on."""
    return any(one.__name__ == kind for one in type(error).__mro__)


def _what_is_wrong(error: Exception) -> str:
    where = constants.ENDPOINT
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(error, SilentHubError):
        return f"the hub at {where} does not answer (not a byte in {READ:g} s)"
    if isinstance(error, BusyHubError):
        return f"the hub at {where} refuses more requests for now (429); try again later"
    if isinstance(error, hub.OfflineModeIsEnabled):
        return "not downloaded yet, and HF_HUB_OFFLINE keeps the hub from being asked"
    if isinstance(error, hub.HFValidationError):
        return f"no hub id: {reason(error)}"
    if isinstance(error, hub.GatedRepoError) or status == 403:
        return f"the hub refuses it ({status}): it is gated; ask for access on its page, then `hf auth login`"
    if status == 401:
        return "the hub has no such checkpoint, or refuses it because it is private (401): `hf auth login`"
    if _is_page(response) or isinstance(error, ValueError | TypeError | KeyError | hub.FileMetadataError):
        return f"what answers at {where} is not a hub ({reason(error)})"
    if status == 404:
        return "not found: neither a folder here nor a checkpoint on the hub"
    if status is not None:
        return f"the hub at {where} fails ({status})"
    if _is(error, "TransportError"):
        return f"neither a folder here, nor is there a network to the hub at {where} ({reason(error)})"
    return f"cannot be downloaded: {reason(error)}"


def _is_page(response: Any) -> bool:
    """Whether a web page came back: the hub says what is wrong in a header."""
    headers = getattr(response, "headers", {})
    return "html" in headers.get("content-type", "") and "x-error-code" not in headers
