"""May this machine run it: who satisfies what, every refusal's sentence, and what an engine may require."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from hw_profiles.errors import PreflightError
from hw_profiles.machine import Machine, read_machine
from hw_profiles.preflight import REQUIREMENTS, check, reasons_against, version_meets
from hw_profiles.profile import Profile, load_profile, profile_names
from tests.hw_profiles import recorded
from tests.hw_profiles.recorded import Files, lay_out, python_packages


@pytest.fixture
def nano(tmp_path: Path) -> Machine:
    return read_machine(lay_out(tmp_path / "nano", recorded.ORIN_NANO_8GB))


@pytest.fixture
def nx(tmp_path: Path) -> Machine:
    return read_machine(lay_out(tmp_path / "nx", recorded.ORIN_NX_16GB))


@pytest.fixture
def agx(tmp_path: Path) -> Machine:
    return read_machine(lay_out(tmp_path / "agx", recorded.AGX_ORIN_64GB))


@pytest.fixture
def server(tmp_path: Path) -> Machine:
    return read_machine(lay_out(tmp_path / "server", recorded.X86_SERVER))


def sentences(profile: str | Profile, machine: Machine, **requires: str) -> list[str]:
    loaded = load_profile(profile) if isinstance(profile, str) else profile
    return [str(reason) for reason in reasons_against(loaded, machine, requires)]


@pytest.mark.parametrize(
    ("files", "satisfied"),
    [
        (recorded.ORIN_NANO_8GB, {"jetson_orin_nano_8gb_25w"}),
        (
            {**recorded.ORIN_NANO_8GB, **python_packages(10, onnxruntime="1.20.1")},
            {"jetson_orin_nano_8gb_25w", "arm_cpu"},
        ),
        (recorded.ORIN_NX_16GB, set()),
        (
            {**recorded.AGX_ORIN_64GB, **python_packages(10, tensorrt="8.5.2.2", pycuda="2025.1")},
            {"jetson_agx_orin_64gb_maxn", "jetson_agx_orin_64gb_dla"},
        ),
        (recorded.AGX_THOR, {"jetson_agx_thor_maxn"}),
        (recorded.X86_SERVER, {"x86_cpu"}),
        (recorded.RASPBERRY_PI_5, {"arm_cpu"}),
    ],
)
def test_a_machine_satisfies_its_own_profiles_and_no_other(tmp_path: Path, files: Files, satisfied: set[str]) -> None:
    machine = read_machine(lay_out(tmp_path, files))
    assert {name for name in profile_names() if not reasons_against(load_profile(name), machine)} == satisfied


def test_another_architecture_is_refused(server: Machine) -> None:
    assert sentences("arm_cpu", server) == [
        "CPU architecture: got x86_64, expected aarch64; run on aarch64, or compile for x86_64"
    ]


def test_another_module_is_refused_and_its_settings_are_not_asked_for(nano: Machine) -> None:
    assert sentences("jetson_agx_thor_maxn", nano) == [
        "module: got p3767-0005, expected p3834-0008; run on a Jetson AGX Thor"
    ]


def test_a_machine_that_is_no_jetson_is_refused_as_such(server: Machine) -> None:
    assert sentences("jetson_orin_nano_8gb_25w", server)[1:] == [
        "module: got no Jetson, expected p3767-0003 or p3767-0005; run on a Jetson Orin Nano 8GB"
    ]


def test_every_setting_that_is_wrong_is_told_at_once(nx: Machine) -> None:
    assert sentences("jetson_orin_nx_16gb_25w", nx) == [
        "power mode: got 40W, expected 25W; run: sudo nvpmodel -m 3",
        "TensorRT: got the library 10.3.0.30 without Python, expected its Python binding; "
        "make the environment with: python3 -m venv --system-site-packages",
        "PyCUDA: got none, expected any release; run: pip install pycuda",
    ]


def test_jetpack_5_is_told_that_its_binding_is_for_another_python(agx: Machine) -> None:
    first, *_ = sentences("jetson_agx_orin_64gb_maxn", agx)
    assert first == (
        "TensorRT: got the library 8.5.2 without Python, expected its Python binding; "
        "JetPack 5 has it for Python 3.8 only: install JetPack 6 or newer, or build it for this Python"
    )


def test_a_power_mode_this_installation_lacks_is_refused_with_those_it_has(tmp_path: Path) -> None:
    conf = "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=7W >\n"
    files = {**recorded.ORIN_NANO_8GB, "etc/nvpmodel.conf": conf, "var/lib/nvpmodel/status": "pmode:0000"}
    assert sentences("jetson_orin_nano_8gb_25w", read_machine(lay_out(tmp_path, files))) == [
        "power mode: got 15W, expected 25W; this installation offers 15W, 7W only; "
        "flash a JetPack and board configuration with 25W"
    ]


def test_a_power_mode_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    files = {name: text for name, text in recorded.ORIN_NANO_8GB.items() if "nvpmodel" not in name}
    assert sentences("jetson_orin_nano_8gb_25w", read_machine(lay_out(tmp_path, files))) == [
        "power mode: got unknown, expected 25W; "
        "install nvidia-l4t-nvpmodel, whose /etc/nvpmodel.conf names the power modes"
    ]


def test_older_names_of_power_modes_mean_the_same(nano: Machine) -> None:
    assert nano.jetson is not None
    older = replace(nano, jetson=replace(nano.jetson, power_mode="MODE_25W"))
    assert sentences("jetson_orin_nano_8gb_25w", older) == []


@pytest.mark.parametrize(
    ("visible_gib", "enough"), [(8.0, True), (7.44, True), (6.81, True), (6.79, False), (3.7, False)]
)
def test_memory_may_lack_what_kernel_and_firmware_keep(nano: Machine, visible_gib: float, enough: bool) -> None:
    machine = replace(nano, memory_bytes=round(visible_gib * (1 << 30)))
    expected = [f"memory: got {visible_gib:.1f} GiB, expected at least 6.8 GiB; run on a machine with that much memory"]
    assert sentences("jetson_orin_nano_8gb_25w", machine) == ([] if enough else expected)


def test_memory_that_cannot_be_read_is_refused(nano: Machine) -> None:
    machine = replace(nano, memory_bytes=None)
    assert sentences("jetson_orin_nano_8gb_25w", machine)[0].startswith("memory: got an unknown amount")


@pytest.mark.parametrize(("threads", "enough"), [(1, True), (2, True), (3, False)])
def test_threads_must_fit_into_what_the_container_grants(server: Machine, threads: int, enough: bool) -> None:
    """The recorded server has 4 cores and a quota of 2.5."""
    text = load_profile("x86_cpu").to_yaml() + f"cpu_threads: {{value: {threads}, unit: threads, source: ours}}\n"
    reasons = sentences(Profile.from_yaml(text, where="mine"), server)
    assert (
        reasons == [] if enough else reasons[0].startswith("CPU cores: got 2, expected at least 3; give this process")
    )


def test_another_gpu_is_refused_since_budgets_were_set_for_one(server: Machine) -> None:
    assert server.gpu is not None
    machine = replace(server, gpu=replace(server.gpu, name="NVIDIA L4", compute_capability="8.9"))
    assert sentences("x86_h200", machine) == [
        "GPU: got NVIDIA L4, expected NVIDIA H200; "
        "budgets were set for that GPU; write a profile for this one (docs/profiles.md)"
    ]


def test_an_h100_is_the_machine_of_its_own_profile_alone(server: Machine) -> None:
    assert server.gpu is not None
    h100 = replace(server.gpu, name="NVIDIA H100 80GB HBM3", compute_capability="9.0")
    machine = replace(server, gpu=h100, libraries=replace(server.libraries, tensorrt="8.6.0", pycuda="2025.1.2"))
    assert sentences("x86_h100", machine) == []
    assert sentences("x86_h200", machine)[0].startswith("GPU: got NVIDIA H100 80GB HBM3, expected NVIDIA H200; ")


def test_no_gpu_is_refused(server: Machine) -> None:
    assert sentences("x86_h200", replace(server, gpu=None)) == [
        "GPU: got none, expected NVIDIA H200; run where NVIDIA's driver sees this GPU (nvidia-smi lists it)"
    ]


def test_a_gpu_whose_capability_is_not_told_is_refused(server: Machine) -> None:
    assert sentences("x86_h200", server) == [
        "compute capability: got unknown, expected 9.0; "
        "install NVIDIA's driver with its library libnvidia-ml.so.1, which tells it"
    ]


def test_a_server_without_tensorrt_is_told_how_to_install_it(server: Machine) -> None:
    assert server.gpu is not None
    machine = replace(server, gpu=replace(server.gpu, compute_capability="9.0"))
    assert sentences("x86_h200", machine)[0] == (
        "TensorRT: got none, expected its Python binding; run: pip install 'tollgate[tensorrt]'"
    )


@pytest.mark.parametrize("version", ["8.5.2", "10.2", "11.0"])
def test_a_tensorrt_outside_the_range_is_refused_with_the_jetpacks_inside(nano: Machine, version: str) -> None:
    machine = replace(nano, libraries=replace(nano.libraries, tensorrt=version))
    assert sentences("jetson_orin_nano_8gb_25w", machine) == [
        f"TensorRT: got {version}, expected 10.3 or newer, below 11; "
        "install one of JetPack 6.2, JetPack 7.2, or compile again for this release"
    ]


def test_a_missing_or_old_onnxruntime_is_refused(server: Machine) -> None:
    for seen, got in ((None, "none"), ("1.17.3", "1.17.3")):
        machine = replace(server, libraries=replace(server.libraries, onnxruntime=seen))
        assert sentences("x86_cpu", machine) == [
            f"ONNX Runtime: got {got}, expected 1.18 or newer; run: pip install 'onnxruntime>=1.18'"
        ]


@pytest.mark.parametrize(
    ("key", "wanted", "sentence"),
    [
        ("engine_kind", "onnxrt", None),
        ("engine_kind", "tensorrt", "TensorRT: got none"),
        (
            "engine_kind",
            "npu",
            "engine: got onnxrt and tensorrt, expected npu; install the release of Tollgate that made",
        ),
        ("arch", "x86_64", None),
        ("arch", "aarch64", "CPU architecture: got x86_64, expected aarch64"),
        ("onnxruntime", "1.20", None),
        ("onnxruntime", ">=1.18", None),
        ("onnxruntime", "1.21", "ONNX Runtime: got 1.20.1, expected 1.21; run: pip install 'onnxruntime==1.21'"),
        (
            "onnxruntime",
            ">=1.21",
            "ONNX Runtime: got 1.20.1, expected 1.21 or newer; run: pip install 'onnxruntime>=1.21'",
        ),
        ("tensorrt", "10.3.0.30", "TensorRT: got none, expected 10.3.0.30; run: pip install 'tollgate[tensorrt]'"),
        ("compute_capability", "9.0", "compute capability: got unknown, expected 9.0"),
        ("cpu_features", "avx2 avx512_vnni", None),
        (
            "cpu_features",
            "avx2 i8mm",
            "CPU features: got avx2 avx512f avx_vnni avx512_vnni amx_int8, expected avx2 i8mm; i8mm is missing",
        ),
        (
            "npu_driver",
            "7",
            "requirement npu_driver: got nothing known about it, expected 7; install the release of Tollgate",
        ),
    ],
)
def test_what_an_engine_requires_is_met_or_refused(
    server: Machine, key: str, wanted: str, sentence: str | None
) -> None:
    profile = load_profile("x86_cpu")
    if sentence is None:
        check(profile, server, {key: wanted})
        return
    with pytest.raises(PreflightError, match=re.escape(sentence)):
        check(profile, server, {key: wanted})


def test_an_engine_of_another_tensorrt_release_is_refused(nano: Machine) -> None:
    profile = load_profile("jetson_orin_nano_8gb_25w")
    check(profile, nano, {"tensorrt": "10.3.0", "compute_capability": "8.7"})
    with pytest.raises(
        PreflightError, match=r"TensorRT: got 10\.3\.0, expected 10\.7\.0; a TensorRT engine opens only"
    ):
        check(profile, nano, {"tensorrt": "10.7.0"})


def test_a_refusal_tells_the_first_reason_and_carries_all(nx: Machine) -> None:
    with pytest.raises(
        PreflightError, match=r"for jetson_orin_nx_16gb_25w: power mode: .* \(and 2 more, see: "
    ) as refused:
        check(load_profile("jetson_orin_nx_16gb_25w"), nx)
    assert len(refused.value.reasons) == 3
    assert "\n" not in str(refused.value)


def test_a_reason_found_twice_is_told_once(server: Machine) -> None:
    profile = load_profile("arm_cpu")
    assert len(reasons_against(profile, server, {"arch": "aarch64"})) == 1


def test_every_requirement_that_is_known_can_be_refused(tmp_path: Path) -> None:
    bare = read_machine(tmp_path)
    for key in REQUIREMENTS:
        assert reasons_against(load_profile("x86_cpu"), bare, {key: "nothing has this"}), key


@pytest.mark.parametrize(
    ("got", "wanted", "met"),
    [
        ("10.3.0", "10.3", True),
        ("10.3.0", "10.3.0", True),
        ("10.30.0", "10.3", False),
        ("10.3", "10.3.0", False),
        ("1.9", ">=1.18", False),
        ("1.18", ">=1.18.0", True),
        ("2.0", ">=1.18", True),
    ],
)
def test_a_version_meets_the_release_named_or_any_from_there_on(got: str, wanted: str, met: bool) -> None:
    assert version_meets(got, wanted) is met


def test_a_plan_moved_to_another_gpu_or_an_older_driver_is_refused(server):
    moved = replace(server, gpu=replace(server.gpu, name="NVIDIA L4", driver="550.90.07"))
    told = sentences("x86_cpu", moved, gpu="NVIDIA L40S", driver=">=580.159.04")
    assert any(each.startswith("GPU: got NVIDIA L4, expected NVIDIA L40S; a TensorRT engine") for each in told)
    assert any(each.startswith("NVIDIA driver: got 550.90.07, expected 580.159.04 or newer") for each in told)
    fits = sentences("x86_cpu", moved, gpu="NVIDIA L4", driver=">=550.90.07")
    assert not any(each.startswith(("GPU:", "NVIDIA driver:")) for each in fits)


def test_a_plan_is_refused_where_there_is_no_gpu(server):
    told = sentences("x86_cpu", replace(server, gpu=None), gpu="NVIDIA L4", driver=">=550")
    assert any(each.startswith("GPU: got none, expected NVIDIA L4") for each in told)
    assert any(each.startswith("NVIDIA driver: got none, expected 550 or newer") for each in told)
