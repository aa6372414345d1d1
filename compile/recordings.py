"""Frames chosen from recordings: looked through once, described in small, decoded again whenever they are needed.

Only thumbnails and digests stay in memory, so a recording may be of any length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.files import sha256_of_bytes, sha256_of_file
from perception.frame import Frame
from perception.sources.table import open_source

THUMBNAIL_PX = (32, 18)
STRUCTURE_WIDTH_PX = 160
MOST_CANDIDATES = 2048

NEAR_DUPLICATE = 1.0
"""Mean difference of thumbnails, in grey levels of 256, below which two frames show the same.

Measured: the same frame with sensor noise of 10 levels differs by 0.5, saved as JPEG of quality 60 by 0.1; frames
40 ms apart on a motorway by 0.7 to 1.3, frames of a sparse city recording by 12 in the median.
"""


def no_progress() -> None:
    """For callers that show none."""


@dataclass(frozen=True, slots=True)
class SurveyedFrame:
    """One frame of a recording, in small.

    Attributes:
        source: position of its recording among those given.
        camera_id: as in its Frame.
        frame_id: as in its Frame.
        name: as in its Frame.
        pixels_sha256: digest of its pixels.
        thumbnail: (18, 32) float32, grey levels 0..255.
        contrast: standard deviation of its grey levels.
        structure: correlation of neighbouring pixels in a picture 160 px wide, in −1..1.
    """

    source: int
    camera_id: str
    frame_id: int
    name: str
    pixels_sha256: str
    thumbnail: NDArray[np.float32]
    contrast: float
    structure: float

    @property
    def key(self) -> tuple[int, str, int]:
        """What finds the frame again."""
        return (self.source, self.camera_id, self.frame_id)


@dataclass(frozen=True, slots=True)
class Recordings:
    """Recordings on disk and the frames chosen from them.

    Attributes:
        paths: clips and folders, as `open_source` takes them.
        chosen: frames, in order of recording and capture.
    """

    paths: tuple[Path, ...]
    chosen: tuple[SurveyedFrame, ...]

    def __len__(self) -> int:
        return len(self.chosen)

    def some(self, count: int) -> Recordings:
        """At most `count` of the frames, evenly over their order."""
        return Recordings(self.paths, tuple(evenly(self.chosen, count)))

    def frames(self) -> Iterator[Frame]:
        """Decode the chosen frames anew.

        Raises:
            SourceError: a recording cannot be read.
        """
        wanted = {candidate.key for candidate in self.chosen}
        for position, path in enumerate(self.paths):
            here = {key for key in wanted if key[0] == position}
            if here:
                yield from _picked(path, position, here)

    def sources(self) -> list[dict[str, str]]:
        """Name and digest of each recording: a file's own, or one over all names and files of a folder."""
        return [{"name": path.name, "sha256": digest_of(path)} for path in self.paths]


def survey(paths: Sequence[Path], *, advance: Callable[[], None] = no_progress) -> list[SurveyedFrame]:
    """Look through recordings and describe their frames; of very many, every 2nd, 4th, 8th … frame.

    Raises:
        SourceError: a recording is missing, empty or cannot be read.
    """
    found: list[SurveyedFrame] = []
    stride = 1
    position = 0
    for source, path in enumerate(paths):
        with closing(open_source(path)) as recording:
            for frame in recording.frames():
                if position % stride == 0:
                    found.append(surveyed(frame, source))
                position += 1
                advance()
                if len(found) > MOST_CANDIDATES:
                    found = found[::2]
                    stride *= 2
    return found


def evenly(frames: Sequence[SurveyedFrame], count: int) -> list[SurveyedFrame]:
    """At most `count` frames, evenly over their order."""
    if len(frames) <= count:
        return list(frames)
    return [frames[round(position)] for position in np.linspace(0, len(frames) - 1, count)]


def distances(thumbnail: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean absolute difference of one thumbnail to each of (N, 18, 32), in grey levels."""
    differences: NDArray[np.float32] = np.abs(others - thumbnail).mean(axis=(1, 2), dtype=np.float32)
    return differences


def stacked(candidates: Sequence[SurveyedFrame]) -> NDArray[np.float32]:
    """Thumbnails as (N, 18, 32)."""
    return np.stack([candidate.thumbnail for candidate in candidates])


def digest_of(path: Path) -> str:
    """SHA-256 of a file, or of the sorted names and digests of all files of a folder; also of a `KIND:PATH`."""
    if not path.exists():
        path = Path(str(path).partition(":")[2])
    if path.is_file():
        return sha256_of_file(path)
    members = sorted(child for child in path.rglob("*") if child.is_file())
    lines = "".join(f"{sha256_of_file(child)}  {child.relative_to(path).as_posix()}\n" for child in members)
    return sha256_of_bytes(lines.encode())


def _picked(path: Path, source: int, wanted: set[tuple[int, str, int]]) -> Iterator[Frame]:
    missing = set(wanted)
    with closing(open_source(path)) as recording:
        for frame in recording.frames():
            key = (source, frame.camera_id, frame.frame_id)
            if key in missing:
                missing.discard(key)
                yield frame
            if not missing:
                return


def surveyed(frame: Frame, source: int) -> SurveyedFrame:
    """A frame in small; `source` is the position of its recording among those looked through."""
    grey = cv2.cvtColor(frame.pixels, cv2.COLOR_BGR2GRAY)
    return SurveyedFrame(
        source=source,
        camera_id=frame.camera_id,
        frame_id=frame.frame_id,
        name=frame.name,
        pixels_sha256=sha256_of_bytes(frame.pixels.tobytes()),
        thumbnail=cv2.resize(grey, THUMBNAIL_PX, interpolation=cv2.INTER_AREA).astype(np.float32),
        contrast=float(cv2.meanStdDev(grey)[1][0, 0]),
        structure=_structure(grey),
    )


def _structure(grey: NDArray[np.uint8]) -> float:
    """How much a pixel tells of its neighbours: near 1 in pictures of roads, near 0 in noise of any grain."""
    width_px = min(STRUCTURE_WIDTH_PX, grey.shape[1])
    height_px = max(2, round(grey.shape[0] * width_px / grey.shape[1]))
    small = cv2.resize(grey, (width_px, height_px), interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= small.mean()
    power = float((small * small).mean())
    if power == 0.0:
        return 0.0
    across = float((small[:, 1:] * small[:, :-1]).mean())
    down = float((small[1:] * small[:-1]).mean())
    return (across + down) / 2 / power
