"""A camera's frame in, tensors out, as one CUDA graph: copy, prepare, network, decode candidates, copy back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Literal, TypeAlias

import pycuda.driver as cuda

from perception.decoders.boxes import Candidates, Selection
from perception.engines.cuda_candidates import YoloxCandidates
from perception.engines.cuda_device import pinned
from perception.engines.cuda_frame import FrameKernel, FrameLayout, plan_frame
from perception.engines.cuda_graph import Launch
from perception.engines.engine import Tensors
from perception.engines.lending import Lender, Pixels
from perception.engines.tensorrt import TensorRtEngine
from perception.model_spec import ModelSpec
from perception.results import Detections

FrameMemory: TypeAlias = Literal["copied", "mapped"]


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
        """Allocate buffers, compile the kernels and capture one graph a buffer.

        Args:
            engine: an open engine.
            spec: how it is fed; it has the picture as its only input.
            layout: of the frames.
            buffers: how many frames may be out with their source at once.
            memory: `copied` sends the whole frame to the GPU; `mapped` lets the kernel read what it needs from the
                host's memory, which on an integrated GPU is its own.
            score_threshold: decode candidates from this score on, on the GPU, in place of copying the raw outputs
                (`detect`); None gives the raw outputs (`infer`).

        Raises:
            EngineError: the GPU, a kernel or the capture failed.
            SpecError: `score_threshold` is given for a decoder that has no kernel.
        """
        self._device = engine.device
        plan = plan_frame(layout, spec.picture)
        self.geometry = plan.geometry
        self._selection = Selection(spec.decoding)
        with ExitStack() as undo, self._device.current("opening a camera's path"):
            self._lane = engine.open_lane()
            undo.callback(self._lane.close)
            self._tensor = self._lane.addresses[spec.picture.tensor]
            self._kernel = FrameKernel(plan, layout, self._device)
            self._candidates = (
                None if score_threshold is None else YoloxCandidates(spec, self._lane, self._device, score_threshold)
            )
            self._frame_memory = cuda.mem_alloc(pinned_bytes(layout)) if memory == "copied" else None
            frames = [pinned(layout.shape, "uint8") for _ in range(buffers)]
            self._lender = Lender(frames)
            self._launches = [Launch(self._lane.stream, self._work(frame)) for frame in frames]
            undo.pop_all()
        engine.closes_first(self)

    @property
    def why_no_graph(self) -> str:
        """Empty where a frame is one CUDA graph; else why it is not."""
        return next((launch.why_not for launch in self._launches if launch.why_not), "")

    def lend(self) -> Pixels:
        """A pinned buffer for a source to decode or capture into; see `Lender.lend`."""
        return self._lender.lend()

    def give_back(self, pixels: Pixels) -> None:
        """Take a lent buffer back; see `Lender.give_back`."""
        self._lender.give_back(pixels)

    def infer(self, pixels: Pixels) -> Tensors:
        """Run one frame that lies in a lent buffer.

        Returns:
            Every output by name; the arrays hold until the next call. Empty where candidates are decoded instead.

        Raises:
            EngineError: the engine failed.
            ValueError: the pixels are in no buffer of this path.
        """
        self._run(pixels)
        return self._lane.answers

    def detect(self, pixels: Pixels) -> Detections:
        """Run one frame that lies in a lent buffer, all the way to boxes in source pixels.

        Raises:
            EngineError: the engine failed, gave numbers that are none, or more candidates than there is room for.
            RuntimeError: the path was opened without `score_threshold`.
        """
        candidates = self._decoded_on_device()
        self._run(pixels)
        return self._detections(candidates)

    def close(self) -> None:
        """Give everything back. A second call does nothing."""
        if not self._launches:
            return
        self._lender.close()
        with self._device.current("closing a camera's path"):
            for launch in self._launches:
                launch.close()
            self._launches = []
            self._lane.close()
            if self._frame_memory is not None:
                self._frame_memory.free()
            self._kernel = self._candidates = None  # type: ignore[assignment]

    def start(self, pixels: Pixels) -> None:
        """Start a frame without waiting, for several cameras at once; `finish_detections` waits for it."""
        launch = self._launches[self._lender.number_of(pixels)]
        with self._device.current("running a frame"):
            launch.start()

    def finish_detections(self) -> Detections:
        """Wait for what `start` started; the rest is `detect`'s.

        Raises:
            EngineError: see `detect`.
            RuntimeError: the path was opened without `score_threshold`.
        """
        candidates = self._decoded_on_device()
        with self._device.current("running a frame"):
            self._lane.wait()
        return self._detections(candidates)

    def gpu_times_ms(self, pixels: Pixels, count: int) -> list[float]:
        """What the GPU takes for a frame, from the first copy to the last, by its own clock; for measurements."""
        launch = self._launches[self._lender.number_of(pixels)]
        times_ms = []
        with self._device.current("timing frames"):
            first, last = cuda.Event(), cuda.Event()
            for _ in range(count):
                first.record(self._lane.stream)
                launch.start()
                last.record(self._lane.stream)
                last.synchronize()
                times_ms.append(float(last.time_since(first)))
        return times_ms

    def _run(self, pixels: Pixels) -> None:
        launch = self._launches[self._lender.number_of(pixels)]
        with self._device.current("running a frame"):
            launch.start()
            self._lane.wait()

    def _decoded_on_device(self) -> YoloxCandidates:
        if self._candidates is None:
            raise RuntimeError("detect: the path was opened without score_threshold; give one, or call infer")
        return self._candidates

    def _detections(self, candidates: YoloxCandidates) -> Detections:
        found: Candidates = candidates.read()
        return self._selection(found, self.geometry) if len(found.scores) else Detections.empty()

    def _work(self, frame: Pixels) -> Callable[[], None]:
        def enqueue() -> None:
            stream = self._lane.stream
            if self._frame_memory is None:
                address = int(frame.base.get_device_pointer())  # type: ignore[union-attr]
            else:
                address = int(self._frame_memory)
                cuda.memcpy_htod_async(self._frame_memory, frame, stream)
            self._kernel.enqueue(address, self._tensor, stream)
            self._lane.enqueue_network()
            if self._candidates is None:
                self._lane.enqueue_answers()
            else:
                self._candidates.enqueue(stream)

        return enqueue


def pinned_bytes(layout: FrameLayout) -> int:
    """Bytes of one frame."""
    size = 1
    for side in layout.shape:
        size *= side
    return size
