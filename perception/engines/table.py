"""Which engine kinds exist, and how one is opened from a verified package."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from perception.engines.engine import Engine, Wait
from perception.errors import EngineError

ENGINES: dict[str, tuple[str, str]] = {
    "onnxrt": ("perception.engines.onnxrt", "OnnxRuntimeEngine"),
    "tensorrt": ("perception.engines.tensorrt", "TensorRtEngine"),
    "null": ("perception.engines.null", "NullEngine"),
}


def engine_class(kind: str) -> Any:  # noqa: ANN401  (constructors differ by kind)
    """The class of an engine kind; its libraries are imported only now.

    Raises:
        EngineError: unknown kind.
    """
    if kind not in ENGINES:
        raise EngineError(f"engine kind {kind!r} is unknown, expected one of {', '.join(ENGINES)}")
    module, name = ENGINES[kind]
    return getattr(import_module(module), name)


def open_engine(kind: str, content: bytes, *, threads: int, wait: Wait = "auto") -> Engine:
    """Open an engine from the bytes of its file.

    Args:
        kind: name in `ENGINES`.
        content: the engine file's bytes, already verified by whoever calls.
        threads: CPU threads the engine may use.
        wait: how a call waits.

    Raises:
        EngineError: unknown kind, missing library, or the bytes do not load.
    """
    engine: Engine = engine_class(kind).from_bytes(content, threads=threads, wait=wait)
    return engine
