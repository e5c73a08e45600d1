"""Memory of a process that runs for weeks."""

from __future__ import annotations

import ctypes
import platform

#: Blocks of so many bytes or more go back to the system as soon as they are freed.
LARGE_BLOCK = 4 << 20
#: mallopt's number for that bound (malloc.h).
_MMAP_THRESHOLD = -3


def return_large_blocks() -> bool:
    """Let large blocks go back to the system when they are freed; whether that could be set.

    glibc raises its own bound to 32 MB with the first large block. Copies for snapshots then leave holes in the arenas
    of several threads (``tests/cli/test_memory.py`` shows one).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, LARGE_BLOCK))
