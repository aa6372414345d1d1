from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compile.compiler import CompileOutcome, compile_model, weight_bits
from compile.options import CompileOptions
from compile.replay import rebuild
from hw_profiles.errors import PreflightError
from hw_profiles.machine import read_machine
from hw_profiles.profile import load_profile
from perception.errors import CalibrationError, ModelError, OutputError, SpecError, TollgateError
from perception.package import open_package
from perception.terminal import Step, Terminal
from tests.compile.builders import SEGMENTER_SPEC, segmenter, write_drive, write_pictures, write_segmenter
from tests.compile.steady_clock import steady_clock

QUICK = CompileOptions(timing_s=0.01, frames=16)
PROFILE = load_profile("x86_cpu" if read_machine().cpu.arch == "x86_64" else "arm_cpu")


@pytest.fixture(scope="module")
def monday(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drive(tmp_path_factory.mktemp("recordings") / "monday", seed=1, count=32)


def compiled(folder: Path, calibration: Path, *, outlier: float = 1.0, **options: object) -> CompileOutcome:
    return compile_model(
        write_segmenter(folder, outlier=outlier),
        profile=PROFILE,
        calibration=[calibration],
        output=folder / "package",
        options=replace(QUICK, **options),
    )


def files_under(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_package_opens_and_says_what_was_measured_and_why(tmp_path, monday):
    outcome = compiled(tmp_path, monday)
    package = open_package(tmp_path / "package")
    assert package.sha256 == outcome.package.sha256
    report = package.document("compile.json")
    names = [row["name"] for row in report["decision"]["candidates"]]
    assert names[:3] == ["fp32", "int8-minmax", "int8-percentile"]
    assert report["decision"]["chosen"] in names
    assert report["decision"]["why"] == outcome.decision.why
    assert report["decision"]["naive"].startswith("plain MinMax INT8")
    assert all(row["latency"]["samples"] >= 50 for row in report["decision"]["candidates"][:3])
    assert report["evaluation"]["frames"] == 4
    assert sum(report["time_by_operator"].values()) == pytest.approx(1.0)
    assert ("calibration.json" in package.manifest.files) == (package.manifest.engine.precision != "fp32")


def test_demanded_int8_ships_quantized_with_its_calibration(tmp_path, monday):
    outcome = compiled(tmp_path, monday, precision="int8", max_drop=0.2, min_agreement=0.8)
    package = outcome.package
    assert package.manifest.engine.precision == "int8"
    assert len(package.document("calibration.json")["frames"]) == 16
    assert package.manifest.files["engine.onnx"].bytes > 0
    assert outcome.parity.agreement > 0.8


@pytest.mark.parametrize("fuse", ["on", "off"])
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_the_manifest_replays_to_the_same_bytes(tmp_path, monday, precision, fuse):
    package = compiled(tmp_path, monday, precision=precision, max_drop=0.2, min_agreement=0.8, fuse=fuse).package
    again = rebuild(tmp_path / "segmenter.onnx", spec=SEGMENTER_SPEC, manifest=package.manifest, calibration=[monday])
    assert again == package.engine_bytes
    assert package.manifest.build["fused_input"] == (package.spec.picture.dtype == "uint8")


def test_a_replay_from_another_model_or_recording_is_refused(tmp_path, monday):
    package = compiled(tmp_path, monday, precision="int8", max_drop=0.2, min_agreement=0.8).package
    other = write_segmenter(tmp_path / "other", outlier=2.0)
    with pytest.raises(ModelError, match="the manifest was made from"):
        rebuild(other, spec=SEGMENTER_SPEC, manifest=package.manifest, calibration=[monday])
    tuesday = write_drive(tmp_path / "tuesday", seed=2)
    with pytest.raises(CalibrationError, match="tuesday: gives calibration frames"):
        rebuild(tmp_path / "segmenter.onnx", spec=SEGMENTER_SPEC, manifest=package.manifest, calibration=[tuesday])


def test_what_naive_int8_loses_is_seen_and_said_and_never_ships(tmp_path, monday):
    decision = compiled(tmp_path, monday, outlier=5000.0, max_drop=0.02).decision
    naive = decision.rows[1]
    assert naive.name == "int8-minmax"
    assert naive.loss > 0.1
    assert f"loses {naive.loss:.1%} of what float reports" in decision.naive
    assert decision.chosen.loss <= 0.02


def test_keeping_the_worst_layers_float_brings_the_accuracy_back(tmp_path, monday):
    with steady_clock():  # what a layer saves in 8 bits decides which ones go back
        decision = compiled(tmp_path, monday, outlier=5000.0, max_drop=0.04, precision="int8").decision
    assert min(row.loss for row in decision.rows if row.precision == "int8") > 0.04
    assert decision.chosen.precision == "mixed"
    assert "2 layers kept float" in decision.chosen.recipe


def test_demanded_int8_that_is_not_good_enough_writes_nothing(tmp_path, monday):
    outcome = compiled(tmp_path, monday, outlier=5000.0, precision="int8", max_drop=0.0)
    assert outcome.package is None
    assert outcome.decision.why.startswith("nothing ships: no INT8 candidate keeps the accuracy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["segmenter.onnx", "segmenter.yaml"]


def test_demanded_float_ships_without_calibration(tmp_path, monday):
    package = compiled(tmp_path, monday, precision="fp32").package
    assert package.manifest.engine.precision == "fp32"
    assert "calibration.json" not in package.manifest.files
    assert package.manifest.build["calibration_sha256"] is None


def test_layers_named_by_a_pattern_stay_float(tmp_path, monday):
    package = compiled(
        tmp_path, monday, precision="int8", max_drop=0.5, min_agreement=0.5, keep_float=("sec*",)
    ).package
    assert package.manifest.engine.precision == "mixed"
    assert package.manifest.build["kept_float"] == {
        "second": "kept float by 'sec*'",
        "second_relu": "kept float by 'sec*'",
    }


def test_the_float_package_is_written_beside_it_for_the_parity_gate(tmp_path, monday):
    outcome = compiled(
        tmp_path, monday, precision="int8", max_drop=0.2, min_agreement=0.8, reference_output=tmp_path / "reference"
    )
    reference = open_package(tmp_path / "reference")
    assert reference.sha256 == outcome.reference.sha256
    assert reference.manifest.engine.precision == "fp32"
    assert reference.spec == SEGMENTER_SPEC


def test_grading_on_another_drive(tmp_path, monday):
    tuesday = write_drive(tmp_path / "tuesday", seed=2, count=5)
    report = compiled(tmp_path, monday, recording=tuesday).package.document("compile.json")
    assert report["evaluation"]["frames"] == 5
    assert [source["name"] for source in report["evaluation"]["recordings"]] == ["tuesday"]


def test_grading_on_the_calibration_drive_is_refused(tmp_path, monday):
    with pytest.raises(CalibrationError, match="are also calibration frames"):
        compiled(tmp_path, monday, recording=monday)


def refused(folder: Path, calibration: Path, error: type[TollgateError], match: str, **settings: object) -> None:
    """Compile, expect a refusal in one line, and nothing changed on disk."""
    model = folder / "segmenter.onnx"
    arguments = {"profile": PROFILE, "calibration": [calibration], "output": folder / "package", "options": QUICK}
    before = files_under(folder)
    with pytest.raises(error, match=match) as caught:
        compile_model(model, **{**arguments, **settings})
    assert "\n" not in str(caught.value)
    assert files_under(folder) == before
    assert not (folder / "package").exists()


def test_a_truncated_model_is_refused(tmp_path, monday):
    model = write_segmenter(tmp_path)
    model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    refused(tmp_path, monday, ModelError, "segmenter.onnx")


def test_a_model_without_a_spec_is_refused_and_told_what_to_run(tmp_path, monday):
    write_segmenter(tmp_path)
    (tmp_path / "segmenter.yaml").unlink()
    refused(
        tmp_path, monday, SpecError, "no ModelSpec beside the model; draft one with: tollgate inspect .*segmenter.onnx"
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"width_px": 128}, r"shape \[1, 3, 64, 96\], the spec says \[1, 3, 64, 128\]"),
        ({"tensor": "pixels"}, "no input pixels, it has images"),
        ({"dtype": "float16"}, "is float32, the spec says float16"),
    ],
)
def test_a_spec_that_contradicts_the_model_is_refused(tmp_path, monday, change, match):
    write_segmenter(tmp_path)
    picture = SEGMENTER_SPEC.picture.model_copy(update=change)
    SEGMENTER_SPEC.model_copy(update={"picture": picture}).save(tmp_path / "segmenter.yaml")
    refused(tmp_path, monday, SpecError, match)


