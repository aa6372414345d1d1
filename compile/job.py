"""Everything one compilation works on: the imported model, how it is fed, the frames, the machine's threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from compile.calibration import (
    DEFAULT_FRAMES,
    CalibrationSet,
    Selection,
    choose_calibration,
    choose_evaluation,
    held_out,
    refuse_overlap,
)
from compile.class_map import ClassMap
from compile.decide import Wish
from compile.grading import AnyLabels, Evaluation, read_labels
from compile.graph import GraphView
from compile.importer import ImportedModel, import_model
from compile.recordings import Recordings, SurveyedFrame, evenly, survey
from compile.store import Store
from hw_profiles.machine import Machine, read_machine
from hw_profiles.preflight import check, reasons_against
from hw_profiles.profile import Profile, load_profile, profile_names
from perception.decode import open_decoder
from perception.engines.engine import Tensors
from perception.errors import CalibrationError, ProfileError, SpecError
from perception.model_spec import ModelSpec
from perception.pipeline import threads_of
from perception.preprocess import Preprocessor
from perception.terminal import Terminal

EVALUATION_FRAMES = 96
SEARCH_FRAMES = 64
BUILT_KINDS = ("onnxrt", "tensorrt")
"""Engine kinds with a build backend."""

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


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One compilation, opened: all that can be refused without computing was refused.

    Attributes:
        search: frames the search tries engines on.
        evaluation: frames to grade on, apart from those that calibrate and those that the search sees.
        calibrated_early: the last part of the calibration recordings was kept from calibration.
        threads: CPU threads the profile grants.
    """

    options: CompileOptions
    profile: Profile
    machine: Machine
    imported: ImportedModel
    spec: ModelSpec
    graph: GraphView
    calibration: CalibrationSet
    search: Recordings
    evaluation: Evaluation
    calibrated_early: bool
    threads: int
    terminal: Terminal
    store: Store

    @property
    def clock(self) -> tuple[str | int | float, ...]:
        """What a time measured here depends on beside the engines, as a key."""
        return (self.machine.cpu.model, self.threads, self.options.timing_s)

    def feeds(self) -> Iterable[Tensors]:
        """Calibration frames as the network is fed them; each holds until the next is asked for."""
        return feeds_of(self.spec, self.calibration.recordings)

    def some_feeds(self, count: int) -> list[Tensors]:
        """At most `count` of them; see `some_feeds_of`."""
        return some_feeds_of(self.spec, self.calibration.recordings, count)


def open_job(
    model_path: Path, *, profile: Profile, calibration: Sequence[Path], options: CompileOptions, terminal: Terminal
) -> Job:
    """Read and check everything a compilation needs.

    Raises:
        ProfileError, PreflightError: this machine cannot build or measure for the profile.
        ModelError, SpecError: the model cannot be imported, has no spec, or contradicts it.
        SourceError, CalibrationError, LabelError: frames or labels that cannot serve.
    """
    machine = read_machine()
    require_buildable(profile, machine)
    if options.precision not in ("auto", *profile.precisions):
        raise ProfileError(
            f"profile {profile.name}: allows {', '.join(profile.precisions)}, --precision {options.precision} was "
            "asked for; choose one of these or auto"
        )
    imported = import_model(model_path, shapes=options.shapes)
    spec = load_spec(model_path, imported, options.spec)
    chosen = _choose_frames(calibration, spec, options, terminal)
    return Job(
        options=options,
        profile=profile,
        machine=machine,
        imported=imported,
        spec=spec,
        graph=GraphView.of(imported.model),
        calibration=chosen.calibration,
        search=chosen.search,
        evaluation=chosen.evaluation,
        calibrated_early=chosen.calibrated_early,
        threads=threads_of(profile),
        terminal=terminal,
        store=Store(options.cache),
    )


def feeds_of(spec: ModelSpec, recordings: Recordings) -> Iterable[Tensors]:
    """Frames as the network is fed them; each holds until the next is asked for."""
    preprocessor = Preprocessor(spec.picture, spec.size_input)
    for frame in recordings.frames():
        yield preprocessor.prepare(frame.pixels).feeds


def some_feeds_of(spec: ModelSpec, recordings: Recordings, count: int) -> list[Tensors]:
    """At most `count` frames as the network is fed them, evenly over the recordings, each the caller's to keep."""
    return [{name: value.copy() for name, value in feed.items()} for feed in feeds_of(spec, recordings.some(count))]


def require_buildable(profile: Profile, machine: Machine) -> None:
    """Refuse a profile that cannot be built and measured here: an engine is only as good as measured on its machine.

    Raises:
        ProfileError: no build backend for its engine kind.
        PreflightError: this is another machine.
    """
    if profile.engine_kind not in BUILT_KINDS:
        here = [
            name
            for name, other in ((name, load_profile(name)) for name in profile_names())
            if other.engine_kind in BUILT_KINDS and not reasons_against(other, machine)
        ]
        raise ProfileError(
            f"profile {profile.name}: its engine kind is {profile.engine_kind}, this release builds "
            f"{', '.join(BUILT_KINDS)}; on this machine you can build for: {', '.join(here) or 'none'}"
        )
    check(profile, machine)


def load_spec(model_path: Path, imported: ImportedModel, given: Path | None) -> ModelSpec:
    """The ModelSpec, checked against the model and against its own decoder.

    Raises:
        SpecError: missing, unreadable, or contradicting the model.
    """
    path = given or model_path.with_suffix(".yaml")
    if given is None and not path.exists():
        raise SpecError(
            f"{path}: no ModelSpec beside the model; draft one with: tollgate inspect {model_path}, or give --spec"
        )
    spec = ModelSpec.load(path)
    spec.check_against(imported.inputs, imported.outputs, where=str(path))
    open_decoder(spec, imported.outputs)
    return spec


@dataclass(frozen=True, slots=True, eq=False)
class _Chosen:
    """Which frames do what; for the fields see `Job`."""

    calibration: CalibrationSet
    search: Recordings
    evaluation: Evaluation
    calibrated_early: bool


def _choose_frames(paths: Sequence[Path], spec: ModelSpec, options: CompileOptions, terminal: Terminal) -> _Chosen:
    """Frames to calibrate on, to search on and to grade on; none does two of these where there are enough."""
    seen = _survey("looking through the calibration recordings", paths, terminal)
    early, late = held_out(seen)
    if options.recording is None:
        calibration = choose_calibration(paths, early, frames=options.frames, selection=options.selection)
        late, last = held_out(late, 0.5) if len(late) > 1 else ([], late)
        apart = calibration.recordings.chosen
        graded = choose_evaluation(paths, last, apart_from=apart, frames=options.graded_frames)
        search = _search_frames(paths, late, calibration)
        return _Chosen(calibration, search, Evaluation(graded, None, None), calibrated_early=True)
    calibration, is_early = _calibration(paths, seen, early, options)
    evaluation = _recorded_evaluation(options.recording, spec, options, terminal)
    refuse_overlap(calibration, evaluation.recordings)
    search = _search_frames(paths, late if is_early else [], calibration, evaluation.recordings.chosen)
    return _Chosen(calibration, search, evaluation, is_early)


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
