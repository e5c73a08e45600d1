"""Large blocks go back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

#: Frees blocks below small ones that stay, behind a block that has taught glibc not to map them; prints what is kept.
CODE = """
import ctypes, sys
from pathlib import Path
from streamingvlm.cli.memory import return_large_blocks
if sys.argv[1] == "set":
    assert return_large_blocks()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def used():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
def block(size):
    at = libc.malloc(size)
    ctypes.memset(at, 1, size)
    return at
libc.free(block(30 << 20))
before = used()
large, small = zip(*[(block(10 << 20), block(100_000)) for _ in range(5)])
for one in large:
    libc.free(one)
print((used() - before) >> 20)
"""


def kept(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_large_blocks_go_back() -> None:
    assert kept("not set") > 20
    assert kept("set") < 5
