"""Recordings as robots make them, written by the reference writers of their formats."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.CompressedVideo_pb2 import CompressedVideo
from foxglove_schemas_protobuf.RawImage_pb2 import RawImage
from google.protobuf.timestamp_pb2 import Timestamp
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from mcap_protobuf.writer import Writer as ProtobufWriter
from mcap_ros2.writer import Writer as Ros2Writer
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as BagWriter
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from tests.perception.sources.recordings import HEIGHT_PX, WIDTH_PX, picture

NS = 1_000_000_000
LOGGED_LATER_NS = 5_000_000


def store() -> Typestore:
    return get_typestore(Stores.ROS2_HUMBLE)


def coded(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    done, content = cv2.imencode(suffix, pixels)
    assert done
    return content.tobytes()


def coded_video(count: int, codec: str = "libx264", **options: str) -> list[bytes]:
    """One Annex B packet a picture, no picture leaning on a later one."""
    encoder = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.framerate = WIDTH_PX, HEIGHT_PX, "yuv420p", 25
    encoder.options = {"tune": "zerolatency", "preset": "veryfast", "g": "6"} | options
    packets = []
    for index in range(count):
        frame = av.VideoFrame.from_ndarray(picture(index), format="bgr24")
        packets += encoder.encode(frame.reformat(format="yuv420p"))
    return [bytes(packet) for packet in packets + encoder.encode(None)]


def foxglove_image(index: int, stamp_ns: int) -> CompressedImage:
    return CompressedImage(timestamp=stamp(stamp_ns), frame_id="cam", data=coded(picture(index)), format="png")


def foxglove_raw(index: int, stamp_ns: int) -> RawImage:
    pixels = picture(index)
    return RawImage(
        timestamp=stamp(stamp_ns),
        width=pixels.shape[1],
        height=pixels.shape[0],
        encoding="bgr8",
        step=3 * pixels.shape[1],
        data=pixels.tobytes(),
    )


def stamp(stamp_ns: int) -> Timestamp:
    return Timestamp(seconds=stamp_ns // NS, nanos=stamp_ns % NS)


def write_foxglove(
    path: Path,
    cameras: dict[str, Sequence[int]],
    *,
    message: Callable[[int, int], Any] = foxglove_image,
    chunk_size: int = 1 << 20,
) -> Path:
    """An MCAP file in protobuf: topic → stamps; logged `LOGGED_LATER_NS` after the stamp."""
    with path.open("wb") as file, ProtobufWriter(file, chunk_size=chunk_size) as writer:
        for stamp_ns, topic, index in in_order(cameras):
            logged_ns = stamp_ns + LOGGED_LATER_NS
            writer.write_message(topic, message(index, stamp_ns), log_time=logged_ns, publish_time=logged_ns)
    return path


def in_order(cameras: dict[str, Sequence[int]]) -> list[tuple[int, str, int]]:
    return sorted(
        (stamp_ns, topic, index) for topic, stamps in cameras.items() for index, stamp_ns in enumerate(stamps)
    )


def write_foxglove_video(path: Path, packets: Sequence[bytes], stamps: Sequence[int], *, form: str = "h264") -> Path:
    """An MCAP file with one coded packet a message on `/front`."""

    def message(index: int, stamp_ns: int) -> CompressedVideo:
        return CompressedVideo(timestamp=stamp(stamp_ns), frame_id="cam", data=packets[index], format=form)

    return write_foxglove(path, {"/front": stamps}, message=message)


def write_foxglove_json(path: Path, cameras: dict[str, Sequence[int]]) -> Path:
    """An MCAP file in JSON, as foxglove's own recorders without protobuf write it."""
    with path.open("wb") as file:
        writer = McapWriter(file, compression=CompressionType.LZ4)
        writer.start(profile="", library="test")
        schema = writer.register_schema("foxglove.CompressedImage", "jsonschema", b'{"type": "object"}')
        channels = {topic: writer.register_channel(topic, "json", schema) for topic in cameras}
        for stamp_ns, topic, index in in_order(cameras):
            content = {
                "timestamp": {"sec": stamp_ns // NS, "nsec": stamp_ns % NS},
                "frame_id": "cam",
                "format": "png",
                "data": base64.b64encode(coded(picture(index))).decode(),
            }
            logged_ns = stamp_ns + LOGGED_LATER_NS
            writer.add_message(channels[topic], logged_ns, json.dumps(content).encode(), logged_ns)
        writer.finish()
    return path


def ros_header(stamp_ns: int) -> Any:
    types = store().types
    time = types["builtin_interfaces/msg/Time"](stamp_ns // NS, stamp_ns % NS)
    return types["std_msgs/msg/Header"](time, "cam")


def ros_image(index: int, stamp_ns: int) -> Any:
    pixels = picture(index)
    return ros_raw(pixels, "bgr8", stamp_ns=stamp_ns, step=3 * WIDTH_PX)


def ros_raw(content: np.ndarray, encoding: str, *, stamp_ns: int, step: int) -> Any:
    height, width = content.shape[:2]
    data = np.frombuffer(content.tobytes(), np.uint8)
    return store().types["sensor_msgs/msg/Image"](ros_header(stamp_ns), height, width, encoding, 0, step, data)


def ros_compressed(index: int, stamp_ns: int) -> Any:
    data = np.frombuffer(coded(picture(index)), np.uint8)
    return store().types["sensor_msgs/msg/CompressedImage"](ros_header(stamp_ns), "bgr8; png compressed bgr8", data)


def write_ros2_mcap(
    path: Path, cameras: dict[str, Sequence[int]], *, message: Callable[[int, int], Any] = ros_image
) -> Path:
    """An MCAP file as `ros2 bag record` with MCAP storage writes it, without the folder around it."""
    types = store()
    with path.open("wb") as file:
        writer = Ros2Writer(file)
        schemas: dict[str, Any] = {}
        for stamp_ns, topic, index in in_order(cameras):
            content = message(index, stamp_ns)
            name = content.__msgtype__
            if name not in schemas:
                schemas[name] = writer.register_msgdef(name, types.generate_msgdef(name, ros_version=2)[0])
            content = replace(content, data=content.data.tobytes())
            writer.write_message(topic, schemas[name], content, log_time=stamp_ns + LOGGED_LATER_NS)
        writer.finish()
    return path


def write_rosbag2(
    folder: Path,
    cameras: dict[str, Sequence[int]],
    *,
    storage: StoragePlugin = StoragePlugin.SQLITE3,
    message: Callable[[int, int], Any] = ros_image,
) -> Path:
    """A rosbag2 folder: topic → stamps; logged `LOGGED_LATER_NS` after the stamp."""
    types = store()
    with BagWriter(folder, version=9, storage_plugin=storage) as writer:
        connections: dict[str, Any] = {}
        for stamp_ns, topic, index in in_order(cameras):
            content = message(index, stamp_ns)
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, content.__msgtype__, typestore=types)
            data = types.serialize_cdr(content, content.__msgtype__)
            writer.write(connections[topic], stamp_ns + LOGGED_LATER_NS, data)
    return folder


def write_nuscenes(root: Path, cameras: dict[str, Sequence[int]]) -> Path:
    """A folder as nuScenes lays it out: channel → timestamps in microseconds; every third picture is a key frame."""
    sensors = [{"token": name, "channel": name, "modality": "camera"} for name in cameras]
    sensors.append({"token": "lidar", "channel": "LIDAR_TOP", "modality": "lidar"})
    calibrated = [{"token": f"calibrated {each['token']}", "sensor_token": each["token"]} for each in sensors]
    rows = [{"calibrated_sensor_token": "calibrated lidar", "timestamp": 1, "filename": "samples/LIDAR_TOP/1.bin"}]
    for name, stamps_us in cameras.items():
        for index, stamp_us in enumerate(stamps_us):
            file = f"{'sweeps' if index % 3 else 'samples'}/{name}/n001__{name}__{stamp_us}.jpg"
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(root / file), picture(index))
            rows.append({"calibrated_sensor_token": f"calibrated {name}", "timestamp": stamp_us, "filename": file})
    tables = root / "v1.0-mini"
    tables.mkdir()
    for name, table in (("sensor", sensors), ("calibrated_sensor", calibrated), ("sample_data", rows[::-1])):
        (tables / f"{name}.json").write_text(json.dumps(table))
    return root
