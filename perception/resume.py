"""An interrupted replay goes on: results that its log holds are given again instead of computed."""

from __future__ import annotations

from pathlib import Path

from perception.errors import EvidenceError
from perception.frame import Frame
from perception.logged_frame import LoggedFrame, differing
from perception.pipeline import FrameResult
from perception.record import RunHeader, RunLog, incomplete_path, read_run_log
from perception.runtime import Steps


class Resumed:
    """A pipeline that remembers: frames of the log get their logged result, the others are computed.

    Every sink is told every frame, so the outputs of a resumed replay are whole.
    """

    def __init__(self, pipeline: Steps, log: RunLog) -> None:
        self._pipeline = pipeline
        self._known = {(each.camera_id, each.frame_id): each for each in log.frames}

    def step(self, frame: Frame) -> FrameResult:
        """See `Pipeline.step`.

        Raises:
            EvidenceError: the log has another picture under the frame's name.
        """
        logged = self._known.pop((frame.camera_id, frame.frame_id), None)
        if logged is None:
            return self._pipeline.step(frame)
        return result_again(frame, logged)


def interrupted_log(path: Path, header: RunHeader) -> RunLog:
    """The log that an interrupted replay left beside `path`.

    Raises:
        EvidenceError: there is none, it is damaged, or it was of another replay.
    """
    left = incomplete_path(path)
    if not left.exists():
        raise EvidenceError(f"{left}: does not exist, so there is nothing to resume; replay without --resume")
    log = read_run_log(left)
    now, then = header.model_dump(mode="json"), log.header.model_dump(mode="json")
    if changed := [f"{name}: got {now!r}, expected {then!r}" for name, then, now in differing(then, now)]:
        raise EvidenceError(f"{left}: is of another replay ({changed[0]}); replay as before, or without --resume")
    return log


def result_again(frame: Frame, logged: LoggedFrame) -> FrameResult:
    """A logged frame with its pixels, as it was published.

    Raises:
        EvidenceError: the log has another picture under the frame's name.
    """
    if (frame.captured_ns, frame.name) != (logged.captured_ns, logged.name):
        raise EvidenceError(
            f"camera {frame.camera_id}, frame {frame.frame_id}: captured at {frame.captured_ns} ns ({frame.name}), the "
            f"log says {logged.captured_ns} ns ({logged.name}); the recording changed: replay without --resume"
        )
    return FrameResult(
        frame,
        logged.result,
        logged.timings,
        logged.status,
        logged.deadline_ns,
        model=logged.model,
        instants=logged.instants,
        age_ns=logged.age_ns,
        causes=logged.causes,
        set_id=logged.set_id,
        skew_ns=logged.skew_ns,
    )
