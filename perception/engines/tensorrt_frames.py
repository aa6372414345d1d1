"""A camera's frame in, tensors or detections out, as one CUDA graph: copy, prepare, network, decode, answer."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import pycuda.driver as cuda

from perception.engines.cuda_candidates import YoloxDetections
from perception.engines.cuda_device import CudaDevice, pinned
from perception.engines.cuda_frame import FrameKernel, FrameLayout, plan_frame
from perception.engines.cuda_graph import Launch
from perception.engines.cuda_registered import Registered
from perception.engines.engine import Tensors
from perception.engines.lending import Lender, Pixels
from perception.model_spec import ModelSpec
from perception.preprocess import size_tensor
from perception.results import Detections

if TYPE_CHECKING:
    from perception.engines.tensorrt import TensorRtEngine

QUEUED = 32  # launches that wait for the GPU while it is timed
FrameMemory: TypeAlias = Literal["copied", "mapped"]


class FrameInput:
    """Pinned buffers for one camera's frames, and their way to a tensor. Made, used and closed inside the context."""

    def __init__(
        self,
        spec: ModelSpec,
        layout: FrameLayout,
        device: CudaDevice,
        *,
        buffers: int,
        memory: FrameMemory,
    ) -> None:
        """Allocate and compile; see `FramePath`."""
        plan = plan_frame(layout, spec.picture)
        self.geometry = plan.geometry
        self.buffers: list[Pixels] = [pinned(layout.shape, "uint8") for _ in range(buffers)]
        self._addresses = {each.ctypes.data: int(each.base.get_device_pointer()) for each in self.buffers}  # type: ignore[union-attr]
        self._kernel = FrameKernel(plan, layout, device)
        self._copy = cuda.mem_alloc(prod(layout.shape)) if memory == "copied" else None

    def enqueue(self, pixels: Pixels, tensor_address: int, stream: cuda.Stream) -> None:
        """Put the work on the stream: from one of the buffers to the network's tensor."""
        if self._copy is None:
            address = self._addresses[pixels.ctypes.data]
        else:
            address = int(self._copy)
            cuda.memcpy_htod_async(self._copy, pixels, stream)
        self._kernel.enqueue(address, tensor_address, stream)

    def adopt(self, pixels: Pixels, memory: Registered) -> None:
        """One more buffer, in memory of somebody else's."""
        self.buffers.append(pixels)
        self._addresses[pixels.ctypes.data] = memory.address_of(pixels.ctypes.data)

    def close(self) -> None:
        """Free what is on the GPU; buffers that are still held keep their memory."""
        self.buffers = []
        self._kernel = None  # type: ignore[assignment]
        if self._copy is not None:
            self._copy.free()
            self._copy = None


