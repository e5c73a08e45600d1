"""A real RTSP camera: Debian's gst-rtsp-server in a process of its own.

::

    with RtspServer(user="u", password="p@ss", auth="digest") as server:
        open_source(server.url())
        server.kill()                             # as a camera that loses power
        server.start(codec="h265", width=640)     # on the same port
        server.stall()                            # connected, but no frame comes

Each picture shows when it was made: :func:`support.timecode.age`. Tests skip where the server is not installed.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

#: Debian's packages go with Debian's Python.
PYTHON = "/usr/bin/python3"
CHILD = Path(__file__).with_name("gst_child.py")
PROBE = """
import gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
print(*[name for name in ("x264enc", "x265enc", "rtph264pay", "rtph265pay") if not Gst.ElementFactory.find(name)])
"""
PACKAGES = "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-{base,good,bad,ugly}"


@functools.cache
def lacks(codec: str) -> str:
    """Why there can be no server that sends ``codec`` ("" if there can)."""
    advice = f"needs Debian's {PACKAGES}"
    if not os.access(PYTHON, os.X_OK):
        return advice
    found = subprocess.run([PYTHON, "-c", PROBE], capture_output=True, text=True, timeout=60, check=False)
    if found.returncode:
        return f"{advice} ({(found.stderr.strip().splitlines() or ['gi failed'])[-1]})"
    needed = {"h264": ("x264enc", "rtph264pay"), "h265": ("x265enc", "rtph265pay")}.get(codec, ())
    missing = [name for name in needed if name in found.stdout.split()]
    return f"{advice} (no {', '.join(missing)})" if missing else ""


class RtspServer:
    """Listens on 127.0.0.1 while it is a context.

    ``codec``: h264, h265 or mjpeg. ``auth``: basic or digest, where ``user`` is given. ``port`` 0: any free one, which
    stays the same when it is started again.
    """

    def __init__(self, *, port: int = 0, **options: Any) -> None:
        defaults = {"codec": "h264", "width": 320, "height": 240, "fps": 10, "path": "/live"}
        self.options = {**defaults, "user": "", "password": "", "auth": "digest", **options}
        self.port = port
        self._process: subprocess.Popen[str] | None = None

    @property
    def plain_url(self) -> str:
        """Without a user."""
        return f"rtsp://127.0.0.1:{self.port}{self.options['path']}"

    def url(self, password: str | None = None) -> str:
        """With the user and the password, percent-encoded (or with another password)."""
        if not self.options["user"]:
            return self.plain_url
        secret = self.options["password"] if password is None else password
        return self.plain_url.replace("//", f"//{quote(self.options['user'], safe='')}:{quote(secret, safe='')}@", 1)

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def start(self, **changes: Any) -> None:
        """Run, again on the same port; ``changes`` of what was given when it was made."""
        assert self._process is None, "the server runs already"
        self.options.update(changes)
        if why := lacks(self.options["codec"]):
            pytest.skip(why)
        arguments = [PYTHON, str(CHILD), json.dumps({**self.options, "port": self.port})]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(arguments, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        word = self._read()
        assert word.startswith("ready "), f"the RTSP server has not started: {word!r}"
        self.port = int(word.split()[1])

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def restart(self, **changes: Any) -> None:
        """Kill and start."""
        self.kill()
        self.start(**changes)

    def stall(self) -> None:
        """Send no frame any more; connections stay."""
        self._command("stall")

    def go(self) -> None:
        """Send frames again."""
        self._command("go")

    def resize(self, width: int, height: int) -> None:
        """Send another size from now on, within the same connection."""
        self._command(f"size {width} {height}")

    def freeze(self) -> None:
        """Stop the whole process: the system still accepts connections, nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on after :meth:`freeze`."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> RtspServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _command(self, line: str) -> None:
        assert self._process is not None, "the server does not run"
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        assert self._read() == "done"

    def _read(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()
