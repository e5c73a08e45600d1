"""Compiles native.cpp with the machine's own C++ compiler and keeps the library in a folder of the user's cache."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

SOURCE = Path(__file__).with_name("native.cpp")

#: Compilers that know GCC's vector types, in the order in which they are looked for.
COMPILERS = ("c++", "g++", "clang++")

#: Contraction makes a product and a sum one operation, everywhere alike; no other freedom with floats is taken.
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC", "-shared", "-pthread")

#: How the processor at hand is named: some compilers know one of them alone, some neither.
TARGETS = (("-march=native",), ("-mcpu=native",), ())

#: Seconds that compiling may take; it takes about three.
PATIENCE = 180


#: Seconds after which nobody compiles in a folder any more.
LEFT_BEHIND = 3600


class BuildError(Exception):
    """There is no library, and why."""


class _TimeoutError(BuildError):
    """A compiler did not end."""


def default_folder() -> Path:
    """Where libraries are kept unless told otherwise. :class:`BuildError` where the user has no home."""
    try:
        return Path.home() / ".cache" / "streamingvlm" / "native"
    except RuntimeError as error:
        raise BuildError(f"no folder to keep compiled kernels in: {error}") from None


def build(folder: Path, compilers: Sequence[str] = COMPILERS) -> Path:
    """The compiled library in ``folder``: one of an earlier build if there is one, and whole. :class:`BuildError`.

    A library's name holds a hash of what it was made from (source, compiler, flags, processor) and a hash of its bytes,
    and it appears under it whole. So several processes may build at once, and a damaged file is seen and made anew.
    """
    compiler = next((found for name in compilers if (found := shutil.which(name))), None)
    if compiler is None:
        raise BuildError(f"no C++ compiler ({', '.join(compilers)}) was found")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix" and (folder.stat().st_mode & 0o022 or folder.stat().st_uid != os.getuid()):
            raise BuildError(f"other users may write to {folder}; nothing is loaded from there")
        key = _key(compiler)
        for path in sorted(folder.glob(f"{key}-*.so")):
            if path.name == _name(key, path.read_bytes()):
                return path
            path.unlink(missing_ok=True)
        return _compile(compiler, folder, key)
    except OSError as error:
        raise BuildError(f"compiled kernels cannot be kept in {folder}: {error}") from None


def _key(compiler: str) -> str:
    version = _run([compiler, "--version"])
    parts = (SOURCE.read_text(), compiler, version, FLAGS, TARGETS, _processor())
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _name(key: str, content: bytes) -> str:
    return f"{key}-{hashlib.sha256(content).hexdigest()[:16]}.so"


def _processor() -> tuple[str, ...]:
    """What a library for the processor at hand depends on: a home folder may be shared by several machines."""
    names = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = sorted({line for line in lines if line.partition(":")[0].strip() in names})
    return (platform.system(), platform.machine(), platform.processor(), *found)


def _compile(compiler: str, folder: Path, key: str) -> Path:
    reason = ""
    for left in folder.glob("build-*"):  # of a process that was killed while it compiled
        with suppress(FileNotFoundError):  # another process has ended meanwhile
            if time.time() - left.stat().st_mtime > LEFT_BEHIND:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as scratch:
        made = Path(scratch) / "kernels.so"
        for target in TARGETS:
            try:
                _run([compiler, *FLAGS, *target, "-o", str(made), str(SOURCE)])
            except _TimeoutError:
                raise  # it would not end for another processor's name either
            except BuildError as error:
                reason = reason or str(error)
                continue
            path = folder / _name(key, made.read_bytes())
            made.replace(path)
            return path
    raise BuildError(reason)


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE)
    except OSError as error:
        raise BuildError(f"{command[0]} did not run: {error}") from None
    except subprocess.TimeoutExpired:
        raise _TimeoutError(f"{command[0]} did not end within {PATIENCE} s") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["nothing"]
        raise BuildError(f"{command[0]} failed with {done.returncode} and said: {said[0].strip()}")
    return done.stdout
