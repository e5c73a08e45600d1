"""A program for the system's Python: serves H.264 from standard input over RTSP; ``rtsp.py`` starts it.

``gst_server.py check`` tells whether all that is needed is there. With JSON (host, port, path) it prints
``ready PORT`` or ``error WHY``, then reads frames: one byte (1: key frame), four bytes of length, Annex B. The end of
the input is the end of the program.
"""

from __future__ import annotations

import json
import struct
import sys
import threading
from typing import Any

ELEMENTS = ("appsrc", "h264parse", "rtph264pay")
CAPS = "video/x-h264,stream-format=byte-stream,alignment=au"
#: At most half a second waits for a client.
LAUNCH = (
    "( appsrc name=src is-live=true format=time do-timestamp=true max-time=500000000 leaky-type=downstream "
    f"caps={CAPS} ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1 )"
)


def load() -> tuple[Any, Any, Any]:
    """GLib, Gst and GstRtspServer. Exits with a line that says what is missing."""
    try:
        import gi  # type: ignore[import-not-found,unused-ignore]

        gi.require_version("Gst", "1.0")
        gi.require_version("GstRtspServer", "1.0")
        from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found,unused-ignore]
    except (ImportError, ValueError) as error:
        print(error)
        sys.exit(1)
    Gst.init(None)
    missing = [name for name in ELEMENTS if not Gst.ElementFactory.find(name)]
    if missing:
        print(f"GStreamer has no {', '.join(missing)}")
        sys.exit(1)
    return GLib, Gst, GstRtspServer


class Feeder:
    """Gives every frame to whoever watches; each begins with a key frame."""

    def __init__(self, gst: Any) -> None:
        self.gst = gst
        self._lock = threading.Lock()
        self._sources: dict[Any, bool] = {}  # whether it has had a key frame

    def add(self, _factory: Any, media: Any) -> None:
        """A first client has come."""
        source = media.get_element().get_by_name("src")
        with self._lock:
            self._sources[source] = False
        media.connect("unprepared", lambda *_: self._remove(source))

    def _remove(self, source: Any) -> None:
        with self._lock:
            self._sources.pop(source, None)

    def push(self, key: bool, data: bytes) -> None:
        """Send one frame."""
        with self._lock:
            for source, begun in self._sources.items():
                if key or begun:
                    self._sources[source] = True
                    source.emit("push-buffer", self.gst.Buffer.new_wrapped(data))

    def run(self, file: Any, ended: Any) -> None:
        """Until the input ends."""
        header = struct.Struct(">BI")
        while len(head := file.read(header.size)) == header.size:
            key, length = header.unpack(head)
            data = file.read(length)
            if len(data) < length:
                break
            self.push(bool(key), data)
        ended()


def main() -> None:
    """See the top of this file."""
    glib, gst, rtsp = load()
    if sys.argv[1] == "check":
        return
    options = json.loads(sys.argv[1])
    server = rtsp.RTSPServer()
    server.set_address(options["host"])
    server.set_service(str(options["port"]))
    factory = rtsp.RTSPMediaFactory()
    factory.set_launch(LAUNCH)
    factory.set_shared(True)
    factory.set_latency(0)
    feeder = Feeder(gst)
    factory.connect("media-configure", feeder.add)
    server.get_mount_points().add_factory(options["path"], factory)
    if not server.attach(None):
        print("error the port is in use, or the address is not one of this machine", flush=True)
        sys.exit(1)
    loop = glib.MainLoop()
    arguments = (sys.stdin.buffer, lambda: glib.idle_add(loop.quit))
    threading.Thread(target=feeder.run, args=arguments, daemon=True).start()
    print("ready", server.get_bound_port(), flush=True)
    loop.run()


if __name__ == "__main__":
    main()
