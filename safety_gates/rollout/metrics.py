"""A rollout as Prometheus reads it: text exposition format, for a text-file collector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from safety_gates.rollout.rollout import Rollout


def prometheus(rollout: Rollout, counts: Mapping[str, int]) -> bytes:
    """The metrics' text.

    Source: Prometheus exposition format 0.0.4.
    """
    plan, last = rollout.plan, rollout.log.last
    name = {"rollout": plan.rollout}
    judgement = next((entry.judgement for entry in reversed(rollout.log.entries) if entry.judgement), {})
    findings = [finding for finding in _list(judgement.get("findings")) if isinstance(finding, dict)]
    lines = [
        *_family(
            "tollgate_rollout_share", "share of the fleet the stage gives the candidate", [(name, _share(rollout))]
        ),
        *_family("tollgate_rollout_serial", "serial of the published plan", [(name, plan.serial)]),
        *_family("tollgate_rollout_ended", "1 once nothing is left to decide", [(name, int(rollout.ended))]),
        *_family("tollgate_rollout_held", "1 while a person holds it", [(name, int(last.paused))]),
        *_family(
            "tollgate_rollout_decisions_total",
            "entries of the signed log",
            [({**name, "action": action}, count) for action, count in _actions(rollout).items()],
        ),
        *_family(
            "tollgate_rollout_records_total",
            "records by what became of them",
            [({**name, "reason": reason}, count) for reason, count in counts.items()],
        ),
        *_family(
            "tollgate_rollout_p_harm",
            "how unlikely the criterion's figures are without harm, at the last look",
            [({**name, "criterion": str(each["quantity"])}, each["p_harm"]) for each in findings],
        ),
        *_family(
            "tollgate_rollout_figure",
            "ratio to control, or share, at the last look",
            [
                ({**name, "criterion": str(each["quantity"])}, each["got"])
                for each in findings
                if each["got"] is not None
            ],
        ),
    ]
    return ("\n".join(lines) + "\n").encode()


def _family(name: str, says: str, samples: Iterable[tuple[Mapping[str, str], object]]) -> list[str]:
    kind = "counter" if name.endswith("_total") else "gauge"
    lines = [f"{name}{{{_labels(labels)}}} {value}" for labels, value in samples]
    return [f"# HELP {name} {says}", f"# TYPE {name} {kind}", *lines]


def _labels(labels: Mapping[str, str]) -> str:
    escaped = {key: text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for key, text in labels.items()}
    return ",".join(f'{key}="{text}"' for key, text in escaped.items())


def _share(rollout: Rollout) -> float:
    return 0.0 if rollout.plan.state == "rolled_back" else rollout.stage.share * (1 - rollout.plan.holdout)


def _actions(rollout: Rollout) -> Counter[str]:
    return Counter(entry.action for entry in rollout.log.entries)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
