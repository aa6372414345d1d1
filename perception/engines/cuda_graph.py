"""A frame's whole work on the GPU as one launch.

PyCUDA cannot capture a stream; `cuda.bindings.driver` can, on the handle of PyCUDA's stream. Without it, or where the
work cannot be captured, everything is enqueued piece by piece at each frame: right, but slower and less even.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pycuda.driver as cuda

from perception.engines.cuda_faults import fault_of

try:
    from cuda.bindings import driver  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    driver = None

_LOG = logging.getLogger(__name__)


class Launch:
    """One frame's work, ready to be started again and again on its stream.

    Attributes:
        captured: whether it is one CUDA graph; else `why_not` says why it is enqueued piece by piece.
        why_not: empty where it is captured.
    """

    def __init__(self, stream: cuda.Stream, enqueue: Callable[[], None]) -> None:
        """Run the work once, as TensorRT asks before a capture, then capture it; inside the device's context."""
        enqueue()
        stream.synchronize()
        self._enqueue = enqueue
        self._executable: Any = None
        self.why_not = "cuda.bindings is not installed" if driver is None else ""
        if driver is not None:
            self._stream = driver.CUstream(stream.handle)
            self._capture()
        self.captured = self._executable is not None
        if self.captured:
            self.start()  # the first launch of a graph also carries it to the GPU
            stream.synchronize()
        if not self.captured:
            _LOG.warning("no CUDA graph: %s; frames are enqueued piece by piece, which is slower", self.why_not)

    def start(self) -> None:
        """Start the work; returns at once.

        Raises:
            EngineError: the launch was refused.
        """
        if self._executable is None:
            self._enqueue()
            return
        (status,) = driver.cuGraphLaunch(self._executable, self._stream)
        if status:
            raise fault_of(_name(status), doing="launching the frame's CUDA graph")

    def close(self) -> None:
        """Give the graph back; inside the device's context. A second call does nothing."""
        if self._executable is not None:
            driver.cuGraphExecDestroy(self._executable)
            self._executable = None

    def _capture(self) -> None:
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        (status,) = driver.cuStreamBeginCapture(self._stream, mode)
        if status:
            self.why_not = f"capture was refused ({_name(status)})"
            return
        refusal = ""
        try:
            self._enqueue()
        except Exception as error:  # noqa: BLE001  (whatever cannot be captured can still be enqueued)
            refusal = " ".join(str(error).split())[:200]
        status, graph = driver.cuStreamEndCapture(self._stream)
        if status or refusal:
            self.why_not = f"the work cannot be captured ({refusal or _name(status)})"
            return
        status, executable = driver.cuGraphInstantiate(graph, 0)
        driver.cuGraphDestroy(graph)
        if status:
            self.why_not = f"the graph was refused ({_name(status)})"
            return
        self._executable = executable


def _name(status: Any) -> str:  # noqa: ANN401  (cuda.bindings is untyped)
    return str(getattr(status, "name", status))
