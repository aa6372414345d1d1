"""Which frames calibrate, which the search tries engines on, and which grade: none does two of these."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from compile.calibration import CalibrationSet, choose_calibration, choose_evaluation, held_out, refuse_overlap
from compile.class_map import ClassMap
from compile.grading import AnyLabels, Evaluation, read_labels
from compile.options import CompileOptions
from compile.recordings import Recordings, SurveyedFrame, evenly, survey
from perception.errors import CalibrationError
from perception.model_spec import ModelSpec
from perception.terminal import Terminal

SEARCH_FRAMES = 64


@dataclass(frozen=True, slots=True, eq=False)
class FrameChoice:
    """Which frames do what; for the fields see `Job`."""

    calibration: CalibrationSet
    search: Recordings
    evaluation: Evaluation
    calibrated_early: bool


def choose_frames(paths: Sequence[Path], spec: ModelSpec, options: CompileOptions, terminal: Terminal) -> FrameChoice:
    """Frames to calibrate on, to search on and to grade on; none does two of these where there are enough.

    Raises:
        SourceError, CalibrationError, LabelError: frames or labels that cannot serve.
    """
    seen = _survey("looking through the calibration recordings", paths, terminal)
    early, late = held_out(seen)
    if options.recording is None:
        calibration = choose_calibration(paths, early, frames=options.frames, selection=options.selection)
        late, last = held_out(late, 0.5) if len(late) > 1 else ([], late)
        apart = calibration.recordings.chosen
        graded = choose_evaluation(paths, last, apart_from=apart, frames=options.graded_frames)
        search = _search_frames(paths, late, calibration)
        return FrameChoice(calibration, search, Evaluation(graded, None, None), calibrated_early=True)
    calibration, is_early = _calibration(paths, seen, early, options)
    evaluation = _recorded_evaluation(options.recording, spec, options, terminal)
    refuse_overlap(calibration, evaluation.recordings)
    search = _search_frames(paths, late if is_early else [], calibration, evaluation.recordings.chosen)
    return FrameChoice(calibration, search, evaluation, is_early)


def _calibration(
    paths: Sequence[Path], seen: list[SurveyedFrame], early: list[SurveyedFrame], options: CompileOptions
) -> tuple[CalibrationSet, bool]:
    """From the early frames; from all of them where those are too few."""
    with suppress(CalibrationError):
        return choose_calibration(paths, early, frames=options.frames, selection=options.selection), True
    return choose_calibration(paths, seen, frames=options.frames, selection=options.selection), False


def _search_frames(
    paths: Sequence[Path],
    late: list[SurveyedFrame],
    calibration: CalibrationSet,
    graded: Sequence[SurveyedFrame] = (),
) -> Recordings:
    """Frames that neither calibrate nor grade; where there are none, those that calibrated."""
    apart = (*calibration.recordings.chosen, *graded)
    with suppress(CalibrationError):
        return choose_evaluation(paths, late, apart_from=apart, frames=SEARCH_FRAMES)
    return calibration.recordings.some(SEARCH_FRAMES)


def _recorded_evaluation(recording: Path, spec: ModelSpec, options: CompileOptions, terminal: Terminal) -> Evaluation:
    seen = _survey("looking through the recording to grade on", (recording,), terminal)
    if options.labels is None:
        return Evaluation(Recordings((recording,), tuple(evenly(seen, options.graded_frames))), None, None)
    labels: AnyLabels = read_labels(spec, options.labels)
    truths = labels.of_all(seen)
    labelled = [frame for frame, truth in zip(seen, truths, strict=True) if truth is not None]
    class_map = ClassMap.identity(spec.classes) if options.class_map is None else ClassMap.load(options.class_map)
    return Evaluation(Recordings((recording,), tuple(evenly(labelled, options.graded_frames))), labels, class_map)


def _survey(what: str, paths: Sequence[Path], terminal: Terminal) -> list[SurveyedFrame]:
    with terminal.progress(what, None) as step:
        return survey(paths, advance=step)
