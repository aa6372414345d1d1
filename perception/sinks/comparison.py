"""Two runs over one recording, field by field: what differs, in which frames, and what they look like."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.errors import EvidenceError, OutputError
from perception.files import staged_folder
from perception.frame import Frame
from perception.logged_frame import LoggedFrame, differing, fields_from_frame, fields_from_logged
from perception.pipeline import FrameResult
from perception.record import RunHeader, RunLog
from perception.sinks.drawing import Pixels, draw

MOST_PICTURES = 50
_CAPTION_PX, _CAPTION = 34, (235, 235, 235)
_JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of one frame.

    Attributes:
        camera_id: whose frame.
        frame_id: which frame.
        field: its place in the frame's line, `result.scores[2]`; `frame` where one side has no such frame.
        logged: the value in the log.
        now: the value of this run.
    """

    camera_id: str
    frame_id: int
    field: str
    logged: object
    now: object


class Comparison:
    """A sink that holds every published frame against a log.

    Everything under `timing` is ignored, since it depends on the clock; `ignored` lists it by name. What the two runs
    were told stands in `conditions`; it is shown and not judged, or no two packages could be compared.
    """

    def __init__(self, log: RunLog, header: RunHeader, *, where: Path, pictures: Path | None) -> None:
        """Take the log.

        Args:
            log: the run to compare with.
            header: the conditions of this run.
            where: the log's path, for errors.
            pictures: a folder for pictures of frames that differ, both results side by side; made where any differ.

        Raises:
            EvidenceError: the log is of another recording, or the run it tells of was interrupted.
        """
        if log.header.recording.sha256 != header.recording.sha256:
            raise EvidenceError(
                f"{where}: is of the recording {log.header.recording.name} ({log.header.recording.sha256}), this is "
                f"{header.recording.name} ({header.recording.sha256}); compare runs over one recording"
            )
        if not log.summary.complete:
            raise EvidenceError(f"{where}: is of an interrupted run, expected a complete one; finish it with --resume")
        self.conditions = tuple(differing(log.header.model_dump(mode="json"), header.model_dump(mode="json")))
        self.differences: list[Difference] = []
        self.ignored: tuple[str, ...] = ()
        self.frames: Counter[str] = Counter()
        self._classes = (log.header.classes, header.classes)
        self._waiting = {_key(each): each for each in log.frames}
        self._pictures = pictures
        self._folder: Path | None = None
        self._staged = ExitStack()

    @property
    def frames_that_differ(self) -> int:
        """Frames with at least one difference."""
        return self.frames["differ"]

    def write(self, outcome: FrameResult) -> None:
        """See `Sink.write`."""
        now = fields_from_frame(outcome)
        self.ignored = self.ignored or _names_under(now, "timing")
        logged = self._waiting.pop(_key_of(outcome), None)
        found = self._differences_of(outcome.frame, logged, now)
        self.frames["compared"] += 1
        self.frames["differ"] += bool(found)
        self.differences.extend(found)
        if found and self._pictures is not None and self.frames["differ"] <= MOST_PICTURES:
            self._show(outcome, logged, self._pictures)

    def close(self) -> None:
        """See `Sink.close`. Frames that only the log has are counted now."""
        for logged in self._waiting.values():
            self.differences.append(Difference(logged.camera_id, logged.frame_id, "frame", "present", "missing"))
            self.frames["differ"] += 1
        self._waiting = {}
        self._staged.close()

    def abort(self) -> None:
        """See `Sink.abort`."""
        unwanted = OutputError("the comparison was interrupted")
        self._staged.__exit__(OutputError, unwanted, None)

    def _differences_of(self, frame: Frame, logged: LoggedFrame | None, now: dict[str, Any]) -> list[Difference]:
        if logged is None:
            return [Difference(frame.camera_id, frame.frame_id, "frame", "missing", "present")]
        then = fields_from_logged(logged)
        return [
            Difference(frame.camera_id, frame.frame_id, name, before, after)
            for name, before, after in differing(_judged(then), _judged(now))
        ]

    def _show(self, outcome: FrameResult, logged: LoggedFrame | None, pictures: Path) -> None:
        """The log's result on the left, this run's on the right."""
        if self._folder is None:
            self._folder = self._staged.enter_context(staged_folder(pictures))
        then = replace(outcome, result=None)
        if logged is not None:
            then = replace(outcome, result=logged.result, timings=logged.timings, status=logged.status)
        sides = (
            _captioned("the log" if logged else "the log: no such frame", draw(then, self._classes[0])),
            _captioned("this run", draw(outcome, self._classes[1])),
        )
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{outcome.frame.camera_id.strip('/')}_{outcome.frame.frame_id:06d}")
        _, content = cv2.imencode(".jpg", np.hstack(sides), (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
        (self._folder / f"{name}.jpg").write_bytes(content.tobytes())


def _captioned(text: str, pixels: Pixels) -> Pixels:
    framed = cv2.copyMakeBorder(pixels, _CAPTION_PX, 4, 4, 4, cv2.BORDER_CONSTANT, value=(24, 22, 20))
    cv2.putText(framed, text, (12, 23), cv2.FONT_HERSHEY_DUPLEX, 0.6, _CAPTION, 1, cv2.LINE_AA)
    return np.asarray(framed, np.uint8)


def _key(logged: LoggedFrame) -> tuple[str, str, int]:
    return logged.model, logged.camera_id, logged.frame_id


def _key_of(outcome: FrameResult) -> tuple[str, str, int]:
    return outcome.model, outcome.frame.camera_id, outcome.frame.frame_id


def _judged(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "timing"}


def _names_under(fields: dict[str, Any], name: str) -> tuple[str, ...]:
    return tuple(f"{name}.{each}" for each in fields[name])
