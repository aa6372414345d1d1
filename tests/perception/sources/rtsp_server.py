"""A real RTSP server on loopback, of GStreamer, run by the system's Python: `rtsp_server.py PORT RATE_HZ`.

It prints READY when it serves, and shows a moving ball on black.
"""

from __future__ import annotations

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PIPELINE = (
    "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=192,framerate={rate}/1,format=I420 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0 config-interval=1 )"
)


def main() -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PIPELINE.format(rate=sys.argv[2]))
    factory.set_shared(True)
    server.get_mount_points().add_factory("/front", factory)
    if server.attach(None) == 0:
        sys.exit("the port is taken")
    sys.stdout.write("READY\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
