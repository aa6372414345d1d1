"""MCAP files with the camera messages of foxglove (protobuf, JSON) and of ROS 2 (CDR).

A file cut off before its closing index is refused when it is opened: what it still holds is saved by `mcap recover`.
A damaged chunk ends the recording with an error; the frames before it stand.

Source: MCAP Format Specification, mcap.dev/spec.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mcap.decoder import DecoderFactory
from mcap.reader import McapReader, NonSeekingReader, make_reader
from mcap.records import Channel, Schema
from mcap_protobuf.decoder import DecoderFactory as ProtobufDecoderFactory
from mcap_ros2.decoder import DecoderFactory as Ros2DecoderFactory

from perception.errors import SourceError
from perception.sources.camera_messages import LoggedMessage, MessageRecording, damage_told, json_fields

_REMEDY = "copy it again, or save what is whole with: mcap recover FILE -o NEW.mcap"


class McapFile(MessageRecording):
    """See `MessageRecording`. `captured_ns`: see `camera_messages`."""

    def __init__(self, path: Path, *, cameras: Sequence[str] = ()) -> None:
        """Read the index and decode the first picture of each camera.

        Args:
            path: the file.
            cameras: the topics wanted; empty means all with camera messages.

        Raises:
            SourceError: cut off, damaged, without such a topic, or with a picture that cannot be decoded.
        """
        super().__init__(path, _counts(path), _messages, cameras=cameras)


class _JsonDecoderFactory(DecoderFactory):
    """Decodes messages in JSON, which the reference reader leaves to its caller."""

    def decoder_for(self, message_encoding: str, schema: Schema | None) -> Callable[[bytes], Any] | None:
        """The decoder, where the encoding is JSON."""
        return _from_json if message_encoding == "json" else None


def _from_json(content: bytes) -> Any:  # noqa: ANN401  (any JSON)
    return json_fields(json.loads(content))


def _counts(path: Path) -> Counter[tuple[str, str]]:
    """Topic and schema → number of messages."""
    with _opened(path) as (file, reader), damage_told(path, remedy=_REMEDY):
        summary = reader.get_summary()
        if summary is not None and summary.statistics is not None:
            found: Counter[tuple[str, str]] = Counter()
            for channel_id, count in summary.statistics.channel_message_counts.items():
                channel = summary.channels[channel_id]
                found[_key(channel, summary.schemas.get(channel.schema_id))] += count
            return found
        # An index is optional, and counting without one means reading through.
        file.seek(0)
        messages = NonSeekingReader(file).iter_messages(log_time_order=False)
        return Counter(_key(channel, schema) for schema, channel, _ in messages)


def _key(channel: Channel, schema: Schema | None) -> tuple[str, str]:
    return channel.topic, "" if schema is None else schema.name


def _messages(path: Path, topic: str, wanted: str) -> Generator[LoggedMessage]:
    with _opened(path) as (_, reader), damage_told(path, remedy=_REMEDY):
        for schema, _, message, fields in reader.iter_decoded_messages(topics=[topic]):
            if schema is not None and schema.name == wanted:
                yield LoggedMessage(fields, message.log_time)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, McapReader]]:
    """Lend the file and a reader that checks the checksums of what it reads."""
    factories = (ProtobufDecoderFactory(), Ros2DecoderFactory(), _JsonDecoderFactory())
    try:
        file = path.open("rb")
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    with file:
        with damage_told(path, remedy=_REMEDY):
            reader = make_reader(file, validate_crcs=True, decoder_factories=factories)
        yield file, reader
