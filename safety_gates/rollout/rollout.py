"""A rollout: started once, then moved by people and by evidence, every step an entry of its signed log.

The folder of a rollout::

    entries/        the signed log; everything else follows from it
    stages.yaml     the stage file, for people to read; an edited one is refused, since the signed text is what holds
    rollout.json    what vehicles follow now: to be published as a target of the release repository

Writing order: entry first, then `rollout.json`. Whoever dies in between leaves a decision that is not published yet;
the next command, whichever it is, publishes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import Signer, SSlibKey

from hw_profiles.yaml_files import model_from_fields
from perception.cohort import FORMAT, TARGET, ReleaseRef, RolloutPlan, new_salt
from perception.errors import RolloutError, VerificationError
from perception.files import write_atomically, write_new
from safety_gates.rollout.decision import Look
from safety_gates.rollout.decision_log import (
    FOLDER,
    NOTHING_BEFORE,
    DecisionLog,
    Entry,
    entry_path,
    read_log,
    signed_entry,
)
from safety_gates.rollout.stages import REFUSAL, RolloutFile, Stage, stages_from_text

STAGES = "stages.yaml"
HOUR_NS = 3600 * 10**9
Publish = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a rollout starts from; `vehicles` is the size of the fleet, which stages with a `least` need."""

    name: str
    stages: str
    candidate: ReleaseRef
    control: ReleaseRef
    operators: Sequence[SSlibKey] = ()
    vehicles: int | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout as its verified log says."""

    log: DecisionLog
    file: RolloutFile

    @property
    def plan(self) -> RolloutPlan:
        """What vehicles follow now."""
        return self.log.last.plan

    @property
    def stage(self) -> Stage:
        """The current stage."""
        return self.file.stage(self.plan.stage)

    @property
    def next_stage(self) -> Stage | None:
        """The stage after it; None after the last."""
        names = [stage.name for stage in self.file.stages]
        later = self.file.stages[names.index(self.plan.stage) + 1 :]
        return later[0] if later else None

    @property
    def ended(self) -> bool:
        """Whether nothing is left to decide."""
        return self.plan.state == "rolled_back" or self.log.last.action == "complete"

    @property
    def looks(self) -> tuple[Entry, ...]:
        """Entries of this stage that rest on a look, oldest first; what moved into the stage is not among them."""
        since = self.log.last.stage_since_ns
        return tuple(
            entry
            for entry in self.log.entries
            if entry.judgement is not None and entry.stage_since_ns == since and entry.action != "advance"
        )

    def next_look(self, now_ns: int) -> Look:
        """The look that would be taken now."""
        soaked = sum(bool((entry.judgement or {}).get("soaked")) for entry in self.looks)
        return Look(len(self.looks) + 1, soaked, (now_ns - self.log.last.stage_since_ns) / HOUR_NS)

    def due_in_h(self, now_ns: int) -> float:
        """Hours until the next look; 0 where it is due."""
        last_ns = self.looks[-1].at_ns if self.looks else self.log.last.stage_since_ns
        return max(0.0, self.stage.look_every_h - (now_ns - last_ns) / HOUR_NS)


def start(folder: Path, beginning: Beginning, signer: Signer, *, now_ns: int | None = None) -> Rollout:
    """Begin a rollout in its first stage.

    Raises:
        RolloutError: the folder holds one already, the stages contradict themselves, or ask for a least number of
            vehicles of a fleet whose size is not told.
        OutputError: the folder cannot be written.
    """
    file = _stages_for(beginning.stages, beginning.vehicles, where=STAGES)
    now_ns = time.time_ns() if now_ns is None else now_ns
    keys = {key.keyid: key.to_dict() for key in (signer.public_key, *beginning.operators)}
    entry = Entry(
        number=0,
        previous=NOTHING_BEFORE,
        at_ns=now_ns,
        action="start",
        by="operator",
        reason=f"start of {beginning.name}",
        plan=_first_plan(file, beginning),
        stage_since_ns=now_ns,
        stages=beginning.stages,
        vehicles=beginning.vehicles,
        operators=keys,
    )
    try:
        write_new(entry_path(folder, 0), signed_entry(entry, signer))
    except FileExistsError as error:
        raise RolloutError(f"{folder}: holds a rollout already; choose another folder") from error
    write_atomically(folder / STAGES, beginning.stages.encode())
    return open_rollout(folder)


def open_rollout(folder: Path) -> Rollout:
    """Read and verify a rollout.

    Raises:
        RolloutError: there is none.
        VerificationError: the log does not verify, or the stage file was edited after it was signed.
    """
    log = read_log(folder)
    signed = log.entries[0].stages or ""
    rollout = Rollout(log, _stages_for(signed, log.entries[0].vehicles, where=f"{folder / FOLDER}: stages"))
    path = folder / STAGES
    if path.exists() and path.read_bytes() != signed.encode():
        raise VerificationError(
            f"{path}: was edited after it was signed; restore it, or start another rollout with the edited one"
        )
    return rollout


def publish(rollout: Rollout, also: Publish | None = None) -> None:
    """Make `rollout.json` say what the log says; repeating it changes nothing.

    Args:
        rollout: what was decided.
        also: publishes the same bytes further, into a release repository.

    Raises:
        OutputError: it cannot be written; the decision stands, and the next command publishes it.
    """
    folder, content = rollout.log.folder, rollout.plan.to_bytes()
    for name, text in ((STAGES, (rollout.log.entries[0].stages or "").encode()), (TARGET, content)):
        path = folder / name
        if not path.exists() or path.read_bytes() != text:
            write_atomically(path, text)
    if also is not None:
        also(content)


def _stages_for(text: str, vehicles: int | None, *, where: str) -> RolloutFile:
    file = stages_from_text(text, where=where)
    if vehicles:
        return file.for_fleet(vehicles)
    if least := [stage.name for stage in file.stages if stage.least]:
        raise RolloutError(
            f"{where}: {' and '.join(least)} ask for a least number of vehicles, and the fleet's size is not known; "
            "name its vehicles with --fleet"
        )
    return file


def _first_plan(file: RolloutFile, beginning: Beginning) -> RolloutPlan:
    fields = {
        "format": FORMAT,
        "rollout": beginning.name,
        "salt": new_salt(),
        "serial": 0,
        "state": "rolling",
        "stage": file.stages[0].name,
        "stages": [stage.model_dump(include={"name", "share", "shadow"}) for stage in file.stages],
        "holdout": file.holdout,
        "candidate": beginning.candidate,
        "control": beginning.control,
    }
    return model_from_fields(RolloutPlan, fields, where=TARGET, refusal=REFUSAL)
