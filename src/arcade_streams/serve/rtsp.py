"""A match over RTSP, by the gst-rtsp-server of the system.

Its Python bindings belong to the system's interpreter, so it runs there, as a process of its own that is fed with H.264
over a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

from streamingvlm import OutputError

from .address import Address
from .match import EncodedFrame

PROGRAM = Path(__file__).with_name("gst_server.py")
#: Interpreters that may have the bindings.
INTERPRETERS = (sys.executable, "/usr/bin/python3")
#: What Debian and Ubuntu call what is needed.
PACKAGES = "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
#: Before each frame on the pipe: whether it is a key frame, and its length in bytes.
HEADER = struct.Struct(">BI")
#: Seconds that the program may take to end.
PATIENCE = 2.0


class RtspMatch:
    """Serves what is published while it is a context. ``port``: the one that was taken.

    Raises OutputError if the server is not installed or the address cannot be listened on.
    """

    def __init__(self, address: Address) -> None:
        self._process = _launch(address)
        answer = _line(self._process)
        if not answer.startswith("ready "):
            self.__exit__()
            raise OutputError(f"cannot serve at {address.url(address.port)} ({answer.removeprefix('error ')})")
        self.port = int(answer.split()[1])

    def publish(self, frame: EncodedFrame) -> None:
        """Send a frame to everybody. Raises OutputError if the server has gone."""
        pipe = self._process.stdin
        assert pipe is not None
        try:
            pipe.write(HEADER.pack(frame.key, len(frame.h264)) + frame.h264)
            pipe.flush()
        except OSError:
            raise OutputError("the RTSP server has ended by itself") from None

    def __enter__(self) -> RtspMatch:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()  # its end is the program's
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _launch(address: Address) -> subprocess.Popen[bytes]:
    options = json.dumps({"host": address.host, "port": address.port, "path": address.path})
    why = "no system Python"
    for python in dict.fromkeys(INTERPRETERS):
        if not os.access(python, os.X_OK):
            continue
        command = [python, "-I", str(PROGRAM)]
        checked = subprocess.run([*command, "check"], capture_output=True, text=True, check=False)
        if checked.returncode == 0:
            pipe = subprocess.PIPE
            # A process group of its own: Ctrl-C is for us, and then the pipe ends.
            return subprocess.Popen(
                [*command, options], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True
            )
        why = (checked.stdout.strip().splitlines() or checked.stderr.strip().splitlines() or [why])[-1]
    raise OutputError(
        f"cannot serve at rtsp: ({why}); install {PACKAGES}, or serve at http://, which needs nothing more"
    )


def _line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode(errors="replace").strip() or "error it has not started"
