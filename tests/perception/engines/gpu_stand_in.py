"""A GPU made of host memory: what PyCUDA, TensorRT and cuda.bindings are asked for, with the order CUDA gives it.

Work on a stream happens when somebody waits for it and not before; during a capture it is recorded. Calls outside a
context, copies that do not start or end in pinned memory, freed memory, branches of a capture that are not joined and
waiting inside a capture are refused. A plan is an ONNX file, run by ONNX Runtime. The frame kernel is the project's own
source, compiled as C++; those of candidates and detections are twins in NumPy, since threads that meet are slow.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType, SimpleNamespace

import numpy as np
import onnxruntime

import perception.engines
from perception.decoders.boxes import Selection
from perception.engines.cuda_candidates import candidates_of
from perception.engines.cuda_selection import HEADER, ROOM, TOLD
from perception.geometry import Geometry
from perception.model_spec import Decoding
from tests.perception.engines.cuda_on_cpu import library_of

OF_THE_GPU = tuple(
    f"perception.engines.{name}"
    for name in ("tensorrt", "tensorrt_way", "tensorrt_frames", "tensorrt_cameras", "tensorrt_lane", "cuda_device",
                 "cuda_graph", "cuda_registered")
)  # fmt: skip


class Error(Exception):
    """pycuda.driver.Error."""


class Gpu:
    """Everything that is there, and what was done."""

    def __init__(self) -> None:
        self.contexts = threading.local()
        self.memory: dict[int, object] = {}  # address → what lies on the GPU
        self.pinned: dict[int, int] = {}  # address → bytes
        self.streams: dict[int, Stream] = {}
        self.launches = 0
        self.copies_to_gpu_bytes = 0
        self.slept = 0
        self.refuses_captures = False
        self.refuses_to_lock = False
        self.integrated = 0
        self.left_over = 0

    def require_context(self) -> None:
        if not getattr(self.contexts, "stack", []):
            raise Error("invalid device context")


GPU = Gpu()


class Context:
    def push(self) -> None:
        GPU.contexts.stack = [*getattr(GPU.contexts, "stack", []), self]

    @staticmethod
    def pop() -> None:
        GPU.contexts.stack.pop()

    def detach(self) -> None:
        GPU.left_over = len(GPU.memory)


class Device:
    def __init__(self, number: int) -> None:
        assert number == 0

    def make_context(self, flags: int) -> Context:
        context = Context()
        context.push()
        return context

    def name(self) -> str:
        return "stand-in"

    def compute_capability(self) -> tuple[int, int]:
        return (9, 0)

    def get_attribute(self, attribute: object) -> int:
        return GPU.integrated


class Graph:
    def __init__(self, origin: Stream) -> None:
        self.origin, self.work = origin, []
        self.unjoined: set[Stream] = set()


class Stream:
    def __init__(self) -> None:
        GPU.require_context()
        self.handle = id(self)
        self.queue: deque = deque()
        self.graph: Graph | None = None
        GPU.streams[self.handle] = self

    def add(self, work) -> None:
        GPU.require_context()
        if self.graph is None:
            self.queue.append(work)
            return
        self.graph.work.append(work)
        if self is not self.graph.origin:
            self.graph.unjoined.add(self)

    def synchronize(self) -> None:
        GPU.require_context()
        if self.graph is not None:
            raise Error("operation not permitted when stream is capturing")
        while self.queue:
            self.queue.popleft()()

    def wait_for_event(self, event: Event) -> None:
        if event.graph is not None:
            if self.graph is None:
                self.graph = event.graph
                self.graph.unjoined.add(self)
            assert self.graph is event.graph
            if self is self.graph.origin:
                self.graph.unjoined.discard(event.stream)
            return
        mark, other = event.mark, event.stream
        self.add(lambda: run_until(other, mark))


def run_until(stream: Stream, mark: list) -> None:
    while not mark:
        stream.queue.popleft()()


class Event:
    def __init__(self, flags: int = 0) -> None:
        GPU.require_context()
        self.flags, self.mark, self.graph = flags, [], None

    def record(self, stream: Stream) -> None:
        self.stream, self.graph, self.mark = stream, stream.graph, []
        if self.graph is None:
            mark = self.mark
            stream.add(lambda: mark.append(time.perf_counter()))

    def synchronize(self) -> None:
        if self.graph is not None:
            raise Error("operation not permitted on an event last recorded in a capturing stream")
        GPU.slept += bool(self.flags & event_flags.BLOCKING_SYNC)
        run_until(self.stream, self.mark)

    def time_since(self, other: Event) -> float:
        assert not self.flags & event_flags.DISABLE_TIMING
        return 1e3 * (self.mark[0] - other.mark[0])


class Allocation:
    def __init__(self, size: int) -> None:
        GPU.require_context()
        self._bytes = (ctypes.c_char * max(1, size))()
        GPU.memory[int(self)] = self._bytes

    def __int__(self) -> int:
        return ctypes.addressof(self._bytes)

    def free(self) -> None:
        GPU.require_context()
        del GPU.memory[int(self)]

    def __del__(self) -> None:
        GPU.memory.pop(int(self), None)


class HostAllocation:
    """Pinned memory, as the base of an array."""

    def __init__(self, shape, dtype) -> None:
        GPU.require_context()
        size = int(np.prod(shape)) * dtype.itemsize
        self._bytes = (ctypes.c_char * (size + 64))()
        self._address = -(-ctypes.addressof(self._bytes) // 64) * 64
        GPU.pinned[self._address] = size
        kind = {"shape": tuple(shape), "typestr": dtype.str, "data": (self._address, False), "version": 3}
        self.__array_interface__ = kind

    def get_device_pointer(self) -> int:
        return self._address


def pagelocked_zeros(shape, dtype, mem_flags=0):
    return np.asarray(HostAllocation(shape, dtype))


def to_device(array):
    allocation = Allocation(array.nbytes)
    memcpy_htod(allocation, array)
    return allocation


def require_gpu(address: int, size: int) -> None:
    for start, memory in GPU.memory.items():
        if start <= address and address + size <= start + len(memory):
            return
    raise Error("an illegal memory access was encountered")


def require_pinned(array) -> None:
    start = array.ctypes.data
    if not any(first <= start and start + array.nbytes <= first + size for first, size in GPU.pinned.items()):
        raise Error("the host's memory is not pinned")


def memcpy_htod(target, array) -> None:
    GPU.require_context()
    require_gpu(int(target), array.nbytes)
    ctypes.memmove(int(target), array.ctypes.data, array.nbytes)


def memcpy_dtoh(array, source) -> None:
    GPU.require_context()
    require_gpu(int(source), array.nbytes)
    ctypes.memmove(array.ctypes.data, int(source), array.nbytes)


def memcpy_htod_async(target, array, stream) -> None:
    require_pinned(array)
    address, held = int(target), array

    def copy() -> None:
        GPU.copies_to_gpu_bytes += held.nbytes
        memcpy_htod(address, held)

    stream.add(copy)


def memcpy_dtoh_async(array, source, stream) -> None:
    require_pinned(array)
    address = int(source)
    stream.add(lambda: memcpy_dtoh(array, address))


def memset_d32_async(target, value, count, stream=None) -> None:
    address = int(target)
    require_gpu(address, 4 * count)
    stream.add(lambda: ctypes.memmove(address, np.full(count, value, np.uint32).ctypes.data, 4 * count))


C_TYPES = {"P": ("unsigned long", ctypes.c_void_p), "i": ("int", ctypes.c_int), "f": ("float", ctypes.c_float)}


class Function:
    def __init__(self, source: str, name: str) -> None:
        self._source, self._name = source, name

    def prepare(self, signature: str) -> None:
        self._signature = signature
        if self._name == "tensor_from_frame":
            self._run = compiled_for_cpu(self._source)
        else:
            twins = {"candidates_of_rows": candidates_twin, "detections_of_candidates": selection_twin}
            self._run = twins[self._name](self._source)

    def prepared_async_call(self, grid, block, stream, *arguments) -> None:
        assert len(arguments) == len(self._signature)
        assert all(
            isinstance(value, (int, np.integer)) if kind in "Pi" else isinstance(value, np.float32)
            for kind, value in zip(self._signature, arguments, strict=True)
        )
        stream.add(lambda: self._run(grid, *arguments))


@lru_cache
def compiled_for_cpu(source: str):
    folder = Path(mkdtemp())
    runner = """
