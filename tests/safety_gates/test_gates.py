"""Each gate fails on a planted fault and passes its twin: real packages, run by ONNX Runtime on real pictures."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from compile.accuracy import agreement
from hw_profiles.profile import load_profile
from perception.errors import LabelError, PackageError, SourceError
from perception.results import Detections
from safety_gates.case import Case
from safety_gates.evidence import Evidence, KeptEvidence, Shelf
from safety_gates.gates import latency
from safety_gates.gates.gate import Unmeasured
from safety_gates.gates.latency import LatencyGate
from safety_gates.gates.parity import paired
from safety_gates.gates.table import GATES, open_gate
from safety_gates.judge import judge, verdicts_on
from safety_gates.policy import Policy, load_policy
from safety_gates.trial import TIMING_ALONE, Trial
from safety_gates.verdict import Outcome
from tests.safety_gates.builders import (
    BUILD,
    QUIET,
    RIGHT,
    SHIFTED,
    drive,
    mask_drive,
    mask_package,
    null_package,
    package,
    patient_profile,
    spec,
)

UNITS = {"ratio", "ms", "count", "frames", "MB", "MB/h", "J", "°C"}
PASSED, FAILED, INCONCLUSIVE = Outcome.PASSED, Outcome.FAILED, Outcome.INCONCLUSIVE

SWAPPED = RIGHT[[0, 1, 2, 3, 4, 6, 5]]
BLIND = RIGHT * 0
FAINT = RIGHT * np.array([1, 1, 1, 1, 0.35, 1, 1], np.float32)[:, None]
ONE_CLASS_LOST = RIGHT * np.array([1, 1, 1, 1, 1, 1, 0], np.float32)[:, None]
SEES_GREY = RIGHT + np.array([0, 0, 0, 0, 20, 20, 0], np.float32)[:, None] * np.array([0, 1, 0], np.float32)


def _policy(*claims):
    """The default policy, only these claims."""
    default = load_policy(None)
    return Policy(name="of a test", limits=tuple(limit for limit in default.limits if limit.claim in claims))


def _verdict(tmp_path, claim, **case):
    trial = Trial(Case(**case), Shelf(tmp_path / "evidence"), QUIET)
    (verdict,) = judge(trial, _policy(claim)).verdicts
    return verdict


@pytest.fixture
def right(tmp_path):
    return package(tmp_path / "right")


@pytest.fixture(scope="module")
def slow_evidence(tmp_path_factory, short_drive):
    """An engine of 45 ms, timed on 30 frames against the CPU profile, and that profile."""
    folder = tmp_path_factory.mktemp("slow")
    slow = null_package(folder / "slow", service_ms=45.0, profile=load_profile("x86_cpu"))
    trial = Trial(Case(slow, short_drive[0], frames=30), Shelf(folder / "evidence"), QUIET)
    return slow.profile, LatencyGate().measure(trial)


@pytest.fixture
def fast(tmp_path):
    """An engine that takes no time, against a patient profile."""
    return null_package(tmp_path / "fast", service_ms=0.0, profile=patient_profile())


class TestAccuracy:
    def _verdict(self, tmp_path, short_drive, **fault):
        pictures, labels = short_drive
        trial = package(tmp_path / "package", **fault)
        return _verdict(tmp_path, "accuracy.ap50", package=trial, recording=pictures, labels=labels)

    def test_the_unharmed_twin_passes(self, tmp_path, short_drive):
        verdict = self._verdict(tmp_path, short_drive)
        assert verdict.outcome is PASSED
        assert verdict.measured.got == 1.0

    @pytest.mark.parametrize(
        "fault",
        [
            {"weights": BLIND},
            {"bias": SHIFTED},
            {"weights": SWAPPED},
            {"model_spec": spec(colour="RGB")},
            {"model_spec": spec(resize="letterbox_centre", mean=(0.5, 0.5, 0.5))},
        ],
        ids=["blind", "boxes shifted", "class order swapped", "BGR and RGB swapped", "wrong mean"],
    )
    def test_a_harmed_engine_fails(self, tmp_path, short_drive, fault):
        assert self._verdict(tmp_path, short_drive, **fault).outcome is FAILED

    def test_a_lost_class_costs_its_share(self, tmp_path, short_drive):
        verdict = self._verdict(tmp_path, short_drive, weights=ONE_CLASS_LOST)
        assert verdict.measured.got == pytest.approx(0.5)

    def test_without_labels_it_is_inconclusive(self, tmp_path, short_drive, right):
        verdict = _verdict(tmp_path, "accuracy.ap50", package=right, recording=short_drive[0])
        assert verdict.outcome is INCONCLUSIVE
        assert "give it with --labels" in verdict.why

    def test_too_few_objects_are_inconclusive_and_say_how_many_are_missing(self, tmp_path, right):
        pictures, labels = drive(tmp_path / "tiny", frames=32)
        verdict = _verdict(tmp_path, "accuracy.ap50", package=right, recording=pictures, labels=labels)
        assert verdict.outcome is INCONCLUSIVE
        assert f"required 100: record {100 - verdict.measured.samples} more" in verdict.why

    def test_one_perfect_frame_proves_nothing(self, tmp_path, short_drive, right):
        pictures, labels = short_drive
        case = Case(right, pictures, labels=labels, frames=1)
        limit = load_policy(None).limits[0].model_copy(update={"minimum_samples": 0})
        trial = Trial(case, Shelf(tmp_path / "evidence"), QUIET)
        (verdict,) = judge(trial, Policy(name="lenient", limits=(limit,))).verdicts
        assert verdict.measured.got == 1.0
        assert verdict.outcome is INCONCLUSIVE
        assert "label at least 30 frames" in verdict.why


class TestParity:
    def _verdict(self, tmp_path, short_drive, claim, **fault):
        twin, trial = package(tmp_path / "float"), package(tmp_path / "package", **fault)
        return _verdict(tmp_path, claim, package=trial, recording=short_drive[0], reference=twin)

    @pytest.mark.parametrize("claim", ["parity.agreement", "parity.ghosts"])
    def test_the_unharmed_twin_passes(self, tmp_path, short_drive, claim):
        assert self._verdict(tmp_path, short_drive, claim).outcome is PASSED

    @pytest.mark.parametrize(
        ("claim", "fault"),
        [
            ("parity.agreement", {"weights": BLIND}),
            ("parity.agreement", {"weights": FAINT}),
            ("parity.agreement", {"bias": SHIFTED}),
            ("parity.agreement", {"weights": SWAPPED}),
            ("parity.ghosts", {"weights": SEES_GREY}),
            ("parity.ghosts", {"bias": SHIFTED}),
        ],
        ids=[
            "blind",
            "scores scaled",
            "boxes shifted",
            "class order swapped",
            "sees ghosts",
            "shifted boxes are ghosts",
        ],
    )
    def test_a_harmed_engine_fails(self, tmp_path, short_drive, claim, fault):
        assert self._verdict(tmp_path, short_drive, claim, **fault).outcome is FAILED

    def test_without_a_reference_it_is_inconclusive(self, tmp_path, short_drive, right):
        verdict = _verdict(tmp_path, "parity.agreement", package=right, recording=short_drive[0])
        assert verdict.outcome is INCONCLUSIVE
        assert "give it with --reference" in verdict.why

    def test_an_engine_that_says_nothing_has_no_share_of_ghosts(self, tmp_path, short_drive):
        verdict = self._verdict(tmp_path, short_drive, "parity.ghosts", weights=BLIND)
        assert verdict.outcome is INCONCLUSIVE
        assert "no objects to compare" in verdict.why

    def test_pairs_are_counted_as_the_compiler_counts_them(self):
        generator = np.random.default_rng(0)
        for _ in range(50):
            sides = [self._detections(generator) for _ in range(2)]
            pairing, counted = paired(*sides), agreement([sides[0]], [sides[1]], score=0.0)
            assert len(pairing.pairs) == counted.agreed[0]
            assert len(pairing.pairs) + len(pairing.missed) == counted.reference[0]
            assert len(pairing.pairs) + len(pairing.ghosts) == counted.candidate[0]

    @staticmethod
    def _detections(generator):
        count = int(generator.integers(0, 12))
        corner = generator.uniform(0, 40, (count, 2))
        boxes = np.concatenate([corner, corner + generator.uniform(10, 30, (count, 2))], axis=1).astype(np.float32)
        scores = np.sort(generator.uniform(0, 1, count))[::-1].astype(np.float32)
        return Detections(boxes, scores, generator.integers(0, 2, count).astype(np.int32))


class TestLatency:
    @pytest.mark.parametrize("claim", ["latency.deadline", "latency.infer_budget"])
    @pytest.mark.parametrize(
        ("share_of_others", "outcome"), [(0.0, FAILED), (None, FAILED), (0.05, FAILED), (0.06, INCONCLUSIVE)]
    )
    def test_an_engine_slower_than_its_budget_fails_unless_others_may_have_slowed_it(
        self, slow_evidence, claim, share_of_others, outcome
    ):
        profile, kept = slow_evidence
        values = {**kept.evidence.values, "share_of_others": share_of_others}
        told = KeptEvidence(kept.evidence.model_copy(update={"values": values}), kept.arrays, kept.sha256)
        (verdict,) = verdicts_on(_policy(claim).requirements(profile, "detection"), {"latency": told})
        assert verdict.outcome is outcome
        assert ("end them and measure again" in verdict.why) is (outcome is INCONCLUSIVE)

    @pytest.mark.parametrize("claim", ["latency.deadline", "latency.infer_budget"])
    def test_its_fast_twin_passes(self, tmp_path, labelled_drive, fast, claim):
        assert _verdict(tmp_path, claim, package=fast, recording=labelled_drive[0]).outcome is PASSED

    def test_too_few_frames_for_p99_are_inconclusive_and_say_how_many_are_needed(self, tmp_path, short_drive, fast):
        verdict = _verdict(tmp_path, "latency.deadline", package=fast, recording=short_drive[0])
        assert verdict.outcome is INCONCLUSIVE
        assert "60 frames do not decide it" in verdict.why
        assert "give at least 368, as --timing-recording" in verdict.why

    @pytest.mark.parametrize(
        ("before", "after"),
        [({"throttle_events": 3}, {"throttle_events": 4}), ({}, {"gpu_slowed_down": True})],
    )
    def test_figures_of_a_throttled_machine_count_for_nothing(self, tmp_path, labelled_drive, fast, before, after):
        trial = Trial(Case(fast, labelled_drive[0]), Shelf(tmp_path / "evidence"), QUIET)
        kept = LatencyGate().measure(trial)
        harmed = kept.evidence.model_copy(
            update={"before": {**kept.evidence.before, **before}, "after": {**kept.evidence.after, **after}}
        )
        measured = LatencyGate().read(KeptEvidence(harmed, kept.arrays, kept.sha256), ["total_p99"])["total_p99"]
        assert measured.got is None
        assert "measure again" in measured.note

    @pytest.mark.parametrize(("clocks_mhz", "counts"), [((2000.0, 1900.0), True), ((2000.0, 1700.0), False)])
    def test_figures_of_a_machine_whose_clocks_moved_count_for_nothing(
        self, tmp_path, short_drive, fast, clocks_mhz, counts
    ):
        kept = LatencyGate().measure(Trial(Case(fast, short_drive[0]), Shelf(tmp_path / "evidence"), QUIET))
        arrays = {**kept.arrays, "state_cpu_clock_mhz": np.array(clocks_mhz)}
        told = KeptEvidence(kept.evidence, arrays, kept.sha256)
        measured = LatencyGate().read(told, ["missed"])["missed"]
        assert (measured.got is not None) is counts
        assert ("moved between 1700 and 2000 MHz" in measured.note) is not counts

    def test_p99_9_wants_thousands_of_frames_and_says_how_many(self, tmp_path, short_drive, fast):
        kept = LatencyGate().measure(Trial(Case(fast, short_drive[0]), Shelf(tmp_path / "evidence"), QUIET))
        measured = LatencyGate().read(kept, ["total_p99_9"])["total_p99_9"]
        assert measured.interval.high == float("inf")
        assert "give at least 3688" in measured.remedy

    def test_longer_recordings_without_labels_can_carry_the_percentile(
        self, tmp_path, short_drive, labelled_drive, fast
    ):
        case = {"package": fast, "recording": short_drive[0], "frames": 5}
        timing = (labelled_drive[0], short_drive[0])
        verdict = _verdict(tmp_path, "latency.deadline", **case, timing=timing)
        alone = _verdict(tmp_path / "alone", "latency.deadline", package=fast, recording=labelled_drive[0])
        assert verdict.outcome is PASSED
        assert verdict.measured.samples == alone.measured.samples + 60

    def test_the_engine_is_warmed_up_on_each_recording_before_its_frames_are_timed(self, tmp_path, monkeypatch, fast):
        folders = []
        for name, size_px in (("small", (64, 96)), ("large", (128, 192))):
            folders.append(tmp_path / name)
            folders[-1].mkdir()
            for number in range(5):
                cv2.imwrite(str(folders[-1] / f"{number}.png"), np.full((*size_px, 3), 40 * number, np.uint8))
        heights = []
        monkeypatch.setattr(latency, "warm_up", lambda _, frame: heights.append(("warmed", frame.pixels.shape[0])))
        play = latency.play
        monkeypatch.setattr(
            latency,
            "play",
            lambda pipeline, frames, pace: (
                heights.extend(("timed", frame.pixels.shape[0]) for frame in frames) or play(pipeline, frames, pace)
            ),
        )
        case = Case(fast, folders[0], timing=tuple(folders))
        kept = LatencyGate().measure(Trial(case, Shelf(tmp_path / "evidence"), QUIET))
        assert kept.evidence.samples == 10
        assert heights == [("warmed", 64), *[("timed", 64)] * 5, ("warmed", 128), *[("timed", 128)] * 5]

    def test_evidence_of_other_timing_recordings_is_not_used(self, tmp_path, short_drive, labelled_drive, fast):
        shelf = Shelf(tmp_path / "evidence")
        first = Trial(Case(fast, short_drive[0], timing=(labelled_drive[0],)), shelf, QUIET)
        LatencyGate().measure(first)
        other = Trial(Case(fast, short_drive[0], timing=(labelled_drive[0], short_drive[0])), shelf, QUIET)
        kept, why_not = shelf.find(other.conditions("latency", looks_at=TIMING_ALONE))
        assert kept is None
        assert why_not

    def test_every_frame_is_timed_once(self, tmp_path, short_drive, fast):
        trial = Trial(Case(fast, short_drive[0], frames=17), Shelf(tmp_path / "evidence"), QUIET)
        kept = LatencyGate().measure(trial)
        assert kept.evidence.samples == 17
        assert all(kept.arrays[f"{stage}_ns"].shape == (17,) for stage in latency.STAGES)


class TestProvenance:
    def test_the_unharmed_twin_passes(self, tmp_path, short_drive, right):
        for claim in ("provenance.bytes", "provenance.licence", "provenance.build"):
            assert _verdict(tmp_path, claim, package=right, recording=short_drive[0]).outcome is PASSED

    def test_a_package_that_changed_while_it_was_tried_fails(self, tmp_path, short_drive, right):
        path = right.folder / "engine.onnx"
        path.write_bytes(path.read_bytes() + b"\0")
        verdict = _verdict(tmp_path, "provenance.bytes", package=right, recording=short_drive[0])
        assert verdict.outcome is FAILED
        assert "engine.onnx" in verdict.why

    def test_a_package_that_was_replaced_while_it_was_tried_fails(self, tmp_path, short_drive, right):
        package(right.folder, bias=SHIFTED)
        verdict = _verdict(tmp_path, "provenance.bytes", package=right, recording=short_drive[0])
        assert verdict.outcome is FAILED
        assert "another package took its place" in verdict.why

    def test_an_unknown_licence_fails(self, tmp_path, short_drive):
        unknown = package(tmp_path / "package", model_spec=spec().model_copy(update={"licence": "unknown"}))
        assert _verdict(tmp_path, "provenance.licence", package=unknown, recording=short_drive[0]).outcome is FAILED

    def test_a_build_that_is_not_told_fails_and_is_named(self, tmp_path, short_drive):
        silent = package(tmp_path / "package", build={**BUILD, "source": None})
        verdict = _verdict(tmp_path, "provenance.build", package=silent, recording=short_drive[0])
        assert verdict.outcome is FAILED
        assert verdict.why.endswith("source")


class TestMasks:
    """The same gates on a model that gives masks."""

    @pytest.mark.parametrize("claim", ["accuracy.miou", "parity.mask_agreement"])
    @pytest.mark.parametrize(("swapped", "outcome"), [(False, PASSED), (True, FAILED)])
    def test_the_unharmed_twin_passes_and_swapped_classes_fail(self, tmp_path, claim, swapped, outcome):
        pictures, masks = mask_drive(tmp_path / "drive", frames=40)
        trial, twin = mask_package(tmp_path / "package", swapped=swapped), mask_package(tmp_path / "float")
        case = {"recording": pictures, "labels": masks, "reference": twin}
        assert _verdict(tmp_path, claim, package=trial, **case).outcome is outcome


class TestMisfits:
    """What cannot be tried is refused before anything is measured."""

    def _refused(self, tmp_path, error, match, **case):
        shelf = tmp_path / "evidence"
        with pytest.raises(error, match=match) as refusal:
            Trial(Case(**case), Shelf(shelf), QUIET)
        assert "\n" not in str(refusal.value)
        assert not shelf.exists()

    def test_a_missing_recording(self, tmp_path, right):
        self._refused(tmp_path, SourceError, "none: does not exist", package=right, recording=tmp_path / "none")

    def test_an_empty_recording(self, tmp_path, right):
        (tmp_path / "empty").mkdir()
        self._refused(tmp_path, SourceError, "empty: is a folder", package=right, recording=tmp_path / "empty")

    def test_labels_of_another_recording(self, tmp_path, right, short_drive):
        pictures, labels = short_drive
        other = tmp_path / "other"
        other.mkdir()
        for file in labels.glob("*.txt"):
            shutil.copy(file, other / f"x{file.name}")
        match = "none of the 60 frames of the recording"
        self._refused(tmp_path, LabelError, match, package=right, recording=pictures, labels=other)

    def test_labels_of_a_class_the_model_lacks(self, tmp_path, right, short_drive):
        pictures, labels = short_drive
        other = tmp_path / "other"
        shutil.copytree(labels, other)
        (other / "000000.txt").write_text("tank 0 0 0 0 0 16 16 1 1 1 0 1 5 0\n")
        match = "class tank is neither asked for nor ignored"
        self._refused(tmp_path, LabelError, match, package=right, recording=pictures, labels=other)

    def test_labels_without_an_object_that_is_asked_for(self, tmp_path, right, short_drive):
        pictures, labels = short_drive
        empty = tmp_path / "empty"
        shutil.copytree(labels, empty)
        for file in empty.glob("*.txt"):
            file.write_text("DontCare -1 -1 -10 0 0 16 16 -1 -1 -1 -1000 -1000 -1000 -10\n")
        match = "labels no object of car, person in 60 frames"
        self._refused(tmp_path, LabelError, match, package=right, recording=pictures, labels=empty)

    def test_a_picture_that_is_none(self, tmp_path, right, short_drive):
        pictures = tmp_path / "pictures"
        shutil.copytree(short_drive[0], pictures)
        (pictures / "000041.png").write_bytes(b"half a download")
        self._refused(tmp_path, SourceError, r"000041\.png: is no readable picture", package=right, recording=pictures)

    def test_a_last_release_of_the_first_release(self, tmp_path, right, short_drive):
        case = {"package": right, "recording": short_drive[0], "last_release": right, "first_release": True}
        self._refused(tmp_path, PackageError, "say one", **case)

    def test_a_class_map_for_another_model(self, tmp_path, right, short_drive):
        pictures, labels = short_drive
        path = tmp_path / "map.yaml"
        path.write_text("format: tollgate-classes/1\ngroups:\n  all: {model: [lorry], labels: [car]}\n")
        case = {"package": right, "recording": pictures, "labels": labels, "class_map": path}
        self._refused(tmp_path, LabelError, "the model has no class lorry", **case)

    def test_a_class_map_without_labels(self, tmp_path, right, short_drive):
        case = {"package": right, "recording": short_drive[0], "class_map": tmp_path / "map.yaml"}
        self._refused(tmp_path, LabelError, "a class map without labels does nothing", **case)

    def test_a_reference_of_another_model(self, tmp_path, right, short_drive):
        other = package(tmp_path / "other", model_spec=spec().model_copy(update={"classes": ("person", "car")}))
        match = "give a package of the same model"
        self._refused(tmp_path, PackageError, match, package=right, recording=short_drive[0], reference=other)


@pytest.mark.parametrize("name", GATES)
def test_every_gate_explains_its_quantities(name):
    quantities = open_gate(name).quantities
    assert quantities
    assert all(quantity.meaning and quantity.unit in UNITS for quantity in quantities.values())


def test_a_gate_without_evidence_says_why(tmp_path, short_drive, right):
    trial = Trial(Case(right, short_drive[0]), Shelf(tmp_path / "evidence"), QUIET)
    for name in ("accuracy", "parity"):
        assert isinstance(open_gate(name).measure(trial), Unmeasured)
    assert isinstance(open_gate("provenance").measure(trial).evidence, Evidence)
