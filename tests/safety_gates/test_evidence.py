"""Evidence speaks of the bytes it was measured on and of nothing else; a flipped byte makes it no evidence."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from perception.errors import EvidenceError, OutputError, SourceError
from safety_gates.conditions import Conditions, DataSet, Subject
from safety_gates.evidence import Evidence, Shelf

SUBJECT = Subject(name="cells", package_sha256="1" * 64, engine_sha256="2" * 64, profile="x86_cpu")
CONDITIONS = Conditions(
    measurement="latency",
    subject=SUBJECT,
    recording=DataSet(name="drive", files={"0.png": "3" * 64, "1.png": "4" * 64}),
    settings={"frames": None},
    machine={"cpu.model": "a CPU", "cpu.cores": 2},
    tollgate="0.1.0",
)
ARRAYS = {"infer_ns": np.arange(5, dtype=np.int64), "name": np.array(["a", "ü"])}


def _evidence(conditions=CONDITIONS):
    return Evidence(
        conditions=conditions,
        command="tollgate gate",
        samples=5,
        started_ns=1,
        ended_ns=2,
        before={"temperature_c": 40.0},
        after={"temperature_c": None},
        values={"deadline_ms": 33.3},
    )


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "evidence")


def _flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_was_kept_is_read_back(shelf):
    kept = shelf.keep(_evidence(), ARRAYS)
    again = shelf.read(kept.sha256)
    assert again.evidence == kept.evidence
    assert all((again.arrays[name] == array).all() for name, array in ARRAYS.items())


def test_evidence_is_found_again_for_equal_conditions(shelf):
    kept = shelf.keep(_evidence(), ARRAYS)
    found, why = shelf.find(CONDITIONS)
    assert found.sha256 == kept.sha256
    assert why == ""


def _changed(**fields):
    return CONDITIONS.model_copy(update=fields)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (_changed(measurement="parity"), "no evidence yet"),
        (
            _changed(subject=SUBJECT.model_copy(update={"package_sha256": "9" * 64})),
            "package: measured on 1111.*this is 9999",
        ),
        (_changed(subject=SUBJECT.model_copy(update={"engine_sha256": "9" * 64})), "package: measured on"),
        (_changed(subject=SUBJECT.model_copy(update={"profile": "jetson"})), "for profile x86_cpu, this is jetson"),
        (_changed(machine={"cpu.model": "another", "cpu.cores": 2}), "machine: cpu.model was a CPU, is another"),
        (_changed(machine={"cpu.model": "a CPU"}), "machine: cpu.cores was 2, is None"),
        (_changed(settings={"frames": 10}), "setting frames was None, is 10"),
        (_changed(tollgate="0.2.0"), "made by tollgate 0.1.0, this is 0.2.0"),
        (_changed(reference=SUBJECT), "reference: none then, cells now"),
        (_changed(labels=CONDITIONS.recording), "labels: none then, drive now"),
        (_changed(recording=None), "recording: drive then, none now"),
        (
            _changed(recording=DataSet(name="drive", files={"0.png": "3" * 64, "1.png": "5" * 64})),
            "recording: 1.png changed",
        ),
        (_changed(recording=DataSet(name="drive", files={"0.png": "3" * 64})), "recording: 1.png is gone"),
        (
            _changed(recording=DataSet(name="x", files={**CONDITIONS.recording.files, "2.png": "3" * 64})),
            "recording: 2.png was added",
        ),
    ],
)
def test_evidence_of_anything_else_is_not_used_and_the_reason_is_told(shelf, wanted, why):
    shelf.keep(_evidence(), ARRAYS)
    found, reason = shelf.find(wanted)
    assert found is None
    assert re.search(why, reason)


def test_the_name_of_the_folder_does_not_make_another_recording(shelf):
    shelf.keep(_evidence(), ARRAYS)
    moved = DataSet(name="elsewhere", files=CONDITIONS.recording.files)
    assert shelf.find(_changed(recording=moved))[0] is not None


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_flipped_byte_makes_it_no_evidence(shelf, suffix):
    kept = shelf.keep(_evidence(), ARRAYS)
    (path,) = shelf.folder.glob(f"*{suffix}")
    _flip_a_byte(path)
    with pytest.raises(EvidenceError, match="was altered: measure again"):
        shelf.read(kept.sha256)
    found, why = shelf.find(CONDITIONS)
    assert found is None
    assert "was altered" in why


def test_a_file_renamed_to_pass_for_another_is_no_evidence(shelf):
    kept = shelf.keep(_evidence(), {})
    path = shelf.folder / f"{kept.sha256}.json"
    path.rename(shelf.folder / f"{'0' * 64}.json")
    with pytest.raises(EvidenceError, match="expected 0000"):
        shelf.read("0" * 64)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_missing_file_is_told(shelf, suffix):
    kept = shelf.keep(_evidence(), ARRAYS)
    (path,) = shelf.folder.glob(f"*{suffix}")
    path.unlink()
    with pytest.raises(EvidenceError, match="cannot be read"):
        shelf.read(kept.sha256)


def test_evidence_of_another_package_is_refused_where_it_must_be_of_this_one(shelf):
    kept = shelf.keep(_evidence(), ARRAYS)
    assert shelf.read_bound(kept.sha256, SUBJECT, "latency").sha256 == kept.sha256
    other = SUBJECT.model_copy(update={"package_sha256": "9" * 64})
    with pytest.raises(EvidenceError, match="is evidence of another package"):
        shelf.read_bound(kept.sha256, other, "latency")
    with pytest.raises(EvidenceError, match="another package: package: measured for profile x86_cpu, this is jetson"):
        shelf.read_bound(kept.sha256, SUBJECT.model_copy(update={"profile": "jetson"}), "latency")
    with pytest.raises(EvidenceError, match="is evidence of latency, expected accuracy"):
        shelf.read_bound(kept.sha256, SUBJECT, "accuracy")


def test_the_newest_evidence_that_serves_is_used(shelf):
    shelf.keep(_evidence(), {})
    second = shelf.keep(_evidence().model_copy(update={"started_ns": 5}), {})
    assert shelf.find(CONDITIONS)[0].sha256 == second.sha256


def test_other_files_on_the_shelf_do_not_matter(shelf):
    kept = shelf.keep(_evidence(), {})
    (shelf.folder / "judgement.json").write_text(json.dumps({"outcome": "PASSED"}))
    assert shelf.find(CONDITIONS)[0].sha256 == kept.sha256


def test_a_folder_that_cannot_be_made_is_told_and_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        Shelf(tmp_path / "file" / "evidence").keep(_evidence(), ARRAYS)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_data_set_names_every_file_below_its_folder(tmp_path):
    (tmp_path / "drive" / "data").mkdir(parents=True)
    (tmp_path / "drive" / "data" / "0.png").write_bytes(b"0")
    (tmp_path / "drive" / "times.txt").write_bytes(b"1")
    folder = DataSet.of(tmp_path / "drive", SourceError)
    assert sorted(folder.files) == ["data/0.png", "times.txt"]
    assert DataSet.of(tmp_path / "drive" / "times.txt", SourceError).files == {"times.txt": folder.files["times.txt"]}
