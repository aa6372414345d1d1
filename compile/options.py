"""What may be asked of a compilation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from compile.calibration import DEFAULT_FRAMES, Selection
from compile.decide import Wish

EVALUATION_FRAMES = 96
FUSE_CHOICES = ("auto", "on", "off")
MAX_DROP_WITH_LABELS = 0.005
MAX_DROP_WITHOUT_LABELS = 0.01
MIN_AGREEMENT = 0.97  # above the default policy's 0.95: the gate wants a whole interval beyond its limit, not a point


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """What may be asked of a compilation; the same names as on the command line.

    Attributes:
        spec: the ModelSpec; None takes MODEL.yaml beside MODEL.onnx.
        shapes: input → its sides, for inputs that were exported with open ones.
        precision: `auto` lets the measurements decide.
        max_drop: greatest loss against float, as a share; None means 0.5 % of the task metric with labels, 1 % of what
            float reports without.
        min_agreement: least share of what float and INT8 report that both report; it binds where there are labels too,
            because AP50 on a few frames may rise by chance while the engine finds other objects.
        keep_float: shell patterns of node names that must stay float.
        frames: calibration frames.
        selection: how they are chosen.
        recording: frames to grade on; None holds out the last quarter of the calibration recordings.
        labels: ground truth of `recording`.
        class_map: which classes answer to which labels; None means that both call them the same.
        fuse: take bytes and normalise in the graph: `on`, `off`, or `auto` where it measures no slower.
        graded_frames: at most so many frames are graded on, evenly over the recording.
        timing_s: how long engines are timed side by side, in seconds.
        reference_output: folder of a float package, to compare with later; None writes none.
        budget_ms: the engine must take no longer, in the median; then the most accurate one that keeps it ships.
        time_limit_s: stop looking for better engines after so long and decide on what was found; None looks on.
        builder_level: of TensorRT, 0 to 5; None leaves it to the profile.
        cache: folder that keeps what was measured, for the next search; None keeps nothing.
    """

    spec: Path | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    precision: Wish = "auto"
    max_drop: float | None = None
    min_agreement: float = MIN_AGREEMENT
    graded_frames: int = EVALUATION_FRAMES
    keep_float: tuple[str, ...] = ()
    frames: int = DEFAULT_FRAMES
    selection: Selection = "diverse"
    recording: Path | None = None
    labels: Path | None = None
    class_map: Path | None = None
    fuse: str = "auto"
    timing_s: float = 6.0
    reference_output: Path | None = None
    budget_ms: float | None = None
    time_limit_s: float | None = None
    builder_level: int | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            ValueError: labels without a recording, or a value out of its range.
        """
        if self.labels is not None and self.recording is None:
            raise ValueError("labels: got no recording they belong to; give recording too")
        if self.class_map is not None and self.labels is None:
            raise ValueError("class_map: got no labels to map; give labels too")
        if self.max_drop is not None and not 0 <= self.max_drop < 1:
            raise ValueError(f"max_drop: got {self.max_drop}, expected a share from 0 to below 1")
        if not 0 <= self.min_agreement <= 1:
            raise ValueError(f"min_agreement: got {self.min_agreement}, expected a share from 0 to 1")
        if self.graded_frames < 1:
            raise ValueError(f"graded_frames: got {self.graded_frames}, expected at least 1")
        for name in ("budget_ms", "time_limit_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < inf:
                raise ValueError(f"{name}: got {value}, expected more than 0")
        if self.builder_level is not None and not 0 <= self.builder_level <= 5:
            raise ValueError(f"builder_level: got {self.builder_level}, expected 0 (fast build) to 5 (fast engine)")
        if self.fuse not in FUSE_CHOICES:
            raise ValueError(f"fuse: got {self.fuse!r}, expected one of {', '.join(FUSE_CHOICES)}")

    @property
    def max_loss(self) -> float:
        """The limit in force."""
        if self.max_drop is not None:
            return self.max_drop
        return MAX_DROP_WITHOUT_LABELS if self.labels is None else MAX_DROP_WITH_LABELS
