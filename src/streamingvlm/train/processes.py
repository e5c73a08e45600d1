"""What one of several training processes finds out for all of them."""

from __future__ import annotations

import os
import pickle
import time
import zlib
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from torch.distributed.rendezvous import rendezvous

from ..core.errors import SourceError, StreamingVLMError

T = TypeVar("T")
#: Bytes that are put into the store at once.
PART = 1 << 20
#: How often a process that waits looks, seconds.
EVERY = 0.2
#: The first process waits so long for the others to take what it found, seconds.
PATIENCE = 1800.0


def from_first(name: str, make: Callable[[], T]) -> T:
    """What ``make`` returns in the first process that ``torchrun`` started, in all of them; alone it is just called.

    The others wait, however long it takes: nothing is computed on a device and no barrier of a process group, which
    would run out of time, is held. ``name``: the same in all processes, another one for each call. Raises what
    ``make`` raises, and SourceError in the other processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return make()
    store, rank, world = _store()
    if rank:
        return _take(store, name)  # type: ignore[no-any-return]
    try:
        found = make()
    except BaseException as error:
        told = str(error) if isinstance(error, StreamingVLMError) else "the first process has stopped"
        store.set(name, b"!" + told.encode("utf-8", "replace"))
        raise
    _give(store, name, found, world - 1)
    return found


@cache
def _store() -> tuple[Any, int, int]:
    """The store that the processes meet in. Kept: where the first process serves it, it must outlive all reading."""
    store, rank, world = next(rendezvous("env://", timeout=timedelta(minutes=10)))
    return store, rank, world


def _give(store: Any, name: str, found: Any, readers: int) -> None:
    packed = zlib.compress(pickle.dumps(found), 1)
    parts = [packed[at : at + PART] for at in range(0, len(packed), PART)]
    for number, part in enumerate(parts):
        store.set(f"{name}/{number}", part)
    store.set(name, str(len(parts)).encode())
    until = time.monotonic() + PATIENCE
    while store.add(f"{name}/taken", 0) < readers:
        if time.monotonic() > until:
            raise SourceError("another training process did not take the list of chunks; has it ended?")
        time.sleep(EVERY)
    for number in range(len(parts)):
        store.delete_key(f"{name}/{number}")


def _take(store: Any, name: str) -> Any:
    try:
        while not store.check([name]):
            time.sleep(EVERY)
        told = bytes(store.get(name))
        if told.startswith(b"!"):
            raise SourceError(told[1:].decode())
        found = pickle.loads(zlib.decompress(b"".join(store.get(f"{name}/{i}") for i in range(int(told)))))
        store.add(f"{name}/taken", 1)
    except RuntimeError as error:  # what torch raises where the store has gone
        raise SourceError(f"the first training process has gone ({str(error).splitlines()[0]})") from error
    return found