def test_a_spec_with_more_classes_than_the_model_is_refused(tmp_path, monday):
    write_segmenter(tmp_path)
    SEGMENTER_SPEC.model_copy(update={"classes": ("a", "b", "c", "d")}).save(tmp_path / "segmenter.yaml")
    refused(tmp_path, monday, SpecError, "mask")


def test_noise_does_not_calibrate(tmp_path):
    write_segmenter(tmp_path)
    random = np.random.default_rng(0)
    noise = write_pictures(tmp_path / "noise", [random.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(20)])
    refused(tmp_path, noise, CalibrationError, "frames are random noise")


def test_a_profile_of_another_machine_is_refused(tmp_path, monday):
    write_segmenter(tmp_path)
    refused(tmp_path, monday, PreflightError, "may not run a package", profile=load_profile("jetson_orin_nx_16gb_25w"))


def test_a_pattern_that_names_no_node_is_refused(tmp_path, monday):
    write_segmenter(tmp_path)
    options = replace(QUICK, keep_float=("head*",))
    refused(
        tmp_path,
        monday,
        ModelError,
        r"--keep-float 'head\*': no node of that name, the first are first",
        options=options,
    )


@pytest.mark.parametrize("where", ["a file", "other files", "below a file", "a read-only place"])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path, where):
    write_segmenter(tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "precious.txt").write_text("keep me")
    output, match = {
        "a file": (tmp_path / "segmenter.yaml", "is a file, expected a folder or nothing"),
        "other files": (tmp_path / "notes", "holds other files, expected a package or nothing"),
        "below a file": (tmp_path / "segmenter.yaml" / "package", "cannot be written"),
        "a read-only place": (Path("/proc/package"), "cannot be written"),
    }[where]
    refused(tmp_path, tmp_path / "no recording", OutputError, match, output=output)


