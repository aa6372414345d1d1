"""Which vehicles there are and which key each signs with: one JSON object a line, kept by whoever commissions vehicles.

{"vehicle_id": "car-17", "key_id": "5c9e…", "key": {"keytype": "ed25519", "scheme": "ed25519", "keyval": {…}}}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from securesystemslib.signer import SSlibKey

from perception.errors import RolloutError
from perception.telemetry_record import KnownVehicle


class Fleet(Mapping[str, KnownVehicle]):
    """The vehicles by key id; keys are parsed when first asked for, since a fleet can be large."""

    def __init__(self, lines: Mapping[str, tuple[str, dict[str, object]]]) -> None:
        self._lines = lines
        self._parsed: dict[str, KnownVehicle] = {}

    def __getitem__(self, key_id: str) -> KnownVehicle:
        if key_id not in self._parsed:
            vehicle_id, key = self._lines[key_id]
            self._parsed[key_id] = KnownVehicle(vehicle_id, SSlibKey.from_dict(key_id, dict(key)))
        return self._parsed[key_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def vehicle_ids(self) -> tuple[str, ...]:
        """Every vehicle once, in the file's order."""
        return tuple(dict.fromkeys(vehicle_id for vehicle_id, _ in self._lines.values()))


def fleet_line(vehicle_id: str, key: SSlibKey) -> str:
    """The line of one vehicle."""
    return json.dumps({"vehicle_id": vehicle_id, "key_id": key.keyid, "key": key.to_dict()}) + "\n"


def read_fleet(path: Path) -> Fleet:
    """Read a fleet file.

    Raises:
        RolloutError: unreadable, a line that is no vehicle, or a key that two vehicles share.
    """
    lines: dict[str, tuple[str, dict[str, object]]] = {}
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                vehicle_id, key_id, key = _parts(line, f"{path}, line {number}")
                if key_id in lines:
                    raise RolloutError(
                        f"{path}, line {number}: {vehicle_id} has the key of {lines[key_id][0]}; give each its own"
                    )
                lines[key_id] = (vehicle_id, key)
    except (OSError, UnicodeDecodeError) as error:
        raise RolloutError(f"{path}: no readable fleet file ({error}); one JSON object a line, see docs") from error
    return Fleet(lines)


def _parts(line: str, where: str) -> tuple[str, str, dict[str, object]]:
    try:
        fields = json.loads(line)
        vehicle_id, key_id, key = fields["vehicle_id"], fields["key_id"], fields["key"]
        SSlibKey.from_dict(key_id, dict(key))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RolloutError(
            f"{where}: no vehicle, expected vehicle_id, key_id and key; docs/rollout.md shows a line"
        ) from error
    return str(vehicle_id), str(key_id), key
