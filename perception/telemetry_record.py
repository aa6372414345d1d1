"""One compact record a drive, signed by the vehicle that drove.

A record is a DSSE envelope on one line, signed with the vehicle's own ed25519 key. Whatever adds up over drives is
kept as counts, so records merge without loss: latencies as the buckets of `perception.latency`, distributions as
counts in the release's bins. A record says nothing about where a vehicle was or what it saw.

A record is identified by vehicle and `sequence`: a number the vehicle never uses twice. Sending one twice changes
nothing, another one under the same number is seen, and a gap tells how many records were lost.

Source: DSSE 1.0; divergence: Lin 1991, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, UnverifiedSignatureError
from securesystemslib.signer import Signer, SSlibKey

from hw_profiles.yaml_files import complaints_of
from perception.cohort import Name, ReleaseRef, Role, VehicleId
from perception.errors import RolloutError, VerificationError
from perception.latency import LatencyRecorder

PAYLOAD_TYPE = "application/vnd.tollgate.drive+json"
MOST_RECORD_BYTES = 64 * 1024
MOST_BINS = 256

Count = Annotated[int, Field(ge=0, le=2**40)]
Nanoseconds = Annotated[int, Field(ge=0, lt=2**63)]
Bins = Annotated[tuple[Count, ...], Field(max_length=MOST_BINS)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.:/+-]{0,63}$")]


class _Fields(BaseModel):
    """Unknown fields are refused: what is not understood is not counted."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LatencyBuckets(_Fields):
    """The state of a `LatencyRecorder`: merges without loss."""

    total_ns: Nanoseconds = 0
    extremes_ns: tuple[Nanoseconds | None, Nanoseconds | None] = (None, None)
    buckets: tuple[tuple[Count, Annotated[int, Field(gt=0)]], ...] = Field(default=(), max_length=14_336)

    @classmethod
    def of(cls, recorder: LatencyRecorder) -> LatencyBuckets:
        """What a recorder holds."""
        return cls.model_validate(recorder.state())

    def recorder(self) -> LatencyRecorder:
        """A recorder that holds it again."""
        return LatencyRecorder.of_state(self.model_dump())


class Shadow(_Fields):
    """What the shadow said beside what drove, on the frames that both looked at.

    Attributes:
        compared: objects, or cells of masks, that the two said, counted for each of them.
        agreed: of them said by both, by `perception.agreement`.
        shed: frames for which the shadow had no time.
    """

    release: ReleaseRef
    compared: Count = 0
    agreed: Count = 0
    shed: Count = 0

    @model_validator(mode="after")
    def _agrees_on_what_it_compared(self) -> Shadow:
        if self.agreed > self.compared:
            raise ValueError(f"agreed: got {self.agreed}, expected at most the {self.compared} compared")
        return self


class Counted(_Fields):
    """Histograms of a drive, or of a release's reference; `perception.distributions` says of what.

    Attributes:
        frames: looked at.
        parts: name of a histogram → its bins.
    """

    frames: Count
    parts: Annotated[dict[Label, Bins], Field(max_length=16)]


class Reference(_Fields):
    """What a release saw and said where it was published: what drives with it are held against."""

    input: Counted
    output: Counted


class Drift(_Fields):
    """How far a distribution lies from the release's reference.

    Attributes:
        counts: in the bins of the reference, one part after the other; they add up over drives.
        divergence: Jensen–Shannon divergence to the reference, 0 (equal) to 1 (nothing in common), mean of the parts.
    """

    counts: Bins
    divergence: float = Field(ge=0.0, le=1.0)


class SlotEvent(_Fields):
    """What happened to a slot, and when on the vehicle's clock."""

    at_ns: Nanoseconds
    slot: Label
    event: Label
    release: Label


