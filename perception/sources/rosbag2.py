"""rosbag2 recordings of ROS 2, stored in SQLite or MCAP, read without ROS.

A bag carries the definitions of its messages or is older than that: then those of ROS 2 Humble apply, and the camera
messages have not changed since ROS 2 began.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from perception.sources.camera_messages import LoggedMessage, MessageRecording, damage_told

_REMEDY = "copy it again, or rebuild it with: ros2 bag reindex FOLDER"


class Rosbag2(MessageRecording):
    """See `MessageRecording`. `captured_ns`: see `camera_messages`."""

    def __init__(self, path: Path, *, cameras: Sequence[str] = ()) -> None:
        """Read the metadata and decode the first picture of each camera.

        Args:
            path: the folder with `metadata.yaml`.
            cameras: the topics wanted; empty means all with camera messages.

        Raises:
            SourceError: damaged, without such a topic, or with a picture that cannot be decoded.
        """
        super().__init__(path, _counts(path), _messages, cameras=cameras)


def _counts(path: Path) -> Counter[tuple[str, str]]:
    """Topic and schema → number of messages."""
    counts: Counter[tuple[str, str]] = Counter()
    with _opened(path) as reader:
        for connection in reader.connections:
            counts[connection.topic, connection.msgtype] += connection.msgcount
    return counts


def _messages(path: Path, topic: str, schema: str) -> Generator[LoggedMessage]:
    with _opened(path) as reader:
        wanted = [each for each in reader.connections if (each.topic, each.msgtype) == (topic, schema)]
        for connection, log_ns, content in reader.messages(wanted):
            yield LoggedMessage(reader.deserialize(content, connection.msgtype), log_ns)


@contextmanager
def _opened(path: Path) -> Iterator[AnyReader]:
    with (
        damage_told(path, remedy=_REMEDY),
        AnyReader([path], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader,
    ):
        yield reader
