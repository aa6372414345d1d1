"""Which gates exist, and what each of them can measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safety_gates.gates.gate import Gate, Quantity
    from safety_gates.looks import Look
    from safety_gates.trial import Trial

GATES: dict[str, str] = {
    "accuracy": "safety_gates.gates.accuracy:AccuracyGate",
    "regression": "safety_gates.gates.regression:RegressionGate",
    "slices": "safety_gates.gates.slices:SlicesGate",
    "robustness": "safety_gates.gates.robustness:RobustnessGate",
    "parity": "safety_gates.gates.parity:ParityGate",
    "sensor_faults": "safety_gates.gates.sensor_faults:SensorFaultsGate",
    "latency": "safety_gates.gates.latency:LatencyGate",
    "streaming": "safety_gates.gates.streaming:StreamingGate",
    "temporal": "safety_gates.gates.temporal:TemporalGate",
    "determinism": "safety_gates.gates.determinism:DeterminismGate",
    "calibration": "safety_gates.gates.calibration:CalibrationGate",
    "resources": "safety_gates.gates.resources:ResourcesGate",
    "provenance": "safety_gates.gates.provenance:ProvenanceGate",
}

EVERY_FRAME = "every frame"
# Passes over the recording that a gate makes where nothing can be re-used: for the time that is left, for nothing else.
PASSES: dict[str, float] = {
    EVERY_FRAME: 4,
    "accuracy": 0.2,
    "regression": 0.2,
    "slices": 0.1,
    "robustness": 1.5,
    "parity": 0.1,
    "sensor_faults": 0.5,
    "latency": 3,
    "streaming": 0.2,
    "temporal": 0.1,
    "determinism": 0.1,
    "calibration": 0.1,
    "resources": 1.5,
    "provenance": 0.2,
}


def open_gate(name: str) -> Gate:
    """A gate by its name in `GATES`; its libraries are imported only now."""
    module, class_name = GATES[name].split(":")
    gate: Gate = getattr(import_module(module), class_name)()
    return gate


def quantities_of(name: str) -> Mapping[str, Quantity]:
    """What the gate of that name measures, quantity → unit, direction and task."""
    return open_gate(name).quantities


def settings_of(name: str) -> Mapping[str, float]:
    """How the gate of that name measures unless a policy says otherwise; empty where there is nothing to choose."""
    settings: Mapping[str, float] = getattr(open_gate(name), "settings", {})
    return settings


def looks_of(name: str, trial: Trial) -> Sequence[Look]:
    """What the gate of that name wants to see of every frame of the recording; empty where it looks by itself."""
    ask: Callable[[Trial], Sequence[Look]] = getattr(open_gate(name), "looks", lambda _: ())
    return ask(trial)
