"""The frames that calibrate a quantization: which, why these, and proof of what they were.

INT8 ranges are learnt from these frames alone, so frames that do not look like the road ruin the engine quietly.
Noise, single colours, copies of one frame and too few frames are refused here, before anything is computed from them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import JsonValue

from compile.recordings import NEAR_DUPLICATE, THUMBNAIL_PX, Recordings, SurveyedFrame, distances, evenly, stacked
from perception.errors import CalibrationError
from perception.files import json_bytes, sha256_of_bytes

DEFAULT_FRAMES = 64
FEWEST_FRAMES = 16
LEAST_CONTRAST = 2.0
"""Standard deviation in grey levels below which a frame counts as a single colour."""
LEAST_STRUCTURE = 0.5
"""Correlation of neighbouring pixels. Measured: road recordings 0.80 and more, noise of any grain 0.32 and less."""
HELD_OUT_SHARE = 0.25

Selection = Literal["diverse", "even"]


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """Distinct frames that look like pictures, and an account of what was left out.

    Attributes:
        recordings: the frames.
        selection: how they were chosen.
        considered: frames looked at.
        left_out: reason → number of frames.
    """

    recordings: Recordings
    selection: Selection
    considered: int
    left_out: Mapping[str, int]

    def document(self) -> dict[str, JsonValue]:
        """What `calibration.json` holds: every recording by digest, every frame by name, digest and thumbnail.

        The thumbnail is its grey levels, rounded, row by row: enough to tell whether another frame shows the same.
        """
        return {
            "format": "tollgate-calibration/1",
            "selection": self.selection,
            "considered": self.considered,
            "left_out": dict(self.left_out),
            "recordings": [dict(source) for source in self.recordings.sources()],
            "frames": [
                {
                    "recording": candidate.source,
                    "camera": candidate.camera_id,
                    "frame": candidate.frame_id,
                    "name": candidate.name,
                    "pixels_sha256": candidate.pixels_sha256,
                    "contrast": candidate.contrast,
                    "thumbnail": base64.b64encode(candidate.thumbnail.round().astype(np.uint8).tobytes()).decode(),
                }
                for candidate in self.recordings.chosen
            ],
        }

    @property
    def sha256(self) -> str:
        """Digest of the pixels of all frames, in order."""
        return sha256_of_bytes(json_bytes([candidate.pixels_sha256 for candidate in self.recordings.chosen]))


def choose_calibration(
    paths: Sequence[Path],
    candidates: Sequence[SurveyedFrame],
    *,
    frames: int = DEFAULT_FRAMES,
    selection: Selection = "diverse",
) -> CalibrationSet:
    """Choose calibration frames.

    Args:
        paths: the recordings the candidates come from.
        candidates: what may be chosen.
        frames: at most so many.
        selection: `diverse` takes the frame least like those taken, again and again; `even` spreads over time.

    Raises:
        CalibrationError: noise, single colour, copies, or fewer than 16 distinct frames.
    """
    where = ", ".join(path.name for path in paths)
    if frames < FEWEST_FRAMES:
        raise CalibrationError(f"{where}: {frames} calibration frames asked for, expected at least {FEWEST_FRAMES}")
    usable, left_out = _usable(candidates, where)
    chosen = _SELECTIONS[selection](usable, frames)
    if len(chosen) < FEWEST_FRAMES:
        raise CalibrationError(_too_few(where, len(candidates), len(usable), len(chosen)))
    in_order = tuple(candidate for candidate in usable if candidate.key in {pick.key for pick in chosen})
    left_out["like another, or more than asked for"] = len(usable) - len(chosen)
    return CalibrationSet(
        Recordings(tuple(paths), in_order), selection, len(candidates), {why: n for why, n in left_out.items() if n}
    )


def refuse_overlap(calibration: CalibrationSet, evaluation: Recordings) -> None:
    """Refuse to evaluate on frames that calibrated.

    Raises:
        CalibrationError: an evaluation frame is, or looks the same as, a calibration frame.
    """
    seen = calibration.recordings.chosen
    shared = [frame for frame in evaluation.chosen if _is_like(frame, seen)]
    if shared:
        raise CalibrationError(
            f"calibration and evaluation: {len(shared)} of {len(evaluation)} evaluation frames are also calibration "
            f"frames or look the same (first: {shared[0].name} of camera {shared[0].camera_id}): accuracy on them "
            "proves nothing; give --calibration another drive"
        )


def held_out(
    candidates: Sequence[SurveyedFrame], share: float = HELD_OUT_SHARE
) -> tuple[list[SurveyedFrame], list[SurveyedFrame]]:
    """Split recordings in time: (the early frames, the last `share` of every camera).

    Near in time is near in look: a random split would evaluate on neighbours of calibration frames.
    """
    by_camera: dict[tuple[int, str], list[SurveyedFrame]] = {}
    for candidate in candidates:
        by_camera.setdefault((candidate.source, candidate.camera_id), []).append(candidate)
    late = {
        candidate.key
        for members in by_camera.values()
        for candidate in members[len(members) - int(len(members) * share) :]
    }
    early = [candidate for candidate in candidates if candidate.key not in late]
    return early, [candidate for candidate in candidates if candidate.key in late]


def choose_evaluation(
    paths: Sequence[Path], candidates: Sequence[SurveyedFrame], *, apart_from: Sequence[SurveyedFrame], frames: int
) -> Recordings:
    """Distinct frames spread evenly over what was held out, none like a frame it must stay apart from.

    Raises:
        CalibrationError: none is left.
    """
    usable = [frame for frame in candidates if _why_unusable(frame) is None and not _is_like(frame, apart_from)]
    chosen = choose_even(usable, frames)
    if not chosen:
        where = ", ".join(path.name for path in paths)
        raise CalibrationError(
            f"{where}: no frame is left to compare float and INT8 on, all {len(candidates)} held out look like "
            "calibration frames; give another drive with --recording"
        )
    return Recordings(tuple(paths), tuple(chosen))


def choose_diverse(candidates: Sequence[SurveyedFrame], count: int) -> list[SurveyedFrame]:
    """Farthest first: begin with the first frame, then always the one least like all taken; stop at near-duplicates."""
    if not candidates:
        return []
    thumbnails = stacked(candidates)
    taken = [0]
    nearest = distances(thumbnails[0], thumbnails)
    while len(taken) < count:
        farthest = int(nearest.argmax())
        if nearest[farthest] < NEAR_DUPLICATE:
            break
        taken.append(farthest)
        nearest = np.minimum(nearest, distances(thumbnails[farthest], thumbnails))
    return [candidates[position] for position in taken]


def choose_even(candidates: Sequence[SurveyedFrame], count: int) -> list[SurveyedFrame]:
    """Evenly over time, among frames that differ from all before them."""
    distinct: list[SurveyedFrame] = []
    thumbnails = np.empty((len(candidates), *THUMBNAIL_PX[::-1]), np.float32)
    for candidate in candidates:
        kept = len(distinct)
        if kept == 0 or distances(candidate.thumbnail, thumbnails[:kept]).min() >= NEAR_DUPLICATE:
            thumbnails[kept] = candidate.thumbnail
            distinct.append(candidate)
    return evenly(distinct, count)


_SELECTIONS: dict[str, Callable[[Sequence[SurveyedFrame], int], list[SurveyedFrame]]] = {
    "diverse": choose_diverse,
    "even": choose_even,
}


def _usable(candidates: Sequence[SurveyedFrame], where: str) -> tuple[list[SurveyedFrame], dict[str, int]]:
    """What looks like pictures, and how many frames do not, by reason.

    Raises:
        CalibrationError: nothing does.
    """
    reasons = [_why_unusable(candidate) for candidate in candidates]
    left_out = {why: reasons.count(why) for why in ("a single colour", "random noise")}
    usable = [candidate for candidate, why in zip(candidates, reasons, strict=True) if why is None]
    if not usable:
        why = max(left_out, key=lambda name: left_out[name])
        raise CalibrationError(
            f"{where}: {left_out[why]} of {len(candidates)} frames are {why} (the first has contrast "
            f"{candidates[0].contrast:.1f}, expected at least {LEAST_CONTRAST} grey levels; its neighbouring pixels "
            f"correlate by {candidates[0].structure:.2f}, expected at least {LEAST_STRUCTURE}): INT8 would fit them, "
            "not the road; give recordings of the cameras"
        )
    return usable, left_out


def _why_unusable(candidate: SurveyedFrame) -> str | None:
    if candidate.contrast < LEAST_CONTRAST:
        return "a single colour"
    return "random noise" if candidate.structure < LEAST_STRUCTURE else None


def _too_few(where: str, considered: int, usable: int, distinct: int) -> str:
    copies = f" (of {usable}, the others are near-duplicates)" if usable > distinct else ""
    unusable = f", {considered - usable} more are noise or a single colour" if considered > usable else ""
    return (
        f"{where}: got {distinct} distinct frames{copies}{unusable}, expected at least {FEWEST_FRAMES}: a range learnt "
        "from fewer misses what the next frame brings; give a longer or more varied recording"
    )


def _is_like(frame: SurveyedFrame, others: Sequence[SurveyedFrame]) -> bool:
    """Whether a frame is, or looks the same as, one of the others."""
    if not others:
        return False
    if any(frame.pixels_sha256 == other.pixels_sha256 for other in others):
        return True
    return bool(distances(frame.thumbnail, stacked(others)).min() < NEAR_DUPLICATE)
