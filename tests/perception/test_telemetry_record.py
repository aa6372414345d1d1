"""A drive's record comes back as it was written, and only from the vehicle that drove."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from perception.errors import RolloutError, VerificationError
from perception.latency import LatencyRecorder
from perception.telemetry_record import (
    MOST_RECORD_BYTES,
    Drift,
    DriveRecord,
    LatencyBuckets,
    jensen_shannon,
    read_record,
    sign_record,
)
from tests.perception.fleet import CANDIDATE, NOW_NS, known, new_key, record

SIGNER, OTHER = new_key(), new_key()
VEHICLES = known({"car-1": SIGNER, "car-2": OTHER})


def recorded(*durations_ns):
    recorder = LatencyRecorder()
    for duration_ns in durations_ns:
        recorder.record(duration_ns)
    return recorder


def test_a_full_record_comes_back_on_one_small_line():
    full = record(
        faults={"camera_frozen": 2},
        ended="crash",
        latency=LatencyBuckets.of(recorded(*range(1_000_000, 60_000_000, 10_000))),
        shadow={"release": CANDIDATE, "compared": 900, "agreed": 890, "shed": 10},
        input_drift=Drift(counts=(5, 5), divergence=0.0),
        temperature_max_c=71.5,
        versions={"tollgate": "0.1.0"},
        slot_events=[{"at_ns": NOW_NS, "slot": "b", "event": "committed", "release": "detector 2"}],
    )
    line = sign_record(full, SIGNER)
    assert read_record(line, VEHICLES) == full
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert len(line) < MOST_RECORD_BYTES / 2


@given(st.lists(st.integers(0, 10**12)), st.lists(st.integers(0, 10**12)))
def test_latencies_of_two_drives_merge_as_if_recorded_together(first, second):
    merged = LatencyBuckets.of(recorded(*first)).recorder()
    merged.merge(LatencyBuckets.of(recorded(*second)).recorder())
    assert merged.state() == recorded(*first, *second).state()


class TestForgery:
    def altered(self, line, **changes):
        envelope = json.loads(line)
        payload = json.loads(base64.b64decode(envelope["payload"])) | changes
        envelope["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
        return json.dumps(envelope).encode()

    def test_an_altered_count_does_not_verify(self):
        with pytest.raises(VerificationError, match="car-1 does not verify"):
            read_record(self.altered(sign_record(record(), SIGNER), late=0), VEHICLES)

    def test_one_vehicle_cannot_speak_for_another(self):
        with pytest.raises(VerificationError, match="car-2 signed in the name of car-1"):
            read_record(sign_record(record(), OTHER), VEHICLES)

    def test_a_key_of_no_vehicle_is_refused(self):
        with pytest.raises(VerificationError, match="signed by no vehicle of the fleet"):
            read_record(sign_record(record(), new_key()), VEHICLES)

    def test_a_signature_under_another_vehicles_key_id_does_not_verify(self):
        envelope = json.loads(sign_record(record(), new_key()))
        envelope["signatures"][0]["keyid"] = SIGNER.public_key.keyid
        with pytest.raises(VerificationError, match="does not verify"):
            read_record(json.dumps(envelope).encode(), VEHICLES)

    def test_a_signature_without_a_name_is_no_signature(self):
        envelope = json.loads(sign_record(record(), SIGNER)) | {"signatures": []}
        with pytest.raises(VerificationError, match="signed by no vehicle"):
            read_record(json.dumps(envelope).encode(), VEHICLES)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[1, 2]",
        b"\xff\x00\xfe",
        b"[" * 50_000,
        b'{"payload": 3}',
        b'{"payload": "%%%", "payloadType": "x", "signatures": []}',
        b'{"payload": "", "payloadType": "x", "signatures": [3]}',
        b'{"payload": "", "payloadType": "text/plain", "signatures": []}',
        b" " * (MOST_RECORD_BYTES + 1),
    ],
    ids=lambda line: repr(line[:30]),
)
def test_garbage_is_refused_in_one_line(line):
    with pytest.raises(RolloutError, match="drive record: ") as refused:
        read_record(line, VEHICLES)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"late": 18_001},
        {"frames": -1},
        {"frames": 2**60},
        {"vehicle_id": "../etc"},
        {"duration_s": float("nan")},
        {"weather": "sunny"},
        {"shadow": {"release": CANDIDATE, "compared": 1, "agreed": 2}},
        {"input_drift": {"counts": [1], "divergence": 1.5}},
    ],
    ids=str,
)
def test_a_record_that_contradicts_itself_is_none(changes):
    with pytest.raises(ValidationError):
        record(**changes)


def test_a_signed_record_of_an_unknown_format_is_refused():
    foreign = DriveRecord.model_construct(**(dict(record()) | {"format": "tollgate-drive/9"}))
    with pytest.raises(RolloutError, match="tollgate-drive/1"):
        read_record(sign_record(foreign, SIGNER), VEHICLES)


def test_divergence_is_0_for_equal_shapes_1_for_strangers_and_symmetric():
    assert jensen_shannon([10, 30], [0.25, 0.75]) == pytest.approx(0.0, abs=1e-12)
    assert jensen_shannon([7, 0], [0, 2]) == 1.0
    assert jensen_shannon([1, 3], [3, 1]) == pytest.approx(jensen_shannon([3, 1], [1, 3]))
    assert jensen_shannon([1, 1], [1, 3]) == pytest.approx(0.0487949, abs=1e-6)
    assert jensen_shannon([0, 0], [1, 3]) == 0.0
    with pytest.raises(ValueError, match="the reference has 3"):
        jensen_shannon([1, 2], [1, 2, 3])