extern "C" void run(int columns, int rows, const unsigned char* frame, STORED* tensor, const int* first_x,
    const float* weights_x, const int* first_y, const float* weights_y, const STORED* table, int width, int height)
{
    over_a_grid(columns, rows, [=] { tensor_from_frame(
        frame, tensor, first_x, weights_x, first_y, weights_y, table, width, height); });
}"""
    run = library_of([source, runner], folder).run
    return lambda grid, *arguments: run(
        ctypes.c_int(grid[0]), ctypes.c_int(grid[1]), *map(ctypes.c_void_p, arguments[:7]), *map(int, arguments[7:])
    )


def seen(address: int, shape: tuple[int, ...], dtype=np.float32):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


def candidates_twin(source: str):
    """What the kernel writes, in NumPy; its rows come in no particular order."""
    constants = dict(line.split()[1:] for line in source.splitlines() if line.startswith("#define"))
    count, classes, decoded = (int(constants[name]) for name in ("ROWS", "CLASSES", "DECODED"))

    def run(_grid, rows_at, cells_at, threshold, header_at, found_at) -> None:
        rows, cells = seen(rows_at, (count, 5 + classes)), seen(cells_at, (count, 3))
        header, found = seen(header_at, (HEADER,), np.int32), seen(found_at, (count, 8))
        header[1] += np.count_nonzero(~np.isfinite(rows))
        best = rows[:, 5:].argmax(axis=1)
        scores = rows[:, 4] * rows[:, 5:].max(axis=1)
        sure = np.random.default_rng(0).permutation(np.flatnonzero(scores >= threshold))
        header[0] += len(sure)
        boxes, stride = rows[sure, :4], cells[sure, 2:]
        centres = boxes[:, :2] if decoded else (boxes[:, :2] + cells[sure, :2]) * stride
        halves = (boxes[:, 2:] if decoded else np.exp(boxes[:, 2:]) * stride) * np.float32(0.5)
        out, bits = found[: len(sure)], found[: len(sure)].view(np.uint32)
        out[:, :2], out[:, 2:4], out[:, 4] = centres - halves, centres + halves, scores[sure]
        bits[:, 5], bits[:, 6], bits[:, 7] = best[sure], sure, ~scores[sure].view(np.uint32)

    return run


def selection_twin(source: str):
    """What the kernel writes, by the host's own selection; the header is cleared for the next frame."""
    of = dict(line.split()[1:] for line in source.splitlines() if line.startswith("#define"))
    decoding = Decoding(
        decoder="yolox", tensors={"output": "output"}, max_detections=int(of["MOST"]),
        nms_iou=float(of["IOU"]) if int(of["SUPPRESSES"]) else None,
        nms_across_classes=bool(int(of["ACROSS_CLASSES"])),
    )  # fmt: skip
    scales, offsets = (float(of["SCALE_X"]), float(of["SCALE_Y"])), (int(of["OFFSET_X"]), int(of["OFFSET_Y"]))
    geometry, select = Geometry(*scales, *offsets, 0, 0), Selection(decoding)

    def run(_grid, header_at, found_at, told_at, boxes_at, scores_at, classes_at) -> None:
        header = seen(header_at, (HEADER,), np.int32)
        count, bad = header.tolist()
        header[:] = 0
        seen(told_at, (TOLD,), np.int32)[:3] = 0, bad, count
        if count > ROOM or count == 0:
            return
        found = select(candidates_of(seen(found_at, (count * 8,)), count), geometry)
        kept = len(found)
        seen(told_at, (1,), np.int32)[0] = kept
        seen(boxes_at, (kept, 4))[:] = found.boxes_px
        seen(scores_at, (kept,))[:] = found.scores
        seen(classes_at, (kept,), np.int32)[:] = found.class_ids

    return run


