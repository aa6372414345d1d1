"""One package on trial: what it is held against, and the measurements made of it so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal

from pydantic import JsonValue
from rich.markup import escape

from compile.accuracy import LOWEST_SCORE
from hw_profiles.machine import read_machine
from perception.errors import LabelError, PackageError, SourceError
from perception.frame import Frame
from perception.package import EnginePackage
from perception.pipeline import open_pipeline
from perception.results import Result
from perception.sources.source import FrameSource
from perception.sources.table import kind_and_path, open_source, source_class
from perception.terminal import Step, Terminal
from safety_gates.changes import confirmed, data_changes, discard_void, package_changes
from safety_gates.conditions import Conditions, DataSet, Subject, code_version
from safety_gates.evidence import ArrayMap, Evidence, KeptEvidence, Shelf
from safety_gates.gates.gate import Unmeasured
from safety_gates.gates.table import settings_of
from safety_gates.machine_facts import machine_facts, machine_state
from safety_gates.readable import require_pictures
from safety_gates.result_log import FrameKey, ResultLog
from safety_gates.source_signature import SourceSignature
from safety_gates.truth import Truth, read_truth, require_labelled_frame

Matter = Literal["recording", "timing", "labels", "reference"]
RECORDING_ALONE: tuple[Matter, ...] = ("recording",)
TIMING_ALONE: tuple[Matter, ...] = ("timing",)
UNTIMED = frozenset({"image_folder"})
"""Kinds of recording whose capture times are made up: what moved between two of their pictures nobody knows."""
SEQUENCE_FRAMES = 300
SOAK_FRAMES = 1000


@dataclass(frozen=True, slots=True)
class Case:
    """What the command line asked to try.

    Attributes:
        package: the package on trial.
        recording: the frames.
        labels: ground truth of the recording; None where there is none.
        class_map: YAML that says which of the model's classes answers to which label; None where the names are equal.
        reference: the float package; None where there is none.
        last_release: the package that was released before this one; None where there is none, or none was given.
        first_release: whoever asks says that nothing was released before.
        frames: only the first so many frames of the recording; None for all.
        timing: recordings on all of whose frames latency is measured; none for the frames of `recording`. A few
            labelled pictures cannot carry a 99th percentile, a long drive without labels can.
        soak_frames: for so many frames memory is watched.
        source_signature: who vouches for the model that was compiled; None where no signature was given.
        command: the command line, for the evidence.
    """

    package: EnginePackage
    recording: Path
    labels: Path | None = None
    class_map: Path | None = None
    reference: EnginePackage | None = None
    last_release: EnginePackage | None = None
    first_release: bool = False
    frames: int | None = None
    timing: tuple[Path, ...] = ()
    soak_frames: int = SOAK_FRAMES
    source_signature: SourceSignature | None = None
    command: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a measurement gives."""

    samples: int
    values: Mapping[str, JsonValue]
    arrays: ArrayMap = field(default_factory=dict)


