"""An ONNX file from disk, with the weights it keeps in files beside it. What is not ONNX is refused by what it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from compile.onnx_graph import all_graphs
from perception.errors import ModelError

LARGEST_MODEL_BYTES = 2**31 - 1
"""Protobuf holds no message of 2 GiB or more. Source: protobuf.dev, Proto Limits."""

FOREIGN_STARTS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"\x89PNG", "a PNG picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive, as PyTorch checkpoints (.pt) are; export the model to ONNX first"),
    (0, b"\x80\x02", "a Python pickle, as old PyTorch checkpoints are; export the model to ONNX first"),
    (0, b"\x1f\x8b", "gzip-compressed; unpack it first"),
    (0, b"\x89HDF", "HDF5, as Keras models are; convert it with tf2onnx first"),
    (4, b"TFL3", "a TensorFlow Lite model; convert it with tf2onnx first"),
    (4, b"ORTM", "in ONNX Runtime's own .ort format; use the ONNX file it was made from"),
    (0, b"ftrt", "a TensorRT engine; use the ONNX file it was built from"),
    (0, b"ptrt", "a TensorRT engine; use the ONNX file it was built from"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the model; run: git lfs pull"),
)
"""Offset, bytes and what a file that has them there is."""


@dataclass(frozen=True, slots=True, eq=False)
class OnnxFile:
    """A parsed model with all its weights inside.

    Attributes:
        model: as it stands in the file; external data is read in.
        sha256: digest of the file's bytes, followed by those of each external data file in the order of their names.
        size_bytes: of all these files together.
    """

    model: onnx.ModelProto
    sha256: str
    size_bytes: int


def read_onnx(path: Path) -> OnnxFile:
    """Read and parse a model.

    Raises:
        ModelError: unreadable, too large, truncated, not ONNX, or a file with its weights is missing or too short.
    """
    content = _content_of(path)
    _refuse_foreign(content, path)
    model = _parse(content, path)
    data_files = _external_files(model, path)
    size_bytes = len(content) + sum(file.stat().st_size for file in data_files.values())
    if size_bytes > LARGEST_MODEL_BYTES:
        raise _too_large(path, size_bytes)
    digest = hashlib.sha256(content)
    for file in data_files.values():
        digest.update(file.read_bytes())
    _take_in(model, data_files, path)
    return OnnxFile(model, digest.hexdigest(), size_bytes)


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor stored in the model: initializers and constants in attributes, bodies and functions included."""
    for graph in all_graphs(model.graph):
        yield from graph.initializer
        for node in graph.node:
            yield from _attribute_tensors(node)
    for function in model.functions:
        for node in function.node:
            yield from _attribute_tensors(node)


def _attribute_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors


def _content_of(path: Path) -> bytes:
    try:
        size_bytes = path.stat().st_size
        if size_bytes > LARGEST_MODEL_BYTES:
            raise _too_large(path, size_bytes)
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); give the path of an ONNX file") from error


def _too_large(path: Path, size_bytes: int) -> ModelError:
    return ModelError(
        f"{path}: {size_bytes / 2**30:.1f} GiB with its weights, expected less than 2 GiB, the most that an ONNX file "
        "can hold; prune it or export it in float16"
    )


def _refuse_foreign(content: bytes, path: Path) -> None:
    if not content:
        raise ModelError(f"{path}: is empty (0 bytes), expected an ONNX model; export or download it again")
    for offset, start, what in FOREIGN_STARTS:
        if content[offset : offset + len(start)] == start:
            raise ModelError(f"{path}: is no ONNX model, it is {what}; give the path of an ONNX file")
    if _is_text(content[:512]):
        begins = content[:40].decode(errors="replace")
        raise ModelError(f"{path}: is no ONNX model, it is text starting {begins!r}; give the path of an ONNX file")


def _is_text(start: bytes) -> bool:
    """Whether every byte is printable; an ONNX file starts with a control byte (the tag of a protobuf field)."""
    return all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in start)


def _parse(content: bytes, path: Path) -> onnx.ModelProto:
    damaged = f"{path}: truncated, damaged or no ONNX model ({len(content)} bytes"
    try:
        model = onnx.ModelProto.FromString(content)
    except (DecodeError, RecursionError) as error:
        raise ModelError(f"{damaged}, protobuf cannot read them); export or download it again") from error
    if not model.HasField("graph") or not model.graph.node or not model.graph.output:
        raise ModelError(f"{damaged}, with no graph of nodes and outputs); export or download it again")
    if not _all_text_is_text(model):
        raise ModelError(f"{damaged}, with names that are no UTF-8 text); export or download it again")
    return model


def _all_text_is_text(message: Message) -> bool:
    """Whether every string in the message is one; protobuf hands out bytes where a string is broken."""
    for field, value in message.ListFields():
        several = value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else (value,)
        if field.type == FieldDescriptor.TYPE_STRING and not all(isinstance(text, str) for text in several):
            return False
        if field.type == FieldDescriptor.TYPE_MESSAGE and not all(_all_text_is_text(part) for part in several):
            return False
    return True


def _external_files(model: onnx.ModelProto, path: Path) -> dict[str, Path]:
    """Location → file, in the order of locations, for all tensors kept outside the model file."""
    wanted: dict[str, str] = {}
    for tensor in all_tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            wanted.setdefault(_entry(tensor, "location"), tensor.name)
    folder = path.parent.resolve()
    files: dict[str, Path] = {}
    for location, tensor_name in sorted(wanted.items()):
        file = (folder / location).resolve()
        if not location or not file.is_relative_to(folder):
            raise ModelError(
                f"{path}: initializer {tensor_name} points to {location!r}, expected a file in the model's own folder; "
                "export it again with its data beside it"
            )
        if not file.is_file():
            raise ModelError(
                f"{path}: external data {location} is missing (initializer {tensor_name} and maybe others are in it); "
                "copy it beside the model"
            )
        files[location] = file
    return files


def _take_in(model: onnx.ModelProto, files: dict[str, Path], path: Path) -> None:
    """Move external data into the tensors, so that nothing later needs the folder."""
    contents = {location: memoryview(file.read_bytes()) for location, file in files.items()}
    for tensor in all_tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        content = contents[_entry(tensor, "location")]
        start, length = _slice_of(tensor, len(content), path)
        if start + length > len(content):
            raise ModelError(
                f"{path}: external data {_entry(tensor, 'location')} has {len(content)} bytes, initializer "
                f"{tensor.name} ends at byte {start + length}; the data file is truncated, copy it again"
            )
        tensor.raw_data = bytes(content[start : start + length])
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _slice_of(tensor: onnx.TensorProto, size_bytes: int, path: Path) -> tuple[int, int]:
    """First byte and number of bytes of a tensor in its data file; no length means: to the end."""
    try:
        start = int(_entry(tensor, "offset") or 0)
        length = int(_entry(tensor, "length") or max(0, size_bytes - start))
    except ValueError as error:
        raise ModelError(
            f"{path}: initializer {tensor.name} has no numeric offset and length; export it again"
        ) from error
    if start < 0 or length < 0:
        raise ModelError(f"{path}: initializer {tensor.name} has offset {start}, length {length}; export it again")
    return start, length


def _entry(tensor: onnx.TensorProto, key: str) -> str:
    return next((str(entry.value) for entry in tensor.external_data if entry.key == key), "")
