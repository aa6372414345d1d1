"""Everything one compilation works on: the imported model, how it is fed, the frames, the machine's threads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from compile.calibration import CalibrationSet
from compile.frame_choice import choose_frames
from compile.grading import Evaluation
from compile.graph import GraphView
from compile.importer import ImportedModel, import_model
from compile.options import CompileOptions
from compile.recordings import Recordings
from compile.store import Store
from hw_profiles.machine import Machine, read_machine
from hw_profiles.preflight import check, reasons_against
from hw_profiles.profile import Profile, load_profile, profile_names
from perception.decode import open_decoder
from perception.engines.engine import Tensors
from perception.errors import ProfileError, SpecError
from perception.model_spec import ModelSpec
from perception.pipeline import threads_of
from perception.preprocess import Preprocessor
from perception.terminal import Terminal

BUILT_KINDS = ("onnxrt", "tensorrt")
"""Engine kinds with a build backend."""


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
    chosen = choose_frames(calibration, spec, options, terminal)
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