class Trial:
    """Measures a case, each measurement once, and keeps the evidence on a shelf."""

    def __init__(self, case: Case, shelf: Shelf, terminal: Terminal) -> None:
        """Digest recording and labels and compare what must fit, so that misfits are refused before any long work.

        Raises:
            SourceError: the recording is missing or unreadable.
            LabelError: the labels are missing, unreadable, of another recording, or of classes the model lacks.
            PackageError: the reference or the last release is of another model, or there is one and there is none.
        """
        self.case = case
        self.shelf = shelf
        self.settings: Mapping[str, Mapping[str, float]] = {}
        self._terminal = terminal
        self._stage = ""
        self._logs: dict[str, ResultLog] = {}
        self._obtained: list[KeptEvidence] = []
        self._made: list[KeptEvidence] = []
        self._resting: list[list[str]] = []  # digests of what each measurement in progress has used so far
        self.recording = DataSet.of(_path_of(case.recording), SourceError)
        timing = [DataSet.of(_path_of(path), SourceError) for path in case.timing]
        self.timing = DataSet.together(timing) if timing else self.recording
        self.labels = None if case.labels is None else DataSet.of(case.labels, LabelError)
        for path in (case.recording, *case.timing):
            require_pictures(_path_of(path))
        self.truth = _truth_of(case)
        for other in (case.reference, case.last_release):
            if other is not None:
                _require_same_model(case.package, other)
        if case.first_release and case.last_release is not None:
            raise PackageError(
                f"{case.last_release.folder}: is given as the last release of what is said to be the first; say one"
            )

    @cached_property
    def machine(self) -> dict[str, JsonValue]:
        """What this machine is, field by field, without what moves by itself."""
        return machine_facts(read_machine())

    def conditions(
        self,
        measurement: str,
        *,
        subject: EnginePackage | None = None,
        looks_at: Collection[Matter] = RECORDING_ALONE,
        settings: Mapping[str, JsonValue] | None = None,
    ) -> Conditions:
        """What a measurement made now would be bound to.

        Args:
            measurement: its name.
            subject: the package it speaks of; None for the one on trial.
            looks_at: what it is measured with, beside the package.
            settings: how it measures; the number of frames is added.
        """
        reference = self.case.reference if "reference" in looks_at else None
        timing = "timing" in looks_at
        frames = None if timing and self.case.timing else self.case.frames
        recording = self.recording if "recording" in looks_at else None
        return Conditions(
            measurement=measurement,
            subject=Subject.of(subject or self.case.package),
            reference=None if reference is None else Subject.of(reference),
            recording=self.timing if timing else recording,
            labels=self.labels if "labels" in looks_at else None,
            settings={"frames": frames, **(settings or {})},
            machine=self.machine,
            tollgate=code_version(),
        )

    def obtain(
        self,
        wanted: Conditions,
        observe: Callable[[], Observation],
        *,
        unfit: Callable[[KeptEvidence], str | None] = lambda _: None,
    ) -> KeptEvidence:
        """Evidence bound to `wanted`: from the shelf, or measured now; says which, and why. In one trial only once.

        Args:
            wanted: what it must be bound to.
            observe: measures.
            unfit: why evidence from the shelf should rather be measured again, or None where it should not.

        Raises:
            TollgateError: whatever measuring raises.
            OutputError: the shelf cannot be written.
        """
        if (known := self._obtained_already(wanted)) is not None:
            self._rest_on(known)
            return known
        label = f"{self._stage}{wanted.measurement} of {wanted.subject.name}"
        kept, why_not = self.shelf.find(wanted)
        if kept is not None and (flaw := unfit(kept)) is not None:
            kept, why_not = None, flaw
        if kept is not None:
            self._terminal.say(f"{label}: evidence {kept.sha256[:12]} is re-used")
        else:
            self._terminal.say(f"{label}: measuring ({escape(why_not)})")
            kept = self.measure(wanted, observe)
        self._obtained.append(kept)
        self._rest_on(kept)
        return kept

    def _obtained_already(self, wanted: Conditions) -> KeptEvidence | None:
        """What several gates build on is measured, and looked for on the shelf, by the first of them alone."""
        return next((kept for kept in self._obtained if kept.evidence.conditions == wanted), None)

    def measure(self, wanted: Conditions, observe: Callable[[], Observation]) -> KeptEvidence:
        """Evidence measured now; names the evidence that was obtained meanwhile as what it rests on.

        Raises:
            TollgateError: whatever measuring raises.
            OutputError: the shelf cannot be written.
        """
        before, started_ns = machine_state(), time.time_ns()
        self._resting.append([])
        try:
            observation = observe()
        finally:
            below = self._resting.pop()
        evidence = Evidence(
            conditions=wanted,
            command=self.case.command,
            samples=observation.samples,
            started_ns=started_ns,
            ended_ns=time.time_ns(),
            before=before,
            after=machine_state(),
            values=dict(observation.values),
            rests_on=tuple(dict.fromkeys(below)),
        )
        kept = self.shelf.keep(evidence, observation.arrays)
        self._made.append(kept)
        return kept

    @property
    def measured(self) -> int:
        """How many measurements were made since the trial began; evidence that was re-used is none."""
        return len(self._made)

    def begin(self, stage: str) -> None:
        """Say in all that follows which part of the work it belongs to."""
        self._stage = f"{stage}: "

    def confirmed(self, exhibits: Mapping[str, KeptEvidence | Unmeasured]) -> dict[str, KeptEvidence | Unmeasured]:
        """The exhibits that still speak of what lies there; what changed meanwhile decides nothing.

        Packages and data were digested before anything was measured. What differs from that now may have differed
        while frames were read, so evidence made meanwhile is taken off the shelf again.
        """
        case = self.case
        changes = (
            *package_changes(case.package, case.reference, case.last_release),
            *data_changes(self.recording, [_path_of(case.recording)]),
            *data_changes(self.timing, [_path_of(path) for path in case.timing]),
            *data_changes(self.labels, [] if case.labels is None else [case.labels]),
        )
        discard_void(self._made, self.shelf, changes)
        return {name: confirmed(exhibit, self.shelf, changes) for name, exhibit in exhibits.items()}

    def setting(self, gate: str, name: str) -> float:
        """How a gate measures: as the policy says, else as the gate has it by itself."""
        return self.settings.get(gate, {}).get(name, settings_of(gate)[name])

    def results(self, package: EnginePackage) -> KeptEvidence:
        """What a package says about every frame, detections from `LOWEST_SCORE` on."""
        wanted = self.conditions("results", subject=package, settings={"lowest_score": LOWEST_SCORE})
        return self.obtain(wanted, lambda: self._observe_results(package))

    def result_log(self, package: EnginePackage) -> ResultLog:
        """The same, read once: a thousand masks are not unpacked for every gate anew."""
        return self._log_of(self.results(package), package)

    def _log_of(self, kept: KeptEvidence, package: EnginePackage) -> ResultLog:
        if kept.sha256 not in self._logs:
            self._logs[kept.sha256] = ResultLog.from_arrays(kept.arrays, package.spec.task)
        return self._logs[kept.sha256]

    def has_sequence(self) -> bool:
        """Whether there is a recording whose frames follow each other in real time."""
        return bool(self._sequences())

    def sequence_log(self, package: EnginePackage) -> ResultLog:
        """What a package says about frames that follow each other: the first of each timing recording, else of the one.

        Of each timing recording the first `SEQUENCE_FRAMES` are looked at, its cameras named `NUMBER/CAMERA`. Where
        there are none the results serve that every other gate looks at, and nothing is run again.

        Raises:
            ValueError: `has_sequence` is false.
        """
        if not self._sequences():
            raise ValueError("no recording has capture times; ask has_sequence first")
        if not self.case.timing:
            return self.result_log(package)
        settings: dict[str, JsonValue] = {"lowest_score": LOWEST_SCORE, "most_frames": SEQUENCE_FRAMES}
        wanted = self.conditions("sequence_results", subject=package, looks_at=TIMING_ALONE, settings=settings)
        return self._log_of(self.obtain(wanted, lambda: self._observe_sequences(package)), package)

    def _sequences(self) -> list[Path]:
        recordings = self.case.timing or (self.case.recording,)
        return [path for path in recordings if kind_and_path(path)[0] not in UNTIMED]

    @contextmanager
    def frames(self, what: str) -> Iterator[Iterator[Frame]]:
        """The frames of the recording, with progress; the next are decoded while the block works on one.

        Args:
            what: is shown beside the progress.

        Raises:
            SourceError: the recording cannot be read.
        """
        with self._stepped(open_source(self.case.recording), what, self.case.frames) as frames:
            yield frames

    @contextmanager
    def timed_recordings(self, what: str) -> Iterator[Iterator[Iterator[Frame]]]:
        """The frames latency is measured on, recording by recording, with progress; each is decoded when asked for.

        Args:
            what: is shown beside the progress.

        Raises:
            SourceError: a recording cannot be read.
        """
        with closing(self._one_after_another(what)) as recordings:
            yield recordings

    def _one_after_another(self, what: str) -> Generator[Iterator[Frame]]:
        """Each recording is closed before the next is opened: one decoder and one progress bar at a time."""
        if not self.case.timing:
            with self._stepped(_undecoded(self.case.recording), what, self.case.frames) as frames:
                yield frames
        for path in self.case.timing:
            with self._stepped(_undecoded(path), f"{what}, {path.name}", None) as frames:
                yield frames

    def _rest_on(self, kept: KeptEvidence) -> None:
        if self._resting:
            self._resting[-1].append(kept.sha256)

    @contextmanager
    def _stepped(self, source: FrameSource, what: str, most: int | None) -> Iterator[Iterator[Frame]]:
        try:
            counts = [camera.frame_count for camera in source.cameras]
            known = None if None in counts else sum(count or 0 for count in counts)
            limits = [count for count in (known, most) if count is not None]
            with self._terminal.progress(self._stage + what, min(limits, default=None)) as step:
                yield _stepping(islice(source.frames(), most), step)
        finally:
            source.close()

    def _observe_results(self, package: EnginePackage) -> Observation:
        with (
            open_pipeline(package, score_threshold=LOWEST_SCORE) as pipeline,
            self.frames(f"results of {package.manifest.name}") as frames,
        ):
            rows = [(FrameKey.of(frame), pipeline.step(frame).result) for frame in frames]
        return self._logged(rows, package)

    def _observe_sequences(self, package: EnginePackage) -> Observation:
        rows: list[tuple[FrameKey, Result | None]] = []
        with open_pipeline(package, score_threshold=LOWEST_SCORE) as pipeline:
            for number, path in enumerate(self._sequences(), start=1):
                what = f"results of {package.manifest.name}, {path.name}"
                with self._stepped(open_source(path), what, SEQUENCE_FRAMES) as frames:
                    for frame in frames:
                        key = replace(FrameKey.of(frame), camera_id=f"{number}/{frame.camera_id}")
                        rows.append((key, pipeline.step(frame).result))
        return self._logged(rows, package)

    def _logged(self, rows: Sequence[tuple[FrameKey, Result | None]], package: EnginePackage) -> Observation:
        if not rows:
            raise SourceError(f"{self.case.recording}: has no frames, expected at least 1; choose another recording")
        known = [(key, result) for key, result in rows if result is not None]
        log = ResultLog(tuple(key for key, _ in known), tuple(result for _, result in known))
        return Observation(len(known), {"task": package.spec.task}, log.to_arrays(package.spec.task))


