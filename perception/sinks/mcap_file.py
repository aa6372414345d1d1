"""An MCAP file that Foxglove opens as it is: each camera's pictures with what was found drawn over them.

For a camera `front` there are three topics::

    /front/image          foxglove.CompressedImage       the picture, JPEG
    /front/annotations    foxglove.ImageAnnotations      boxes with class and score, or outlines of a segmentation
    /front/result         JSON                           the frame's line of the run log: plot /front/result.timing.…

Every message is logged at the frame's `captured_ns`. The run's header lies in the file as metadata `tollgate`.
With several models, `annotations` and `result` stand below the model's name.

Source: schemas by Foxglove, docs.foxglove.dev/docs/visualization/message-schemas.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from foxglove_schemas_protobuf.Color_pb2 import Color
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.ImageAnnotations_pb2 import ImageAnnotations
from foxglove_schemas_protobuf.Point2_pb2 import Point2
from foxglove_schemas_protobuf.PointsAnnotation_pb2 import PointsAnnotation
from foxglove_schemas_protobuf.TextAnnotation_pb2 import TextAnnotation
from google.protobuf.message import Message  # type: ignore[import-untyped]
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]
from mcap.well_known import MessageEncoding, SchemaEncoding
from mcap.writer import Writer
from mcap_protobuf.schema import register_schema

from perception.files import cannot_write
from perception.frame import Frame
from perception.logged_frame import fields_from_frame
from perception.pipeline import FrameResult
from perception.record import RunHeader, line_of, on_simulated_clock
from perception.results import Detections, SegmentationMap
from perception.sinks.drawing import UNTINTED, colour_of, name_of
from perception.sinks.staged import Staged

JPEG_QUALITY = 90
_NS = 1_000_000_000
_LINE_PX, _TEXT_PX = 2.0, 14.0
_RESULT_SCHEMA: dict[str, Any] = {
    "title": "tollgate.FrameResult",
    "type": "object",
    "properties": {
        "camera_id": {"type": "string"},
        "frame_id": {"type": "integer"},
        "captured_ns": {"type": "integer"},
        "name": {"type": "string"},
        "result": {"type": ["object", "null"]},
        "timing": {"type": "object", "properties": {"status": {"type": "string"}}},
    },
}


class McapWriter:
    """Writes one MCAP file, which appears when the sink is closed."""

    def __init__(self, path: Path, header: RunHeader) -> None:
        """Begin the file.

        Raises:
            OutputError: the folder cannot be written.
        """
        self._path, self._header = path, header
        self._staged = Staged(path)
        self._open = True
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._pictured: dict[str, int] = {}
        with self._faults_named():
            self._file = self._staged.path.open("wb")
            self._writer = Writer(self._file)
            self._writer.start(library="tollgate")
            self._writer.add_metadata("tollgate", {"header": header.model_dump_json()})

    def write(self, outcome: FrameResult) -> None:
        """See `Sink.write`."""
        camera = f"/{outcome.frame.camera_id.strip('/')}"
        model = f"{camera}/{outcome.model}" if outcome.model else camera
        if self._header.clock == "simulated":
            outcome = on_simulated_clock(outcome)
        with self._faults_named():
            if self._pictured.get(camera) != outcome.frame.frame_id:
                self._pictured[camera] = outcome.frame.frame_id
                self._add(f"{camera}/image", picture_message(outcome.frame), outcome.frame)
            self._add(f"{model}/annotations", annotations_message(outcome, self._header.classes), outcome.frame)
            self._add_line(f"{model}/result", outcome)

    def close(self) -> None:
        """See `Sink.close`."""
        if not self._open:
            return
        with self._faults_named():
            self._writer.finish()  # type: ignore[no-untyped-call]
            self._file.close()
        self._staged.keep()
        self._open = False

    def abort(self) -> None:
        """See `Sink.abort`."""
        if not self._open:
            return
        self._open = False
        with suppress(OSError):
            self._file.close()
        self._staged.discard()

    def _add(self, topic: str, message: Message, frame: Frame) -> None:
        if topic not in self._channels:
            name = message.DESCRIPTOR.full_name
            if name not in self._schemas:
                self._schemas[name] = register_schema(self._writer, type(message))
            self._channels[topic] = self._writer.register_channel(topic, MessageEncoding.Protobuf, self._schemas[name])
        self._put(topic, message.SerializeToString(deterministic=True), frame)

    def _add_line(self, topic: str, outcome: FrameResult) -> None:
        if topic not in self._channels:
            name = str(_RESULT_SCHEMA["title"])
            if name not in self._schemas:
                content = json.dumps(_RESULT_SCHEMA).encode()
                self._schemas[name] = self._writer.register_schema(name, SchemaEncoding.JSONSchema, content)
            self._channels[topic] = self._writer.register_channel(topic, MessageEncoding.JSON, self._schemas[name])
        self._put(topic, line_of(fields_from_frame(outcome)), outcome.frame)

    def _put(self, topic: str, content: bytes, frame: Frame) -> None:
        at_ns = max(0, frame.captured_ns)
        self._writer.add_message(self._channels[topic], at_ns, content, at_ns, sequence=frame.frame_id)

    @contextmanager
    def _faults_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self._path, error) from error


def picture_message(frame: Frame) -> CompressedImage:
    """The picture as JPEG; `frame_id` is the camera's name, as Foxglove matches pictures and annotations by it."""
    _, content = cv2.imencode(".jpg", frame.pixels, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    return CompressedImage(
        timestamp=_timestamp(frame.captured_ns), frame_id=frame.camera_id, data=content.tobytes(), format="jpeg"
    )


def annotations_message(outcome: FrameResult, classes: Sequence[str]) -> ImageAnnotations:
    """What was found, in pixels of the picture; empty where there is no result, so that an older one goes away."""
    message = ImageAnnotations()
    stamp = _timestamp(outcome.frame.captured_ns)
    if isinstance(outcome.result, Detections):
        _add_boxes(message, outcome.result, classes, stamp)
    elif isinstance(outcome.result, SegmentationMap):
        _add_outlines(message, outcome.result, classes, stamp)
    return message


def _add_boxes(message: ImageAnnotations, found: Detections, classes: Sequence[str], stamp: Timestamp) -> None:
    columns = (found.boxes_px.tolist(), found.scores.tolist(), found.class_ids.tolist())
    for (left, top, right, bottom), score, class_id in zip(*columns, strict=True):
        corners = ((left, top), (right, top), (right, bottom), (left, bottom))
        message.points.append(_loop(corners, class_id, stamp))
        message.texts.append(
            TextAnnotation(
                timestamp=stamp,
                position=Point2(x=left, y=top),
                text=f"{name_of(class_id, classes)} {score:.2f}",
                font_size=_TEXT_PX,
                text_color=Color(r=1, g=1, b=1, a=1),
                background_color=_colour(class_id, 0.7),
            )
        )


def _add_outlines(message: ImageAnnotations, found: SegmentationMap, classes: Sequence[str], stamp: Timestamp) -> None:
    """The borders of each class's areas; cells are as large as the picture makes them."""
    height, width = found.class_ids.shape
    cell = np.array([found.width_px / width, found.height_px / height])
    for class_id in np.unique(found.class_ids).tolist():
        if name_of(class_id, classes).lower() in UNTINTED:
            continue
        areas = (found.class_ids == class_id).astype(np.uint8)
        outlines, _ = cv2.findContours(areas, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        for outline in outlines:
            corners = (outline.reshape(-1, 2) + 0.5) * cell
            message.points.append(_loop(corners.tolist(), class_id, stamp))


def _loop(corners: Sequence[Sequence[float]], class_id: int, stamp: Timestamp) -> PointsAnnotation:
    return PointsAnnotation(
        timestamp=stamp,
        type=PointsAnnotation.LINE_LOOP,
        points=[Point2(x=x, y=y) for x, y in corners],
        outline_color=_colour(class_id, 1.0),
        thickness=_LINE_PX,
    )


def _colour(class_id: int, opacity: float) -> Color:
    blue, green, red = colour_of(class_id)
    return Color(r=red / 255, g=green / 255, b=blue / 255, a=opacity)


def _timestamp(instant_ns: int) -> Timestamp:
    return Timestamp(seconds=instant_ns // _NS, nanos=instant_ns % _NS)