class FramePath:
    """Frames of one camera through one engine, which stays the caller's; closing it closes its paths first."""

    def __init__(
        self,
        engine: TensorRtEngine,
        spec: ModelSpec,
        layout: FrameLayout,
        *,
        buffers: int = 3,
        memory: FrameMemory = "copied",
        score_threshold: float | None = None,
    ) -> None:
        """Allocate buffers, compile the kernels and capture a graph; further buffers' with their first frame.

        Args:
            engine: an open engine.
            spec: how it is fed.
            layout: of the frames.
            buffers: how many frames may be out with their source at once.
            memory: `copied` sends the whole frame to the GPU; `mapped` lets the kernel read what it needs from the
                host's memory, which on an integrated GPU is its own.
            score_threshold: find detections from this score on, on the GPU, in place of copying the raw outputs
                (`detect`); None gives the raw outputs (`infer`).

        Raises:
            EngineError: the GPU, a kernel or the capture failed.
            SpecError: `score_threshold` is given for a decoder that has no kernel.
        """
        self.memory = memory
        self._engine, self._device = engine, engine.device
        self._running = self._device.current("running a frame")
        with self._device.current("opening a camera's path"), ExitStack() as undo:
            self._lane = engine.open_lane()
            undo.callback(self._lane.close)
            self._input = FrameInput(spec, layout, self._device, buffers=buffers, memory=memory)
            self._tensor = self._lane.addresses[spec.picture.tensor]
            if spec.size_input is not None:
                size = size_tensor(spec.picture, spec.size_input)
                cuda.memcpy_htod(self._lane.addresses[spec.size_input.tensor], size)
            self.geometry = self._input.geometry
            self._found: YoloxDetections | None = None
            if score_threshold is not None:
                self._found = YoloxDetections(
                    spec, self._lane, self._device, self.geometry, score_threshold=score_threshold
                )
            self._lender = Lender(self._input.buffers)
            self._own: Pixels | None = None
            self._adopted: dict[int, int] = {}
            self._shape = layout.shape
            self._launches = {0: self._captured(0)}
            undo.pop_all()
        engine.closes_first(self)

    @property
    def stream(self) -> cuda.Stream:
        """Where its work goes."""
        return self._lane.stream

    @property
    def why_no_graph(self) -> str:
        """Empty where a frame is one CUDA graph; else why it is not."""
        return next((launch.why_not for launch in self._launches.values() if launch.why_not), "")

    @property
    def answers(self) -> Tensors:
        """Every output of the frame that just finished, until the next; not copied where there is a score threshold."""
        return self._lane.answers

    def lend(self) -> Pixels:
        """A pinned buffer for a source to decode or capture into; see `Lender.lend`."""
        return self._lender.lend()

    def give_back(self, pixels: Pixels) -> None:
        """Take a lent buffer back; see `Lender.give_back`."""
        self._lender.give_back(pixels)

    def lend_while_held(self) -> Pixels | None:
        """A pinned buffer that comes back by itself; see `Lender.lend_while_held`."""
        return self._lender.lend_while_held()

    def adopt(self, memory: Registered) -> None:
        """Take frames from the starts of these slots where they lie, and capture a graph for each of them now.

        Raises:
            EngineError: a capture failed.
        """
        size = prod(self._shape)
        for slot in memory.memory if size <= memory.memory.shape[1] else ():
            pixels = slot[:size].reshape(self._shape)
            number = self._adopted[pixels.ctypes.data] = len(self._input.buffers)
            self._input.adopt(pixels, memory)
            with self._device.current("opening a slot's graph"):
                self._launches[number] = self._captured(number)

    def brought(self, pixels: Pixels) -> Pixels:
        """The buffer that holds this picture: the one it lies in, else one that is kept to copy it to.

        Raises:
            RuntimeError: no buffer can be kept, since all were lent before the first call.
        """
        number = self._found_at(pixels)
        if number is not None:
            return self._input.buffers[number]
        if self._own is None:
            self._own = self._lender.lend()
        np.copyto(self._own, pixels)
        return self._own

    def infer(self, pixels: Pixels) -> Tensors:
        """Run one frame that lies in a lent buffer.

        Returns:
            Every output by name; the arrays hold until the next call. Empty where detections are found instead.

        Raises:
            EngineError: the engine failed.
            ValueError: the pixels are in no buffer of this path.
        """
        self.run(pixels)
        return self._lane.answers

    def detect(self, pixels: Pixels) -> Detections:
        """Run one frame that lies in a lent buffer, all the way to boxes in source pixels.

        Raises:
            EngineError: the engine failed, or gave numbers that are none.
            RuntimeError: the path was opened without `score_threshold`.
        """
        self.run(pixels)
        return self.detections()

    def run(self, pixels: Pixels) -> None:
        """Run one frame that lies in a lent buffer, and wait for it."""
        launch = self._launch_of(pixels)
        with self._running:
            launch.start()
            self._lane.wait()

    def start(self, pixels: Pixels) -> None:
        """Start a frame without waiting, for several cameras at once."""
        launch = self._launch_of(pixels)
        with self._running:
            launch.start()

    def wait(self) -> None:
        """Wait for what `start` started."""
        with self._running:
            self._lane.wait()

    def detections(self) -> Detections:
        """What was found in the frame that just finished; see `detect`."""
        if self._found is None:
            raise RuntimeError("detect: the path was opened without score_threshold; give one, or call infer")
        return self._found.read()

    def enqueue(self, pixels: Pixels) -> None:
        """Put a frame's whole work on `stream`, piece by piece; inside the device's context."""
        self._input.enqueue(pixels, self._tensor, self.stream)
        self._lane.enqueue_network()
        if self._found is None:
            self._lane.enqueue_answers()
        else:
            self._found.enqueue(self.stream)

    def gpu_times_ms(self, pixels: Pixels, count: int) -> list[float]:
        """What the GPU takes for a frame by its own clock, launches queued so that it never waits for the host."""
        launch = self._launch_of(pixels)
        times_ms: list[float] = []
        with self._device.current("timing frames"):
            marks = [cuda.Event() for _ in range(QUEUED + 1)]
            while len(times_ms) < count:
                batch = marks[: count - len(times_ms) + 1]
                for mark in batch:
                    launch.start()
                    mark.record(self.stream)
                batch[-1].synchronize()
                times_ms += [float(later.time_since(earlier)) for earlier, later in pairwise(batch)]
        return times_ms

    def close(self) -> None:
        """Give everything back. A second call does nothing."""
        if not self._launches:
            return
        if self._own is not None:
            self._lender.give_back(self._own)
        if self._lender.close():
            self._device.outlive_frames()
        with self._device.current("closing a camera's path"):
            for launch in self._launches.values():
                launch.close()
            self._launches = {}
            self._input.close()
            self._found = None
            self._lane.close()
        self._engine.forget(self._lane)
        self._engine.forget(self)

    def _launch_of(self, pixels: Pixels) -> Launch:
        number = self._found_at(pixels)
        if number is None:
            number = self._lender.number_of(pixels)  # says what is wrong
        launch = self._launches.get(number)
        if launch is None:
            with self._device.current("opening a buffer's graph"):
                launch = self._launches[number] = self._captured(number)
        return launch

    def _found_at(self, pixels: Pixels) -> int | None:
        number = self._lender.found(pixels)
        if number is None and self._adopted and pixels.shape == self._shape and pixels.flags.c_contiguous:
            return self._adopted.get(pixels.ctypes.data)
        return number

    def _captured(self, number: int) -> Launch:
        frame = self._input.buffers[number]
        return Launch(self.stream, lambda: self.enqueue(frame))