class DriveRecord(_Fields):
    """What is kept of one drive.

    Attributes:
        sequence: grows with every drive of the vehicle; never used twice.
        started_ns: vehicle's clock, nanoseconds since 1970 UTC.
        duration_s: from the first frame to the last.
        rollout, role: of the plan the vehicle followed; None outside a rollout.
        release: what drove.
        ended: "aborted" where the drive ended in an error or an interrupt, "crash" where the process died and the next
            start wrote the record.
        frames: delivered by the cameras; late and skipped ones are among them.
        faults: fault flags by name, how often each was raised.
        smoke: what the release's smoke run measured on this device before it was used, by the check's name.
    """

    format: Literal["tollgate-drive/1"] = "tollgate-drive/1"
    vehicle_id: VehicleId
    sequence: Count
    started_ns: Nanoseconds
    duration_s: float = Field(ge=0.0, le=7 * 86400.0)
    rollout: Name | None = None
    role: Role | None = None
    release: ReleaseRef
    profile: Label
    versions: dict[Label, Label] = Field(default_factory=dict, max_length=32)
    ended: Literal["clean", "aborted", "crash"] = "clean"
    frames: Count = 0
    late: Count = 0
    skipped: Count = 0
    latency: LatencyBuckets = LatencyBuckets()
    faults: dict[Label, Count] = Field(default_factory=dict, max_length=64)
    shadow: Shadow | None = None
    input_drift: Drift | None = None
    output_drift: Drift | None = None
    temperature_max_c: float | None = Field(default=None, ge=-60.0, le=200.0)
    slot_events: tuple[SlotEvent, ...] = Field(default=(), max_length=64)
    smoke: dict[Label, float] = Field(default_factory=dict, max_length=16)

    @model_validator(mode="after")
    def _misses_are_frames(self) -> DriveRecord:
        if self.late + self.skipped > self.frames:
            raise ValueError(f"late + skipped: got {self.late + self.skipped}, expected at most {self.frames} frames")
        return self

    @property
    def misses(self) -> int:
        """Frames without a result in time."""
        return self.late + self.skipped


@dataclass(frozen=True, slots=True)
class KnownVehicle:
    """A vehicle of the fleet and the key it signs with."""

    vehicle_id: str
    key: SSlibKey


def sign_record(record: DriveRecord, signer: Signer) -> bytes:
    """The record as one signed line, ready to be spooled."""
    envelope = Envelope(record.model_dump_json(exclude_none=True).encode(), PAYLOAD_TYPE, {})
    envelope.sign(signer)
    return json.dumps(envelope.to_dict(), separators=(",", ":"), sort_keys=True).encode() + b"\n"


def read_record(line: bytes, vehicles: Mapping[str, KnownVehicle]) -> DriveRecord:
    """A record, once it is known who signed it. Until then nothing of it is read.

    Args:
        line: what `sign_record` gave.
        vehicles: the fleet, by key id.

    Raises:
        RolloutError: no envelope, too large, or not a record.
        VerificationError: signed by no vehicle of the fleet, or in another one's name.
    """
    envelope = _envelope_of(line)
    vehicle = next((vehicles[key_id] for key_id in envelope.signatures if key_id in vehicles), None)
    if vehicle is None:
        raise VerificationError("drive record: signed by no vehicle of the fleet")
    try:
        envelope.verify([vehicle.key], threshold=1)
    except UnverifiedSignatureError as error:
        raise VerificationError(f"drive record: signature of vehicle {vehicle.vehicle_id} does not verify") from error
    try:
        record = DriveRecord.model_validate_json(envelope.payload)
    except ValidationError as error:
        raise RolloutError(f"drive record: {complaints_of(error)}; docs/rollout.md explains the fields") from error
    if record.vehicle_id != vehicle.vehicle_id:
        raise VerificationError(f"drive record: {vehicle.vehicle_id} signed in the name of {record.vehicle_id}")
    return record


def jensen_shannon(counts: Sequence[float], reference: Sequence[float]) -> float:
    """Divergence of two histograms over the same bins, to base 2: 0 equal, 1 nothing in common, 0 where one is empty.

    Raises:
        ValueError: not the same number of bins.
    """
    if len(counts) != len(reference):
        raise ValueError(f"bins: got {len(counts)}, the reference has {len(reference)}")
    first, second = math.fsum(counts), math.fsum(reference)
    if first == 0 or second == 0:
        return 0.0
    pairs = [(p / first, q / second) for p, q in zip(counts, reference, strict=True)]
    total = math.fsum(_to_middle(p, p + q) + _to_middle(q, p + q) for p, q in pairs)
    return min(1.0, max(0.0, total / 2))


def _to_middle(share: float, both: float) -> float:
    return share * math.log2(2 * share / both) if share > 0 else 0.0


def _envelope_of(line: bytes) -> Envelope:
    if len(line) > MOST_RECORD_BYTES:
        raise RolloutError(f"drive record: got {len(line)} bytes, expected at most {MOST_RECORD_BYTES}")
    try:
        envelope = Envelope.from_dict(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FormatError) as error:
        raise RolloutError("drive record: no signed envelope; a vehicle writes them with sign_record") from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise RolloutError(f"drive record: got payload {envelope.payload_type!r:.80}, expected {PAYLOAD_TYPE!r}")
    return envelope
