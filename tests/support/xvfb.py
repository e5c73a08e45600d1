"""A screen without a screen: Xvfb with one window of a plain colour, drawn by the X protocol itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest


class Xvfb:
    """While it is a context, ``display`` (``:N``) shows a window of ``colour`` (0xRRGGBB) that fills it."""

    def __init__(self, width: int = 320, height: int = 240, colour: int = 0xFF0000) -> None:
        self.width, self.height, self.colour = width, height, colour
        self.display = ""

    def __enter__(self) -> Xvfb:
        if shutil.which("Xvfb") is None:
            pytest.skip("needs Debian's xvfb")
        read, write = os.pipe()
        screen = f"{self.width}x{self.height}x24"
        arguments = ["Xvfb", "-displayfd", str(write), "-screen", "0", screen, "-nolisten", "tcp", "-ac"]
        self._process = subprocess.Popen(arguments, pass_fds=[write], stderr=subprocess.DEVNULL)
        os.close(write)
        with os.fdopen(read) as file:
            number = file.readline().strip()
        assert number, "Xvfb has not started"
        self.display = f":{number}"
        self._connect(Path(f"/tmp/.X11-unix/X{number}"))
        self.paint(self.colour)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(AttributeError, OSError):
            self._socket.close()
        self._process.terminate()
        self._process.wait(10)

    def paint(self, colour: int) -> None:
        """Fill the window; returns when that is done."""
        change = struct.pack("<BBHIII", 2, 0, 4, self._window, 2, colour)  # ChangeWindowAttributes, background pixel
        clear = struct.pack("<BBHIHHHH", 61, 0, 4, self._window, 0, 0, 0, 0)  # ClearArea, all of it
        self._socket.sendall(change + clear + struct.pack("<BBH", 43, 0, 1))  # GetInputFocus has a reply
        self._read(32)

    def _connect(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + 10
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self._socket.settimeout(10)
        self._socket.sendall(struct.pack("<BxHHHHxx", ord("l"), 11, 0, 0, 0))
        status, _, _, _, length = struct.unpack("<BBHHH", self._read(8))
        assert status == 1, "the X server has refused"
        setup = self._read(4 * length)
        base, vendor, formats = *struct.unpack_from("<I8xH", setup, 4), setup[21]
        root = struct.unpack_from("<I", setup, 32 + (vendor + 3) // 4 * 4 + 8 * formats)[0]
        self._window = base
        create = struct.pack(
            "<BBHIIhhHHHHIII", 1, 0, 9, base, root, 0, 0, self.width, self.height, 0, 1, 0, 2, self.colour
        )
        self._socket.sendall(create + struct.pack("<BBHI", 8, 0, 2, base))

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self._socket.recv(count - len(data))
            assert more, "the X server has gone"
            data += more
        return data
