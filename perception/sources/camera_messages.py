"""What recorders of robots call a camera's messages, and how one camera's messages become frames.

A message carries two times: its own stamp, written where the picture was taken, and the log time, written where the
message was stored. `captured_ns` is the stamp. Only a camera whose first message has no stamp (zero) is timed by the
log; its `Camera.clock` says which of both it is.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perception.errors import SourceError
from perception.frame import Frame
from perception.sources.pictures import decoded_picture
from perception.sources.raw_pixels import RawPicture
from perception.sources.source import Camera, Clock, chosen_cameras, in_capture_order
from perception.sources.video_messages import VideoMessages

_NS = 1_000_000_000
_DATA_OF_DEPTH = "compressedDepth"

Shown: TypeAlias = tuple[NDArray[np.uint8], int]
"""Pixels of a picture and its captured_ns."""


@dataclass(frozen=True, slots=True)
class LoggedMessage:
    """One decoded message: its fields by name, and when it was stored."""

    fields: Any
    log_ns: int


Messages: TypeAlias = Callable[[], Generator[LoggedMessage]]
"""Reads one camera's messages from the start, in order of log time."""


class MessageCamera:
    """One topic of a recording as a camera."""

    def __init__(self, topic: str, schema: str, *, count: int, messages: Messages, where: str) -> None:
        """Decode the first picture.

        Args:
            topic: names the camera.
            schema: name in `READERS`.
            count: messages on the topic.
            messages: reads them, each call anew.
            where: file and topic, for errors.

        Raises:
            SourceError: no message, or the first picture cannot be decoded.
        """
        self._topic, self._schema, self._messages, self._where = topic, schema, messages, where
        self._clock = self._clock_of_first()
        reader = self._reader()
        pixels, _ = self._first_of(reader)
        self.camera = Camera(topic, pixels.shape[1], pixels.shape[0], None, count - reader.left_out, self._clock)

    def frames(self) -> Generator[Frame]:
        """All frames, in the order in which the recording holds them."""
        for frame_id, (pixels, captured_ns) in enumerate(self._shown(self._reader())):
            yield Frame(pixels, self._topic, frame_id, captured_ns, f"{frame_id:06d}")

    def _reader(self) -> StillReader | VideoReader:
        return READERS[self._schema](self._where)

    def _first_of(self, reader: StillReader | VideoReader) -> Shown:
        for shown in self._shown(reader):
            return shown
        raise SourceError(f"{self._where}: holds no picture that can be decoded, expected at least 1; record it anew")

    def _shown(self, reader: StillReader | VideoReader) -> Generator[Shown]:
        for message in self._messages():
            yield from reader.read(message.fields, self._captured_ns(message))
        yield from reader.finish()

    def _clock_of_first(self) -> Clock:
        for message in self._messages():
            return Clock.SENSOR if stamp_ns(message.fields) else Clock.LOG
        raise SourceError(f"{self._where}: holds no message, expected at least 1; choose other cameras with --camera")

    def _captured_ns(self, message: LoggedMessage) -> int:
        if self._clock is Clock.LOG:
            return message.log_ns
        captured_ns = stamp_ns(message.fields)
        if not captured_ns:
            raise SourceError(
                f"{self._where}: the message logged at {message.log_ns} ns has no stamp, those before it have one; "
                "the recording is damaged: cut it there, or record it anew"
            )
        return captured_ns


class MessageRecording:
    """A recording of messages: each topic with camera messages is a camera, named after the topic."""

    def __init__(
        self,
        path: Path,
        counts: Mapping[tuple[str, str], int],
        messages: Callable[[Path, str, str], Generator[LoggedMessage]],
        *,
        cameras: Sequence[str],
    ) -> None:
        """Decode the first picture of each camera.

        Args:
            path: the file or folder.
            counts: topic and schema → number of messages.
            messages: reads those of a path, a topic and a schema, each call anew.
            cameras: the topics wanted; empty means all with camera messages.

        Raises:
            SourceError: damaged, without such a topic, or with a picture that cannot be decoded.
        """
        self._cameras = {
            topic: MessageCamera(
                topic,
                schema,
                count=counts[topic, schema],
                messages=partial(messages, path, topic, schema),
                where=f"{path}: {topic}",
            )
            for topic, schema in camera_topics(counts, cameras, where=path)
        }
        self.cameras = tuple(camera.camera for camera in self._cameras.values())

    def frames(self) -> Iterator[Frame]:
        """See `FrameSource.frames`."""
        return in_capture_order([camera.frames() for camera in self._cameras.values()])

    def camera_frames(self, camera_id: str) -> Generator[Frame]:
        """See `Recording.camera_frames`."""
        return self._cameras[camera_id].frames()

    def close(self) -> None:
        """See `FrameSource.close`. Every iterator holds its own file; none is held here."""


