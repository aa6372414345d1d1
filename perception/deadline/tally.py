"""What a run amounted to: statuses, ages, stages, gaps; by model and camera."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from perception.latency import LatencyRecorder
from perception.pipeline import FrameResult, Status
from perception.results import Detections

STAGES = ("waited", "preprocess", "infer", "decode")
MISSES = (Status.LATE, Status.SKIPPED, Status.STALE)


@dataclass(slots=True)
class Stream:
    """One model on one camera.

    Attributes:
        frames: how many of each status.
        age: from capture to publication, of every frame's own result.
        longest_gap_ns: between two of the model's own results on this camera.
    """

    frames: Counter[Status] = field(default_factory=Counter)
    age: LatencyRecorder = field(default_factory=LatencyRecorder)
    longest_gap_ns: int = 0
    _last_ns: int | None = None

    def add(self, outcome: FrameResult) -> None:
        """Count one frame."""
        self.frames[outcome.status] += 1
        if outcome.result is None or outcome.status is Status.STALE:
            return
        self.age.record(max(0, outcome.age_ns))
        finished_ns = outcome.instants.finished_ns
        if self._last_ns is not None:
            self.longest_gap_ns = max(self.longest_gap_ns, finished_ns - self._last_ns)
        self._last_ns = finished_ns

    @property
    def total(self) -> int:
        """Frames of every status."""
        return sum(self.frames.values())

    @property
    def missed(self) -> int:
        """Frames whose own result was not there in time, for want of time; faults of a camera are not counted."""
        return sum(self.frames[status] for status in MISSES)

    def to_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "frames": {status.value: self.frames[status] for status in Status},
            "miss_ratio": self.missed / self.total if self.total else 0.0,
            "age_ms": self.age.to_dict(),
            "longest_gap_ms": self.longest_gap_ns / 1e6,
        }


class RunTally:
    """Streams by model and camera, and stages by model."""

    def __init__(self) -> None:
        self.streams: dict[tuple[str, str], Stream] = {}
        self.stages: dict[tuple[str, str], LatencyRecorder] = {}
        self.detections = 0

    def add(self, outcome: FrameResult) -> None:
        """Count one published frame."""
        self.streams.setdefault((outcome.model, outcome.frame.camera_id), Stream()).add(outcome)
        if outcome.result is None or outcome.status is Status.STALE:
            return
        for stage in STAGES:
            recorder = self.stages.setdefault((outcome.model, stage), LatencyRecorder())
            recorder.record(getattr(outcome.timings, f"{stage}_ns"))
        if isinstance(outcome.result, Detections):
            self.detections += len(outcome.result)

    def count(self, *statuses: Status) -> int:
        """Frames of these statuses, of all streams."""
        return sum(stream.frames[status] for stream in self.streams.values() for status in statuses)

    def age_of(self, model: str) -> LatencyRecorder:
        """Ages of one model's own results, over all cameras."""
        merged = LatencyRecorder()
        for (name, _), stream in self.streams.items():
            if name == model:
                merged.merge(stream.age)
        return merged

    def to_dict(self) -> dict[str, object]:
        """For `--json`."""
        models = sorted({model for model, _ in self.streams})
        return {
            "models": {
                model: {
                    "age_ms": self.age_of(model).to_dict(),
                    "stages_ms": {
                        stage: self.stages[model, stage].to_dict() for stage in STAGES if (model, stage) in self.stages
                    },
                    "cameras": {camera: s.to_dict() for (name, camera), s in self.streams.items() if name == model},
                }
                for model in models
            },
            "detections": self.detections,
        }
