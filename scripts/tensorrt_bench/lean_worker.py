"""Runs a release's plan with TensorRT's lean runtime.

    python -m scripts.tensorrt_bench.lean_worker RELEASE KEY FEEDS ANSWERS

Imports no other TensorRT: two releases of its libraries in one process are one too many.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from securesystemslib.signer import SSlibKey

from perception.errors import VerificationError
from perception.release_client import verify_release

REFUSED = 3


def main(release: str, key: str, feeds: str, answers: str) -> int:
    """Verify, and only then open; `REFUSED` where it is not verified."""
    try:
        keys = {
            key_id: SSlibKey.from_dict(key_id, fields) for key_id, fields in json.loads(Path(key).read_text()).items()
        }
        plan = verify_release(Path(release), keys).package.engine_bytes
    except VerificationError as error:
        sys.stdout.write(f"refused: {error}\n")
        return REFUSED
    import pycuda.driver as cuda
    import tensorrt_lean_bindings as trt

    cuda.init()
    context = cuda.Device(0).retain_primary_context()
    context.push()
    try:
        with np.load(feeds) as stored:
            np.savez(answers, **run(plan, dict(stored), trt, cuda))
    finally:
        context.pop()
    sys.stdout.write(f"tensorrt_lean {trt.__version__}: verified, opened, run\n")
    return 0


def run(plan: bytes, feeds: dict[str, Any], trt: Any, cuda: Any) -> dict[str, Any]:  # noqa: ANN401
    """One inference by a TensorRT of any kind."""
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise RuntimeError("the runtime refuses the plan")
    context, stream = engine.create_execution_context(), cuda.Stream()
    arrays, addresses = {}, {}
    for number in range(engine.num_io_tensors):
        name = engine.get_tensor_name(number)
        array = feeds.get(name)
        arrays[name] = (
            np.zeros(tuple(engine.get_tensor_shape(name)), trt.nptype(engine.get_tensor_dtype(name)))
            if array is None
            else array
        )
        addresses[name] = cuda.mem_alloc(arrays[name].nbytes)
        cuda.memcpy_htod(addresses[name], np.ascontiguousarray(arrays[name]))
        context.set_tensor_address(name, int(addresses[name]))
    context.execute_async_v3(stream.handle)
    stream.synchronize()
    for name, array in arrays.items():
        cuda.memcpy_dtoh(array, addresses[name])
    del context, engine
    return {name: array for name, array in arrays.items() if name not in feeds}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
