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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import CryptoSigner, SSlibKey

from hw_profiles.yaml_files import model_from_fields
from perception.cohort import FORMAT, TARGET, ReleaseRef, RolloutPlan, new_salt
from perception.errors import RolloutError, VerificationError
from perception.files import write_atomically
from safety_gates.rollout.decision import Judgement, Look, Outcome, json_of
from safety_gates.rollout.decision_log import (
    FOLDER,
    NOTHING_BEFORE,
    Action,
    DecisionLog,
    Entry,
    entry_path,
    read_log,
    signed_entry,
    write_new,
)
from safety_gates.rollout.stages import REFUSAL, RolloutFile, Stage, stages_from_text

STAGES = "stages.yaml"
HOUR_NS = 3600 * 10**9
Publish = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a rollout starts from."""

    name: str
    stages: str
    candidate: ReleaseRef
    control: ReleaseRef
    operators: Sequence[SSlibKey] = ()


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


def start(folder: Path, beginning: Beginning, signer: CryptoSigner, *, now_ns: int | None = None) -> Rollout:
    """Begin a rollout in its first stage.

    Raises:
        RolloutError: the folder holds one already, or the stages contradict themselves.
        OutputError: the folder cannot be written.
    """
    file = stages_from_text(beginning.stages, where=STAGES)
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
    rollout = Rollout(log, stages_from_text(signed, where=f"{folder / FOLDER}: stages"))
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


def judged(
    rollout: Rollout, judgement: Judgement, telemetry: Mapping[str, int], signer: CryptoSigner, *, now_ns: int
) -> Rollout:
    """Carry out what a look says, and write it down.

    Raises:
        RolloutError: the rollout has ended, is paused, or somebody was faster.
        OutputError: the disk is full; nothing was decided.
    """
    _refuse_ended(rollout)
    if rollout.log.last.paused:
        raise RolloutError(
            f"{rollout.log.folder}: a person holds this rollout ({rollout.log.last.reason}); "
            "let it go on with: tollgate rollout advance, or roll back"
        )
    action, plan = _AUTOMATIC[judgement.outcome](rollout)
    return _write(
        rollout,
        signer,
        now_ns,
        action=action,
        plan=plan,
        reason=judgement.reason,
        by="auto",
        judgement=json_of(judgement),
        telemetry=dict(telemetry),
    )


def command(
    rollout: Rollout, action: str, reason: str, signer: CryptoSigner, *, now_ns: int, seen_stage: str | None = None
) -> Rollout:
    """Carry out a person's command.

    Args:
        rollout: as it was read.
        action: "advance", "hold", "resume" or "rollback".
        reason: why, in the person's words.
        signer: who.
        now_ns: clock.
        seen_stage: the stage the person believes to be leaving; without it, two people's advances would be two steps.

    Raises:
        RolloutError: the rollout has ended, is in another stage, or somebody was faster.
        OutputError: the disk is full; nothing was decided.
    """
    _refuse_ended(rollout)
    if seen_stage is not None and seen_stage != rollout.plan.stage:
        last = rollout.log.last
        raise RolloutError(
            f"the rollout is in stage {rollout.plan.stage!r}, expected {seen_stage!r}: the last step was "
            f"{last.action} ({last.reason}); look at it with: tollgate rollout status {rollout.log.folder}"
        )
    done, plan = _BY_HAND[action](rollout)
    return _write(
        rollout, signer, now_ns, action=done, plan=plan, reason=reason, by="operator", paused=action == "hold"
    )


def _write(rollout: Rollout, signer: CryptoSigner, now_ns: int, **fields: object) -> Rollout:
    last = rollout.log.last
    plan = fields["plan"]
    moved = isinstance(plan, RolloutPlan) and plan.stage != last.plan.stage
    entry = Entry.model_validate(
        {
            "number": last.number + 1,
            "previous": rollout.log.head,
            "at_ns": now_ns,
            "stage_since_ns": now_ns if moved else last.stage_since_ns,
            **fields,
        }
    )
    return Rollout(rollout.log.append(entry, signer), rollout.file)


def _refuse_ended(rollout: Rollout) -> None:
    if rollout.ended:
        last = rollout.log.last
        raise RolloutError(
            f"{rollout.log.folder}: this rollout has ended ({last.action}: {last.reason}); start another one"
        )


def _advanced(rollout: Rollout) -> tuple[Action, RolloutPlan]:
    following = rollout.next_stage
    if following is None:
        return "complete", rollout.plan
    return "advance", _changed(rollout.plan, stage=following.name)


def _held(rollout: Rollout) -> tuple[Action, RolloutPlan]:
    return "hold", rollout.plan


def _resumed(rollout: Rollout) -> tuple[Action, RolloutPlan]:
    return "resume", rollout.plan


def _looked(rollout: Rollout) -> tuple[Action, RolloutPlan]:
    return "look", rollout.plan


def _rolled_back(rollout: Rollout) -> tuple[Action, RolloutPlan]:
    return "rollback", _changed(rollout.plan, state="rolled_back")


def _changed(plan: RolloutPlan, **changes: object) -> RolloutPlan:
    return RolloutPlan.model_validate({**plan.model_dump(), **changes, "serial": plan.serial + 1})


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


_Step = Callable[[Rollout], tuple[Action, RolloutPlan]]
_AUTOMATIC: dict[Outcome, _Step] = {
    Outcome.ADVANCE: _advanced,
    Outcome.HOLD: _looked,
    Outcome.ROLLBACK: _rolled_back,
}
_BY_HAND: dict[str, _Step] = {"advance": _advanced, "hold": _held, "resume": _resumed, "rollback": _rolled_back}