class Module:
    def __init__(self, source: bytes) -> None:
        self._source = source.decode()

    def get_function(self, name: str) -> Function:
        assert f"{name}(" in self._source
        return Function(self._source, name)


event_flags = SimpleNamespace(DISABLE_TIMING=2, BLOCKING_SYNC=1, DEFAULT=0)


def driver_status(status: int, *more):
    return (status, *more)


def begin_capture(stream: Stream, _mode: object):
    if GPU.refuses_captures:
        return (900,)
    stream.graph = Graph(stream)
    return (0,)


def end_capture(stream: Stream):
    graph = stream.graph
    for each in GPU.streams.values():
        if each.graph is graph:
            each.graph = None
    return (904, None) if graph.unjoined else (0, graph)


def instantiate(graph: Graph, _flags: int):
    return 0, {"work": list(graph.work)}


def launch(executable: dict, stream: Stream):
    GPU.require_context()
    GPU.launches += 1
    work = executable["work"]
    if work is None:
        return (400,)
    stream.queue.append(lambda: [each() for each in work])
    return (0,)


def register(address: int, size: int, flags: int):
    GPU.require_context()
    assert (address % 4096, flags) == (0, 2)
    if GPU.refuses_to_lock or address in GPU.pinned:
        return (801 if GPU.refuses_to_lock else 712,)
    GPU.pinned[address] = size
    return (0,)


def unregister(address: int):
    GPU.require_context()
    del GPU.pinned[address]
    return (0,)


def destroy(executable: dict):
    executable["work"] = None
    return (0,)


