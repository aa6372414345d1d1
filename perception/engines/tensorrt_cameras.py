"""Frames of several cameras that are taken together, as one CUDA graph with a branch for each camera."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pycuda.driver as cuda

from perception.engines.cuda_candidates import YoloxDetections
from perception.engines.cuda_device import CudaDevice
from perception.engines.cuda_frame import FrameLayout
from perception.engines.cuda_graph import Launch
from perception.engines.engine import TensorInfo
from perception.engines.lending import Pixels
from perception.engines.tensorrt_frames import FrameInput, FrameMemory, FramePath
from perception.errors import SpecError
from perception.model_spec import ModelSpec
from perception.results import Detections

if TYPE_CHECKING:
    from perception.engines.tensorrt import TensorRtEngine


class Fork:
    """Work on several streams inside one: what is enqueued on `first` before goes before all, what comes after, after.

    Inside a capture the branches become parallel parts of one graph. Made and used inside the device's context.
    """

    def __init__(self, first: cuda.Stream, others: Sequence[cuda.Stream]) -> None:
        self._first, self._others = first, others
        self._begun = cuda.Event(cuda.event_flags.DISABLE_TIMING)
        self._ended = [cuda.Event(cuda.event_flags.DISABLE_TIMING) for _ in others]

    def run(self, branches: Sequence[Callable[[], None]]) -> None:
        """Enqueue a branch a stream, the first of them on `first`."""
        self._begun.record(self._first)
        for stream in self._others:
            stream.wait_for_event(self._begun)
        for branch in branches:
            branch()
        for stream, ended in zip(self._others, self._ended, strict=True):
            ended.record(stream)
            self._first.wait_for_event(ended)


class _OneLaunch:
    """Several cameras' work behind one launch.

    Attributes:
        stream: where it goes.
        enqueue: puts it there, piece by piece; inside the device's context.
    """

    stream: cuda.Stream
    enqueue: Callable[[], None]
    _device: CudaDevice
    _launch: Launch

    @property
    def why_no_graph(self) -> str:
        """Empty where all cameras are one CUDA graph; else why they are not."""
        return self._launch.why_not

    def detect(self) -> list[Detections]:
        """Run what lies in the buffers, and wait.

        Raises:
            EngineError: the engine failed, or gave numbers that are none.
        """
        with self._device.current("running frames of several cameras"):
            self._launch.start()
            self._wait()
        return self.read()

    def read(self) -> list[Detections]:
        """What was found in the frames that just finished, camera by camera; see `detect`."""
        raise NotImplementedError

    def _wait(self) -> None:
        raise NotImplementedError


class ForkedCameras(_OneLaunch):
    """One frame of each of several paths as one launch: every path keeps its context, its stream and its buffers."""

    def __init__(self, paths: Sequence[FramePath], frames: Sequence[Pixels], engine: TensorRtEngine) -> None:
        """Capture the graph.

        Args:
            paths: opened with a score threshold; they stay the caller's.
            frames: a lent buffer of each, to be filled again and again.
            engine: theirs; closed with it at the latest.

        Raises:
            EngineError: the capture failed.
        """
        self._paths, self._device, self.stream = paths, engine.device, paths[0].stream
        with self._device.current("opening cameras together"):
            fork = Fork(self.stream, [path.stream for path in paths[1:]])
            branches = [_branch(path, pixels) for path, pixels in zip(paths, frames, strict=True)]
            self.enqueue = partial(fork.run, branches)
            self._launch = Launch(self.stream, self.enqueue)
        engine.closes_first(self)

    def read(self) -> list[Detections]:
        """See `_OneLaunch.read`."""
        return [path.detections() for path in self._paths]

    def _wait(self) -> None:
        self._paths[0].wait()

    def close(self) -> None:
        """Give the graph back. A second call does nothing."""
        with self._device.current("closing cameras"):
            self._launch.close()


def _branch(path: FramePath, pixels: Pixels) -> Callable[[], None]:
    return lambda: path.enqueue(pixels)


class BatchedCameras(_OneLaunch):
    """One frame of each of several cameras through an engine whose batch they fill, as one launch.

    Pictures are copied and prepared on a stream each, the network runs once over all of them.

    Attributes:
        frames: a pinned buffer a camera, to be filled again and again.
    """

    def __init__(
        self,
        engine: TensorRtEngine,
        spec: ModelSpec,
        layouts: Sequence[FrameLayout],
        *,
        memory: FrameMemory,
        score_threshold: float,
    ) -> None:
        """Allocate, compile and capture; closed with the engine at the latest.

        Args:
            engine: built for a batch of as many pictures as there are layouts.
            spec: how it is fed, picture by picture.
            layouts: of each camera's frames.
            memory: see `FramePath`.
            score_threshold: see `FramePath`.

        Raises:
            EngineError: the GPU, a kernel or the capture failed.
            SpecError: the engine's batch is another, or its decoder has no kernel.
        """
        tensor = next(tensor for tensor in engine.inputs if tensor.name == spec.picture.tensor)
        if tensor.shape != (len(layouts), *spec.picture.shape[1:]):
            raise SpecError(
                f"{spec.name}: input {tensor.name} is {list(tensor.shape)}, expected "
                f"{[len(layouts), *spec.picture.shape[1:]]} for {len(layouts)} cameras; build it with that batch"
            )
        self._device = engine.device
        with self._device.current("opening cameras in a batch"), ExitStack() as undo:
            self._lane = engine.open_lane()
            undo.callback(self._lane.close)
            self._inputs = [FrameInput(spec, layout, self._device, buffers=1, memory=memory) for layout in layouts]
            self._found = [
                YoloxDetections(
                    spec, self._lane, self._device, camera.geometry, score_threshold=score_threshold, number=number
                )
                for number, camera in enumerate(self._inputs)
            ]
            self._streams = [self._lane.stream, *(cuda.Stream() for _ in layouts[1:])]
            self._fork = Fork(self._streams[0], self._streams[1:])
            self.frames = [each.buffers[0] for each in self._inputs]
            self.stream, self.enqueue = self._lane.stream, self._enqueuing(tensor)
            self._launch = Launch(self.stream, self.enqueue)
            undo.pop_all()
        engine.closes_first(self)

    def read(self) -> list[Detections]:
        """See `_OneLaunch.read`."""
        return [found.read() for found in self._found]

    def _wait(self) -> None:
        self._lane.wait()

    def close(self) -> None:
        """Give everything back. A second call does nothing."""
        with self._device.current("closing cameras"):
            self._launch.close()
            for camera in self._inputs:
                camera.close()
            self._found = []
            self._lane.close()

    def _enqueuing(self, tensor: TensorInfo) -> Callable[[], None]:
        """The whole work: in, network, out."""
        picture_bytes = int(np.prod(tensor.shape[1:])) * np.dtype(tensor.dtype).itemsize
        first = self._lane.addresses[tensor.name]

        def bring(number: int) -> Callable[[], None]:
            camera, stream, address = self._inputs[number], self._streams[number], first + number * picture_bytes
            return lambda: camera.enqueue(camera.buffers[0], address, stream)

        def find(number: int) -> Callable[[], None]:
            return lambda: self._found[number].enqueue(self._streams[number])

        numbers = range(len(self._inputs))
        bringing, finding = [bring(number) for number in numbers], [find(number) for number in numbers]

        def enqueue() -> None:
            self._fork.run(bringing)
            self._lane.enqueue_network()
            self._fork.run(finding)

        return enqueue
