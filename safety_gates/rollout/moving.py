"""A rollout moves: by what a look says, or by a person's command; each step is a new entry of its signed log."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from securesystemslib.signer import Signer

from perception.cohort import RolloutPlan
from perception.errors import RolloutError
from safety_gates.rollout.decision import Judgement, Outcome, json_of
from safety_gates.rollout.decision_log import Action, Entry
from safety_gates.rollout.rollout import Rollout


def judged(
    rollout: Rollout, judgement: Judgement, telemetry: Mapping[str, int], signer: Signer, *, now_ns: int
) -> Rollout:
    """Carry out what a look says, and write it down. A rollout that a person holds does not advance, and rolls back.

    Raises:
        RolloutError: the rollout has ended, or somebody was faster.
        OutputError: the disk is full; nothing was decided.
    """
    _refuse_ended(rollout)
    outcome, reason, paused = judgement.outcome, judgement.reason, rollout.log.last.paused
    if paused and outcome is not Outcome.ROLLBACK:
        outcome, reason = Outcome.HOLD, f"held by a person ({_why_held(rollout)}); {reason}"
    action, plan = _AUTOMATIC[outcome](rollout)
    return _write(
        rollout,
        signer,
        now_ns,
        action=action,
        plan=plan,
        reason=reason,
        by="auto",
        paused=paused and outcome is Outcome.HOLD,
        judgement=json_of(judgement),
        telemetry=dict(telemetry),
    )


def command(
    rollout: Rollout, action: str, reason: str, signer: Signer, *, now_ns: int, seen_stage: str | None = None
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


def _write(rollout: Rollout, signer: Signer, now_ns: int, **fields: object) -> Rollout:
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


def _why_held(rollout: Rollout) -> str:
    return next(entry.reason for entry in reversed(rollout.log.entries) if entry.action == "hold")


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


_Step = Callable[[Rollout], tuple[Action, RolloutPlan]]
_AUTOMATIC: dict[Outcome, _Step] = {
    Outcome.ADVANCE: _advanced,
    Outcome.HOLD: _looked,
    Outcome.ROLLBACK: _rolled_back,
}
_BY_HAND: dict[str, _Step] = {"advance": _advanced, "hold": _held, "resume": _resumed, "rollback": _rolled_back}
