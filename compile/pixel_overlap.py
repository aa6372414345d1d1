"""Pixels of masks against labelled ones, group by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compile.average_precision import Counts
from compile.class_map import ClassGroup
from compile.labels import LabelledMask
from perception.errors import LabelError
from perception.results import SegmentationMap


@dataclass(frozen=True, slots=True)
class GroupPixels:
    """Pixels of one group, frame by frame, each (F,): in both mask and truth, in either, in the truth."""

    both: Counts
    either: Counts
    labelled: Counts


def match_pixels(
    frames: Sequence[tuple[SegmentationMap, LabelledMask]],
    groups: Sequence[tuple[ClassGroup, Sequence[int]]],
    *,
    mask_values: Mapping[int, str],
) -> list[GroupPixels]:
    """Count pixels at the labels' size.

    Args:
        frames: what was segmented and what is labelled, frame by frame.
        groups: each group with the class ids that answer in it.
        mask_values: what a value of a labelled mask is called.

    Raises:
        LabelError: a mask is unreadable or holds a value without a name.
    """
    tests = [_PixelTest(group, class_ids, mask_values) for group, class_ids in groups]
    counts = np.zeros((len(groups), 3, len(frames)), np.int64)
    for position, (result, truth) in enumerate(frames):
        values = _known_values(truth, mask_values)
        answers = SegmentationMap(result.class_ids, values.shape[1], values.shape[0]).at_source_size()
        counts[:, :, position] = [test.count(answers, values) for test in tests]
    return [GroupPixels(*rows) for rows in counts]


class _PixelTest:
    """One group's question to every pixel, as tables over the 256 values of mask and labels."""

    def __init__(self, group: ClassGroup, class_ids: Sequence[int], mask_values: Mapping[int, str]) -> None:
        self._said = np.isin(np.arange(256), class_ids)
        self._asked = _values_named(group.labels, mask_values)
        self._counted = ~_values_named(group.ignored, mask_values)

    def count(self, answers: NDArray[np.uint8], values: NDArray[np.uint8]) -> tuple[int, int, int]:
        """Pixels both said and asked for, either, and asked for."""
        said = self._said[answers] & self._counted[values]
        asked = self._asked[values]
        return int((said & asked).sum()), int((said | asked).sum()), int(asked.sum())


def _values_named(names: Sequence[str], mask_values: Mapping[int, str]) -> NDArray[np.bool_]:
    return np.array([mask_values.get(value) in names for value in range(256)])


def _known_values(truth: LabelledMask, mask_values: Mapping[int, str]) -> NDArray[np.uint8]:
    values = truth.values()
    present = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    if unknown := [int(value) for value in present if int(value) not in mask_values]:
        raise LabelError(
            f"{truth.path}: holds the value {unknown[0]}, named are "
            f"{', '.join(map(str, sorted(mask_values))) or 'none'}; name it under mask_values of a class map"
        )
    return values
