"""Rerun: the run as a recording (`.rrd`), or live in its viewer.

A camera's picture lies at `CAMERA/image`, what was found at `CAMERA/image/found`, the time it took at
`CAMERA/total_ms`, and a line at `CAMERA/events` for every frame that did not come in time. Source: rerun.io/docs.
"""

from __future__ import annotations

import math
import socket
import time
from pathlib import Path

import cv2
import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from perception.errors import OutputError
from perception.pipeline import FrameResult, Status
from perception.record import RunHeader
from perception.results import Detections, SegmentationMap
from perception.sinks.drawing import colour_of, name_of
from perception.sinks.staged import Staged

JPEG_QUALITY = 80
OPENS_WITHIN_S = 5.0
"""How long a viewer may take until it answers. Rerun's client itself drops in silence what nobody takes."""

_LOCAL_VIEWER = "127.0.0.1:9876"
_TIMELINE = "captured"
_UNIX_TIME_FROM_NS = 10**18


class _Stream:
    """Tells Rerun every published frame."""

    def __init__(self, header: RunHeader) -> None:
        self._classes = header.classes
        self._cameras = [name.strip("/") for name in header.clocks]
        self._stream = rr.RecordingStream("tollgate")
        context = [
            rr.AnnotationInfo(id=class_id, label=name, color=colour_of(class_id)[::-1])
            for class_id, name in enumerate(header.classes)
        ]
        self._stream.log("/", rr.AnnotationContext(context), static=True)
        self._stream.log("run", rr.TextDocument(header.model_dump_json(indent=2)), static=True)

    def _lay_out(self) -> None:
        """Pictures above, times and what was not in time below; a viewer's own guess shows the same things twice."""
        if not self._cameras:
            return
        pictures = [rrb.Spatial2DView(origin=f"{camera}/image", name=camera) for camera in self._cameras]
        below = rrb.Horizontal(
            rrb.TimeSeriesView(contents=[f"{camera}/total_ms" for camera in self._cameras], name="ms a frame"),
            rrb.TextLogView(contents=[f"{camera}/events" for camera in self._cameras], name="not in time"),
            rrb.TextDocumentView(origin="run", name="run"),
        )
        columns = math.isqrt(len(pictures) - 1) + 1
        rows = rrb.Vertical(rrb.Grid(*pictures, grid_columns=columns), below, row_shares=[2, 1])
        self._stream.send_blueprint(rrb.Blueprint(rows, collapse_panels=True))

    def write(self, outcome: FrameResult) -> None:
        """See `Sink.write`."""
        camera = outcome.frame.camera_id.strip("/")
        self._stream.set_time("frame", sequence=outcome.frame.frame_id)
        if outcome.frame.captured_ns < _UNIX_TIME_FROM_NS:
            self._stream.set_time(_TIMELINE, duration=np.timedelta64(outcome.frame.captured_ns, "ns"))
        else:
            self._stream.set_time(_TIMELINE, timestamp=np.datetime64(outcome.frame.captured_ns, "ns"))
        _, content = cv2.imencode(".jpg", outcome.frame.pixels, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
        picture = rr.EncodedImage(contents=content.tobytes(), media_type="image/jpeg")
        self._stream.log(f"{camera}/image", picture)
        self._log_found(f"{camera}/image/found", outcome)
        self._stream.log(f"{camera}/total_ms", rr.Scalars(outcome.timings.total_ns / 1e6))
        if outcome.status is not Status.ON_TIME:
            text = " ".join((outcome.status.value, *outcome.causes))
            self._stream.log(f"{camera}/events", rr.TextLog(text, level=rr.TextLogLevel.WARN))

    def _log_found(self, entity: str, outcome: FrameResult) -> None:
        if isinstance(outcome.result, Detections):
            found = outcome.result
            named = zip(found.class_ids.tolist(), found.scores.tolist(), strict=True)
            labels = [f"{name_of(class_id, self._classes)} {score:.2f}" for class_id, score in named]
            boxes = rr.Boxes2D(
                array=found.boxes_px, array_format=rr.Box2DFormat.XYXY, class_ids=found.class_ids, labels=labels
            )
            self._stream.log(entity, boxes)
        elif isinstance(outcome.result, SegmentationMap):
            self._stream.log(entity, rr.SegmentationImage(outcome.result.at_source_size(), opacity=0.5))
        else:
            self._stream.log(entity, rr.Clear(recursive=False))


class RerunFile(_Stream):
    """Writes an `.rrd` file, which appears when the sink is closed."""

    def __init__(self, path: Path, header: RunHeader) -> None:
        """Begin the file.

        Raises:
            OutputError: the folder cannot be written.
        """
        self._staged = Staged(path)
        self._open = True
        super().__init__(header)
        self._stream.save(self._staged.path)
        self._lay_out()

    def close(self) -> None:
        """See `Sink.close`."""
        if self._open:
            self._stream.disconnect()
            self._staged.keep()
            self._open = False

    def abort(self) -> None:
        """See `Sink.abort`."""
        if self._open:
            self._open = False
            self._stream.disconnect()
            self._staged.discard()


class RerunViewer(_Stream):
    """Shows the run in Rerun's viewer while it runs. The viewer stays open when the run ends."""

    def __init__(self, path: Path, header: RunHeader) -> None:
        """Connect to a viewer.

        Args:
            path: `HOST:PORT` of a viewer that is open already; empty opens one here.
            header: the conditions of the run.

        Raises:
            OutputError: no viewer can be opened.
        """
        super().__init__(header)
        address = str(path) if path.name else _LOCAL_VIEWER
        try:
            if not path.name:
                self._stream.spawn(connect=False)
            _wait_for_viewer(address, OPENS_WITHIN_S)
            self._stream.connect_grpc(f"rerun+http://{address}/proxy")
            self._lay_out()
        except (RuntimeError, OSError, ValueError) as error:
            raise OutputError(
                f"{address}: no viewer of Rerun answers ({error}); write a recording instead with --rerun FILE.rrd"
            ) from error

    def close(self) -> None:
        """See `Sink.close`."""
        self._stream.disconnect()

    def abort(self) -> None:
        """See `Sink.abort`."""
        self._stream.disconnect()


def _wait_for_viewer(address: str, within_s: float) -> None:
    """Wait until somebody listens at `HOST:PORT`.

    Raises:
        OSError: nobody does.
        ValueError: the address is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("expected HOST:PORT")
    until_s = time.monotonic() + within_s
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1.0).close()
            return
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.1)
