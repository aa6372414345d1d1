"""What a machine is, and how it is at this moment, as flat mappings that stand in evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

from pydantic import JsonValue

from hw_profiles.machine import Machine
from hw_profiles.telemetry import sample

MOVING_FACTS = frozenset({"clock_mhz", "gpu_clock_mhz"})


def machine_facts(machine: Machine) -> dict[str, JsonValue]:
    """A machine as one flat mapping, `cpu.model` and so on; momentary clocks are left to `machine_state`."""
    return dict(_flattened(machine.document(), "", omit=MOVING_FACTS))


def machine_state() -> dict[str, JsonValue]:
    """Clocks, temperature, throttling, memory and power at this moment; None where the machine does not tell."""
    return dict(_flattened(asdict(sample()), "", omit=frozenset()))


def _flattened(document: Mapping[str, object], prefix: str, omit: frozenset[str]) -> Iterator[tuple[str, JsonValue]]:
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}.", omit)
        elif key not in omit:
            yield prefix + key, _as_json(value)


def _as_json(value: object) -> JsonValue:
    """Tuples become lists, as they come back from JSON: facts are compared with facts read from files."""
    if isinstance(value, tuple | list):
        return [_as_json(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
