"""What ships: an engine's bytes and how it is fed, its input fused into the graph where that measures no slower."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from pydantic import JsonValue

from compile.backends.onnxrt import build, opened
from compile.candidate import Candidate
from compile.fuse import can_fuse, fuse_input
from compile.grading import NO_DEADLINE_NS
from compile.job import Job
from compile.parity import Subject
from compile.store import Key
from compile.timing import Latency, time_side_by_side
from perception.files import sha256_of_bytes
from perception.frame import Frame
from perception.model_spec import ModelSpec
from perception.pipeline import Pipeline
from perception.results import Detections, Result

FUSION_FRAMES = 16
SAME = 1e-4
"""Largest difference of scores, of boxes as a share of the picture, and share of pixels, that still counts as equal."""


@dataclass(frozen=True, slots=True)
class Fusion:
    """Whether the engine takes bytes and normalises them itself, and why.

    Attributes:
        latency: of a whole step, fused over unfused; None where it was not timed.
    """

    kept: bool
    why: str
    latency: Latency | None

    def document(self) -> dict[str, JsonValue]:
        """For JSON."""
        return {
            "kept": self.kept,
            "why": self.why,
            "latency": None if self.latency is None else self.latency.document(),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Shipment:
    """An engine ready to be packed.

    Attributes:
        candidate: what was chosen.
        content: its bytes; others than the candidate's where the input is fused.
        spec: how these bytes are fed and read.
        fusion: of the input.
    """

    candidate: Candidate
    content: bytes
    spec: ModelSpec
    fusion: Fusion

    @classmethod
    def unfused(cls, candidate: Candidate, spec: ModelSpec, why: str) -> Shipment:
        """A candidate as it is."""
        return cls(candidate, candidate.content, spec, Fusion(False, why, None))


def prepare_shipment(job: Job, candidate: Candidate) -> Shipment:
    """Move input normalisation into the graph where that changes nothing and costs nothing."""
    picture = job.spec.picture
    plain = Shipment.unfused(candidate, job.spec, "off was asked for")
    if job.options.fuse == "off":
        return plain
    if job.profile.engine_kind == "tensorrt":
        return replace(plain, fusion=Fusion(False, "the GPU normalises frames where it resizes them", None))
    if not can_fuse(picture):
        return replace(plain, fusion=Fusion(False, f"the network takes {picture.dtype} as it is", None))
    model, fused_picture = fuse_input(candidate.model, picture)
    fused = Shipment(candidate, build(model), job.spec.model_copy(update={"picture": fused_picture}), plain.fusion)
    with ExitStack() as stack:
        subjects = [
            Subject(each.spec, stack.enter_context(opened(each.content, threads=job.threads)))
            for each in (plain, fused)
        ]
        key = ("fusion", *(sha256_of_bytes(each.content) for each in (plain, fused)), *job.clock)
        fusion = _judge_fusion(job, subjects[0], subjects[1], key)
    return replace(fused if fusion.kept else plain, fusion=fusion)


def _judge_fusion(job: Job, plain: Subject, fused: Subject, key: Key) -> Fusion:
    frames = list(job.evaluation.recordings.some(FUSION_FRAMES).frames())
    if (different := first_difference(plain, fused, frames)) is not None:
        return Fusion(False, f"it changes results: {different}", None)

    def timed() -> JsonValue:
        with job.terminal.progress("timing the fused input", None) as step:
            jobs = {"plain": _whole_step(plain, frames[0]), "fused": _whole_step(fused, frames[0])}
            budget_s = job.options.timing_s / 2
            return time_side_by_side(jobs, reference="plain", budget_s=budget_s, advance=step)["fused"].state()

    latency = Latency.of_state(cast("dict[str, Any]", job.store.document(key, timed)))
    times = f"{latency.ratio.middle:.2f} times as long, from frame to result"
    if job.options.fuse == "on" or latency.ratio.middle <= 1.0:
        return Fusion(True, f"same results, {times}", latency)
    return Fusion(False, f"same results, but {times}", latency)


def _whole_step(subject: Subject, frame: Frame) -> Callable[[], object]:
    pipeline = Pipeline(subject.spec, subject.engine, deadline_ns=NO_DEADLINE_NS)
    return lambda: pipeline.step(frame)


def first_difference(one: Subject, other: Subject, frames: Iterable[Frame]) -> str | None:
    """Where two engines report something else on the same frames, in words; None where they do not."""
    pipelines = [Pipeline(subject.spec, subject.engine, deadline_ns=NO_DEADLINE_NS) for subject in (one, other)]
    for frame in frames:
        results = [pipeline.step(frame).result for pipeline in pipelines]
        if not _same(results[0], results[1], max(frame.width_px, frame.height_px)):
            return f"frame {frame.name}"
    return None


def _same(one: Result | None, other: Result | None, side_px: int) -> bool:
    if one is None or other is None or type(one) is not type(other):
        return False
    if not isinstance(one, Detections) or not isinstance(other, Detections):
        return bool((one.class_ids != other.class_ids).mean() <= SAME)
    return (
        len(one) == len(other)
        and bool((one.class_ids == other.class_ids).all())
        and np.allclose(one.scores, other.scores, rtol=0, atol=SAME)
        and np.allclose(one.boxes_px, other.boxes_px, rtol=0, atol=SAME * side_px)
    )
