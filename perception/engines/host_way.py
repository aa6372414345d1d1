"""The way of frames that every engine has: prepared on the CPU, fed as tensors, decoded on the CPU."""

from __future__ import annotations

from perception.decode import open_decoder
from perception.engines.engine import Engine, Tensors
from perception.engines.lending import Pixels
from perception.model_spec import ModelSpec
from perception.preprocess import Prepared, Preprocessor
from perception.results import Result


class HostWay:
    """See `FrameWay`. The engine stays the caller's."""

    def __init__(self, engine: Engine, spec: ModelSpec, *, score_threshold: float, why: str = "") -> None:
        """Allocate every buffer.

        Args:
            engine: an open engine.
            spec: how it is fed and read.
            score_threshold: report detections from this score on.
            why: the reason where the engine knows a better way that is barred.
        """
        self._engine = engine
        self._preprocessor = Preprocessor(spec.picture, spec.size_input)
        self._decoder = open_decoder(spec, engine.outputs)
        self._score_threshold = score_threshold
        self.told = "frames are prepared and decoded on the CPU" + (f": {why}" if why else "")
        self._prepared: Prepared
        self._size_px = (0, 0)
        self._answers: Tensors = {}

    def prepare(self, pixels: Pixels) -> Tensors:
        """The tensors a picture is fed as; they hold until the next picture."""
        return self._preprocessor.prepare(pixels).feeds

    def bring(self, pixels: Pixels) -> None:
        """See `FrameWay.bring`."""
        self._prepared = self._preprocessor.prepare(pixels)
        self._size_px = (pixels.shape[1], pixels.shape[0])

    def infer(self) -> None:
        """See `FrameWay.infer`."""
        self._answers = self._engine.infer(self._prepared.feeds)

    def result(self) -> Result:
        """See `FrameWay.result`."""
        return self._decoder(self._answers, self._prepared.geometry, self._size_px, self._score_threshold)

    def lend(self, shape: tuple[int, ...]) -> None:
        """See `FrameWay.lend`: a picture is prepared from wherever it lies."""

    def adopt(self, memory: Pixels) -> None:
        """See `FrameWay.adopt`: nothing is to be done."""
