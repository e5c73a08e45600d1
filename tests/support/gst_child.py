"""An RTSP server on Debian's gst-rtsp-server, for the system's Python; ``rtsp_server.py`` starts it.

The one argument is JSON: port, path, codec, width, height, fps, user, password, auth. Prints ``ready PORT``. Commands
come as lines on standard input: ``stall``, ``go``, ``size WIDTH HEIGHT``; the end of the input ends the server.
The pictures are those of ``timecode.py``.
"""

import json
import sys
import threading
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

BITS, UNIT, DARK, LIGHT = 16, 0.05, 40, 215
ENCODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast threads=1 key-int-max={fps} bitrate=1000 ! "
    "video/x-h264,profile=baseline ! rtph264pay name=pay0 pt=96 config-interval=-1",
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast key-int-max={fps} bitrate=1000 ! "
    "rtph265pay name=pay0 pt=96 config-interval=-1",
    "mjpeg": "jpegenc quality=85 ! rtpjpegpay name=pay0 pt=26",
}


def picture(width, height):
    value = int(time.time() / UNIT)
    columns = bytes(LIGHT if value >> (x * BITS // width) & 1 else DARK for x in range(width))
    return columns * height + bytes([128]) * (width * height // 2)


class Server:
    def __init__(self, options):
        self.width, self.height, self.fps = options["width"], options["height"], options["fps"]
        self.sources = []
        self.stalled = False
        self.server = GstRtspServer.RTSPServer()
        self.server.set_address("127.0.0.1")
        self.server.set_service(str(options["port"]))
        factory = GstRtspServer.RTSPMediaFactory()
        launch = ENCODERS[options["codec"]].format(fps=self.fps)
        factory.set_launch(f"( appsrc name=src is-live=true format=time do-timestamp=true block=false ! {launch} )")
        factory.set_shared(True)
        factory.set_latency(0)
        factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP | GstRtsp.RTSPLowerTrans.TCP)
        factory.connect("media-configure", self.configure)
        if options["user"]:
            self.protect(factory, options["user"], options["password"], options["auth"])
        self.server.get_mount_points().add_factory(options["path"], factory)
        if not self.server.attach(None):
            sys.exit("cannot listen")
        GLib.timeout_add(round(1000 / self.fps), self.tick)

    def protect(self, factory, user, password, how):
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        auth = GstRtspServer.RTSPAuth()
        if how == "digest":
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
            auth.add_digest(user, password, token)
        else:
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
            auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        self.server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        permissions.add_permission_for_role("viewer", "media.factory.access", True)
        permissions.add_permission_for_role("viewer", "media.factory.construct", True)
        factory.set_permissions(permissions)

    def configure(self, _factory, media):
        source = media.get_element().get_by_name("src")
        source.set_property("caps", self.caps())
        self.sources.append(source)
        media.connect("unprepared", lambda *_: self.sources.remove(source))

    def caps(self):
        return Gst.Caps.from_string(
            f"video/x-raw,format=I420,width={self.width},height={self.height},framerate={self.fps}/1"
        )

    def tick(self):
        if self.sources and not self.stalled:
            data = picture(self.width, self.height)
            for source in list(self.sources):
                source.emit("push-buffer", Gst.Buffer.new_wrapped(data))
        return True

    def resize(self, width, height):
        self.width, self.height = width, height
        for source in self.sources:
            source.set_property("caps", self.caps())

    def command(self, line):
        word, *rest = line.split()
        if word == "size":
            self.resize(*map(int, rest))
        else:
            self.stalled = word == "stall"
        print("done", flush=True)
        return False


def main():
    Gst.init(None)
    server = Server(json.loads(sys.argv[1]))
    loop = GLib.MainLoop()

    def listen():
        for line in sys.stdin:
            GLib.idle_add(server.command, line)
        GLib.idle_add(loop.quit)

    threading.Thread(target=listen, daemon=True).start()
    print("ready", server.server.get_bound_port(), flush=True)
    loop.run()


main()