class InterruptedTerminal(Terminal):
    """A person who presses Ctrl-C in the n-th step of the work."""

    def __init__(self, patience: int) -> None:
        super().__init__(quiet=True)
        self._patience = patience

    @contextmanager
    def progress(self, what: str, total: int | None) -> Iterator[Step]:
        self._patience -= 1
        if self._patience == 0:
            os.kill(os.getpid(), 2)
        with super().progress(what, total) as step:
            yield step


@pytest.mark.parametrize("patience", [1, 2, 3, 4, 6])
def test_an_interruption_leaves_an_older_package_and_nothing_else(tmp_path, monday, patience):
    compiled(tmp_path, monday, precision="fp32", fuse="off")
    before = files_under(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        compile_model(
            tmp_path / "segmenter.onnx",
            profile=PROFILE,
            calibration=[monday],
            output=tmp_path / "package",
            options=QUICK,
            terminal=InterruptedTerminal(patience),
        )
    assert files_under(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["package", "segmenter.onnx", "segmenter.yaml"]


@pytest.mark.parametrize(
    ("arch", "features", "bits"),
    [
        ("x86_64", ("avx2",), 7),
        ("x86_64", ("avx2", "avx512f"), 7),
        ("x86_64", ("avx2", "avx_vnni"), 8),
        ("x86_64", ("avx512f", "avx512_vnni"), 8),
        ("aarch64", (), 8),
        ("aarch64", ("asimddp",), 8),
    ],
)
def test_weights_have_seven_bits_where_the_cpu_would_saturate(arch, features, bits):
    machine = read_machine()
    assert weight_bits(replace(machine, cpu=replace(machine.cpu, arch=arch, features=features))) == bits


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"labels": Path("x")}, "got no recording they belong to"),
        ({"class_map": Path("x")}, "got no labels to map"),
        ({"max_drop": 1.0}, "expected a share from 0 to below 1"),
        ({"min_agreement": 1.1}, "expected a share from 0 to 1"),
        ({"fuse": "maybe"}, "expected one of auto, on, off"),
    ],
)
def test_options_that_contradict_themselves_are_the_callers_mistake(options, match):
    with pytest.raises(ValueError, match=match):
        CompileOptions(**options)


def test_layers_that_cannot_be_quantized_stay_float_and_are_named(tmp_path, monday):
    sketch = segmenter()
    third = next(node for node in sketch.nodes if node.name == "third")
    third.input[1] = sketch.node("Mul", third.input[1], sketch.node("ReduceMax", "images", keepdims=0))
    sketch.nodes.insert(sketch.nodes.index(third), sketch.nodes.pop())
    sketch.nodes.insert(sketch.nodes.index(third) - 1, sketch.nodes.pop())
    write_segmenter(tmp_path)
    sketch.save(tmp_path / "segmenter.onnx")
    options = replace(QUICK, precision="int8", max_drop=0.5, min_agreement=0.5)
    outcome = compile_model(
        tmp_path / "segmenter.onnx", profile=PROFILE, calibration=[monday], output=tmp_path / "package", options=options
    )
    assert outcome.package.manifest.engine.precision == "mixed"
    assert outcome.package.document("compile.json")["cannot_be_quantized"] == {"third": "its weights are no constant"}


def test_a_candidate_that_cannot_even_run_is_a_total_loss_and_says_why(tmp_path, monday):
    """In 8 bits the small divisor becomes zero beside the large one, and the scores infinite."""
    sketch = segmenter()
    identity = sketch.nodes.pop()
    divisor_weight = sketch.weight(np.zeros((3, 3, 1, 1), np.float32))
    divisor_bias = sketch.weight(np.array([1e-2, 1e4, 1e-2], np.float32))
    divisor = sketch.node("Conv", "images", divisor_weight, divisor_bias, name="divisor")
    sketch.outputs.clear()
    sketch.output(sketch.node("Div", identity.input[0], divisor, name="ratio"), "mask", [1, 3, 64, 96])
    write_segmenter(tmp_path)
    sketch.save(tmp_path / "segmenter.onnx")
    decision = compile_model(
        tmp_path / "segmenter.onnx", profile=PROFILE, calibration=[monday], output=tmp_path / "package", options=QUICK
    ).decision
    assert decision.chosen.name == "fp32"
    assert (decision.rows[1].loss, decision.rows[1].agreement, decision.rows[1].latency) == (1.0, 0.0, None)
    assert "failed: " in decision.rows[1].recipe
