"""One package on trial: what it is held against, and the measurements made of it so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Literal

from pydantic import JsonValue
from rich.markup import escape

from compile.accuracy import LOWEST_SCORE
from hw_profiles.machine import read_machine
from perception.errors import LabelError, SourceError
from perception.package import EnginePackage
from perception.sources.prefetch import Ahead
from perception.terminal import Terminal
from safety_gates.case import Case, path_of, require_one_model, truth_of
from safety_gates.changes import confirmed, data_changes, discard_void, package_changes
from safety_gates.conditions import Conditions, DataSet, Subject, code_version
from safety_gates.evidence import Evidence, KeptEvidence, Shelf
from safety_gates.gates.gate import Unmeasured
from safety_gates.gates.table import settings_of
from safety_gates.looks import Look, Observation, ResultsLook, stretches
from safety_gates.machine_facts import machine_facts, machine_state
from safety_gates.policy import Limit, Policy
from safety_gates.readable import require_pictures
from safety_gates.reading import Reader
from safety_gates.result_log import ResultLog
from safety_gates.sequences import SEQUENCE_FRAMES, observe_sequences

Matter = Literal["recording", "timing", "labels", "reference"]
RECORDING_ALONE: tuple[Matter, ...] = ("recording",)
TIMING_ALONE: tuple[Matter, ...] = ("timing",)


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
        self.policy: Policy | None = None
        self.reader = Reader(case, terminal)
        self._terminal = terminal
        self._logs: dict[str, ResultLog] = {}
        self._obtained: list[KeptEvidence] = []
        self._made: list[KeptEvidence] = []
        self._resting: list[list[str]] = []  # digests of what each measurement in progress has used so far
        self.recording = DataSet.of(path_of(case.recording), SourceError)
        timing = [DataSet.of(path_of(path), SourceError) for path in case.timing]
        self.timing = DataSet.together(timing) if timing else self.recording
        self.labels = None if case.labels is None else DataSet.of(case.labels, LabelError)
        for path in (case.recording, *case.timing):
            require_pictures(path_of(path))
        self.truth = truth_of(case)
        require_one_model(case)

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
        kept = self._found(wanted, unfit) or self._obtained_now(self.measure(wanted, observe))
        self._rest_on(kept)
        return kept

    def obtain_look(self, look: Look) -> KeptEvidence:
        """`obtain` for what looks at every frame of the recording.

        Raises:
            TollgateError: the recording or the engine fail.
            OutputError: the shelf cannot be written.
        """
        self.look_through([look])
        return self.obtain(look.wanted, look.observation)

    def look_through(self, looks: Sequence[Look]) -> None:
        """Evidence of all looks, so that `obtain_look` finds it: those that lack it share one pass over the recording.

        Raises:
            TollgateError: the recording or an engine fail.
            OutputError: the shelf cannot be written.
        """
        alike = {look.wanted.model_dump_json(): look for look in looks}
        lacking = [look for look in alike.values() if self._found(look.wanted) is None]
        if not lacking:
            return
        before, started_ns = machine_state(), time.time_ns()
        what = " and ".join(dict.fromkeys(look.wanted.measurement for look in lacking))
        with ExitStack() as stack:
            sees = [stack.enter_context(look.opened()) for look in lacking]
            frames = stack.enter_context(self.reader.frames(what))
            ahead = Ahead(stretches(frames), 1, name="decode for the gates")
            stack.callback(ahead.stop)
            for stretch in ahead:
                for see in sees:
                    see(stretch)
        for look in lacking:
            self._obtained_now(self._kept(look.wanted, look.observation, before, started_ns))

    def _found(
        self, wanted: Conditions, unfit: Callable[[KeptEvidence], str | None] = lambda _: None
    ) -> KeptEvidence | None:
        """Evidence that was obtained already, or lies on the shelf; None, and said why, where it must be measured.

        What several gates build on is measured, and looked for on the shelf, by the first of them alone.
        """
        known = next((kept for kept in self._obtained if kept.evidence.conditions == wanted), None)
        if known is not None:
            return known
        label = f"{self.reader.stage}{wanted.measurement} of {wanted.subject.name}"
        kept, why_not = self.shelf.find(wanted)
        if kept is not None and (flaw := unfit(kept)) is not None:
            kept, why_not = None, flaw
        if kept is None:
            self._terminal.say(f"{label}: measuring ({escape(why_not)})")
            return None
        self._terminal.say(f"{label}: evidence {kept.sha256[:12]} is re-used")
        return self._obtained_now(kept)

    def _obtained_now(self, kept: KeptEvidence) -> KeptEvidence:
        self._obtained.append(kept)
        return kept

    def measure(self, wanted: Conditions, observe: Callable[[], Observation]) -> KeptEvidence:
        """Evidence measured now; names the evidence that was obtained meanwhile as what it rests on.

        Raises:
            TollgateError: whatever measuring raises.
            OutputError: the shelf cannot be written.
        """
        return self._kept(wanted, observe, machine_state(), time.time_ns())

    def _kept(
        self, wanted: Conditions, observe: Callable[[], Observation], before: dict[str, JsonValue], started_ns: int
    ) -> KeptEvidence:
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
        self.reader.stage = f"{stage}: "

    def confirmed(self, exhibits: Mapping[str, KeptEvidence | Unmeasured]) -> dict[str, KeptEvidence | Unmeasured]:
        """The exhibits that still speak of what lies there; what changed meanwhile decides nothing.

        Packages and data were digested before anything was measured. What differs from that now may have differed
        while frames were read, so evidence made meanwhile is taken off the shelf again.
        """
        case = self.case
        changes = (
            *package_changes(case.package, case.reference, case.last_release),
            *data_changes(self.recording, [path_of(case.recording)]),
            *data_changes(self.timing, [path_of(path) for path in case.timing]),
            *data_changes(self.labels, [] if case.labels is None else [case.labels]),
        )
        discard_void(self._made, self.shelf, changes)
        return {name: confirmed(exhibit, self.shelf, changes) for name, exhibit in exhibits.items()}

    def setting(self, gate: str, name: str) -> float:
        """How a gate measures: as the policy says, else as the gate has it by itself."""
        measuring = {} if self.policy is None else self.policy.measuring
        return measuring.get(gate, {}).get(name, settings_of(gate)[name])

    def asked(self, gate: str) -> tuple[Limit, ...]:
        """What the policy asks of a gate."""
        limits = () if self.policy is None else self.policy.limits
        return tuple(limit for limit in limits if limit.gate == gate)

    def results_look(self, package: EnginePackage) -> ResultsLook:
        """What a package says about every frame, detections from `LOWEST_SCORE` on, to be looked at with others."""
        return ResultsLook(
            package, self.conditions("results", subject=package, settings={"lowest_score": LOWEST_SCORE})
        )

    def results_looks(self) -> tuple[ResultsLook, ...]:
        """The same of the package on trial and of every other it is held against."""
        packages = (self.case.package, self.case.reference, self.case.last_release)
        return tuple(self.results_look(each) for each in packages if each is not None)

    def results(self, package: EnginePackage) -> KeptEvidence:
        """What a package says about every frame."""
        return self.obtain_look(self.results_look(package))

    def result_log(self, package: EnginePackage) -> ResultLog:
        """The same, read once: a thousand masks are not unpacked for every gate anew."""
        return self._log_of(self.results(package), package)

    def _log_of(self, kept: KeptEvidence, package: EnginePackage) -> ResultLog:
        if kept.sha256 not in self._logs:
            self._logs[kept.sha256] = ResultLog.from_arrays(kept.arrays, package.spec.task)
        return self._logs[kept.sha256]

    def has_sequence(self) -> bool:
        """Whether there is a recording whose frames follow each other in real time."""
        return bool(self.reader.sequences())

    def sequence_log(self, package: EnginePackage) -> ResultLog:
        """What a package says about frames that follow each other: the first of each timing recording, else of the one.

        Of each timing recording the first `SEQUENCE_FRAMES` are looked at, its cameras named `NUMBER/CAMERA`. Where
        there are none the results serve that every other gate looks at, and nothing is run again.

        Raises:
            ValueError: `has_sequence` is false.
        """
        if not self.reader.sequences():
            raise ValueError("no recording has capture times; ask has_sequence first")
        if not self.case.timing:
            return self.result_log(package)
        settings: dict[str, JsonValue] = {"lowest_score": LOWEST_SCORE, "most_frames": SEQUENCE_FRAMES}
        wanted = self.conditions("sequence_results", subject=package, looks_at=TIMING_ALONE, settings=settings)
        return self._log_of(self.obtain(wanted, lambda: observe_sequences(self.reader, package, wanted)), package)

    def _rest_on(self, kept: KeptEvidence) -> None:
        if self._resting:
            self._resting[-1].append(kept.sha256)