def recording_of(frame: FrameKey) -> str:
    """The number of the timing recording that a frame of `Trial.sequence_log` belongs to."""
    return frame.camera_id.partition("/")[0]


def _undecoded(recording: Path) -> FrameSource:
    """A source that decodes a frame only when it is asked for it."""
    kind, path = kind_and_path(recording)
    source: FrameSource = source_class(kind)(path)
    return source


def _path_of(recording: Path) -> Path:
    return kind_and_path(recording)[1]


def _truth_of(case: Case) -> Truth | None:
    if case.labels is None:
        if case.class_map is not None:
            raise LabelError(f"{case.class_map}: a class map without labels does nothing; give --labels PATH too")
        return None
    truth = read_truth(case.labels, case.class_map, case.package.spec)
    require_labelled_frame(truth, case.recording, case.frames)
    return truth


def _require_same_model(package: EnginePackage, reference: EnginePackage) -> None:
    ours, theirs = package.spec, reference.spec
    if (ours.task, ours.classes) != (theirs.task, theirs.classes):
        raise PackageError(
            f"{reference.folder}: is a {theirs.task} model of {len(theirs.classes)} classes, the package on trial is a "
            f"{ours.task} model of {len(ours.classes)}; give a package of the same model"
        )


def _stepping(frames: Iterator[Frame], step: Step) -> Iterator[Frame]:
    for frame in frames:
        yield frame
        step()
