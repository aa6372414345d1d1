"""The ground truth of a trial: labels and class map, found to fit model and recording before any long work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from compile.class_map import ClassMap
from compile.labels import FrameIdentity, LabelledFrame, LabelledMask, Labels, read_masks, read_objects
from perception.errors import LabelError
from perception.model_spec import ModelSpec
from perception.sources.table import open_source
from safety_gates.result_log import FrameKey

AnyLabels: TypeAlias = Labels[LabelledFrame] | Labels[LabelledMask]


@dataclass(frozen=True, slots=True)
class Truth:
    """What really stood in the frames, and which of the model's classes answers to which label."""

    labels: AnyLabels
    class_map: ClassMap

    def of_all(self, frames: Sequence[FrameIdentity]) -> tuple[LabelledFrame | LabelledMask | None, ...]:
        """The truth of every frame; None for one that is not labelled."""
        return self.labels.of_all(frames)


def read_truth(labels: Path, class_map: Path | None, spec: ModelSpec) -> Truth:
    """Labels and class map that fit the model.

    Raises:
        LabelError: unreadable, or of classes that model or map do not know.
    """
    chosen = ClassMap.identity(spec.classes) if class_map is None else ClassMap.load(class_map)
    chosen.require_model_classes(spec.classes)
    if spec.task == "segmentation":
        return Truth(read_masks(labels), chosen)
    objects = read_objects(labels)
    chosen.require_label_classes(_class_names(objects.frames.values()), where=str(labels))
    _require_objects(objects, chosen)
    return Truth(objects, chosen)


def require_labelled_frame(truth: Truth, recording: Path, limit: int | None) -> None:
    """Look for the first labelled frame; only a recording without any is decoded to its end.

    Raises:
        LabelError: none of the frames is labelled.
        SourceError: the recording cannot be read.
    """
    seen: list[FrameKey] = []
    with closing(open_source(recording)) as source:
        for frame in islice(source.frames(), limit):
            if truth.labels.of(frame) is not None:
                return
            seen.append(FrameKey.of(frame))
    truth.of_all(seen)


def _require_objects(labels: Labels[LabelledFrame], class_map: ClassMap) -> None:
    asked = {name for group in class_map.groups.values() for name in group.labels}
    for frame in labels.frames.values():
        if any(each.class_name in asked and class_map.asks_for(each) for each in frame.objects):
            return
    raise LabelError(
        f"{labels.path}: labels no object of {', '.join(class_map.groups)} in {len(labels.frames)} frames that is "
        "large and visible enough to be asked for; give labels of what the model detects"
    )


def _class_names(frames: Iterable[LabelledFrame]) -> set[str]:
    return {each.class_name for frame in frames for each in frame.objects if not each.ignore}
