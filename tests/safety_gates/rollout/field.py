"""A small fleet with real keys, and what it reports in a stage."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
from securesystemslib.signer import CryptoSigner

from perception.cohort import ReleaseRef, assignment
from perception.telemetry_record import sign_record
from safety_gates.rollout.fleet_file import fleet_line
from safety_gates.rollout.rollout import HOUR_NS, Beginning, Rollout, open_rollout, start
from tests.perception.fleet import CANDIDATE, CONTROL, NOW_NS, new_key, record

STAGES = """
format: tollgate-stages/1
name: short
holdout: 0.1
false_rollback: 0.01
false_advance: 0.05
suspicion: 0.02
stages:
  - {name: shadow, share: 0.0, shadow: 0.3, look_every_h: 24, soak: {hours: 24, vehicles: 5, drives: 20}}
  - {name: 30 %, share: 0.3, look_every_h: 24, soak: {hours: 24, vehicles: 5, drives: 20}}
  - {name: 100 %, share: 1.0, look_every_h: 24, soak: {hours: 24, vehicles: 5, drives: 20, controls: 3}}
criteria:
  - {quantity: crashes, why: a drive without perception}
  - {quantity: silence, why: who cannot report cannot be judged}
  - {quantity: deadline_misses, harm: 1.1, limit: 1.75, why: late is wrong}
  - {quantity: output_drift, harm: 1.25, limit: 2.0, why: what it says}
  - {quantity: shadow_disagreement, harm: 0.2, limit: 0.2, why: it agrees with what drives today}
"""
DAY_NS = 24 * HOUR_NS
YEAR_NS = 365 * DAY_NS


def begun(folder: Path, signer: CryptoSigner, *, began_ns: int = NOW_NS, **changes: object) -> Rollout:
    """A rollout that has just begun."""
    fields = {
        "name": "november",
        "stages": STAGES,
        "candidate": ReleaseRef.model_validate(CANDIDATE),
        "control": ReleaseRef.model_validate(CONTROL),
    }
    return start(folder, Beginning(**(fields | changes)), signer, now_ns=began_ns)


class Cars:
    """Vehicles that drive what the plan gives them and report it."""

    def __init__(self, folder: Path, count: int = 60) -> None:
        self.signers = {f"car-{number}": new_key() for number in range(count)}
        self.uploads, self.fleet_file = folder / "uploads", folder / "fleet.jsonl"
        self.uploads.mkdir(parents=True)
        self.fleet_file.write_text("".join(fleet_line(name, key.public_key) for name, key in self.signers.items()))
        self._sequence = dict.fromkeys(self.signers, 0)
        self._random = np.random.default_rng(7)
        self.usual = dict(zip(self.signers, self._random.lognormal(-7, 0.8, count), strict=True))

    def line(self, rollout: Rollout, name: str, at_ns: int, /, **changes: object) -> bytes:
        """One drive of one vehicle."""
        given = assignment(rollout.plan, name)
        shadow = {"release": CANDIDATE, "compared": 1000, "agreed": 980} if given.shadow else None
        fields = {
            "sequence": self._sequence[name],
            "started_ns": at_ns,
            "role": given.role,
            "release": given.release.model_dump(),
            "frames": 18_000,
            "late": int(self._random.poisson(18_000 * self.usual[name])),
            "skipped": 0,
            "output_drift": {"counts": [1], "divergence": float(self._random.uniform(0.01, 0.03))},
            "shadow": shadow,
        }
        self._sequence[name] += 1
        return sign_record(record(name, **(fields | changes)), self.signers[name])

    def drive(self, rollout: Rollout, *, from_ns: int, hours: int = 24, drives: int = 5, **candidates: object) -> None:
        """Everybody drives some times in the hours; `candidates` changes the drives of those that run the candidate."""
        lines = []
        for name in self.signers:
            runs_it = assignment(rollout.plan, name).role == "candidate"
            for turn in range(drives):
                at_ns = from_ns + int((turn + 0.5) / drives * hours * HOUR_NS) - 700 * 10**9
                lines.append(self.line(rollout, name, at_ns, **(candidates if runs_it else {})))
        (self.uploads / f"{from_ns}.jsonl").write_bytes(b"".join(lines))

    def drive_before_and_with(self, rollout: Rollout) -> None:
        """A day before the candidate and a day with it."""
        self.drive(rollout, from_ns=NOW_NS, drives=3, role="control", release=rollout.plan.control.model_dump())
        self.drive(rollout, from_ns=NOW_NS + DAY_NS, drives=3)

    def garbage(self, rollout: Rollout, number: int) -> tuple[bytes, str]:
        """One line that must not count, of every kind in turn, and as what it is counted."""
        name = list(self.signers)[number % len(self.signers)]
        good, at_ns = json.loads(self.line(rollout, name, NOW_NS + DAY_NS)), NOW_NS + DAY_NS + DAY_NS // 2
        bad = base64.b64encode(base64.b64decode(good["payload"]).replace(b'"late":', b'"late":9')).decode()
        kinds = (
            (b"\x00\xff not a record\n", "malformed"),
            (json.dumps(good).encode()[:-40] + b"\n", "malformed"),
            (json.dumps(good | {"payload": bad}).encode() + b"\n", "forged"),
            (sign_record(record(name, started_ns=at_ns, late=18_000, skipped=0), new_key()), "forged"),
            (self.line(rollout, name, NOW_NS + 8 * YEAR_NS, late=17_000), "skewed"),
            (self.line(rollout, name, NOW_NS - 30 * YEAR_NS, late=17_000), "skewed"),
            (self.line(rollout, name, at_ns, late=17_000, rollout="another"), "foreign"),
            (self.line(rollout, name, at_ns, late=17_000, sequence=0), "replayed"),
        )
        return kinds[number % len(kinds)]


def reread(rollout: Rollout) -> Rollout:
    """As the next command finds it."""
    return open_rollout(rollout.log.folder)