class StillReader:
    """Messages that hold one picture each."""

    left_out = 0

    def __init__(self, pixels_of: Callable[[Any, str], NDArray[np.uint8]], where: str) -> None:
        self._pixels_of, self._where = pixels_of, where

    def read(self, fields: Any, captured_ns: int) -> Generator[Shown]:  # noqa: ANN401  (any decoder's message)
        """The picture of a message."""
        yield self._pixels_of(fields, f"{self._where} at {captured_ns} ns"), captured_ns

    def finish(self) -> Generator[Shown]:
        """Nothing is held back."""
        yield from ()


class VideoReader:
    """Messages that hold one coded picture of a video each."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._video: VideoMessages | None = None

    @property
    def left_out(self) -> int:
        """Messages before the first key picture, which nobody can show."""
        return self._video.left_out if self._video else 0

    def read(self, fields: Any, captured_ns: int) -> Generator[Shown]:  # noqa: ANN401  (any decoder's message)
        """Pictures that this message completes."""
        if self._video is None:
            self._video = VideoMessages(fields.format, where=self._where)
        yield from self._video.decode(bytes(fields.data), captured_ns)

    def finish(self) -> Generator[Shown]:
        """Pictures that the decoder held back."""
        if self._video is not None:
            yield from self._video.finish()


def camera_topics(
    topics: Iterable[tuple[str, str]], wanted: Sequence[str], *, where: object
) -> tuple[tuple[str, str], ...]:
    """The topics to read as cameras, each with its schema, by name.

    Raises:
        SourceError: no topic has camera messages, one has two kinds of them, or a wanted one is not there.
    """
    present = sorted((topic, schema) for topic, schema in topics if schema in READERS)
    if not present:
        found = ", ".join(f"{topic} ({schema})" for topic, schema in sorted(topics)) or "none"
        raise SourceError(f"{where}: has no camera topic, expected one of {', '.join(READERS)}; its topics: {found}")
    names = [topic for topic, _ in present]
    if twice := [name for name in names if names.count(name) > 1]:
        raise SourceError(f"{where}: topic {twice[0]} holds two kinds of camera messages, expected one; split it")
    chosen = chosen_cameras(names, wanted, where=where)
    return tuple((topic, schema) for topic, schema in present if topic in chosen)


@contextmanager
def damage_told(path: object, *, remedy: str) -> Iterator[None]:
    """Say in one sentence what a reader complained about; on damaged bytes it may raise anything."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise SourceError(f"{path}: is damaged or cut off ({reason}); {remedy}") from error


def stamp_ns(fields: Any) -> int:  # noqa: ANN401  (any decoder's message)
    """The sensor's time in nanoseconds; 0 where it was not set. Decoders name the two parts differently."""
    stamp = fields.header.stamp if hasattr(fields, "header") else fields.timestamp
    for seconds, nanoseconds in (("sec", "nanosec"), ("seconds", "nanos"), ("sec", "nsec")):
        if hasattr(stamp, nanoseconds):
            return int(getattr(stamp, seconds)) * _NS + int(getattr(stamp, nanoseconds))
    raise SourceError(f"got a stamp of type {type(stamp).__name__}, expected seconds and nanoseconds; record it anew")


def json_fields(content: Any) -> Any:  # noqa: ANN401  (any JSON)
    """A foxglove message in JSON, with its fields as attributes and its bytes decoded.

    Raises:
        ValueError: bytes that are no base64.
    """
    if not isinstance(content, dict):
        return content
    fields = {name: json_fields(value) for name, value in content.items()}
    if isinstance(fields.get("data"), str):
        fields["data"] = base64.b64decode(fields["data"], validate=True)
    return SimpleNamespace(**fields)


def _raw(fields: Any, where: str) -> NDArray[np.uint8]:  # noqa: ANN401  (any decoder's message)
    big_endian = bool(getattr(fields, "is_bigendian", False))
    return RawPicture(
        fields.width, fields.height, fields.encoding, step_bytes=fields.step, content=fields.data, big_endian=big_endian
    ).pixels(where=where)


def _compressed(fields: Any, where: str) -> NDArray[np.uint8]:  # noqa: ANN401  (any decoder's message)
    if _DATA_OF_DEPTH in fields.format:
        raise SourceError(f"{where}: holds distances ({fields.format}), expected pictures; choose others with --camera")
    return decoded_picture(bytes(fields.data), where=where, kind=fields.format or "compressed")


def _raw_reader(where: str) -> StillReader:
    return StillReader(_raw, where)


def _compressed_reader(where: str) -> StillReader:
    return StillReader(_compressed, where)


READERS: dict[str, Callable[[str], StillReader | VideoReader]] = {
    "sensor_msgs/msg/Image": _raw_reader,
    "sensor_msgs/msg/CompressedImage": _compressed_reader,
    "foxglove.RawImage": _raw_reader,
    "foxglove.CompressedImage": _compressed_reader,
    "foxglove.CompressedVideo": VideoReader,
    "foxglove_msgs/msg/RawImage": _raw_reader,
    "foxglove_msgs/msg/CompressedImage": _compressed_reader,
    "foxglove_msgs/msg/CompressedVideo": VideoReader,
}
"""Schema → what reads its messages."""
