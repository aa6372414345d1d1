"""Vehicles with keys of their own, and the drives they report."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner

from perception.telemetry_record import DriveRecord, KnownVehicle

NOW_NS = 1_780_000_000_000_000_000
CONTROL = {"name": "detector 1", "sha256": "a" * 64}
CANDIDATE = {"name": "detector 2", "sha256": "b" * 64}


def new_key() -> CryptoSigner:
    """A key that exists for this test only."""
    return CryptoSigner(Ed25519PrivateKey.generate())


def known(signers: dict[str, CryptoSigner]) -> dict[str, KnownVehicle]:
    """The fleet as an ingest knows it."""
    return {signer.public_key.keyid: KnownVehicle(name, signer.public_key) for name, signer in signers.items()}


def record(vehicle_id: str = "car-1", **changes: object) -> DriveRecord:
    """An uneventful drive."""
    fields = {
        "vehicle_id": vehicle_id,
        "sequence": 0,
        "started_ns": NOW_NS,
        "duration_s": 600.0,
        "rollout": "november",
        "role": "control",
        "release": CONTROL,
        "profile": "x86_cpu",
        "frames": 18_000,
        "late": 20,
        "skipped": 4,
    }
    return DriveRecord.model_validate(fields | changes)
