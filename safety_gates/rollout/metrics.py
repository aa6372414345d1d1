"""A rollout as Prometheus reads it: text exposition format, for a text-file collector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from safety_gates.rollout.rollout import Rollout

Sample: TypeAlias = tuple[Mapping[str, str], object]


def prometheus(rollout: Rollout, counts: Mapping[str, int]) -> bytes:
    """The metrics' text.

    Source: Prometheus exposition format 0.0.4.
    """
    plan, last = rollout.plan, rollout.log.last
    name = {"rollout": plan.rollout}
    judgement = next((entry.judgement for entry in reversed(rollout.log.entries) if entry.judgement), {})
    findings = [finding for finding in _list(judgement.get("findings")) if isinstance(finding, dict)]
    families = (
        ("tollgate_rollout_share", "share of the fleet the stage gives the candidate", [(name, _share(rollout))]),
        ("tollgate_rollout_serial", "serial of the published plan", [(name, plan.serial)]),
        ("tollgate_rollout_ended", "1 once nothing is left to decide", [(name, int(rollout.ended))]),
        ("tollgate_rollout_held", "1 while a person holds it", [(name, int(last.paused))]),
        ("tollgate_rollout_decisions_total", "entries of the signed log", _labelled(name, "action", _actions(rollout))),
        ("tollgate_rollout_records_total", "records by what became of them", _labelled(name, "reason", counts)),
        ("tollgate_rollout_p_harm", "how unlikely the figures are without harm", _figures(name, findings, "p_harm")),
        ("tollgate_rollout_figure", "ratio to control, or share, at the last look", _figures(name, findings, "got")),
    )
    return ("\n".join(line for family in families for line in _family(*family)) + "\n").encode()


def _labelled(name: Mapping[str, str], label: str, counts: Mapping[str, int]) -> list[Sample]:
    return [({**name, label: key}, count) for key, count in counts.items()]


def _figures(name: Mapping[str, str], findings: Sequence[Mapping[str, object]], figure: str) -> list[Sample]:
    told = (each for each in findings if each[figure] is not None)
    return [({**name, "criterion": str(each["quantity"])}, each[figure]) for each in told]


def _family(name: str, says: str, samples: Iterable[Sample]) -> list[str]:
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
