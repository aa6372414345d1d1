"""Frames of any size through one TensorRT engine: a `FramePath` for each size, in whichever memory measures faster."""

from __future__ import annotations

from math import inf
from statistics import median
from typing import TYPE_CHECKING, TypeAlias

from perception.decode import open_decoder
from perception.engines.cuda_candidates import has_kernel
from perception.engines.cuda_faults import KernelError
from perception.engines.cuda_frame import FrameLayout
from perception.engines.cuda_registered import Registered
from perception.engines.host_way import HostWay
from perception.engines.lending import Pixels
from perception.engines.tensorrt_frames import FrameMemory, FramePath
from perception.errors import EngineError
from perception.model_spec import ModelSpec
from perception.results import Result

if TYPE_CHECKING:
    from perception.engines.tensorrt import TensorRtEngine

MOST_SIZES, BUFFERS = 8, 5
_TURNS, _FRAMES_A_TURN = 4, 8

Shape: TypeAlias = tuple[int, ...]


class TensorRtWay:
    """See `FrameWay`. Everything of a frame happens on the GPU, but the suppression of duplicates.

    A decoder without a kernel reads the network's outputs on the CPU. Where the GPU's kernels cannot be compiled,
    frames are prepared on the CPU. `told` says which it is.
    """

    def __init__(self, engine: TensorRtEngine, spec: ModelSpec, *, score_threshold: float) -> None:
        """Remember how; a path is opened with the first frame of its size."""
        self._engine, self._spec, self._score_threshold = engine, spec, score_threshold
        self._on_gpu = has_kernel(spec, engine.outputs)
        self._decoder = open_decoder(spec, engine.outputs)
        self._paths: dict[Shape, FramePath] = {}
        self._host: HostWay | None = None
        self._adopted: Registered | None = None
        self._why_copied = ""
        self._path: FramePath
        self._shape: Shape = ()
        self._pixels: Pixels

    @property
    def told(self) -> str:
        """See `FrameWay.told`."""
        if self._host is not None:
            return self._host.told
        if not self._paths:
            return "frames are prepared on the GPU"
        decoded = "decoded to detections" if self._on_gpu else "their outputs decoded on the CPU"
        launched = self._path.why_no_graph or "one CUDA graph a frame"
        return f"frames are prepared on the GPU ({self._path.memory}), {decoded}; {launched}{self._why_copied}"

    def bring(self, pixels: Pixels) -> None:
        """See `FrameWay.bring`."""
        if pixels.shape != self._shape and self._host is None:
            self._turn_to(pixels.shape)
        if self._host is not None:
            self._host.bring(pixels)
            return
        self._pixels = self._path.brought(pixels)

    def infer(self) -> None:
        """See `FrameWay.infer`."""
        if self._host is not None:
            self._host.infer()
        else:
            self._path.run(self._pixels)

    def result(self) -> Result:
        """See `FrameWay.result`."""
        if self._host is not None:
            return self._host.result()
        if self._on_gpu:
            return self._path.detections()
        size_px = (self._shape[1], self._shape[0])
        return self._decoder(self._path.answers, self._path.geometry, size_px, self._score_threshold)

    def lend(self, shape: Shape) -> Pixels | None:
        """See `FrameWay.lend`: of a size that has come before, since a path is opened by the thread that runs it."""
        path = self._paths.get(shape)
        return None if path is None else path.lend_while_held()

    def adopt(self, memory: Pixels) -> None:
        """See `FrameWay.adopt`."""
        try:
            self._adopted = Registered.of(memory, self._engine.device)
        except EngineError as error:
            self._why_copied = f"; each is copied from shared memory first: {error}"
            return
        self._engine.closes_first(self._adopted)

    def _turn_to(self, shape: Shape) -> None:
        """Have a path for this size; the one that was opened first makes room where there are too many."""
        path, self._shape = self._paths.get(shape), ()
        if path is None:
            if len(self._paths) == MOST_SIZES:
                self._paths.pop(next(iter(self._paths))).close()
            try:
                path = self._opened(shape)
                if self._adopted is not None:
                    path.adopt(self._adopted)
            except KernelError as error:
                self._host = HostWay(self._engine, self._spec, score_threshold=self._score_threshold, why=str(error))
                return
            self._paths[shape] = path
        self._path, self._shape = path, shape

    def _opened(self, shape: Shape) -> FramePath:
        """A path in mapped memory on a GPU that shares the host's, else in whichever memory takes it less time."""
        layout = FrameLayout(shape[1], shape[0])
        mapped = self._path_in("mapped", layout)
        if self._engine.device.integrated:
            return mapped
        copied = self._path_in("copied", layout)
        faster, slower = (mapped, copied) if _sooner(mapped, copied) else (copied, mapped)
        slower.close()
        return faster

    def _path_in(self, memory: FrameMemory, layout: FrameLayout) -> FramePath:
        threshold = self._score_threshold if self._on_gpu else None
        return FramePath(self._engine, self._spec, layout, buffers=BUFFERS, memory=memory, score_threshold=threshold)


def _sooner(one: FramePath, other: FramePath) -> bool:
    """Whether a frame takes `one` less of the GPU's time: the best of some turns, since clocks may still be rising."""
    best_ms = [inf, inf]
    for _ in range(_TURNS):
        for side, path in enumerate((one, other)):
            pixels = path.lend()
            best_ms[side] = min(best_ms[side], median(path.gpu_times_ms(pixels, _FRAMES_A_TURN)))
            path.give_back(pixels)
    return best_ms[0] <= best_ms[1]
