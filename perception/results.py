"""What a model says about one frame. Shapes are checked once, here; everybody after may rely on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True, slots=True)
class Detections:
    """Boxes found in one frame, best score first.

    Attributes:
        boxes_px: (N, 4) float32, x1 y1 x2 y2 in pixels of the source picture, not clipped to it.
        scores: (N,) float32 in 0..1, descending.
        class_ids: (N,) int32, index into the ModelSpec's classes.
    """

    boxes_px: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]

    def __post_init__(self) -> None:
        """Check shapes and dtypes.

        Raises:
            ValueError: the three arrays do not belong together.
        """
        count = self.scores.shape[0] if self.scores.ndim == 1 else -1
        if self.boxes_px.shape != (count, 4) or self.class_ids.shape != (count,):
            shapes = f"{self.boxes_px.shape}, {self.scores.shape}, {self.class_ids.shape}"
            raise ValueError(f"detections: got boxes, scores, classes of {shapes}, expected (N, 4), (N,), (N,)")

    def __len__(self) -> int:
        return len(self.scores)

    def __reduce__(self) -> tuple[object, tuple[bytes, bytes, bytes]]:
        """Pickle as bytes: a third of the time, and results travel between processes for every frame."""
        return _from_bytes, (
            self.boxes_px.astype(np.float32, copy=False).tobytes(),
            self.scores.astype(np.float32, copy=False).tobytes(),
            self.class_ids.astype(np.int32, copy=False).tobytes(),
        )

    @classmethod
    def empty(cls) -> Detections:
        """Nothing found."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))

    def at_least(self, score: float) -> Detections:
        """Those with a score of at least `score`."""
        keep = self.scores >= score
        return Detections(self.boxes_px[keep], self.scores[keep], self.class_ids[keep])

    def to_supervision(self) -> supervision.Detections:
        """As `supervision.Detections`, for its trackers and annotators (install `supervision` yourself)."""
        import supervision

        return supervision.Detections(
            xyxy=self.boxes_px, confidence=self.scores, class_id=self.class_ids.astype(np.int64)
        )

    @classmethod
    def from_supervision(cls, detections: supervision.Detections) -> Detections:
        """From `supervision.Detections`; missing scores count as 1, missing classes as 0."""
        count = len(detections)
        scores = np.ones(count) if detections.confidence is None else detections.confidence
        class_ids = np.zeros(count) if detections.class_id is None else detections.class_id
        order = np.argsort(-scores, kind="stable")
        return cls(
            detections.xyxy[order].astype(np.float32),
            scores[order].astype(np.float32),
            class_ids[order].astype(np.int32),
        )


def _from_bytes(boxes_px: bytes, scores: bytes, class_ids: bytes) -> Detections:
    return Detections(
        np.frombuffer(boxes_px, np.float32).reshape(-1, 4),
        np.frombuffer(scores, np.float32),
        np.frombuffer(class_ids, np.int32),
    )


@dataclass(frozen=True, slots=True)
class SegmentationMap:
    """One class for each cell of the network's output grid.

    Attributes:
        class_ids: (h, w) uint8, index into the ModelSpec's classes, at the resolution the network gives.
        width_px: width of the source picture in pixels.
        height_px: height of the source picture in pixels.
    """

    class_ids: NDArray[np.uint8]
    width_px: int
    height_px: int

    def __post_init__(self) -> None:
        """Check shape and dtype.

        Raises:
            ValueError: `class_ids` is not a uint8 map.
        """
        if self.class_ids.ndim != 2 or self.class_ids.dtype != np.uint8:
            raise ValueError(f"class_ids: got {self.class_ids.dtype} {self.class_ids.shape}, expected uint8 (h, w)")

    def at_source_size(self) -> NDArray[np.uint8]:
        """(height_px, width_px) uint8, by nearest neighbour."""
        rows = (np.arange(self.height_px) + 0.5) * self.class_ids.shape[0] / self.height_px
        columns = (np.arange(self.width_px) + 0.5) * self.class_ids.shape[1] / self.width_px
        return self.class_ids[np.ix_(rows.astype(np.intp), columns.astype(np.intp))]


Result: TypeAlias = Detections | SegmentationMap