class TrtContext:
    def __init__(self, engine: TrtEngine) -> None:
        self._engine, self._addresses, self.profiler = engine, {}, None

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in self._engine.tensors

    def execute_async_v3(self, handle: int) -> bool:
        GPU.streams[handle].add(self._run)
        return True

    def _run(self) -> None:
        engine = self._engine
        views = {name: seen(at, *engine.tensors[name][:2]) for name, at in self._addresses.items()}
        feeds = {name: views[name] for name in engine.inputs}
        for name, answer in zip(engine.outputs, engine.session.run(engine.outputs, feeds), strict=True):
            views[name][...] = answer


TYPES = {
    "tensor(float)": ("FLOAT", np.float32),
    "tensor(float16)": ("HALF", np.float16),
    "tensor(uint8)": ("UINT8", np.uint8),
    "tensor(int32)": ("INT32", np.int32),
    "tensor(int64)": ("INT64", np.int64),
}


class TrtEngine:
    def __init__(self, content: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        sides = self.session.get_inputs(), self.session.get_outputs()
        self.inputs, self.outputs = ([value.name for value in side] for side in sides)
        self.tensors = {v.name: (v.shape, TYPES[v.type][1], TYPES[v.type][0]) for side in sides for v in side}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, number: int) -> str:
        return list(self.tensors)[number]

    def get_tensor_shape(self, name: str):
        return self.tensors[name][0]

    def get_tensor_dtype(self, name: str):
        return SimpleNamespace(name=self.tensors[name][2])

    def get_tensor_mode(self, name: str) -> str:
        return "OUTPUT" if name in self.outputs else "INPUT"

    def create_execution_context(self) -> TrtContext:
        GPU.require_context()
        return TrtContext(self)


@lru_cache
def trt_engine(digest: str, content: bytes) -> TrtEngine:
    return TrtEngine(content)


class Runtime:
    def __init__(self, log: object) -> None:
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, content: bytes) -> TrtEngine:
        return trt_engine(hashlib.sha256(content).hexdigest(), content)


class ILogger:
    Severity = SimpleNamespace(ERROR=1, INTERNAL_ERROR=0)


def modules() -> dict[str, ModuleType]:
    """The stand-ins by the names they are imported by."""
    found = {}
    for name in ("pycuda", "pycuda.driver", "pycuda.compiler", "tensorrt", "cuda", "cuda.bindings"):
        found[name] = ModuleType(name)
    vars(found["pycuda.driver"]).update(
        Error=Error, Context=Context, Device=Device, Stream=Stream, Event=Event, init=lambda: None,
        CompileError=type("CompileError", (Error,), {}), mem_alloc=Allocation, pagelocked_zeros=pagelocked_zeros,
        to_device=to_device, memcpy_htod=memcpy_htod, memcpy_dtoh=memcpy_dtoh, memcpy_htod_async=memcpy_htod_async,
        memcpy_dtoh_async=memcpy_dtoh_async, memset_d32_async=memset_d32_async, module_from_buffer=Module,
        event_flags=event_flags, ctx_flags=SimpleNamespace(SCHED_SPIN=1, MAP_HOST=8),
        host_alloc_flags=SimpleNamespace(DEVICEMAP=2), device_attribute=SimpleNamespace(INTEGRATED=18),
    )  # fmt: skip
    found["pycuda.compiler"].compile = lambda source, arch, no_extern_c: source.encode()
    found["pycuda"].driver, found["pycuda"].compiler = found["pycuda.driver"], found["pycuda.compiler"]
    vars(found["tensorrt"]).update(
        __version__="8.6.0", ILogger=ILogger, Runtime=Runtime, TensorIOMode=SimpleNamespace(OUTPUT="OUTPUT")
    )
    found["cuda.bindings"].driver = SimpleNamespace(
        CUstream=lambda handle: GPU.streams[handle], cuStreamBeginCapture=begin_capture,
        CUstreamCaptureMode=SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1), cuStreamEndCapture=end_capture,
        cuGraphInstantiate=instantiate, cuGraphDestroy=lambda graph: (0,), cuGraphLaunch=launch,
        cuGraphExecDestroy=destroy, cuMemHostRegister=register, cuMemHostUnregister=unregister,
        cuMemHostGetDevicePointer=lambda address, flags: (0, address),
    )  # fmt: skip
    return found


@contextmanager
def installed():
    """Lend a fresh stand-in; what imports the GPU's libraries is imported anew inside, and forgotten after."""
    GPU.__init__()
    stand_ins = modules()
    before = {name: sys.modules.get(name) for name in (*stand_ins, *OF_THE_GPU)}
    for name in OF_THE_GPU:
        sys.modules.pop(name, None)
        vars(perception.engines).pop(name.rpartition(".")[2], None)
    sys.modules.update(stand_ins)
    try:
        yield GPU
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
