"""Build a TensorRT plan on the vehicle: `python -m perception.engines.tensorrt_build FOLDER`.

Reads `model.onnx` and `options.json` in FOLDER and writes `engine.plan` beside them. The model says its precision
itself, by explicit Q/DQ; `half` lets TensorRT before 11 use FP16 for the rest. Untested on a vehicle.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tensorrt as trt

from perception.engines.trt_versions import traits_of
from perception.files import write_atomically

_WORKSPACE_BYTES = 1 << 30


def main(folder: str) -> int:
    """Build; the exit status is 0 where a plan was written."""
    work = Path(folder)
    options = json.loads((work / "options.json").read_text())
    log = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(log)
    flags = sum(
        1 << int(getattr(trt.NetworkDefinitionCreationFlag, name)) for name in traits_of(trt.__version__).network_flags
    )
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, log)
    if not parser.parse((work / "model.onnx").read_bytes()):
        sys.stderr.write(f"{parser.get_error(0).desc()}\n")
        return 1
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(options.get("workspace_bytes", _WORKSPACE_BYTES)))
    for name in options.get("flags", ()):
        config.set_flag(getattr(trt.BuilderFlag, name))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return 1
    write_atomically(work / "engine.plan", bytes(plan))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
